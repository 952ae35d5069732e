"""What a tracked run holds: parameters, metrics and tags, read from a sweep's files.

Nothing here knows the tracker's client, so every number that a run shows can be tested as a plain value.
"""

from __future__ import annotations

import csv
import getpass
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from analysis import schema
from analysis.families import family_styles
from rdc.configured import MODEL_KEYS
from sweep.tracking.public import public_text, public_tree

MAX_PARAMS = 100  # MLflow's limit for one request
TRIALS_COMPARED = 200  # enough to see what a space varies
PARAM_VALUE_CHARS = 500  # what every MLflow server since 2.0 takes
LARGEST_INT = 2**63  # no database counts further
CURVE_PREFIXES = ("train/", "val/")
SWEEP_COLOUR = "#7F7F7F"


class Point(NamedTuple):
    """One value of one metric; t_ms: unix time in milliseconds."""

    key: str
    value: float
    step: int
    t_ms: int


_COLUMNS = {
    origin: [col for col in schema.COLUMNS if col.origin == origin and col.metric]
    for origin in ("result", "timing")
}


def curve_points(row: Mapping[str, Any]) -> list[Point]:
    """One line of metrics.jsonl -> its finite training and validation values; none for an event.

    A damaged line may be JSON all the same: numbers that are no step or time are left out, too.
    """
    step, t_s = row.get("step"), row.get("t")
    if "event" in row or not (is_finite(step) and is_finite(t_s)):
        return []
    step, t_ms = int(step), round(1000 * t_s)
    if not (0 <= step < LARGEST_INT and 0 <= t_ms < LARGEST_INT):
        return []
    return [
        Point(key, float(value), step, t_ms)
        for key, value in row.items()
        if key.startswith(CURVE_PREFIXES) and is_finite(value)
    ]


def file_metrics(tree: Mapping[str, Any], origin: str) -> dict[str, float]:
    """Final metrics of a result.json (origin "result") or timing JSON ("timing"), under the schema's keys.

    The values are those of the results table, bit for bit: both read the same column of the same file.
    """
    return schema.metrics({col.name: schema.read_value(tree, col) for col in _COLUMNS[origin]})


def table_metrics(row: Mapping[str, str]) -> dict[str, float]:
    """What a row of trials.csv adds to a trial's result: rate savings, and the times of the chosen device."""
    names = [col.name for col in schema.COLUMNS if col.origin != "result" and col.metric]
    return schema.metrics({name: float(row[name]) for name in names if row.get(name)})


def params(spec: Mapping[str, Any]) -> dict[str, str]:
    """A trial spec flattened to `transform`, `depth.channels`, `steps`: at most 100 of 500 characters."""
    flat: dict[str, str] = {}
    for path, value in _flatten(spec):
        name = path.removeprefix("model.").removeprefix("recipe.").removesuffix(".name")
        flat[name] = _shorten(_param_text(value))
    return dict(list(flat.items())[:MAX_PARAMS])


def sweep_params(sweep: Mapping[str, Any]) -> dict[str, str]:
    """How the sweep was run. What its models have in common would read as if it were one model's.

    The tracker's own settings stay out: its address may hold a password.
    """
    left_out = {*MODEL_KEYS, "tracking"}
    config = {key: value for key, value in (sweep.get("config") or {}).items() if key not in left_out}
    return params(public_tree(config))


