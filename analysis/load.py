"""Sources of results: a sweep folder, a results table, or an MLflow run -> one table, one row per trial."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import csv_cells
from analysis.errors import AnalysisError
from analysis.files import is_file, is_folder, shorten
from analysis.images import image_frame, image_rows
from analysis.mlflow_rows import mlflow_rows
from analysis.rows import frame_of, rate_savings_of, trial_row, typed
from analysis.runtimes import check_timing, runtime_frame, timing_row
from analysis.schema import (
    COLUMNS,
    FRONTIER_COLUMNS,
    TABLE_VERSION,
    TIMING_VERSION,
    VERSION_COLUMN,
    Column,
)
from analysis.side_tables import beside, typed_side
from analysis.upgrade import check_version, upgraded_trials

RUNS_FOLDER = Path("runs")
MLFLOW_PREFIX = "mlflow:"

# What no measurement gives, and what would win every comparison.
_ABOVE_0 = ("lmbda", "bpp", "bpp_payload", "bpp_estimated", "rd_loss")
_NOT_NEGATIVE = ("val_rd_loss", "mse")
# Setting of a timing (device, threads, precision, image size) -> arch_id -> timing JSON. The time of a model
# with gates depends on its weights: its timings stand under the spec_ids of their trials.
_Settings = dict[str, dict[str, Mapping[str, Any]]]
_COSTS = ("kmac_", "kflop_", "params_", "time_", "train_wall_", "gating_")


@dataclasses.dataclass(frozen=True)
class Source:
    """A table of trials with where it came from.

    frame: one row per trial, the columns of analysis.schema. folder: where outputs go by default.
    problems: files that could not be used, one line each. notes: choices made in reading, one line each.
    given: the columns that the source had; the others of the schema are empty.
    images: per-image scores, the columns of analysis.images; empty where the source holds none (a table that
        has no images.csv beside it).
    runtimes: every timing of every device, the columns of analysis.runtimes; empty where there is none.
    """

    name: str
    folder: Path
    frame: pd.DataFrame
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    given: tuple[str, ...] = tuple(c.name for c in COLUMNS)
    images: pd.DataFrame = dataclasses.field(default_factory=image_frame)
    runtimes: pd.DataFrame = dataclasses.field(default_factory=runtime_frame)

    def require(self, names: Sequence[str]) -> None:
        """AnalysisError naming the columns that the source should have and has not."""
        missing = [name for name in names if name not in self.given]
        if missing:
            raise AnalysisError(f"{self.name} lacks {', '.join(missing)}; it has {', '.join(self.given)}")


def load(source: str | Path | None = None, *, device: str | None = None) -> pd.DataFrame:
    """The table of `read`, for callers that need nothing else."""
    return read(source, device=device).frame


def read(source: str | Path | None = None, *, device: str | None = None) -> Source:
    """Read a sweep folder, a CSV or Parquet table, or an MLflow run; None is the last sweep under runs/.

    device: whose timings fill the time columns, as `device_slug` or `device_slug__threads__precision__size`;
        by default those that cover most architectures.
    Raises AnalysisError in one line when there is nothing to read.
    """
    if source is None:
        return _read_sweep(_last_sweep(), device)
    path = Path(source)
    if is_folder(path):
        return _read_folder(path, device)
    if device is not None:
        raise AnalysisError(
            f"--device chooses among the timings of a sweep folder; {shorten(str(source))} is none"
        )
    if is_file(path):
        return _read_table(path)
    run_id = str(source).removeprefix(MLFLOW_PREFIX)
    if str(source).startswith(MLFLOW_PREFIX) or re.fullmatch(r"[0-9a-f]{32}", run_id):
        found = mlflow_rows(run_id, default_uri=f"sqlite:///{RUNS_FOLDER.resolve()}/mlflow.db")
        folder = Path(f"mlflow_{run_id[:8]}_analysis")
        images = image_frame(found.images)
        return Source(
            f"mlflow run {run_id}", folder, frame_of(found.rows), tuple(found.problems), images=images
        )
    raise AnalysisError(
        f"{shorten(str(source))} does not exist; "
        "name a sweep folder, a CSV or Parquet table, or mlflow:RUN_ID"
    )


# ------------------------------------------------------------------------------------------ sweep folder


def _last_sweep() -> Path:
    sweeps = sorted(RUNS_FOLDER.glob("*/sweep.json"), key=lambda path: path.stat().st_mtime)
    if not sweeps:
        raise AnalysisError(
            f"there is no sweep under {RUNS_FOLDER}/; run `python -m sweep +experiment=frontier` first, "
            "or name a sweep folder, a table or mlflow:RUN_ID"
        )
    return sweeps[-1].parent


def _read_folder(folder: Path, device: str | None) -> Source:
    if (folder / "trials").is_dir() or (folder / "sweep.json").is_file():
        return _read_sweep(folder, device)
    for table in (folder / "trials.csv", folder / "trials.parquet"):
        if table.is_file():
            return _read_table(table)
    inside = sorted(path.parent.name for path in folder.glob("*/sweep.json"))
    hint = f"; it holds the sweeps {', '.join(inside)}: name one" if inside else ""
    raise AnalysisError(f"{folder} is no sweep folder: it has neither trials/ nor trials.csv{hint}")


def _read_sweep(folder: Path, device: str | None) -> Source:
    problems: list[str] = []
    notes: list[str] = []
    results = []
    for path in sorted(folder.glob("trials/*/result.json")):
        tree = _read_json(path, problems)
        if tree is not None:
            results.append((path, tree))
    settings = _timings(folder, problems)
    timings = _chosen_timings(settings, folder, device, notes)
    rows, images = [], []
    for path, tree in results:
        try:
            row, scores = trial_row(tree, _timing_of(tree, timings)), image_rows(tree)
        except AnalysisError as error:
            problems.append(f"{path}: {error}; left out")
        else:
            rows.append(row)
            images += scores
    if not rows:
        detail = f" ({problems[0]})" if problems else ""
        raise AnalysisError(
            f"sweep {folder} has no finished trial to read{detail}; run the same sweep command again"
        )
    notes += _missing_trials(folder, {row["spec_id"] for row in rows})
    return Source(
        name=folder.name,
        folder=folder,
        frame=frame_of(rows),
        problems=tuple(problems),
        notes=tuple(notes),
        images=image_frame(images),
        runtimes=_runtimes(settings, rows),
    )


def _runtimes(settings: _Settings, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    trials = {row["arch_id"]: row for row in rows if row["kflop_per_px_dec"] is not None}
    found = []
    for tree in (tree for timings in settings.values() for tree in timings.values()):
        trial = dict(trials.get(tree["arch_id"], {}))
        if tree.get("spec_id"):  # with all channels open it would cost that, and was not so timed
            trial.pop("kflop_per_px_dec", None)
        found.append(timing_row(tree, trial=trial))
    return runtime_frame(found)


def _timing_of(
    result: Mapping[str, Any], timings: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    return timings.get(str(result.get("spec_id"))) or timings.get(str(result.get("arch_id")))


def _missing_trials(folder: Path, done: set[str]) -> list[str]:
    """One line about planned trials without a result; nothing if the plan cannot be read."""
    plan = _read_json(folder / "sweep.json", []) if (folder / "sweep.json").is_file() else None
    planned = (plan or {}).get("trials")
    if not isinstance(planned, list):
        return []
    ids = {entry.get("spec_id") if isinstance(entry, Mapping) else entry for entry in planned}
    missing = len(ids - done)
    return [f"{missing} of {len(ids)} planned trials have no result yet"] if missing else []


def _timings(folder: Path, problems: list[str]) -> _Settings:
    settings: _Settings = {}
    for path in sorted(folder.glob("timing/*.json")):
        tree = _read_json(path, problems)
        if tree is not None and _is_timing(tree, path, problems):
            timed = str(tree.get("spec_id") or tree["arch_id"])
            settings.setdefault(_timing_setting(tree), {})[timed] = tree
    return settings


def _chosen_timings(
    settings: _Settings, folder: Path, device: str | None, notes: list[str]
) -> dict[str, Mapping[str, Any]]:
    """arch_id, or spec_id of a trial with gates -> timing JSON of one setting."""
    if not settings:
        if device is not None:
            raise AnalysisError(f"--device {device}: {folder} has no timings")
        return {}
    chosen = _choose_setting(settings, device)
    if len(settings) > 1:
        notes.append(
            f"time columns are those of {chosen}; also timed: {', '.join(sorted(set(settings) - {chosen}))}"
        )
    return settings[chosen]


def _timing_setting(tree: Mapping[str, Any]) -> str:
    size = "x".join(map(str, tree["image_px"])) if isinstance(tree["image_px"], list) else tree["image_px"]
    return f"{tree['device_slug']}__{tree['threads']}t__{tree['precision']}__{size}"


def _choose_setting(settings: Mapping[str, Mapping[str, Any]], device: str | None) -> str:
    """device: a whole setting, or its first parts."""
    fitting = [key for key in sorted(settings) if device is None or f"{key}__".startswith(f"{device}__")]
    if not fitting:
        raise AnalysisError(f"--device {device} was not timed; timed: {', '.join(sorted(settings))}")
    return max(fitting, key=lambda key: len(settings[key]))


def _is_timing(tree: Mapping[str, Any], path: Path, problems: list[str]) -> bool:
    missing = [
        key for key in ("arch_id", "device_slug", "threads", "precision", "image_px") if key not in tree
    ]
    if missing:
        problems.append(f"{path}: lacks {', '.join(missing)}; left out")
        return False
    try:
        check_version(tree.get("schema_version"), TIMING_VERSION, "the timing")
        check_timing(tree)
    except AnalysisError as error:
        problems.append(f"{path}: {error}; left out")
        return False
    return True


def _read_json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path}: damaged ({error}); left out")
        return None
    if not isinstance(tree, dict):
        problems.append(f"{path}: damaged (not a JSON object); left out")
        return None
    if not _is_intact(tree):
        problems.append(f"{path}: damaged (its content does not match its checksum); left out")
        return None
    return tree


def _is_intact(tree: Mapping[str, Any]) -> bool:
    """Whether the checksum with which rdc.files.write_sealed wrote it is right; files without one count."""
    values = {key: value for key, value in tree.items() if key != "checksum"}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return tree.get("checksum") in (None, hashlib.sha256(text.encode()).hexdigest()[:32])


# ----------------------------------------------------------------------------------------------- tables


def _read_table(path: Path) -> Source:
    raw = _cells(path)
    if raw.empty:
        raise AnalysisError(f"table {path} has no rows")
    raw = upgraded_trials(raw, f"table {path}")
    raw = raw.drop(columns=[c.name for c in FRONTIER_COLUMNS if c.name in raw])
    parsed = {name: _parse(raw[name], path) for name in raw.columns}
    frame = _fill_identity(typed(pd.DataFrame({**parsed, VERSION_COLUMN: TABLE_VERSION})))
    _refuse_repetition(frame["spec_id"], path)
    return Source(
        path.stem,
        Path(f"{path.stem}_analysis"),
        frame,
        given=tuple(map(str, raw.columns)),
        images=_read_beside(path, "images"),
        runtimes=_read_beside(path, "runtimes"),
    )


def _refuse_repetition(spec_ids: pd.Series, path: Path) -> None:
    """The same trial twice would count as two seeds."""
    again = spec_ids[spec_ids.duplicated()]
    if len(again):
        raise AnalysisError(f"table {path} has the trial {shorten(again.iloc[0])} twice; keep one row")


def _cells(path: Path) -> pd.DataFrame:
    return _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)


def _read_beside(path: Path, table: str) -> pd.DataFrame:
    """The table of `analysis.side_tables` that was exported with this one; no rows if there is none."""
    found = beside(path, table)
    if found is None:
        return image_frame() if table == "images" else runtime_frame()
    return typed_side(_cells(found), table, f"table {found}")


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return csv_cells(path)  # text throughout: floats are parsed exactly below
    except OSError as error:
        raise AnalysisError(f"table {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise AnalysisError(f"table {path} is not readable as CSV: {error}") from None


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise AnalysisError(
            f"reading {path} needs pyarrow: pip install pyarrow, or export the table as CSV"
        ) from None
    except (ValueError, OSError) as error:
        raise AnalysisError(
            f"table {path} is not readable as Parquet: {str(error).splitlines()[0]}"
        ) from None


def _parse(values: pd.Series, path: Path) -> pd.Series:
    col: Column | None = next((c for c in COLUMNS if c.name == values.name), None)
    if col is None or col.kind == "text":
        return values
    numbers = _parse_numbers(values, col)
    if numbers is not None:
        return numbers
    return pd.Series(
        [_parse_cell(cell, col, path, row) for row, cell in enumerate(values, start=1)], dtype=object
    )


def _parse_numbers(values: pd.Series, col: Column) -> pd.Series | None:
    """A column of good numbers at once; None where cells must be looked at one by one, to name a bad one."""
    if col.kind == "bool":
        return None
    cells = values.astype("object").where(values.notna(), "").to_numpy()  # Parquet has numbers and NA
    missing = cells == ""
    numbers = np.full(len(cells), np.nan)
    try:
        numbers[~missing] = cells[~missing].astype(np.float64)  # as float() does, to the last digit
    except (TypeError, ValueError):
        return None
    known = numbers[~missing]
    if col.kind == "int" and not (np.isfinite(known).all() and (known == np.round(known)).all()):
        return None
    if (known < 0).any() and (col.name in _NOT_NEGATIVE or col.name.startswith(_COSTS)):
        return None
    wrong = col.name in _ABOVE_0 and ((known <= 0) | np.isinf(known)).any()
    return None if wrong else pd.Series(numbers)


def _parse_cell(cell: Any, col: Column, path: Path, row: int) -> float | int | bool | None:
    if pd.isna(cell) or cell == "":
        return None
    if col.kind == "bool":
        if str(cell).lower() in ("true", "false"):
            return str(cell).lower() == "true"
        raise AnalysisError(f"table {path}, row {row}: {col.name}={cell!r} is neither True nor False")
    try:
        number = float(cell)
    except ValueError:
        raise AnalysisError(f"table {path}, row {row}: {col.name}={cell!r} is not a number") from None
    if col.kind == "int" and not number.is_integer():
        raise AnalysisError(f"table {path}, row {row}: {col.name}={cell!r} is not a whole number")
    if number < 0 and (col.name in _NOT_NEGATIVE or col.name.startswith(_COSTS)):
        raise AnalysisError(f"table {path}, row {row}: {col.name}={cell!r} must not be negative")
    if col.name in _ABOVE_0 and not 0 < number < math.inf and not math.isnan(number):
        raise AnalysisError(f"table {path}, row {row}: {col.name}={cell!r} must be greater than 0 and finite")
    return number if col.kind == "float" else int(number)


def _fill_identity(frame: pd.DataFrame) -> pd.DataFrame:
    """Give a table from elsewhere what it may leave out: ids from the label, status ok, savings computed."""

    def fill(name: str, default: Any) -> None:
        frame[name] = frame[name].where(frame[name] != "", default)

    fill("label", frame["arch_id"])
    fill("arch_id", frame["label"])
    fill("curve_id", frame["arch_id"])
    fill("budget_id", frame["budget"])
    fill("dataset_hash", frame["dataset"])
    fill("status", "ok")
    fill("spec_id", pd.Series([f"row-{row}" for row in range(1, len(frame) + 1)], dtype=object))
    savings = rate_savings_of(frame)
    return typed(pd.concat([frame.drop(columns=list(savings)), savings], axis=1))
