"""What goes into a trial: frozen specs, the checks at their birth, and the ids by which results are found.

Importing this module does not import torch. Parsing a model does, because every component keeps its
parameters beside its network, in one file.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import math
import pkgutil
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import pydantic

from rdc.errors import UserError

# Raise when code changes the results that a given spec produces: old results are then not mistaken for new.
SEMANTICS_VERSION = 2

MAX_SEED = 2**63 - 1  # what torch takes

T = TypeVar("T")

COMPONENT_GROUPS = ("transform", "entropy_model", "hyper_transform", "gating", "rate_control")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """Widths and layer counts, in encoder order; the synthesis transform uses the reverse.

    channels: one width per stage that halves the resolution, before the last one.
    latent_channels: channels of the latent y.
    layers: layers of each stage besides the one that changes the resolution; what a layer is (a residual
      convolution, a residual bottleneck, a Swin block), the transform says.
    """

    channels: tuple[int, ...]
    latent_channels: int
    layers: tuple[int, ...] = (0, 0, 0)

    def __post_init__(self) -> None:
        for field, values, least in (
            ("channels", self.channels, 1),
            ("latent_channels", (self.latent_channels,), 1),
            ("layers", self.layers, 0),
        ):
            if any(v < least for v in values):
                raise UserError(f"depth.{field}={list(values)}: every entry must be at least {least}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """One architecture. Each component is the frozen `Params` of its file in rdc/models/<group>/<name>.py."""

    transform: Any
    entropy_model: Any
    hyper_transform: Any
    depth: Depth
    gating: Any
    rate_control: Any

    @property
    def family(self) -> str:
        """transform/entropy_model/hyper_transform, the grouping of the study's Fig. 2."""
        return f"{self.transform.name}/{self.entropy_model.name}/{self.hyper_transform.name}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a model is trained. Everything here changes results and therefore enters the ids."""

    steps: int
    batch_size: int
    crop_px: int
    learning_rate: float
    schedule: Literal["cosine", "constant_then_drop"]
    final_learning_rate: float
    warmup_steps: int = 0
    drop_at: float = 0.9  # share of the steps after which constant_then_drop lowers the rate
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    grad_clip_norm: float = 1.0
    aux_learning_rate: float = 1e-3
    rate_ramp_steps: int = 0  # steps over which the rate term grows from 0 to its full weight
    ema_decay: float = 0.0  # 0 switches the moving average of the weights off
    initialisation: Literal["random", "wavelet"] = "random"  # wavelet: rdc.models.layers.wavelet

    def __post_init__(self) -> None:
        for field in ("steps", "batch_size", "crop_px"):
            require_number(f"budget.{field}", getattr(self, field), least=1)
        for field in ("learning_rate", "grad_clip_norm"):
            require_number(f"budget.{field}", getattr(self, field), above=0)
        for field in (
            "final_learning_rate",
            "aux_learning_rate",
            "weight_decay",
            "warmup_steps",
            "rate_ramp_steps",
        ):
            require_number(f"budget.{field}", getattr(self, field), least=0)
        if self.warmup_steps and self.warmup_steps >= self.steps:
            raise UserError(
                f"budget.warmup_steps={self.warmup_steps}: must be less than budget.steps={self.steps}"
            )
        if not 0 <= self.drop_at <= 1:
            raise UserError(f"budget.drop_at={self.drop_at}: must lie in [0, 1]")
        if self.crop_px % 64:
            raise UserError(
                f"budget.crop_px={self.crop_px}: must be a multiple of 64, the stride of the hyper-latent"
            )
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"budget.ema_decay={self.ema_decay}: must lie in [0, 1)")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WarmStart:
    """Weights that a trial starts from; their origin is part of what the result means.

    curve_id: the curve of the trial that has them. Trials that each start from the point of their own lmbda
    on one curve are then one curve too; None where all start from the same weights.
    """

    spec_id: str
    checkpoint_sha256: str
    lmbda: float
    curve_id: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExternalWeights:
    """Weights that were trained elsewhere, with a budget that is not known here. Such a trial trains nothing.

    name, quality: what the file was said to hold, and does hold as far as its shapes tell (rdc.zoo).
    """

    source: Literal["compressai"]
    name: str
    quality: int
    checkpoint_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainedWeights:
    """Weights of another trial, measured as they are at another lmbda: such a trial trains nothing.

    Model, recipe, seed, images and warm start of its spec are those with which they were trained, so that it
    is a further point on the curve of the trial that trained them.
    """

    spec_id: str
    checkpoint_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """Everything that decides a trial's numbers. Paths, worker counts and devices are in RunSettings.

    train_data, eval_data: content hashes of the image sets (rdc.data.ImageSet.content_hash).
    weights: measured as they are. With ExternalWeights the recipe, the seed and the training images change
    nothing; with TrainedWeights they say how the weights came about.
    """

    model: ModelSpec
    recipe: Recipe
    precision: Literal["fp32", "bf16"]
    lmbda: float
    seed: int
    train_data: str
    eval_data: str
    warm_start: WarmStart | None = None
    weights: ExternalWeights | TrainedWeights | None = None

    def __post_init__(self) -> None:
        if self.external is not None and self.warm_start is not None:
            raise UserError("weights and warm_start: a trial measures the one or trains from the other")
        require_number("lmbda", self.lmbda, above=0)
        self.model.rate_control.check_lmbda(self.lmbda)
        require_seed(self.seed)

    @property
    def external(self) -> ExternalWeights | None:
        """The weights, where they were trained elsewhere."""
        return self.weights if isinstance(self.weights, ExternalWeights) else None

    @property
    def arch_id(self) -> str:
        return arch_id(self.model)

    @property
    def curve_id(self) -> str:
        """Trials that differ only in lmbda and seed share it: the points of one RD curve."""
        if self.external is not None:
            origin = [self.external.source, self.external.name]
            return _short_hash(["curve", self.arch_id, "external", origin, self.precision])
        warm = self.warm_start and (self.warm_start.curve_id or self.warm_start.spec_id)
        return _short_hash(
            ["curve", self.arch_id, canonical(self.recipe), self.precision, self.train_data, warm]
        )

    @property
    def budget_id(self) -> str:
        """Trials that share it were trained alike, by the same code: only they may stand on one frontier.

        Weights trained elsewhere, by unknown budgets, form a group of their own.
        """
        if self.external is not None:
            return _short_hash(["budget", SEMANTICS_VERSION, "external", self.external.source])
        warm = self.warm_start is not None
        content = [SEMANTICS_VERSION, canonical(self.recipe), self.precision, self.train_data, warm]
        return _short_hash(["budget", *content])

    @property
    def spec_id(self) -> str:
        given = self.weights or self.warm_start
        start = canonical(given) if given else None
        return _short_hash(["spec", self.curve_id, self.lmbda, self.seed, self.eval_data, start])

    def to_dict(self) -> dict[str, Any]:
        """The full spec as JSON types, defaults included; `parse_trial` reads it back."""
        return to_plain(self)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How and where a trial runs: recorded beside the result, without influence on the ids.

    folder: the trial's own folder. train_manifest, validation_manifest, eval_manifest: files of rdc.data's
    ImageSet; without a validation set, a part of the training images is held out.
    fresh_decode_images: how many evaluation bitstreams a newly started interpreter decodes; -1 for all.
    checkpoint_every_s: how often resume.pt may be replaced, by the last state that training can roll back to.
    warm_start_checkpoint: file of the weights that the trial starts from, or that it measures untrained.
    stop_at_step: pause after this many steps, with a checkpoint from which training goes on without a trace.
    processes: how many share each batch of the training, one GPU each where there are GPUs.
    stage: of the sweep, where that has stages.
    """

    folder: str
    train_manifest: str
    eval_manifest: str
    budget_name: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    validate_every: int = 0  # steps; 0 means only at the end
    log_every: int = 10
    checkpoint_every_s: float = 60.0
    fresh_decode_images: int = 2
    ms_ssim: bool = True
    cache_gb: float = 4.0
    warm_start_checkpoint: str | None = None
    validation_manifest: str | None = None
    stop_at_step: int | None = None
    processes: int = 1
    stage: str = ""

    def __post_init__(self) -> None:
        require_number("cluster.cpus_per_trial", self.threads, least=1)
        require_number("data.cache_gb", self.cache_gb, least=0)
        require_number("run.processes", self.processes, least=1)
        if self.stop_at_step is not None:
            require_number("run.stop_at_step", self.stop_at_step, least=1)
        check_run_numbers(self)


def check_run_numbers(settings: Any) -> None:
    """The numbers of a budget that do not enter a result's identity, wherever they stand."""
    for field, least in (
        ("validate_every", 0),
        ("log_every", 1),
        ("checkpoint_every_s", 0),
        ("fresh_decode_images", -1),
    ):
        require_number(f"budget.{field}", getattr(settings, field), least=least)


