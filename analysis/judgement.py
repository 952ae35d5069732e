"""What there is to say about a frontier beyond who is on it: knee, epsilon, and how sure it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import knee, text
from analysis.errors import AnalysisError
from analysis.objectives import costs, log_scaled, scaled
from analysis.pareto import Epsilon, epsilon_mask
from analysis.schema import column
from analysis.uncertainty import NEAR, Bootstrap, bootstrap


@dataclasses.dataclass(frozen=True)
class Rules:
    """epsilons: one for all objectives or one each; empty for none. bootstrap: how it is estimated."""

    epsilons: tuple[Epsilon, ...] = ()
    bootstrap: Bootstrap = dataclasses.field(default_factory=Bootstrap)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """architectures: with the columns that were found. findings: heads and sentences, in reading order."""

    architectures: pd.DataFrame
    findings: tuple[tuple[str, str], ...]

    def shown(self, frontier: pd.DataFrame) -> pd.DataFrame:
        """The frontier rows worth a line: all, or those that represent the others to within epsilon."""
        asked = frontier["on_epsilon_frontier"].notna()
        return frontier[~asked | frontier["on_epsilon_frontier"].fillna(value=False)]


def judge(
    architectures: pd.DataFrame,
    trials: pd.DataFrame,
    images: pd.DataFrame,
    objectives: Sequence[str],
    rules: Rules | None = None,
) -> Judgement:
    """Add is_knee, on_epsilon_frontier, frontier_probability, rd_loss_low and rd_loss_high.

    architectures: ranked. trials: the compared ones. images: their per-image scores.
    """
    rules = rules or Rules()
    if architectures.empty:
        empty = {name: pd.Series(dtype="boolean") for name in ("is_knee", "on_epsilon_frontier")}
        scores = dict.fromkeys(("frontier_probability", "rd_loss_low", "rd_loss_high"), np.nan)
        return Judgement(architectures.assign(**empty, **scores), ())
    kept, about_epsilon = _epsilon(architectures, objectives, rules.epsilons)
    found = bootstrap(trials, architectures, images, objectives, rules.bootstrap)
    judged = architectures.assign(
        is_knee=knees(architectures, objectives),
        on_epsilon_frontier=kept,
        frontier_probability=found.probability,
        rd_loss_low=found.rd_loss_low,
        rd_loss_high=found.rd_loss_high,
    )
    about_sureness = (
        [("P(frontier)", found.text)] if found.text else [("P(frontier)", f"not known: {found.missing}")]
    )
    return Judgement(
        judged, (*about_epsilon, _about_knee(judged, objectives), *about_sureness, *_near(judged))
    )


def knees(architectures: pd.DataFrame, objectives: Sequence[str]) -> pd.Series:
    """boolean column, empty where there is no such thing as a knee. architectures: ranked."""
    if len(objectives) > 2:
        return pd.Series(pd.NA, index=architectures.index, dtype="boolean")
    points = scaled(costs(architectures, objectives), log_scaled(architectures, objectives))
    found = knee.knee_mask(points, architectures["on_frontier"].to_numpy(dtype=bool))
    return pd.Series(found, index=architectures.index, dtype="boolean")


def _about_knee(architectures: pd.DataFrame, objectives: Sequence[str]) -> tuple[str, str]:
    """architectures: with is_knee."""
    if len(objectives) > 2:
        return "knee", "none: with more than two objectives the ends of a frontier do not span one plane"
    logs = log_scaled(architectures, objectives)
    axes = ", ".join(f"log10 {n}" if log else n for n, log in zip(objectives, logs, strict=True))
    names = architectures["label"][architectures["is_knee"].fillna(value=False)]
    if names.empty:
        return "knee", f"none: no frontier point lies below the chord between its ends, in normalised {axes}"
    return "knee", f"{text.some(names)}: {knee.DEFINITION}, in normalised {axes}"


def _epsilon(
    architectures: pd.DataFrame, objectives: Sequence[str], epsilons: tuple[Epsilon, ...]
) -> tuple[pd.Series, list[tuple[str, str]]]:
    """boolean column, empty where no epsilon was asked for, and a sentence."""
    if not epsilons:
        return pd.Series(pd.NA, index=architectures.index, dtype="boolean"), []
    each = check_epsilons(architectures, objectives, epsilons)
    kept = epsilon_mask(costs(architectures, objectives), each)
    on_frontier = architectures["on_frontier"].to_numpy(dtype=bool)
    said = ", ".join(f"{name} {epsilon}" for name, epsilon in zip(objectives, each, strict=True))
    sentence = f"{kept.sum()} of {on_frontier.sum()} represent the frontier to within {said}"
    rest = architectures["label"][on_frontier & ~kept]
    if len(rest):
        sentence += f"; not listed: {text.some(rest)}"
    return pd.Series(kept, index=architectures.index, dtype="boolean"), [("epsilon", sentence)]


def check_epsilons(
    architectures: pd.DataFrame, objectives: Sequence[str], epsilons: tuple[Epsilon, ...]
) -> tuple[Epsilon, ...]:
    """One per objective; refuses per cent where they mean nothing."""
    each = epsilons * len(objectives) if len(epsilons) == 1 else epsilons
    if len(each) != len(objectives):
        raise AnalysisError(
            f"--epsilon has {len(epsilons)} values; give one for all, or one each for {', '.join(objectives)}"
        )
    for name, epsilon in zip(objectives, each, strict=True):
        unit = column(name).unit
        if epsilon.relative and unit in ("dB", "%"):
            raise AnalysisError(f"--epsilon {epsilon} of {name}: its unit is {unit}; give a number in {unit}")
        if epsilon.relative and not (architectures[name] > 0).all():
            raise AnalysisError(
                f"--epsilon {epsilon} of {name}: has values of 0 or less, of which per cent mean nothing; "
                "give a number in its unit"
            )
    return each


def _near(architectures: pd.DataFrame) -> list[tuple[str, str]]:
    """The dominated ones that may well belong on the frontier, likeliest first."""
    probability = architectures["frontier_probability"].to_numpy(dtype=np.float64)
    near = architectures[~architectures["on_frontier"] & (probability >= NEAR)]
    if near.empty:
        return []
    first = near.sort_values("frontier_probability", ascending=False, kind="stable")
    names = [f"{row.label} ({row.frontier_probability:.0%})" for row in first.head(4).itertuples()]
    more = f", and {len(near) - 4} more" if len(near) > 4 else ""
    return [("nearly on it", f"{', '.join(names)}{more}: dominated, yet P >= {NEAR:.0%} (trials.csv)")]
