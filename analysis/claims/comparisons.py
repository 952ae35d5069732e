"""Comparisons of families of architectures: in pairs, at equal cost, at their best, along the frontier."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.statistics import Array, Quantity

COMPONENTS = ("transform", "entropy_model", "hyper_transform")
# What changes results besides, without being one of the study's parts.
_ADDITIONS = ("gating", "rate_control")
# From here on pairs are resampled too, so that the interval speaks of other architectures as well.
MIN_PAIRS_RESAMPLED = 5
# CHARM needs a latent that its slices divide: widths rounded for that still count as equal.
LATENT_TOLERANCE = 0.1
# Ranges of decode cost narrower than this factor compare two points rather than two families.
MIN_OVERLAP_FACTOR = 1.1
_GRID = 48


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Rows (one, other) of architectures that differ in one component. ambiguous: left out, with twins."""

    rows: tuple[tuple[int, int], ...]
    ambiguous: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def one(self) -> list[int]:
        return [one for one, _ in self.rows]

    @property
    def other(self) -> list[int]:
        return [other for _, other in self.rows]


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Two families that differ in one component, and the range of ln cost that both cover."""

    name: str
    one: tuple[int, ...]
    other: tuple[int, ...]
    low: float
    high: float

    @property
    def factor(self) -> float:
        return math.exp(self.high - self.low)


# ---------------------------------------------------------------------------------------------- pairs


def matched_pairs(evidence: Evidence, component: str, one: str, other: str) -> Pairs:
    """Architectures alike but for one component: the other components, widths, latent and layers are equal.

    Layers belong to the transform: where it changes, the cheapest architecture of equal widths stands for
    each side. Otherwise several architectures that these columns cannot tell apart are left out.
    """
    rows = evidence.architectures
    keys = [name for name in (*COMPONENTS, "channels", "layers") if name != component]
    keys += [name for name in _ADDITIONS if name in rows]
    if component == "transform":
        keys.remove("layers")
    found: list[tuple[int, int]] = []
    ambiguous = 0
    known = rows[(rows["channels"] != "") & rows["latent_channels"].notna()]
    for _, group in known[known[component].isin([one, other])].groupby(keys, sort=False, dropna=False):
        if component == "transform":
            group = group.sort_values("cost", kind="stable").drop_duplicates([component, "latent_channels"])
        here, there = group[group[component] == one], group[group[component] == other]
        widths = group["latent_channels"].astype("float64").to_dict()
        for index in here.index:
            partners = _partners(there, widths[index])
            if len(partners) == 1 and len(_partners(here, widths[partners[0]])) == 1:
                found.append((int(index), partners[0]))
            elif partners:
                ambiguous += 1
    return Pairs(tuple(found), ambiguous)


def _partners(rows: pd.DataFrame, latent: float) -> list[int]:
    """Those of the same latent; without one, those within the tolerance."""
    width = rows["latent_channels"].to_numpy(dtype=np.float64)
    same = rows.index[width == latent]
    near = rows.index[np.abs(width - latent) <= LATENT_TOLERANCE * latent]
    return [int(index) for index in (same if len(same) else near)]


def pair_advantage(evidence: Evidence, pairs: Pairs, name: str) -> Quantity:
    """How much lower the loss of `one` is, in per cent of `other`'s: geometric mean over pairs."""
    one, other = pairs.one, pairs.other
    logs = np.log(evidence.loss[one] / evidence.loss[other])
    losses = evidence.loss_draws
    units = math.inf if evidence.scores is None else float(evidence.images)
    draws = None if losses is None else np.log(losses[:, one] / losses[:, other])
    if len(pairs) >= MIN_PAIRS_RESAMPLED:
        rng = np.random.default_rng(evidence.rng_seed + 1)
        chosen = rng.integers(len(pairs), size=(evidence.draws, len(pairs)))
        base = np.tile(logs, (evidence.draws, 1)) if draws is None else draws
        draws = np.take_along_axis(base, chosen, axis=1)
        units = min(units, len(pairs))
    drawn = None if draws is None else saving_pct(draws.mean(axis=1))
    return Quantity(name, "%", float(saving_pct(logs.mean())), drawn, units)


