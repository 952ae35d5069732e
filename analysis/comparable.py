"""Which trials may be compared with each other: one evaluation set, one budget, one lmbda, seeds averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import AnalysisError
from analysis.rows import rate_savings_of
from analysis.schema import COLUMNS

# The trade-off weight of the sweeps: where the study's models lie near 0.46 bpp on Kodak.
USUAL_LMBDA = 0.013

_GROUP = ["dataset_hash", "budget_id", "lmbda"]
# What makes a trial that measures given weights a repetition of the one that trained them.
_POINT = ["arch_id", "curve_id", "budget_id", "dataset_hash", "lmbda", "seed"]
# So many lmbdas are named one by one.
_NAMED_LMBDAS = 8


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the user insists on; None leaves the choice to `comparable`.

    evaluation: name or hash of the evaluation set. budget: name or id.
    """

    lmbda: float | None = None
    budget: str | None = None
    evaluation: str | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
    """Comparable trials.

    reasons: for every trial of the table why it takes no part; '' for those that do.
    message: one line if there was something to choose; '' otherwise.
    """

    rows: pd.DataFrame
    reasons: pd.Series
    message: str


def comparable(frame: pd.DataFrame, objectives: list[str], choice: Choice | None = None) -> Selection:
    """The largest group of trials that share evaluation set, budget and lmbda, or the one chosen."""
    choice = choice or Choice()
    reasons = _unusable(frame, objectives)
    usable = frame[reasons == ""]
    if usable.empty:
        return Selection(usable, reasons, "")
    wanted = usable
    wanted = _keep(wanted, ["dataset", "dataset_hash"], choice.evaluation, "--eval")
    wanted = _keep(wanted, ["budget", "budget_id"], choice.budget, "--budget")
    if choice.lmbda is not None:
        wanted = _keep(wanted, ["lmbda"], choice.lmbda, "--lmbda")
    taken = _largest_group(wanted)
    for name, text in zip(_GROUP, ("evaluation set", "budget", "lmbda"), strict=True):
        other = (reasons == "") & (frame[name] != taken[name])
        reasons = reasons.mask(other, f"other {text}")
    return Selection(frame[reasons == ""], reasons, _message(usable, frame[reasons == ""]))


def average_seeds(rows: pd.DataFrame, by: Sequence[str] = ("arch_id", "curve_id")) -> pd.DataFrame:
    """One row per group: means of all numbers, `seeds` counts what went in.

    An architecture has several curves where its trials started from different weights.
    The rate savings are those of the averaged point; spec_ids are joined by ';'; it ended when its last trial
    did. Single rows stay untouched.
    """
    group = rows.groupby(list(by), sort=False, dropna=False).ngroup()
    seeds = group.groupby(group).transform("size")
    is_first = ~group.duplicated()
    averaged = rows[is_first].assign(seeds=seeds[is_first])
    several = averaged.index[averaged["seeds"] > 1]
    if len(several):
        for name, values in _means(rows[seeds > 1], group[seeds > 1]).items():
            averaged.loc[several, [name]] = values[:, None]
        savings = rate_savings_of(averaged.loc[several])
        averaged.loc[several, list(savings)] = savings
    return averaged.reset_index(drop=True)


def _means(rows: pd.DataFrame, group: pd.Series) -> dict[str, npt.NDArray[Any]]:
    """What averaging changes: column -> one value per group, in the order of their first rows."""
    groups = rows.groupby(group, sort=False)
    numbers = [c.name for c in COLUMNS if c.kind == "float" and c.name in rows]
    means = groups[numbers].mean()
    found: dict[str, npt.NDArray[Any]] = {name: means[name].to_numpy() for name in numbers}
    if "ended_at" in rows:
        found["ended_at"] = groups["ended_at"].max().to_numpy()
    return {**found, "spec_id": groups["spec_id"].agg(";".join).to_numpy(dtype=object)}