def sweep_uid(sweep: Mapping[str, Any]) -> str:
    """Which sweep it is, from its record alone: by this a server's run of it is found again."""
    told = json.dumps([sweep.get("name"), sweep.get("started_at")])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def sweep_tags(sweep: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a new run of a sweep, that of its last command apart."""
    return {**origin_tags(), "mlflow.runColor": SWEEP_COLOUR}


def origin_tags() -> dict[str, str]:
    """Who made a run, and by what. Of a name with a "/" the interface shows what follows the last one."""
    return {"mlflow.user": _user(), "mlflow.source.type": "LOCAL", "mlflow.source.name": "python -m sweep"}


def command_tags(sweep: Mapping[str, Any]) -> dict[str, str]:
    """What the last command on the sweep was, and by which code."""
    config = sweep.get("config") or {}
    return _present(
        {
            "command": public_text(str(sweep.get("command") or "")),
            "mlflow.source.git.commit": sweep.get("git_revision"),
            "git_dirty": sweep.get("git_dirty"),
            "budget": (config.get("budget") or {}).get("name"),
            "precision": sweep.get("precision"),
        }
    )


def varied_params(trials: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the model's parameters in which the first trials differ, in the order of their specs.

    trials: entries of sweep.json. What follows from another choice, such as the window of one transform,
    is left to that choice.
    """
    values: dict[str, set[str]] = {}
    first = itertools.islice(trials, TRIALS_COMPARED)
    models = [params({"model": (trial.get("spec") or {}).get("model") or {}}) for trial in first]
    for model in models:
        for name, value in model.items():
            values.setdefault(name, set()).add(value)
    common = set(values).intersection(*models)
    return [name for name, found in values.items() if name in common and len(found) > 1]


def plan_tags(trial: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a trial that has only begun; `trial` is its entry in sweep.json."""
    spec = trial.get("spec") or {}
    return _present(
        {
            "spec_id": trial["spec_id"],
            "arch_id": trial.get("arch_id"),
            "curve_id": trial.get("curve_id"),
            "family": trial.get("family"),
            "stage": trial.get("stage"),
            "data_hash": spec.get("eval_data"),
            "train_data_hash": spec.get("train_data"),
            "status": "running",
        }
    )


def result_tags(result: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a trial that has ended; a failed one knows less."""
    training, environment = result.get("training") or {}, result.get("environment") or {}
    return _present(
        {
            "status": result["status"],
            "arch_id": result.get("arch_id"),
            "curve_id": result.get("curve_id"),
            "family": result.get("family"),
            "stage": result.get("stage"),
            "budget": training.get("budget"),
            "precision": training.get("precision"),
            "device": training.get("device") or environment.get("device"),
            "node": training.get("node"),  # a hash that tells machines apart, not a name
            "attempt": result.get("attempt"),
            "error": (result.get("error") or {}).get("class"),
            "git_dirty": environment.get("git_dirty"),
            "mlflow.source.git.commit": environment.get("git_revision"),
        }
    )


def ranking_tags(row: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """A trial's place on the frontier. row: its row of trials.csv; labels: arch_id -> label."""
    if row.get("off_frontier_reason"):
        return {"frontier": "n/a", "dominated_by": "not compared"}
    if row.get("on_frontier") == "True":
        return {"frontier": "yes", "dominated_by": "nobody"}
    other = row["dominated_by"]
    return {"frontier": "no", "dominated_by": labels.get(other, other)}


def datasets(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(role, name, digest, source) of the image sets that made this result."""
    return [
        (
            role,
            public_text(str(images.get("name"))),
            str(images.get("content_hash")),
            public_text(str(images.get("source", ""))),
        )
        for role, images in (result.get("data") or {}).items()
        if isinstance(images, Mapping) and images.get("content_hash")
    ]


def family_colour(family: str) -> str:
    """As in the figures: that of its transform."""
    colour, _ = family_styles([family])[family]
    return colour


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV as text; a missing file has none."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _param_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        if all(isinstance(v, str) for v in value):
            return ", ".join(value)
        flat = all(isinstance(v, str | int | float) for v in value)
        return "-".join(map(str, value)) if flat else json.dumps(value)
    return str(value)


def _shorten(text: str) -> str:
    return text if len(text) <= PARAM_VALUE_CHARS else text[: PARAM_VALUE_CHARS - 1] + "…"


def _present(tags: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in tags.items() if value not in (None, "")}


def is_finite(value: Any) -> TypeGuard[int | float]:
    # Of what JSON can hold; types are compared as this is asked of every value of every curve.
    return (type(value) is float or type(value) is int) and math.isfinite(value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user id may have no name.
        return "unknown"