def pair_cost_factor(evidence: Evidence, pairs: Pairs, name: str) -> Quantity:
    """Geometric mean of cost of `one` over cost of `other`: counted, not measured."""
    logs = np.log(evidence.cost[pairs.one] / evidence.cost[pairs.other])
    return Quantity(name, "x", float(np.exp(logs.mean())), exact=True)


def pairs_cover(evidence: Evidence, pairs: Pairs) -> str:
    """Which noise an interval over these pairs holds."""
    if len(pairs) >= MIN_PAIRS_RESAMPLED:
        return evidence.covers(f"other pairs ({len(pairs)} resampled)")
    return f"{evidence.covers()}; these {len(pairs)} pairs alone, no others"


def pair_rows(evidence: Evidence, pairs: Pairs) -> tuple[dict[str, object], ...]:
    """One record per pair."""
    label = evidence.architectures["label"]
    return tuple(
        {
            "one": label[one],
            "other": label[other],
            "cost_one_kflop_per_px": evidence.cost[one],
            "cost_other_kflop_per_px": evidence.cost[other],
            "loss_one": evidence.loss[one],
            "loss_other": evidence.loss[other],
        }
        for one, other in pairs.rows
    )


# --------------------------------------------------------------------------------------- at equal cost


def strata(evidence: Evidence, component: str, one: str, other: str) -> list[Stratum]:
    """Families that differ in one component and whose ranges of cost overlap."""
    rest = [name for name in COMPONENTS if name != component]
    found = []
    for names, group in evidence.architectures.groupby(rest, sort=True):
        sides = [tuple(map(int, group.index[group[component] == value])) for value in (one, other)]
        if not all(sides):
            continue
        costs = [np.log(evidence.cost[list(side)]) for side in sides]
        low, high = max(cost.min() for cost in costs), min(cost.max() for cost in costs)
        if high - low >= math.log(MIN_OVERLAP_FACTOR):
            found.append(Stratum(" / ".join(map(str, names)), sides[0], sides[1], float(low), float(high)))
    return found


def attainable(cost: Array, chosen_by: Array, judged_by: Array, grid: Array) -> Array:
    """Least loss that a family reaches at costs of a grid: its frontier, linear in ln cost between points.

    cost: (n,). chosen_by: (draws, n) losses that say who is on the frontier. judged_by: (draws, n) losses of
    these. grid: (g,) ln cost within the family's own range. Beyond its best point a family keeps that point's
    loss, as it can be had for less. -> (draws, g).
    """
    order = np.lexsort([np.arange(len(cost)), cost])
    sides = np.log(cost[order])
    if len(grid) and (grid.min() < sides[0] - 1e-9 or grid.max() > sides[-1] + 1e-9):
        raise AssertionError("a family says nothing outside its own range of cost")
    choice, judged = chosen_by[:, order], judged_by[:, order]
    lowest = np.minimum.accumulate(choice, axis=1)
    best = np.maximum.accumulate(np.where(choice == lowest, np.arange(len(order)), 0), axis=1)
    # Of equal cost the best one counts, and of the rest those that improve on all that cost less.
    is_last = np.append(np.diff(sides) > 0, True)
    improves = np.diff(lowest[:, is_last], axis=1, prepend=np.inf) < 0
    losses = np.take_along_axis(judged, best[:, is_last], axis=1)
    sides = sides[is_last]
    return np.stack(
        [np.interp(grid, sides[keep], row[keep]) for row, keep in zip(losses, improves, strict=True)]
    )


def advantage_over_cost(evidence: Evidence, stratum: Stratum, chosen_by: Array, judged_by: Array) -> Array:
    """(draws, grid): how many per cent the loss of `one` is below that of `other` at equal cost."""
    grid = np.linspace(stratum.low, stratum.high, _GRID)
    one, other = list(stratum.one), list(stratum.other)
    ours = attainable(evidence.cost[one], chosen_by[:, one], judged_by[:, one], grid)
    theirs = attainable(evidence.cost[other], chosen_by[:, other], judged_by[:, other], grid)
    return saving_pct(np.log(ours / theirs))


