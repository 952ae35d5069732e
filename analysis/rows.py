"""One trial's result -> one row of the results table, and rows -> a typed table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from analysis.anchors import load_anchor
from analysis.bdrate import OutsideRangeError, rate_saving_pct
from analysis.errors import AnalysisError
from analysis.files import shorten
from analysis.gating_counts import reductions
from analysis.public import plain_text, public_text
from analysis.schema import (
    COLUMNS,
    RESULT_VERSION,
    TABLE_VERSION,
    VERSION_COLUMN,
    Column,
    read_path,
    read_value,
)
from analysis.upgrade import check_version

STATUSES = ("ok", "rate_mismatch", "decode_mismatch", "failed")

# Column of a rate saving -> the anchor behind it.
SAVINGS = {"rate_saving_vs_bpg_pct": "bpg", "rate_saving_vs_vtm_pct": "vtm"}
# What a result may lack, but not hold as anything but a mapping.
_PARTS = ("evaluation", "complexity", "training", "data", "environment", "error")
# What a row's rate saving is computed from.
_SAVINGS_NEED = ("status", "bpp", "psnr_db", "dataset", "eval_images")
KODAK_IMAGES = 24
# Columns that may name folders and hosts, which nobody wants to find in a published table.
SENTENCES = ("eval_source", "train_source", "error_message")

_DTYPES: dict[str, Any] = {"text": "object", "int": "Int64", "float": "float64", "bool": "boolean"}


def trial_row(result: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every column of one trial; None where the trial has no such value.

    result: a trial's result.json. timing: the timing JSON of its architecture, if there is one.
    Raises AnalysisError for what is no such result.
    """
    check_result(result)
    row: dict[str, Any] = {}
    for col in COLUMNS:
        tree = {"result": result, "timing": timing or {}}.get(col.origin)
        row[col.name] = _read(tree, col) if tree is not None else None
    for name in SENTENCES:
        row[name] = public_text(row[name]) if row[name] else row[name]
    row["budget_id"] = budget_id(result)
    row[VERSION_COLUMN] = TABLE_VERSION
    return {**row, **reductions(row), **rate_savings(row)}


def check_result(result: Mapping[str, Any]) -> None:
    """The least that a result must say for itself."""
    check_version(result.get("schema_version"), RESULT_VERSION, "the result")
    missing = [key for key in ("spec_id", "arch_id", "label", "status", "spec") if not result.get(key)]
    if missing:
        raise AnalysisError(f"lacks {', '.join(missing)}")
    for key in ("spec", *_PARTS):
        if not isinstance(result.get(key) or {}, Mapping):
            raise AnalysisError(f"has in {key} what is no mapping: {shorten(repr(result[key]))}")
    if result["status"] not in STATUSES:
        raise AnalysisError(f"has status {result['status']!r}; known: {', '.join(STATUSES)}")


def budget_id(result: Mapping[str, Any]) -> str:
    """What the result says; one from before results said it gets an id that no newer one can have."""
    if result.get("budget_id"):
        return str(result["budget_id"])
    spec = result["spec"]
    weights = spec.get("weights")
    if weights is not None:
        return hashlib.sha256(json.dumps(["external", weights.get("source")]).encode()).hexdigest()[:8]
    warm = spec.get("warm_start") is not None
    # The first version of the code's semantics: those results are older than any that carry the id.
    content = [1, spec.get("recipe"), spec.get("precision"), spec.get("train_data"), warm]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def rate_savings(row: Mapping[str, Any]) -> dict[str, Any]:
    """The rate-saving columns of a row, and why one is missing."""
    if row.get("status") not in (None, "", "ok"):
        return {**dict.fromkeys(SAVINGS), "rate_saving_note": f"status is {row['status']}"}
    saved: dict[str, Any] = {}
    notes: list[str] = []
    for name, anchor_name in SAVINGS.items():
        anchor = load_anchor(anchor_name)
        saved[name] = None
        mismatch = dataset_mismatch(row, anchor.dataset)
        if pd.isna(row.get("bpp")) or pd.isna(row.get("psnr_db")):
            notes.append(f"{anchor_name}: no bpp or psnr_db")
        elif mismatch:
            notes.append(f"{anchor_name}: {mismatch}")
        else:
            try:
                saved[name] = rate_saving_pct(anchor.curve, bpp=row["bpp"], psnr_db=row["psnr_db"])
            except OutsideRangeError as error:
                notes.append(str(error))
    return {**saved, "rate_saving_note": "; ".join(notes)}


def rate_savings_of(frame: pd.DataFrame) -> pd.DataFrame:
    """`rate_savings` of every row, under the same index."""
    names = [name for name in _SAVINGS_NEED if name in frame]
    columns = [frame[name].astype("object").to_numpy() for name in names]
    found = [rate_savings(dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]
    table = pd.DataFrame(found, index=frame.index, columns=[*SAVINGS, "rate_saving_note"])
    return table.astype(dict.fromkeys(SAVINGS, "float64"))


def dataset_mismatch(row: Mapping[str, Any], anchor_dataset: str) -> str:
    """Why this row's images are not the anchor's; empty if they are."""
    dataset = row.get("dataset") or "not named"
    if dataset != anchor_dataset:
        return f"anchor is on {anchor_dataset}, evaluation set is {dataset}"
    images = row.get("eval_images")
    if anchor_dataset == "kodak" and not pd.isna(images) and int(images) != KODAK_IMAGES:
        return f"anchor is the mean over {KODAK_IMAGES} Kodak images, evaluation has {int(images)}"
    return ""


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows -> table with every column of the schema in its order and type; other columns follow unchanged."""
    frame = pd.DataFrame(list(rows))
    return typed(frame)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Fill in the schema's missing columns and give every column its type; text is never missing but ''."""
    known = {col.name: _typed_column(frame, col) for col in COLUMNS}
    extra = {name: frame[name] for name in frame.columns if name not in known}
    return pd.DataFrame({**known, **extra}, index=frame.index)


def _typed_column(frame: pd.DataFrame, col: Column) -> pd.Series:
    if col.name not in frame:
        empty = "" if col.kind == "text" else None
        return pd.Series([empty] * len(frame), index=frame.index, dtype=_DTYPES[col.kind])
    values = frame[col.name]
    if col.kind == "text":
        return values.astype("object").where(values.notna(), "").map(str).astype("object")
    return values.astype(_DTYPES[col.kind])


def _read(tree: Mapping[str, Any], col: Column) -> Any:
    try:
        value = read_value(tree, col)
        return plain_text(value) if isinstance(value, str) else value
    except (TypeError, ValueError):
        raise AnalysisError(f"{col.path} is {read_path(tree, col.path)!r}, not a number") from None
