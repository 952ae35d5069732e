"""CompressAI's results JSON: {"name", "description", "meta", "results": {"bpp": [...], ...}}."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.curves import CURVE_COLUMNS, TrialCurve, trial_curves
from analysis.errors import AnalysisError
from analysis.files import atomic
from analysis.load import Source

# Key of the format -> column of the table, and what a value is divided by to get the format's unit.
_KEYS = {
    "bpp": ("bpp", 1.0),
    "psnr-rgb": ("psnr_db", 1.0),
    "ms-ssim-rgb": ("ms_ssim", 1.0),
    "encoding_time": ("time_enc_total_ms", 1000.0),
    "decoding_time": ("time_dec_total_ms", 1000.0),
}
_LONGEST_STEM = 150  # of a file's name: systems take 255 bytes, and ids may be added


def export(source: Source, folder: Path) -> list[Path]:
    """One file per architecture, budget and evaluation set: FOLDER/<dataset>/<name>.json, rates rising."""
    source.require(CURVE_COLUMNS)
    curves = trial_curves(source.frame)
    if not curves:
        raise AnalysisError(f"{source.name} has no trial with status ok to export")
    names = _unique_names(curves)
    files: list[Path] = []
    for curve, name in zip(curves, names, strict=True):
        path = _free_path(folder / (_slug(curve.dataset) or "unnamed"), curve, name, files)
        with atomic(path) as temporary:
            temporary.write_text(
                json.dumps(_tree(curve, name), indent=2, allow_nan=False) + "\n", encoding="utf-8"
            )
        files.append(path)
    return files


def _tree(curve: TrialCurve, name: str) -> dict[str, Any]:
    rows = curve.rows
    results = {
        key: (rows[column] / divisor).tolist()
        for key, (column, divisor) in _KEYS.items()
        if rows[column].notna().all()
    }
    first = rows.iloc[0]
    meta = {
        "dataset": curve.dataset,
        "type": "image",
        "opt_metric": "mse-rgb",
        "lmbda": rows["lmbda"].tolist(),
        "arch_id": curve.arch_id,
        "family": first["family"],
        "budget": first["budget"],
        "steps": None if pd.isna(first["steps"]) else int(first["steps"]),
        "decode_kmac_per_px": None if pd.isna(first["kmac_per_px_dec"]) else first["kmac_per_px_dec"],
        "averaging": "means of per-image values; bpp of whole files; 8-bit rounded pixels",
    }
    if "decoding_time" in results:
        meta["time"] = f"seconds for one image of {first['time_image_px']} px on {first['time_device']}"
    description = f"{first['family']}, budget {first['budget'] or 'not named'}"
    return {"name": name, "description": description, "meta": meta, "results": results}


def _unique_names(curves: list[TrialCurve]) -> list[str]:
    """Labels, with the ids that tell equal ones apart."""
    labels = [curve.label for curve in curves]
    long = [f"{curve.label} {curve.arch_id} {curve.budget_id}".strip() for curve in curves]
    on_same_images = [(curve.dataset, name) for curve, name in zip(curves, long, strict=True)]
    names = []
    for curve, name, place in zip(curves, long, on_same_images, strict=True):
        if labels.count(curve.label) == 1:
            names.append(curve.label)
        else:  # the same architecture in the same budget may have started from several origins
            names.append(f"{name} {curve.curve_id}" if on_same_images.count(place) > 1 else name)
    return names


def _free_path(folder: Path, curve: TrialCurve, name: str, taken: list[Path]) -> Path:
    """Different names may have the same letters and digits: no curve is to take another's file."""
    stem = _slug(name)[:_LONGEST_STEM] or _slug(curve.arch_id) or "unnamed"
    stems = [stem, f"{stem}-{_slug(curve.arch_id)}", f"{stem}-{_slug(curve.arch_id)}-{_slug(curve.curve_id)}"]
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    used = {path.name.lower() for path in taken if path.parent == folder}
    free = next(text for text in itertools.chain(stems, numbered) if f"{text}.json".lower() not in used)
    return folder / f"{free}.json"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
