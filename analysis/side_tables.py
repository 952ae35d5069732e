"""The two tables that belong to a table of trials: per-image scores and runtimes, described, read, typed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import AnalysisError
from analysis.runtimes import RUNTIME_COLUMNS
from analysis.runtimes import TABLE_VERSION as RUNTIME_TABLE_VERSION
from analysis.schema import IMAGE_TABLE_VERSION, VERSION_COLUMN, Column, Kind
from analysis.upgrade import version_of


def _column(
    name: str, unit: str, description: str, kind: Kind = "float", better: Any = "-", origin: Any = "result"
) -> Column:
    return Column(
        name=name, unit=unit, description=description, kind=kind, better=better, origin=origin, path="-"
    )


# fmt: off
IMAGES: tuple[Column, ...] = (
    _column("spec_id", "-", "Trial that coded the image.", "text"),
    _column("image", "-", "File name of the image.", "text"),
    _column("width_px", "px", "Width of the source image."),
    _column("height_px", "px", "Height of the source image."),
    _column("bpp", "bit/px", "Coded file, header included, over source pixels.", better="low"),
    _column("psnr_db", "dB", "RGB PSNR, 8-bit rounded reconstruction.", better="high"),
    _column("mse", "1", "MSE on the [0, 1] scale, 8-bit rounded reconstruction.", better="low"),
    _column("ms_ssim", "1", "MS-SSIM, 8-bit rounded reconstruction.", better="high"),
    _column("rd_loss", "bit/px", "bpp + lmbda 255^2 mse.", better="low"),
)
_STAGES = {"net": "networks", "entropy": "entropy coding", "total": "networks and entropy coding"}
_WAYS = {"dec": "Decode", "enc": "Encode"}
_SPREADS = {"": "median", "q25_": "lower quartile", "q75_": "upper quartile"}
RUNTIMES: tuple[Column, ...] = (
    _column("arch_id", "-", "Id of the architecture.", "text", origin="timing"),
    _column("label", "-", "Short readable name of the architecture.", "text", origin="timing"),
    _column("family", "-", "transform/entropy model/hyper-transform.", "text", origin="timing"),
    _column("device", "-", "Device that was timed.", "text", origin="timing"),
    _column("device_slug", "-", "The same as part of a file name.", "text", origin="timing"),
    _column("precision", "-", "Arithmetic: fp32 or bf16.", "text", origin="timing"),
    _column("weights", "-", "Whose weights were timed: a trial's, or random ones.", "text", origin="timing"),
    _column("threads", "threads", "CPU threads.", "int", origin="timing"),
    _column("height_px", "px", "Height of the timed image.", "int", origin="timing"),
    _column("width_px", "px", "Width of the timed image.", "int", origin="timing"),
    _column("kflop_per_px_dec", "kFLOP/px", "The decoder's work, parity count.", better="low"),
    _column("params_m", "million", "Trainable parameters of the whole codec.", better="low"),
    *(
        _column(
            f"{way}_{stage}_{spread}ms", "ms",
            f"{way_text} time of one image, {stage_text}: {spread_text}.", better="low", origin="timing",
        )
        for way, way_text in _WAYS.items()
        for stage, stage_text in _STAGES.items()
        for spread, spread_text in _SPREADS.items()
    ),
)
# fmt: on
VERSIONS = {"images": IMAGE_TABLE_VERSION, "runtimes": RUNTIME_TABLE_VERSION}
TABLES = {"images": IMAGES, "runtimes": RUNTIMES}

assert tuple(column.name for column in RUNTIMES) == RUNTIME_COLUMNS, "a runtime column has no description"


def typed_side(raw: pd.DataFrame, table: str, what: str) -> pd.DataFrame:
    """Cells -> the columns of TABLES[table] in their types; columns that it does not know are dropped.

    Text is never missing but ''. AnalysisError names the row and the column of what is no number.
    """
    version_of(raw, VERSIONS[table], what)
    if missing := [column.name for column in TABLES[table] if column.name not in raw]:
        raise AnalysisError(f"{what} lacks {', '.join(missing)}; write it with `python -m analysis export`")
    return pd.DataFrame({column.name: _typed(raw[column.name], column, what) for column in TABLES[table]})


def _typed(cells: pd.Series, column: Column, what: str) -> pd.Series:
    values = cells.astype("object").where(cells.notna(), "").to_numpy()
    if column.kind == "text":
        return pd.Series(values, dtype="object").map(str).astype("object")
    try:
        numbers = np.where(values == "", "nan", values).astype(np.float64)  # as float() does
    except (TypeError, ValueError):
        raise AnalysisError(_first_wrong(values, column.name, what)) from None
    if column.kind == "float":
        return pd.Series(numbers)
    return pd.Series(numbers).astype("Int64")


def _first_wrong(values: Iterable[Any], name: str, what: str) -> str:
    for row, value in enumerate(values, start=1):
        try:
            float(value or "nan")
        except (TypeError, ValueError):
            return f"{what}, row {row}: {name}={value!r} is not a number"
    return f"{what}: {name} holds what is not a number"


def with_version(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """The frame as it is written: its version first, as runtime tables have it."""
    versions = pd.Series(VERSIONS[table], index=frame.index, dtype="Int64")
    return pd.concat([versions.rename(VERSION_COLUMN), frame], axis=1)


def beside(path: Path, table: str) -> Path | None:
    """The table that was exported with a trials.csv or trials.parquet; None if there is none."""
    found = path.with_name(f"{table}{path.suffix}")
    return found if path.stem == "trials" and found.is_file() else None
