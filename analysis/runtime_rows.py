"""Decode times of several sources in one table: what is compared, and in which setting it was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError
from analysis.files import is_file, shorten
from analysis.load import read
from analysis.published import SPEEDS, TITLE, table1
from analysis.runtimes import TABLE_COLUMNS, is_runtime_table, read_runtime_table

MEASURED, PUBLISHED = "measured", "published"
# What a time depends on besides the model; settings that differ in one of them can be compared.
ASPECTS = ("device", "threads", "precision", "images")


@dataclasses.dataclass(frozen=True)
class Times:
    """rows: one per model and setting, with setting (its name), origin (measured or published), ASPECTS as
    text, label, family, arch_id, kflop_per_px_dec, ms_per_mp and its quartiles, and what runtime tables hold.
    notes: what was left out or merged, one line each.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...]


def gather(sources: Sequence[str | None], *, published: bool) -> Times:
    """sources: runtime tables, and what `analysis.load.read` takes. published: with the study's Table 1.

    Of a model measured twice in one setting the later source counts. AnalysisError where nothing was timed.
    """
    notes: list[str] = []
    frames = [frame for name in sources if not (frame := _timings(name, notes)).empty]
    if not frames and not published:
        names = ", ".join(shorten(str(name)) for name in sources if name) or "the last sweep"
        raise AnalysisError(
            f"{names}: holds no decode times; write a table with `python -m rdc time`, or name a sweep that "
            "has timings"
        )
    tables = [_measured(pd.concat(frames, ignore_index=True), notes)] if frames else []
    if published:
        tables.append(published_times())
        notes.append(f"published: {TITLE}; milliseconds per megapixel from its megapixels per second")
    rows = pd.concat(tables, ignore_index=True)
    rows["setting"] = [_name(*aspects) for aspects in rows[list(ASPECTS)].itertuples(index=False)]
    by = ["origin", *ASPECTS, "kflop_per_px_dec", "arch_id"]
    return Times(rows.sort_values(by, ignore_index=True), tuple(notes))


def published_times() -> pd.DataFrame:
    """The study's own models A to G on its devices."""
    table = table1()
    names = ["transform", "entropy_model", "hyper_transform"]
    families = ["/".join(cells) for cells in table[names].itertuples(index=False)]
    frames = []
    for column, (device, images) in SPEEDS.items():
        ms_per_mp = 1000 / table[column]
        frames.append(
            pd.DataFrame(
                {
                    "origin": PUBLISHED,
                    "device": device,
                    "threads": "",
                    "precision": "",
                    "images": images,
                    "arch_id": [f"published-{letter}" for letter in table["model"]],
                    "label": [f"{letter} (published)" for letter in table["model"]],
                    "family": families,
                    "kflop_per_px_dec": table["kflops_per_px_decode"],
                    "ms_per_mp": ms_per_mp,
                    "low_ms_per_mp": ms_per_mp,
                    "high_ms_per_mp": ms_per_mp,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _timings(name: str | None, notes: list[str]) -> pd.DataFrame:
    """Those of one source, with all TABLE_COLUMNS."""
    path = Path(name) if name else None
    if path is not None and is_file(path) and (is_runtime_table(path) or _has_no_trials(path)):
        return read_runtime_table(path)
    source = read(name)
    notes.extend(source.problems)
    if source.runtimes.empty:
        notes.append(f"{source.name}: has no timings; left out")
    return source.runtimes.reindex(columns=list(TABLE_COLUMNS))


def _has_no_trials(path: Path) -> bool:
    """Whether a CSV is none of trials: its mistakes are then those of a runtime table."""
    if path.suffix.lower() != ".csv":
        return False
    with open(path, "rb") as file:
        return b"bpp" not in file.readline(10_000)


def _measured(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    usable = frame["kflop_per_px_dec"].gt(0) & frame["dec_net_ms"].gt(0)
    usable &= frame[["threads", "height_px", "width_px"]].notna().all(axis=1)
    if not usable.all():
        notes.append(f"{(~usable).sum()} timings without FLOPs or decode time; left out")
    frame = frame[usable].copy()
    if frame.empty:
        raise AnalysisError(
            "no timing has both FLOPs and a decode time; time the models with `python -m rdc time`"
        )
    frame["origin"] = MEASURED
    frame["images"] = [f"{h}x{w}" for h, w in frame[["height_px", "width_px"]].itertuples(index=False)]
    frame["device"] = frame["device"].where(frame["device"] != "", frame["device_slug"])
    frame["threads"] = frame["threads"].astype(str)
    once = frame.drop_duplicates([*ASPECTS, "arch_id"], keep="last")
    if twice := len(frame) - len(once):
        notes.append(f"{twice} timings are of a model and setting that come again later; the last ones count")
    megapixels = (once["height_px"] * once["width_px"]).astype("float64") / 1e6
    low = once["dec_net_q25_ms"].fillna(once["dec_net_ms"])
    high = once["dec_net_q75_ms"].fillna(once["dec_net_ms"])
    return once.assign(
        ms_per_mp=once["dec_net_ms"] / megapixels,
        low_ms_per_mp=low / megapixels,
        high_ms_per_mp=high / megapixels,
    )


def _name(device: str, threads: str, precision: str, images: str) -> str:
    if not threads:
        return f"{device} (published), {images}"
    return f"{device}, {threads} {'thread' if threads == '1' else 'threads'}, {precision}, {images}"
