"""The frontier of a table of trials: computed, written as CSV, drawn, and printed with what it rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import figures, text
from analysis.anchors import load_anchor
from analysis.comparable import Choice, Selection, average_seeds, comparable, distinct_labels
from analysis.curves import trial_curves
from analysis.errors import AnalysisError
from analysis.files import write_csv
from analysis.load import Source, read
from analysis.pareto import dominators, frontier_mask
from analysis.rows import SAVINGS
from analysis.schema import FRONTIER_COLUMNS, column, objective_names

DEFAULT_OBJECTIVES = ("rd_loss", "kmac_per_px_dec")


@dataclasses.dataclass(frozen=True)
class FrontierReport:
    """What `write_report` found and wrote.

    trials: every trial, with on_frontier, dominated_by and off_frontier_reason.
    architectures: the compared ones, seeds averaged, with on_frontier and dominated_by; one that was
        trained from several origins has a row for each.
    frontier: those that nobody dominates, cheapest last objective first.
    files: the written files. text: what was, or would have been, printed.
    """

    folder: Path
    trials: pd.DataFrame
    architectures: pd.DataFrame
    frontier: pd.DataFrame
    files: tuple[Path, ...]
    text: str


def write_report(folder: str | Path, *, print_table: bool = True, draw: bool = True) -> FrontierReport:
    """trials.csv, frontier.csv and, if draw, the figures of a sweep folder, written into it.

    A sweep without a usable trial gives an empty frontier; one without any result raises AnalysisError.
    """
    return report(read(folder), Path(folder), print_table=print_table, draw=draw)


def report(
    source: Source,
    folder: Path,
    *,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    choice: Choice | None = None,
    print_table: bool = True,
    draw: bool = True,
) -> FrontierReport:
    """Compute, write, draw and print; the output folder is made if needed."""
    names = check_objectives(objectives)
    source.require(["label", "lmbda", *names])
    selection = comparable(source.frame, names, choice)
    architectures = rank(average_seeds(distinct_labels(selection.rows)), names)
    frontier = architectures[architectures["on_frontier"]].sort_values(names[::-1], kind="stable")
    trials = mark(source.frame, selection, architectures)
    files = [
        write_csv(
            frontier.drop(columns=[c.name for c in FRONTIER_COLUMNS if c.name in frontier]),
            folder / "frontier.csv",
        ),
        write_csv(trials, folder / "trials.csv"),
    ]
    drawn = _draw(source.frame, architectures, names, folder) if draw else figures.Drawn((), ())
    printed = text.frontier_text(
        source,
        trials,
        architectures,
        frontier,
        names,
        selection.message,
        [*files, *drawn.files],
        drawn.left_out,
    )
    if print_table:
        print(printed)
    return FrontierReport(folder, trials, architectures, frontier, (*files, *drawn.files), printed)


def _draw(
    trials: pd.DataFrame, architectures: pd.DataFrame, objectives: Sequence[str], folder: Path
) -> figures.Drawn:
    """The frontier's figures, and PSNR over rate of all good trials on the same images."""
    drawn = figures.draw_frontier(architectures, objectives, folder)
    if architectures.empty:
        return drawn
    curves = trial_curves(trials[trials["dataset_hash"] == architectures["dataset_hash"].iloc[0]])
    if not curves:
        return dataclasses.replace(drawn, left_out=(*drawn.left_out, "rd.png: no trial has bpp and psnr_db"))
    anchors = [load_anchor(name) for name in SAVINGS.values()]
    fitting = [anchor for anchor in anchors if anchor.dataset == curves[0].dataset]
    return dataclasses.replace(
        drawn, files=(*drawn.files, figures.draw_rd(curves, fitting, folder / "rd.png"))
    )


def check_objectives(objectives: Sequence[str]) -> list[str]:
    """The names, if every one is a column with a direction."""
    known = objective_names()
    for name in objectives:
        if name not in known:
            raise AnalysisError(f"objective {name!r} is not known; objectives: {', '.join(known)}")
    if len(set(objectives)) < max(2, len(objectives)):
        raise AnalysisError(f"objectives {','.join(objectives)}: name at least two different ones")
    return list(objectives)


def rank(architectures: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Add on_frontier and dominated_by (an arch_id) to one row per architecture."""
    cost = costs(architectures, objectives)
    mask = frontier_mask(cost)
    ids = architectures["arch_id"].to_numpy(dtype=object)
    beaten_by = ["" if index < 0 else ids[index] for index in dominators(cost, mask)]
    return architectures.assign(on_frontier=mask, dominated_by=np.array(beaten_by, dtype=object))


def costs(frame: pd.DataFrame, objectives: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n, k), every column low-is-better."""
    signs = [1.0 if column(name).better == "low" else -1.0 for name in objectives]
    return frame[list(objectives)].to_numpy(dtype=np.float64) * signs


def _curve_key(rows: pd.DataFrame) -> pd.Series:
    return rows["arch_id"] + "/" + rows["curve_id"]


def mark(trials: pd.DataFrame, selection: Selection, architectures: pd.DataFrame) -> pd.DataFrame:
    """All trials with the fate of their curve, or why they took no part."""
    fate = architectures.set_index(_curve_key(architectures))
    key = _curve_key(trials)
    took_part = selection.reasons == ""
    marked = trials.assign(
        on_frontier=took_part & key.isin(fate.index[fate["on_frontier"]]),
        dominated_by=key.map(fate["dominated_by"]).where(took_part, ""),
        off_frontier_reason=selection.reasons,
    )
    front = ["spec_id", "label", "family", "status", *(c.name for c in FRONTIER_COLUMNS)]
    rest = [name for name in marked.columns if name not in front]
    return (
        marked[front + rest]
        .sort_values(["kmac_per_px_dec", "lmbda", "seed"], kind="stable")
        .reset_index(drop=True)
    )