def equal_cost_advantage(
    evidence: Evidence, found: Sequence[Stratum], names: Sequence[str]
) -> list[Quantity]:
    """One quantity per name: the overlap is cut into as many equal parts of ln cost; mean over strata."""

    def compute(chosen_by: Array, judged_by: Array) -> Array:
        return np.mean(
            [
                advantage_over_cost(evidence, stratum, chosen_by, judged_by)
                .reshape(len(chosen_by), len(names), -1)
                .mean(axis=2)
                for stratum in found
            ],
            axis=0,
        )

    return _cross_judged(evidence, compute, names)


def equal_cost_rows(evidence: Evidence, found: Sequence[Stratum]) -> tuple[dict[str, object], ...]:
    """One record per stratum and cost of the grid."""
    rows = []
    for stratum in found:
        one, other = evidence.halves
        advantages = advantage_over_cost(evidence, stratum, one, other)
        advantages += advantage_over_cost(evidence, stratum, other, one)
        costs = np.exp(np.linspace(stratum.low, stratum.high, _GRID))
        for cost, advantage in zip(costs, advantages.mean(axis=0) / 2, strict=True):
            record = {"families": stratum.name, "cost_kflop_per_px": float(cost)}
            rows.append({**record, "advantage_pct": float(advantage)})
    return tuple(rows)


def _cross_judged(
    evidence: Evidence, compute: Callable[[Array, Array], Array], names: Sequence[str]
) -> list[Quantity]:
    """Quantities of what is chosen by one half of the images and judged by the other, both ways round.

    compute: (draws, a) to choose by, (draws, a) to judge by -> (draws, names).
    """

    def both_ways(one: Array, other: Array) -> Array:
        return (compute(one, other) + compute(other, one)) / 2

    points = both_ways(*evidence.halves).mean(axis=0)
    draws = None if evidence.half_draws is None else both_ways(*evidence.half_draws)
    units = math.inf if evidence.scores is None else float(evidence.images)
    return [
        Quantity(name, "%", float(points[place]), None if draws is None else draws[:, place], units)
        for place, name in enumerate(names)
    ]


# ---------------------------------------------------------------------- at their best, and on the frontier


def best_advantage(evidence: Evidence, sides: Sequence[tuple[list[int], list[int]]], name: str) -> Quantity:
    """How many per cent the best loss of `one` is below the best of `other`; mean over (one, other)."""

    def best(chosen_by: Array, judged_by: Array, rows: list[int]) -> Array:
        place = chosen_by[:, rows].argmin(axis=1)
        return judged_by[np.arange(len(judged_by)), np.array(rows)[place]]

    def compute(chosen_by: Array, judged_by: Array) -> Array:
        logs = [
            np.log(best(chosen_by, judged_by, one) / best(chosen_by, judged_by, other))
            for one, other in sides
        ]
        return saving_pct(np.mean(logs, axis=0))[:, None]

    return _cross_judged(evidence, compute, [name])[0]


def frontier_share(
    evidence: Evidence, mask: npt.NDArray[np.bool_], low: float, high: float, name: str
) -> Quantity:
    """Share in per cent of a range of ln cost where the best affordable architecture is one of the mask's."""
    order = np.argsort(evidence.cost, kind="stable")
    sides = np.clip(np.append(np.log(evidence.cost[order]), high), low, high)
    widths = np.diff(sides)

    def compute(losses: Array) -> Array:
        lowest = np.minimum.accumulate(losses[:, order], axis=1)
        improves = np.ones_like(lowest, dtype=bool)
        improves[:, 1:] = np.diff(lowest, axis=1) < 0
        best = np.maximum.accumulate(np.where(improves, np.arange(len(order)), 0), axis=1)
        return np.asarray(100 * (mask[order][best] @ widths) / (high - low))

    losses = evidence.loss_draws
    units = math.inf if evidence.scores is None else float(evidence.images)
    return Quantity(
        name,
        "%",
        float(compute(evidence.loss[None, :])[0]),
        None if losses is None else compute(losses),
        units,
    )


def saving_pct(log_ratio: Array | float) -> Array:
    """ln(one / other) -> how many per cent one is below other."""
    return np.asarray(-100 * np.expm1(log_ratio))
