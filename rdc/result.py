"""What comes out of a trial: result.json, its statuses, and when an existing one counts. Imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import read_sealed, set_aside, write_sealed
from rdc.spec import ModelSpec, Recipe, TrialSpec, to_plain

# Rises when a key changes its name or meaning, not when one is added; analysis reads the same versions.
SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
RUNG_FILE = "rung.json"
MODEL_FILE = "model.safetensors"
STATUSES = ("ok", "rate_mismatch", "decode_mismatch", "failed")

# The study's budget, against which every other one is undertrained.
PAPER_STEPS, PAPER_BATCH_SIZE, PAPER_CROP_PX = 2_000_000, 32, 256


def read_finished(folder: Path, *, spec_id: str) -> dict[str, Any] | None:
    """The result of a trial that ended with numbers; None if it has to run (again).

    A failed trial is None here: who starts it once more wants it tried once more. So is one whose weights are
    not those that were measured; without weights, which take room, a result still counts. UserError for the
    result of a newer release, which a new run would overwrite.
    """
    result = read_any(folder)
    if result is None:
        return None
    _refuse_newer(folder, result)
    if result.get("status") == "failed":
        return None
    known = result.get("schema_version") == SCHEMA_VERSION and result.get("status") in STATUSES
    if not known or result.get("spec_id") != spec_id:
        return None
    return result if _has_its_model(folder, result) else None


def _refuse_newer(folder: Path, result: Mapping[str, Any]) -> None:
    version = result.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"{folder / RESULT_FILE}: has schema version {version}, this release reads up to "
            f"{SCHEMA_VERSION}; upgrade rdc, or sweep into another folder with name=ANOTHER"
        )


def set_damaged_aside(folder: Path, *, every_byte: bool = False) -> str | None:
    """Rename a result that is not what was written, or whose weights are not; what was done, None if nothing.

    A result goes with its weights: from then on the trial has none, and runs again. every_byte: compare all
    of the weights, as after an error in reading them.
    """
    path = folder / RESULT_FILE
    if not path.exists():
        return None
    result = read_any(folder)
    if result is None:
        return f"{RESULT_FILE} is damaged and is now {set_aside(path).name}"
    if _has_its_model(folder, result, every_byte=every_byte):
        return None
    result_aside = set_aside(path)  # first: without it the trial runs again, whatever happens to the weights
    model_aside = set_aside(folder / MODEL_FILE)
    return f"{MODEL_FILE} is damaged and is now {model_aside.name}, and its result {result_aside.name}"


def _has_its_model(folder: Path, result: Mapping[str, Any], *, every_byte: bool = False) -> bool:
    """Whether the weights beside a result are those that it was measured with, or there are none.

    The size is compared, and all of the content only if the file was touched since: it is older than its
    result, and ten thousand trials are to be looked at within seconds.
    """
    written = result.get("model")
    path = folder / MODEL_FILE
    if written is None or not path.exists():
        return True
    status, result_ns = path.stat(), (folder / RESULT_FILE).stat().st_mtime_ns
    if status.st_size != written["bytes"]:
        return False
    if status.st_mtime_ns <= result_ns and not every_byte:
        return True
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != written["sha256"]:
            return False
    with contextlib.suppress(OSError):  # a folder that is only read
        os.utime(path, ns=(status.st_atime_ns, min(status.st_mtime_ns, result_ns)))
    return True


def read_any(folder: Path) -> dict[str, Any] | None:
    """Whatever result.json holds; None if there is none, or not as it was written."""
    try:
        return read_sealed(folder / RESULT_FILE)
    except UserError:
        return None


def write_result(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write result.json with its checksum; returns what it then holds."""
    return write_sealed(folder / RESULT_FILE, result)


def read_rung(folder: Path, *, spec_id: str) -> dict[str, Any] | None:
    """Where a trial was last paused, and its validation there; None if it never was.

    Holds spec_id, step, val_rd_loss, val_bpp, val_psnr_db (None where not finite) and elapsed_s.
    """
    try:
        rung = read_sealed(folder / RUNG_FILE)
    except UserError:
        return None
    return rung if rung.get("spec_id") == spec_id else None


def architecture_label(model: ModelSpec) -> str:
    """A short readable name, such as 'conv 64-64-96/128 +0-1-0 charm lrp=add'; only arch_id is unique.

    Of the components' parameters it names the choices among words that are not the default, and of gates the
    numbers too.
    """
    depth = model.depth
    parts = [model.transform.name, f"{'-'.join(map(str, depth.channels))}/{depth.latent_channels}"]
    if any(depth.layers):
        parts.append(f"+{'-'.join(map(str, depth.layers))}")
    parts.append(model.entropy_model.name.removesuffix("_hyperprior").replace("_", "-"))
    if model.hyper_transform.name != "conv":
        parts.append(f"{model.hyper_transform.name}-hyper")
    return " ".join([*parts, *_unusual_choices(model)])


def _unusual_choices(model: ModelSpec) -> Iterator[str]:
    for params in (model.transform, model.entropy_model, model.hyper_transform):
        yield from _changed(params, str)
    if model.gating.name != "none":
        yield model.gating.name
        yield from _changed(model.gating, (str, float))  # its numbers are what a study of gates varies
    if model.rate_control.name != "none":
        yield model.rate_control.name
        yield from _changed(model.rate_control, str)


def _changed(params: Any, kinds: type | tuple[type, ...]) -> Iterator[str]:
    for field in dataclasses.fields(params):
        value = getattr(params, field.name)
        if field.name != "name" and isinstance(value, kinds) and value != field.default:
            yield f"{field.name}={value}"


def trial_label(spec: TrialSpec) -> str:
    """What a trial is called: its architecture, or whose weights it measures where they came from outside."""
    if spec.external is not None:
        return f"{spec.external.source} {spec.external.name}-{spec.external.quality}"
    return architecture_label(spec.model)


def identity(spec: TrialSpec) -> dict[str, Any]:
    """What every result.json says of its trial, however that ended."""
    return {
        "schema_version": SCHEMA_VERSION,
        "spec_id": spec.spec_id,
        "curve_id": spec.curve_id,
        "arch_id": spec.arch_id,
        "budget_id": spec.budget_id,
        "label": trial_label(spec),
        "family": spec.model.family,
        "spec": spec.to_dict(),
        "warm_start": to_plain(spec.warm_start),
    }


def shares_of_paper(recipe: Recipe) -> dict[str, float]:
    """How much of the study's training a recipe is, in per cent of its steps and of its pixels."""
    pixels = recipe.steps * recipe.batch_size * recipe.crop_px**2
    paper_pixels = PAPER_STEPS * PAPER_BATCH_SIZE * PAPER_CROP_PX**2
    return {
        "percent_of_paper_steps": 100 * recipe.steps / PAPER_STEPS,
        "percent_of_paper_pixels": 100 * pixels / paper_pixels,
    }
