"""The runtime table: one CSV per machine or for several, one row per model, device, threads, precision, size.

Rows are appended one by one and flushed to the disk, under a lock on the file itself. Nothing that is there
is ever rewritten. `analysis.runtimes` reads the table; a test keeps the columns of both alike.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rdc.errors import UserError
from rdc.files import locked, storing

TABLE_VERSION = 1  # raised when a column changes its meaning
_STAGES = tuple(
    f"{direction}_{stage}_{part}ms"
    for direction in ("dec", "enc")
    for stage in ("net", "entropy", "total")
    for part in ("", "q25_", "q75_")
)
COLUMNS = (
    "table_version", "arch_id", "label", "family", "device", "device_slug", "precision", "weights", "threads",
    "height_px", "width_px", "kflop_per_px_dec", "params_m", *_STAGES, "model", "measured_at", "cpu", "node",
    "torch", "rdc", "git_revision", "repeats", "serial_steps_dec", "operators_dec", "load_average",
    "others_cpus", "peak_memory_mb", "kflop_per_px_dec_executed", "bytes_per_px_dec",
    "peak_fp32_gflop_per_s", "peak_tf32_gflop_per_s", "peak_bf16_gflop_per_s", "bandwidth_gb_per_s",
    "launch_us", "launch_convolution_us", "compute_ms", "memory_ms", "serial_ms", "roofline_ms",
)  # fmt: skip


class Setting(NamedTuple):
    """What one row measures; two rows of one setting are the same measurement, made twice."""

    arch_id: str
    weights: str
    device_slug: str
    threads: int
    precision: str
    height_px: int
    width_px: int


def read_settings(path: Path) -> set[Setting]:
    """What the table holds; nothing if there is no file yet, or an empty one.

    UserError for a file that is no runtime table of this version, or a damaged one: it is left as it is.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name another table with -o") from None
    return _settings(data, path)


def check_writable(path: Path) -> None:
    """UserError before anything is measured, where no row can be appended; may leave an empty file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another table with -o") from None


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row, after a look at what is there; it is on the disk when this returns.

    row: values by COLUMNS, None for what was not measured.
    """
    if unknown := sorted(set(row) - set(COLUMNS)):
        raise AssertionError(f"{unknown[0]} is no column of the table")
    with storing(path), locked(path):
        data = path.read_bytes()
        _settings(data, path)
        lines = [] if data else [COLUMNS]
        lines.append(tuple(_cell(row.get(name)) for name in COLUMNS))
        with open(path, "ab") as file:
            file.write(_text(lines).encode())
            file.flush()
            os.fsync(file.fileno())


def _settings(data: bytes, path: Path) -> set[Setting]:
    if not data:
        return set()
    way_out = "name another table with -o"
    try:
        header, *rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: is no runtime table ({' '.join(str(error).split())}); {way_out}") from None
    if header[:1] != ["table_version"]:
        raise UserError(f"{path}: is no runtime table: it does not begin with table_version; {way_out}")
    if tuple(header) != COLUMNS:
        raise UserError(f"{path}: is a runtime table with other columns, of another version; {way_out}")
    if not data.endswith(b"\n"):
        raise UserError(f"{path}: is damaged: its last row ends in the middle; delete that row and repeat")
    found = set()
    for number, cells in enumerate(rows, start=1):
        problem = _problem(cells)
        if problem:
            raise UserError(f"{path}: is damaged: row {number} {problem}; delete that row and repeat")
        found.add(_setting(dict(zip(COLUMNS, cells, strict=True))))
    return found


def _problem(cells: list[str]) -> str:
    """Why this is no row of the table; '' if it is one."""
    if len(cells) != len(COLUMNS):
        return f"has {len(cells)} of {len(COLUMNS)} cells"
    row = dict(zip(COLUMNS, cells, strict=True))
    if row["table_version"] != str(TABLE_VERSION):
        return f"has table_version {row['table_version']!r}, this version writes {TABLE_VERSION}"
    for name in ("threads", "height_px", "width_px", "dec_net_ms"):
        try:
            value = float(row[name])
        except ValueError:
            value = math.nan
        if not (0 < value < math.inf):
            return f"has {name}={row[name]!r}, not a number above 0"
    return ""


def _setting(row: Mapping[str, str]) -> Setting:
    return Setting(
        row["arch_id"],
        row["weights"],
        row["device_slug"],
        int(float(row["threads"])),
        row["precision"],
        int(float(row["height_px"])),
        int(float(row["width_px"])),
    )


def _cell(value: Any) -> str:
    """Floats in the shortest form that reads back to the same number."""
    if value is None:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise AssertionError(f"{value} is no measurement")
        return repr(value)
    # A line end inside a cell would make a row of two lines, which nobody can append to safely.
    return " ".join(str(value).split())


def _text(lines: list[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
