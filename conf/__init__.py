"""The configuration files and the two functions that compose them into plain dictionaries.

Hydra composes and nothing more: no objects are instantiated, no folder is made, no directory is changed.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rdc.errors import UserError

_WORD = re.compile(r"[A-Za-z_][\w/.-]*", re.ASCII)
_WORDS_WITH_A_MEANING = ("true", "false", "null", "nan", "inf")

# What a point of a space may choose: the groups that compose a model, presets of them, and values of its own.
MODEL_GROUPS = ("transform", "entropy_model", "hyper_transform", "depth", "gating", "rate_control", "model")
POINT_KEYS = (*MODEL_GROUPS, "width", "compressai")


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> dict[str, Any]:
    """Configuration with Hydra overrides applied, as plain dictionaries; raises UserError in one line."""
    with _hydra(overrides):
        return _compose(list(overrides), config_name)


def compose_points(overrides: Sequence[str], points: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """`compose([*overrides, *point])` for every point, hundreds per second.

    A choice that touches only its own group is composed once and put in place wherever a point names it;
    everything else goes through Hydra as a whole. Points may set the model only.
    """
    with _hydra([*overrides, *(text for point in points for text in point)]):
        composer = _PointComposer(list(overrides))
        return [composer.compose(list(point)) for point in points]


def point_composer(overrides: Sequence[str]) -> Callable[[Sequence[str]], dict[str, Any]]:
    """`compose_points` for points that become known one after the other: the function composes one."""
    with _hydra(overrides):
        composer = _PointComposer(list(overrides))

    def compose_point(point: Sequence[str]) -> dict[str, Any]:
        with _hydra([*overrides, *point]):
            return composer.compose(list(point))

    return compose_point


def grid(axes: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    """Cartesian product of {override key: values} as lists of override strings, the last axis fastest."""
    return [
        [f"{key}={override_value(value)}" for key, value in zip(axes, values, strict=True)]
        for values in itertools.product(*axes.values())
    ]


def override_value(value: Any) -> str:
    """A plain value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{override_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(override_value(v) for v in value) + "]"
    if isinstance(value, str) and (not _WORD.fullmatch(value) or value.lower() in _WORDS_WITH_A_MEANING):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)


def explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """What is wrong with an override, in one line that names what exists. overrides: those in use."""
    from hydra.errors import MissingConfigException, OverrideParseException

    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        known = ", ".join(error.options or [])
        if known:
            return f"{group}={choice}: there is no such choice; {group} has: {known}"
        return f"{choice}: there is no such configuration file"
    if isinstance(error, OverrideParseException):
        text = f"{error.override}: this is no override in Hydra's grammar ({text.splitlines()[0]})"
        # Such as stages={more:{overrides:[budget.steps=250]}}.
        nested = re.search(r"[\[:,]\s*([\w.]+=[^\s,'\"\]}]+)", str(error.override))
        return f"{text}; inside of lists, put an override in quotes: '{nested[1]}'" if nested else text
    if is_no_choice(error):
        return _no_choice(overrides)
    match = re.match(r"Could not override '([^']+)'", text)
    if match:
        return _unknown_key(match.group(1), error)
    if "Ambiguous value for argument" in text:
        argument = re.findall(r"'([^']*)'", text)[0]
        return f"{argument}: several values need a list; {HOW_TO_SWEEP}"
    lines = [*text.splitlines(), *str(error.__cause__ or "").splitlines()[:1]]
    useful = [line.strip() for line in lines if line.strip() and not line.startswith("See https")]
    return "; ".join(useful)


def is_no_choice(error: Exception) -> bool:
    """Whether Hydra found something else than a name where a group is chosen; it has no error of its own."""
    return isinstance(error, ValueError) and str(error).startswith("Config group override must be a string")


def _no_choice(overrides: Sequence[str]) -> str:
    for text in overrides:
        group, _, value = text.lstrip("+").partition("=")
        choices = sorted(path.stem for path in (Path(__file__).parent / group).glob("*.yaml"))
        plain = value.strip("'\"")
        if (
            "." not in group
            and choices
            and (not _WORD.fullmatch(plain) or plain.lower() in _WORDS_WITH_A_MEANING)
        ):
            return f"{text}: {group} is chosen by name; it has: {', '.join(choices)}"
    return "a group is chosen by name, such as budget=quick; --help lists what there is"


HOW_TO_SWEEP = (
    "give several rates as 'lmbdas=[0.0067,0.013]', several seeds as 'seeds=[0,1]', several models as "
    "space=NAME or 'space.axes={entropy_model:[scale_hyperprior,mean_scale_hyperprior]}'"
)


