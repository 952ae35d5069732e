"""The frontier of a table of trials: computed, written as CSV, drawn, and printed with what it rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import figures, hypervolume_report, text
from analysis.anchors import load_anchor
from analysis.comparable import Choice, Selection, average_seeds, comparable, distinct_labels
from analysis.curves import trial_curves
from analysis.files import write_csv
from analysis.judgement import Judgement, Rules, judge
from analysis.load import Source, read
from analysis.objectives import DEFAULT_OBJECTIVES, check_objectives, costs
from analysis.pareto import dominators, frontier_mask, ranks
from analysis.rows import SAVINGS
from analysis.schema import FRONTIER_COLUMNS

# What is the same for everybody on the frontier.
_CONSTANT = ("on_frontier", "dominated_by", "frontier_rank", "off_frontier_reason")


@dataclasses.dataclass(frozen=True)
class FrontierReport:
    """What `write_report` found and wrote.

    trials: every trial, with the columns of schema.FRONTIER_COLUMNS.
    architectures: the compared ones, seeds averaged, with the same but the reason; one that was trained from
        several origins has a row for each.
    frontier: those that nobody dominates, cheapest last objective first.
    files: the written files. text: what was, or would have been, printed.
    history: hypervolume over the sweep, as analysis.hypervolume.history; empty where it is not known.
    """

    folder: Path
    trials: pd.DataFrame
    architectures: pd.DataFrame
    frontier: pd.DataFrame
    files: tuple[Path, ...]
    text: str
    history: pd.DataFrame


def write_report(folder: str | Path, *, print_table: bool = True, draw: bool = True) -> FrontierReport:
    """trials.csv, frontier.csv, hypervolume.csv and, if draw, the figures of a sweep folder, written into it.

    A sweep without a usable trial gives an empty frontier; one without any result raises AnalysisError.
    """
    return report(read(folder), Path(folder), print_table=print_table, draw=draw)


def report(
    source: Source,
    folder: Path,
    *,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    choice: Choice | None = None,
    rules: Rules | None = None,
    reference: Mapping[str, float] | None = None,
    print_table: bool = True,
    draw: bool = True,
) -> FrontierReport:
    """Compute, write, draw and print; the output folder is made if needed.

    reference: of the hypervolume, values of objectives in their columns' units; the rest is derived.
    """
    names = check_objectives(objectives)
    source.require(["label", "lmbda", *names])
    selection = comparable(source.frame, names, choice)
    averaged = average_seeds(distinct_labels(selection.rows))
    judgement = judge(rank(averaged, names), selection.rows, source.images, names, rules)
    architectures = judgement.architectures
    frontier = architectures[architectures["on_frontier"]].sort_values(names[::-1], kind="stable")
    trials = mark(source.frame, selection, architectures)
    grown = hypervolume_report.write(
        selection.rows, architectures, names, folder, reference=reference, draw=draw
    )
    files = [
        write_csv(
            frontier.drop(columns=[name for name in _CONSTANT if name in frontier]), folder / "frontier.csv"
        ),
        write_csv(trials, folder / "trials.csv"),
        *grown.files,
    ]
    drawn = _draw(source.frame, architectures, names, folder) if draw else figures.Drawn((), ())
    printed = text.frontier_text(
        source,
        trials,
        architectures,
        judgement.shown(frontier),
        names,
        selection.message,
        [*files, *drawn.files],
        [*grown.left_out, *drawn.left_out],
        findings=_findings(judgement, grown),
    )
    if print_table:
        print(printed)
    return FrontierReport(
        folder, trials, architectures, frontier, (*files, *drawn.files), printed, grown.history
    )


def _findings(judgement: Judgement, grown: hypervolume_report.Written) -> list[tuple[str, str]]:
    """Heads and sentences below the table."""
    volume = [("hypervolume", grown.text)] if grown.text else []
    return [*judgement.findings, *volume]


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


def rank(architectures: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Add on_frontier, dominated_by (an arch_id) and frontier_rank to one row per architecture."""
    cost = costs(architectures, objectives)
    mask = frontier_mask(cost)
    ids = architectures["arch_id"].to_numpy(dtype=object)
    by = dominators(cost, mask)
    beaten_by = np.full(len(ids), "", dtype=object)
    beaten_by[by >= 0] = ids[by[by >= 0]]
    return architectures.assign(on_frontier=mask, dominated_by=beaten_by, frontier_rank=ranks(cost))


def _curve_key(rows: pd.DataFrame) -> pd.Series:
    return rows["arch_id"] + "/" + rows["curve_id"]


def mark(trials: pd.DataFrame, selection: Selection, architectures: pd.DataFrame) -> pd.DataFrame:
    """All trials with the fate of their curve, or why they took no part."""
    fate = architectures.set_index(_curve_key(architectures))
    key = _curve_key(trials)
    took_part = selection.reasons == ""
    fates = {c.name: key.map(fate[c.name]).where(took_part) for c in FRONTIER_COLUMNS if c.name in fate}
    marked = trials.assign(
        **fates
        | {
            "on_frontier": took_part & key.isin(fate.index[fate["on_frontier"]]),
            "dominated_by": fates["dominated_by"].where(took_part, ""),
            "frontier_rank": fates["frontier_rank"].astype("Int64"),
            "off_frontier_reason": selection.reasons,
        }
    )
    front = ["spec_id", "label", "family", "status", *(c.name for c in FRONTIER_COLUMNS)]
    rest = [name for name in marked.columns if name not in front]
    return (
        marked[front + rest]
        .sort_values(["kmac_per_px_dec", "lmbda", "seed"], kind="stable")
        .reset_index(drop=True)
    )