def distinct_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Labels that several architectures share get the start of the arch_id, to tell them apart."""
    shared = rows.groupby("label")["arch_id"].transform("nunique") > 1
    return rows.assign(label=rows["label"].where(~shared, rows["label"] + " #" + rows["arch_id"].str[:4]))


def _unusable(frame: pd.DataFrame, objectives: list[str]) -> pd.Series:
    reasons = pd.Series("", index=frame.index, dtype=object)
    for name in ["lmbda", *objectives]:
        reasons = reasons.mask(~np.isfinite(frame[name].astype("float64")), f"no value for {name}")
    reasons = reasons.mask(frame["status"] != "ok", "status " + frame["status"])
    return reasons.mask((reasons == "") & measured_again(frame), "the rate at which it was trained, again")


def measured_again(frame: pd.DataFrame) -> pd.Series:
    """Of each trial whether it measures weights at the rate at which they were trained: no second seed."""
    trained = (frame["weights_sha256"] == "") & (frame["status"] == "ok")
    if trained.all():
        return pd.Series(False, index=frame.index)
    point = [frame[name] for name in _POINT]
    return (frame["weights_sha256"] != "") & trained.groupby(point, dropna=False).transform("any")


def _keep(frame: pd.DataFrame, names: list[str], value: str | float | None, option: str) -> pd.DataFrame:
    if value is None:
        return frame
    kept = frame[(frame[names] == value).any(axis=1)]
    if kept.empty:
        known = sorted({str(entry) for name in names for entry in frame[name]})
        raise AnalysisError(f"{option} {value}: no usable trial has it; there are {', '.join(known)}")
    return kept


def _largest_group(frame: pd.DataFrame) -> pd.Series:
    """Most architectures; of equals the usual lmbda, then the newest code, then the first by name."""
    by_group = frame.groupby(_GROUP, sort=True)
    counts = by_group.agg(architectures=("arch_id", "nunique"), code=("semantics_version", "max"))
    groups = counts.reset_index()
    groups["away"] = (groups["lmbda"] - USUAL_LMBDA).abs()
    groups["code"] = groups["code"].fillna(0)
    order = ["architectures", "away", "code"]
    return groups.sort_values(order, ascending=[False, True, False], kind="stable").iloc[0]


def _message(usable: pd.DataFrame, taken: pd.DataFrame) -> str:
    parts = []
    for name, text, option in (
        ("dataset_hash", "evaluation sets", "--eval"),
        ("budget_id", "budgets", "--budget"),
        ("lmbda", "lmbdas", "--lmbda"),
    ):
        known = _names(usable, name)
        if len(known) > 1:
            chosen, every = known[taken[name].iloc[0]], list(known.values())
            shown = f"{text} {', '.join(every)}"
            if name == "lmbda" and len(every) > _NAMED_LMBDAS:
                shown = f"{len(every)} lmbdas from {every[0]} to {every[-1]}"
            parts.append(f"{shown}: taken {chosen} ({option} chooses)")
    if not parts:
        return ""
    count = taken["arch_id"].nunique()
    return f"not all trials are comparable: {'; '.join(parts)}; {count} architectures remain"


def _names(frame: pd.DataFrame, name: str) -> dict[str | float, str]:
    """Key -> what to call it: its name where that is unique, else name, what explains the difference, key."""
    if name == "lmbda":
        return {value: f"{value:g}" for value in sorted(frame["lmbda"].unique())}
    label = {"dataset_hash": "dataset", "budget_id": "budget"}[name]
    firsts = frame.sort_values([label, name]).drop_duplicates(name)
    alike = firsts[label].duplicated(keep=False) | (firsts[label] == "")
    versions = firsts["semantics_version"].nunique() > 1
    called = {}
    for (_, row), ambiguous in zip(firsts.iterrows(), alike, strict=True):
        why = ""
        if name == "budget_id":
            why += ", warm-started" if row["warm_start"] else ""
            why += f", code of version {row['semantics_version']}" if versions else ""
        called[row[name]] = f"{row[label]}{why} [{row[name]}]".strip() if ambiguous else row[label]
    return called
