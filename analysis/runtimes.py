"""Runtimes on devices: one row per architecture, device, threads, precision and image size.

From the timings of a sweep folder, or from a runtime table, the CSV that `python -m rdc time` writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells import csv_cells
from analysis.errors import AnalysisError
from analysis.files import shorten

TABLE_VERSION = 1  # of a runtime table; raised when a column changes its meaning

_TEXT = ("arch_id", "label", "family", "device", "device_slug", "precision", "weights")
_INT = ("threads", "height_px", "width_px")
_STAGES = tuple(
    f"{short}_{stage}_{part}ms"
    for short in ("dec", "enc")
    for stage in ("net", "entropy", "total")
    for part in ("", "q25_", "q75_")
)
RUNTIME_COLUMNS = (*_TEXT, *_INT, "kflop_per_px_dec", "params_m", *_STAGES)

# What a runtime table holds besides; docs/runtime.md says what each means.
_MORE_TEXT = ("model", "measured_at", "cpu", "node", "torch", "rdc", "git_revision")
_MORE_INT = ("table_version", "repeats", "serial_steps_dec", "operators_dec")
_WORK = (
    "load_average", "others_cpus", "peak_memory_mb", "kflop_per_px_dec_executed", "bytes_per_px_dec",
    "peak_fp32_gflop_per_s", "peak_tf32_gflop_per_s", "peak_bf16_gflop_per_s", "bandwidth_gb_per_s",
    "launch_us", "launch_convolution_us", "compute_ms", "memory_ms", "serial_ms", "roofline_ms",
)  # fmt: skip
TABLE_COLUMNS = ("table_version", *RUNTIME_COLUMNS, *_MORE_TEXT, *_MORE_INT[1:], *_WORK)
# What makes two rows measurements of the same: the younger one counts.
SETTING = ("arch_id", "weights", "device_slug", "threads", "precision", "height_px", "width_px")
_NEEDED = (*SETTING, "device", "kflop_per_px_dec", "dec_net_ms")
_MISSING = ("", "nan", "none", "null")

_LONG = {"dec": "decode", "enc": "encode", "net": "network_ms", "entropy": "entropy_ms", "total": "total_ms"}


def check_timing(timing: Mapping[str, Any]) -> None:
    """AnalysisError in a few words for what `timing_row` cannot make a row of."""
    try:
        row = timing_row(timing)
        values = {name: row[name] for name in (*_STAGES, "threads", "height_px", "width_px")}
        wrong = [name for name, value in values.items() if value is not None and not 0 <= value < math.inf]
    except (TypeError, ValueError, AttributeError):
        raise AnalysisError("is no timing: its times, threads or size are something else") from None
    if wrong:
        raise AnalysisError(f"has {wrong[0]}={values[wrong[0]]!r}, not a number that is not negative")


def timing_row(timing: Mapping[str, Any], *, trial: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A timing JSON as a row of RUNTIME_COLUMNS. trial: a row of the same architecture, for its cost."""
    size = timing["image_px"]
    height_px, width_px = size if isinstance(size, list) else (int(side) for side in str(size).split("-"))
    row = {name: timing.get(name) for name in (*_TEXT, "threads")}
    row |= {"height_px": height_px, "width_px": width_px}
    row |= {name: (trial or {}).get(name) for name in ("kflop_per_px_dec", "params_m")}
    for name in _STAGES:
        short, stage, *quartile = name.removesuffix("_ms").split("_")
        spread = (timing.get(_LONG[short]) or {}).get(_LONG[stage]) or {}
        row[name] = spread.get(quartile[0] if quartile else "median")
    return row


def runtime_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Rows -> typed table with every one of RUNTIME_COLUMNS; text is never missing but ''."""
    frame = pd.DataFrame(list(rows), columns=list(RUNTIME_COLUMNS))
    for name in RUNTIME_COLUMNS:
        if name in _TEXT:
            frame[name] = (
                frame[name].astype("object").where(frame[name].notna(), "").map(str).astype("object")
            )
        else:
            frame[name] = frame[name].astype("Int64" if name in _INT else "float64")
    return frame


def is_runtime_table(path: Path) -> bool:
    """Whether a file begins like a runtime table, for callers that take tables of several kinds."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline(4096).strip().split(",")[:2] == ["table_version", "arch_id"]
    except (OSError, UnicodeDecodeError):
        return False


def read_runtime_table(path: str | Path) -> pd.DataFrame:
    """A table of `python -m rdc time`: TABLE_COLUMNS, typed; of one setting measured twice, the younger row.

    AnalysisError names the file, the row and the column of what cannot be a measurement.
    """
    raw = _cells(Path(path))
    name = shorten(str(path))
    if missing := [column for column in ("table_version", *_NEEDED) if column not in raw]:
        raise AnalysisError(
            f"{name}: is no runtime table: it lacks {', '.join(missing)}; write one with `python -m rdc time`"
        )
    if raw.empty:
        raise AnalysisError(f"{name}: has no rows; `python -m rdc time -o {name}` measures some")
    frame = pd.DataFrame(
        {
            column: _column(raw, column, name) if column in raw else _absent(column, len(raw))
            for column in TABLE_COLUMNS
        }
    )
    newer = frame["table_version"] > TABLE_VERSION
    if newer.any():
        raise AnalysisError(
            f"{name}: has table_version {frame['table_version'].max()}; this version reads {TABLE_VERSION}: "
            "use a newer one"
        )
    return frame.drop_duplicates(list(SETTING), keep="last", ignore_index=True)


def _cells(path: Path) -> pd.DataFrame:
    name = shorten(str(path))
    try:
        return csv_cells(path)
    except FileNotFoundError:
        raise AnalysisError(
            f"{name}: there is no such file; `python -m rdc time -o FILE` writes one"
        ) from None
    except OSError as error:
        raise AnalysisError(f"{name}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise AnalysisError(f"{name}: is not readable as CSV ({error})") from None


def _column(raw: pd.DataFrame, column: str, name: str) -> pd.Series:
    if column in (*_TEXT, *_MORE_TEXT):
        values: Sequence[Any] = list(raw[column])
    else:
        values = [_number(cell, column, f"{name}, row {row}") for row, cell in enumerate(raw[column], 1)]
    if column in _NEEDED or column == "table_version":
        for row, value in enumerate(values, 1):
            if value is None or value == "":
                raise AnalysisError(f"{name}, row {row}: {column} is empty; delete the row")
    return pd.Series(values, dtype=_dtype(column))


def _number(cell: Any, column: str, where: str) -> float | int | None:
    if pd.isna(cell) or str(cell).strip().lower() in _MISSING:
        return None
    whole = column in (*_INT, *_MORE_INT)
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    least_is_0 = column in ("load_average", *_STAGES, *_WORK)
    if not (math.isfinite(value) and (value >= 0 if least_is_0 else value > 0)) or (
        column == "dec_net_ms" and value == 0
    ):
        kind = "a number that is not negative" if least_is_0 else "a number above 0"
        raise AnalysisError(f"{where}: {column}={cell!r} is not {kind}")
    if whole and not value.is_integer():
        raise AnalysisError(f"{where}: {column}={cell!r} is not a whole number")
    return int(value) if whole else value


def _absent(column: str, rows: int) -> pd.Series:
    empty = "" if column in (*_TEXT, *_MORE_TEXT) else None
    return pd.Series([empty] * rows, dtype=_dtype(column))


def _dtype(column: str) -> Any:
    if column in (*_TEXT, *_MORE_TEXT):
        return "object"
    return "Int64" if column in (*_INT, *_MORE_INT) else "float64"
