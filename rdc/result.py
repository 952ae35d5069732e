"""What comes out of a trial: result.json, its statuses, and when an existing one counts. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import read_sealed, write_sealed
from rdc.spec import ModelSpec, Recipe, TrialSpec, to_plain

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
RUNG_FILE = "rung.json"
STATUSES = ("ok", "rate_mismatch", "decode_mismatch", "failed")

# The study's budget, against which every other one is undertrained.
PAPER_STEPS, PAPER_BATCH_SIZE, PAPER_CROP_PX = 2_000_000, 32, 256


def read_finished(folder: Path, *, spec_id: str) -> dict[str, Any] | None:
    """The result of a trial that ended with numbers; None if it has to run (again).

    A failed trial is None here: who starts it once more wants it tried once more.
    """
    result = read_any(folder)
    if result is None or result.get("status") == "failed":
        return None
    known = result.get("schema_version") == SCHEMA_VERSION and result.get("status") in STATUSES
    return result if known and result.get("spec_id") == spec_id else None


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

    Of the components' parameters it names the choices among words that are not the default.
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
        for field in dataclasses.fields(params):
            value = getattr(params, field.name)
            if field.name != "name" and isinstance(value, str) and value != field.default:
                yield f"{field.name}={value}"


def trial_label(spec: TrialSpec) -> str:
    """What a trial is called: its architecture, or whose weights it measures."""
    if spec.weights is not None:
        return f"{spec.weights.source} {spec.weights.name}-{spec.weights.quality}"
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
