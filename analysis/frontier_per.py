"""One frontier for each device, or for each training budget: who is on which."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import text
from analysis.comparable import Choice, average_seeds, comparable, distinct_labels
from analysis.errors import AnalysisError
from analysis.files import write_csv
from analysis.frontier import rank
from analysis.judgement import knees
from analysis.load import Source
from analysis.objectives import DEFAULT_OBJECTIVES, check_objectives
from analysis.schema import column

DEVICE_OBJECTIVES = ("rd_loss", "time_dec_total_ms")
# What a timing depends on besides the model.
SETTING = ("device", "device_slug", "threads", "precision", "height_px", "width_px")
_BUDGET = ("budget", "budget_id", "steps", "percent_of_paper_steps")
_TIME = "time_"
# More columns than this do not fit beside the names.
_MOST_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Group:
    """One device setting or budget. name: for the legend. rows: its ranked architectures. keys: its own."""

    name: str
    rows: pd.DataFrame
    keys: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PerReport:
    """table: one row per group and architecture, as written. text: what was, or would have been, printed."""

    table: pd.DataFrame
    files: tuple[Path, ...]
    text: str


def report(
    source: Source,
    folder: Path,
    per: str,
    *,
    objectives: Sequence[str] | None = None,
    choice: Choice | None = None,
    print_table: bool = True,
) -> PerReport:
    """per: 'device', with decode time as an objective unless told otherwise, or 'budget'."""
    names = check_objectives(objectives or (DEVICE_OBJECTIVES if per == "device" else DEFAULT_OBJECTIVES))
    source.require(["label", "lmbda", *(name for name in names if per == "budget" or not _is_time(name))])
    groups = (_by_device if per == "device" else _by_budget)(source, names, choice or Choice())
    table = pd.concat([_long(group, names) for group in groups], ignore_index=True)
    path = write_csv(table, folder / f"frontier_by_{per}.csv")
    printed = _text(source, per, groups, names, path)
    if print_table:
        print(printed)
    return PerReport(table, (path,), printed)


def _is_time(name: str) -> bool:
    return name.startswith(_TIME)


def _by_device(source: Source, names: list[str], choice: Choice) -> list[Group]:
    """One group per device, threads, precision and image size; repeated timings count by their median."""
    times = [name for name in names if _is_time(name)]
    if not times:
        raise AnalysisError(
            f"--per device: objectives {','.join(names)} hold no time, such as time_dec_total_ms"
        )
    if source.runtimes.empty:
        raise AnalysisError(
            f"--per device: {source.name} holds no timings of several devices; a sweep folder does. For one "
            f"device: --objectives {','.join(names)}"
        )
    selection = comparable(source.frame, [name for name in names if name not in times], choice)
    architectures = average_seeds(distinct_labels(selection.rows)).drop(columns=times)
    columns = {name.removeprefix(_TIME): name for name in times}
    timed = _of_compared(source.runtimes, selection.rows)
    groups = []
    for values, rows in timed.groupby(list(SETTING), sort=True, dropna=False):
        medians = rows.groupby("arch_id")[list(columns)].median().rename(columns=columns).dropna()
        merged = architectures.merge(medians, left_on="arch_id", right_index=True)
        if len(merged):
            keys = dict(zip(SETTING, values, strict=True))
            groups.append(Group(_setting_text(keys), _ranked(merged, names), keys))
    if not groups:
        raise AnalysisError(f"--per device: no architecture that can be compared has {', '.join(times)}")
    return groups


def _of_compared(runtimes: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Timings of the architectures in rows; where several trials of one were timed, those of trials in rows.

    The time of a model with gates depends on its weights. Of another model one trial is timed, and which one
    does not matter.
    """
    timed = runtimes[runtimes["arch_id"].isin(rows["arch_id"])]
    once = timed.groupby([*SETTING, "arch_id"], dropna=False)["weights"]
    several = once.transform("nunique") > 1
    return timed[~several | timed["weights"].isin("trained " + rows["spec_id"])]


def _setting_text(keys: dict[str, Any]) -> str:
    device = keys["device"] or keys["device_slug"]
    size = f"{keys['height_px']} x {keys['width_px']} px"
    return f"{device}, {keys['threads']} thread(s), {keys['precision']}, {size} (height x width)"


def _by_budget(source: Source, names: list[str], choice: Choice) -> list[Group]:
    """One group per budget, on the evaluation set and lmbda that `comparable` chooses."""
    if choice.budget is not None:
        raise AnalysisError(f"--per budget compares all budgets; leave out --budget {choice.budget}")
    taken = comparable(source.frame, names, choice)
    if taken.rows.empty:
        raise AnalysisError(f"no trial of {source.name} can be compared")
    first = taken.rows.iloc[0]
    alike = (source.frame["dataset_hash"] == first["dataset_hash"]) & (
        source.frame["lmbda"] == first["lmbda"]
    )
    usable = alike & taken.reasons.isin(["", "other budget"])
    groups = []
    for budget_id, trials in source.frame[usable].groupby("budget_id", sort=False):
        rows = _ranked(average_seeds(distinct_labels(trials)), names)
        keys = {name: trials[name].iloc[0] for name in _BUDGET}
        groups.append(Group(f"{_budget_text(keys)} [{budget_id}]", rows, keys))
    return sorted(
        groups, key=lambda group: (0 if pd.isna(steps := group.keys["steps"]) else steps, group.name)
    )