def require_number(key: str, value: float, *, least: float | None = None, above: float | None = None) -> None:
    """UserError unless the value is finite and in range. key: its dotted path in the configuration."""
    if isinstance(value, float) and not math.isfinite(value):  # an int may be beyond what a float holds
        raise UserError(f"{key}={value}: must be a finite number")
    if least is not None and value < least:
        raise UserError(f"{key}={value}: must be at least {least}")
    if above is not None and value <= above:
        raise UserError(f"{key}={value}: must be greater than {above}")


def require_seed(seed: int) -> None:
    require_number("seed", seed, least=0)
    if seed > MAX_SEED:
        raise UserError(f"seed={seed}: must be at most {MAX_SEED}")


def component(group: str, name: str) -> Any:
    """The module rdc/models/<group>/<name>.py; it holds `Params` and what builds the network."""
    known = component_names(group)
    if name not in known:
        raise UserError(
            f"{group}={name!r} is not known; known: {', '.join(known)}. "
            f"To add it, write rdc/models/{group}/{name}.py and conf/{group}/{name}.yaml."
        )
    return importlib.import_module(f"rdc.models.{group}.{name}")


def component_names(group: str) -> list[str]:
    package = importlib.import_module(f"rdc.models.{group}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__))


def parse_model(config: Mapping[str, Any]) -> ModelSpec:
    """Composed config groups -> checked spec; raises UserError in one line."""
    expected = {*COMPONENT_GROUPS, "depth"}
    if set(config) != expected:
        odd = sorted(set(config) ^ expected)
        raise UserError(
            f"a model needs exactly {', '.join(sorted(expected))}; missing or unknown: {', '.join(odd)}"
        )
    parts: dict[str, Any] = {group: _parse_component(group, config[group]) for group in COMPONENT_GROUPS}
    spec = ModelSpec(depth=parse(Depth, config["depth"], where="depth"), **parts)
    for group in COMPONENT_GROUPS:
        parts[group].check(spec)
    return spec


def parse_trial(config: Mapping[str, Any]) -> TrialSpec:
    """Read back what TrialSpec.to_dict wrote."""
    fields = dict(config)
    model = parse_model(fields.pop("model"))
    recipe = parse(Recipe, fields.pop("recipe"), where="budget")
    warm = fields.pop("warm_start", None)
    warm_start = parse(WarmStart, warm, where="warm_start") if warm else None
    weights = fields.pop("weights", None)
    if weights is not None:
        trained = isinstance(weights, Mapping) and "spec_id" in weights
        kind = TrainedWeights if trained else ExternalWeights
        fields["weights"] = parse(kind, weights, where="weights")
    unknown = set(fields) - {f.name for f in dataclasses.fields(TrialSpec)}
    if unknown:
        raise UserError(f"trial spec has unknown keys: {', '.join(sorted(unknown))}")
    return TrialSpec(model=model, recipe=recipe, warm_start=warm_start, **fields)


def parse(cls: type[T], config: Any, *, where: str) -> T:
    """dict -> frozen dataclass, strict about unknown keys and types; errors: one line, dotted paths."""
    try:
        return _adapter(cls).validate_python(config)  # type: ignore[arg-type]  # mypy: a class is hashable
    except pydantic.ValidationError as error:
        raise UserError(_one_line(error, where)) from None


def prepare() -> None:
    """Import every component and build all validators, for a process that will fork many that need them."""
    classes: list[type[Any]] = [Depth, Recipe, WarmStart, ExternalWeights, TrainedWeights, RunSettings]
    classes += [
        component(group, name).Params for group in COMPONENT_GROUPS for name in component_names(group)
    ]
    for cls in classes:
        _adapter(cls)  # type: ignore[arg-type]


def arch_id(model: ModelSpec) -> str:
    return _short_hash(["arch", SEMANTICS_VERSION, canonical(model)])


def canonical(spec: Any) -> Any:
    """Plain JSON types with default-valued fields left out, so that a new option leaves old ids alone."""
    if dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        out = {}
        for field in dataclasses.fields(spec):
            value = getattr(spec, field.name)
            if field.name == "name" or field.default is dataclasses.MISSING or value != field.default:
                out[field.name] = canonical(value)
        return out
    return to_plain(spec)


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings -> JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value


def _parse_component(group: str, config: Any) -> Any:
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise UserError(f"{group} needs a mapping with a name, got {config!r}; choose one with {group}=NAME")
    return parse(component(group, config["name"]).Params, dict(config), where=group)


@functools.cache  # building one takes a hundred times as long as using it
def _adapter(cls: type[Any]) -> pydantic.TypeAdapter[Any]:
    # Standard dataclasses have no config of their own: forbid what they do not know.
    return pydantic.TypeAdapter(pydantic.with_config(pydantic.ConfigDict(extra="forbid"))(cls))


def _one_line(error: pydantic.ValidationError, where: str) -> str:
    texts = []
    for item in error.errors(include_url=False):
        path = ".".join(filter(None, [where, *map(str, item["loc"])]))
        text = item["msg"].removeprefix("Value error, ")
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, UserError):
            texts.append(str(cause))
        elif item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            texts.append(f"{path}: there is no such key")
        elif item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            texts.append(f"{path}: is required")
        elif item["type"] == "dataclass_type":
            texts.append(f"{path}={item['input']!r}: needs a mapping of keys to values")
        else:
            texts.append(f"{path}={item['input']!r}: {text[0].lower()}{text[1:]}")
    return "; ".join(texts)


def _short_hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