def _unknown_key(key: str, error: Exception) -> str:
    addition = re.search(r"use \+(\S+)", str(error))
    if "No match in the defaults list" in str(error) and addition:
        return f"{key}: it is not chosen by default; write +{addition.group(1)}"
    parent_node = getattr(error.__cause__, "parent_node", None)
    parent, _, leaf = key.rpartition(".")
    known = [str(k) for k in parent_node] if parent_node is not None else []
    close = difflib.get_close_matches(leaf, known, n=1)
    hint = f" (did you mean {'.'.join(filter(None, [parent, close[0]]))}?)" if close else ""
    return f"{key}: there is no such key{hint}; {parent or 'the configuration'} has: {', '.join(known)}"


@contextmanager
def _hydra(overrides: Sequence[str]) -> Iterator[None]:
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_module("conf", version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides)) from error
    except ValueError as error:
        if not is_no_choice(error):
            raise
        raise UserError(explain(error, overrides)) from error


def _compose(overrides: list[str], config_name: str = "config") -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    composed = OmegaConf.to_container(
        hydra_compose(config_name, overrides), resolve=True, throw_on_missing=True
    )
    assert isinstance(composed, dict), "the configuration is a mapping"
    return {str(key): value for key, value in composed.items()}


@dataclasses.dataclass
class _PointComposer:
    """Composes points over one list of overrides, remembering what each choice of a group brings."""

    overrides: list[str]

    def __post_init__(self) -> None:
        self.base = _compose(self.overrides)
        self.alone: dict[str, Any] = {}
        self.together: dict[tuple[str, ...], dict[str, Any]] = {}

    def compose(self, point: list[str]) -> dict[str, Any]:
        choices, values, others = _sort_overrides(point)
        if others:
            return _compose([*self.overrides, *point])
        config = copy.deepcopy(self._chosen(choices))
        for key, value in values:
            if not _assign(config, key, value):
                return _compose([*self.overrides, *point])
        return config

    def _chosen(self, choices: list[str]) -> dict[str, Any]:
        parts = {choice.partition("=")[0]: self._part(choice) for choice in choices}
        if all(part is not _NOT_SEPARABLE for part in parts.values()) and len(parts) == len(choices):
            return {**self.base, **parts}
        key = tuple(choices)
        if key not in self.together:
            self.together[key] = _compose([*self.overrides, *choices])
        return self.together[key]

    def _part(self, choice: str) -> Any:
        """What `group=name` puts under its group, if that is all that it changes."""
        if choice not in self.alone:
            group = choice.partition("=")[0]
            config = _compose([*self.overrides, choice])
            changed = {key for key in {*config, *self.base} if config.get(key) != self.base.get(key)}
            self.alone[choice] = config[group] if changed <= {group} and group in config else _NOT_SEPARABLE
        return self.alone[choice]


_NOT_SEPARABLE = object()


def _sort_overrides(point: list[str]) -> tuple[list[str], list[tuple[str, Any]], list[str]]:
    """A point's overrides as group choices, (dotted key, value) pairs, and those with +, ~ or @."""
    choices, values, others = [], [], []
    for text in point:
        kind, key, value = _parsed(text)
        if kind == "other":
            others.append(text)
        elif kind == "choice":
            choices.append(text)
        else:
            values.append((key, value))
    return choices, values, others


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[str, str, Any]:
    """("choice" | "value" | "other", key, value) of one override of a point."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not isinstance(text, str):
        raise UserError(f"space point override {text!r}: must be a text such as depth=n64")
    override = OverridesParser.create().parse_override(text)
    key = override.key_or_group
    if key.partition(".")[0] not in POINT_KEYS:
        raise UserError(
            f"space point {text!r}: a point chooses the model ({', '.join(POINT_KEYS)}), not {key}"
        )
    if override.is_sweep_override():
        raise UserError(f"space point {text!r}: one point takes one value; {HOW_TO_SWEEP}")
    if override.is_delete() or override.is_add() or override.is_force_add() or override.package:
        return "other", key, None
    if key in MODEL_GROUPS and isinstance(override.value(), str):
        return "choice", key, None
    return "value", key, override.value()


def _assign(config: dict[str, Any], key: str, value: Any) -> bool:
    """Set an existing leaf; False where Hydra has to decide (new keys, mappings that merge, references)."""
    *path, leaf = key.split(".")
    node: Any = config
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node or isinstance(node[leaf], dict) or "${" in str(value):
        return False
    node[leaf] = _plain(value)
    return True


def _plain(value: Any) -> Any:
    """Quoted strings of the override grammar as str, inside lists and mappings too."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    return (
        value
        if value is None or isinstance(value, (bool, int, float))
        else getattr(value, "text", str(value))
    )