def _budget_text(keys: dict[str, Any]) -> str:
    steps, percent = keys["steps"], keys["percent_of_paper_steps"]
    share = "" if pd.isna(percent) else f" = {percent:.3g} % of the study's 2,000,000"
    return (keys["budget"] or "unnamed") + ("" if pd.isna(steps) else f", {steps:,} steps{share}")


def _ranked(architectures: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    ranked = rank(architectures, names)
    return ranked.assign(is_knee=knees(ranked, names))


def _long(group: Group, names: Sequence[str]) -> pd.DataFrame:
    judged = ["on_frontier", "dominated_by", "frontier_rank", "is_knee"]
    rows = group.rows[["arch_id", "curve_id", "label", "family", "seeds", *names, *judged]]
    rows = rows.sort_values([*names[::-1], "arch_id"], kind="stable")
    return pd.concat([pd.DataFrame([group.keys] * len(rows), index=rows.index), rows], axis=1)


def _text(source: Source, per: str, groups: Sequence[Group], names: Sequence[str], path: Path) -> str:
    goals = ", ".join(f"{name} ({column(name).better})" for name in names)
    lmbda = groups[0].rows["lmbda"].iloc[0]
    # Which device fills the time columns is of no importance here.
    notes = [note for note in source.notes if per != "device" or not note.startswith("time columns")]
    lines = [text.paragraph("note", note) for note in (*source.problems, *notes)]
    lines += [f"Frontier of {source.name} per {per}: {goals}; lmbda {lmbda:g}", ""]
    for number, group in enumerate(groups, start=1):
        on_frontier = group.rows["on_frontier"]
        lines.append(f"[{number}] {group.name}: {on_frontier.sum()} of {len(on_frontier)} architectures")
    lines += ["", _who_is_where(groups[:_MOST_SHOWN], names, per), ""]
    if len(groups) > _MOST_SHOWN:
        lines.append(f"[{_MOST_SHOWN + 1}] to [{len(groups)}] are in {path.name}")
    lines += [*_everywhere(groups), *_basis(groups, per), text.files_line([path])]
    return "\n".join(lines)


def _basis(groups: Sequence[Group], per: str) -> list[str]:
    """What all groups rest on; what differs stands in the legend."""
    lines = text.basis(pd.concat([group.rows for group in groups]).assign(time_dec_total_ms=np.nan))
    alone = ("evaluated on", "rate saving")
    return lines if per == "device" else [line for line in lines if line.startswith(alone)]


def _who_is_where(groups: Sequence[Group], names: Sequence[str], per: str) -> str:
    """Architectures on any frontier, by what does not differ between groups; * where on that frontier."""
    shown = next(name for name in names if per == "budget" or _is_time(name))
    fixed = [name for name in names if name != shown and not (per == "device" and _is_time(name))]
    keys = [
        group.rows.set_index(["arch_id", "curve_id"] if per == "device" else "arch_id") for group in groups
    ]
    keys = [rows[~rows.index.duplicated()] for rows in keys]
    every = pd.concat([rows[rows["on_frontier"]] for rows in keys])
    every = every[~every.index.duplicated()].sort_values(fixed or [shown], kind="stable")
    heads = [("", "architecture"), *(("", name) for name in fixed)]
    heads += [(f"[{number}]", column(shown).unit) for number in range(1, len(groups) + 1)]
    body = []
    for key, row in every.iterrows():
        cells = [
            text.shorten(row["label"], text.LABEL_WIDTH),
            *(text.cell(row[name], ".4g") for name in fixed),
        ]
        for rows in keys:
            known = key in rows.index
            mark = "*" if known and rows.at[key, "on_frontier"] else " "
            cells.append(f"{text.cell(rows.at[key, shown] if known else np.nan, '.5g')}{mark}")
        body.append(cells)
    return text.columns_text(heads, body) + f"\n* on that frontier; {shown}"


def _everywhere(groups: Sequence[Group]) -> list[str]:
    """Who is on all frontiers, if there are several."""
    if len(groups) < 2:
        return []
    on = [dict(g.rows.loc[g.rows["on_frontier"], ["arch_id", "label"]].to_numpy()) for g in groups]
    shared = [label for arch_id, label in on[0].items() if all(arch_id in other for other in on[1:])]
    return [text.paragraph("on all", f"{len(shared)}: {text.some(shared)}" if shared else "no architecture")]
