"""Comparisons of families of architectures: in pairs, at equal cost, at their best, along the frontier."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.statistics import DRAWS, Array, Quantity

COMPONENTS = ("transform", "entropy_model", "hyper_transform")
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
    if component == "transform":
        keys.remove("layers")
    found: list[tuple[int, int]] = []
    ambiguous = 0
    known = rows[(rows["channels"] != "") & rows["latent_channels"].notna()]
    for _, group in known[known[component].isin([one, other])].groupby(keys, sort=False):
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
        chosen = rng.integers(len(pairs), size=(DRAWS, len(pairs)))
        base = np.tile(logs, (DRAWS, 1)) if draws is None else draws
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
        return f"other pairs ({len(pairs)} resampled) and {evidence.covers()}"
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


def attainable(cost: Array, loss: Array, grid: Array) -> Array:
    """Least loss that a family reaches at costs of a grid: its frontier, linear in ln cost between points.

    cost: (n,). loss: (draws, n). grid: (g,) ln cost within the family's own range. Beyond its best point a
    family keeps that point's loss, as it can be had for less. -> (draws, g).
    """
    order = np.argsort(cost, kind="stable")
    sides, first = np.unique(np.log(cost[order]), return_index=True)
    if len(grid) and (grid.min() < sides[0] - 1e-9 or grid.max() > sides[-1] + 1e-9):
        raise AssertionError("a family says nothing outside its own range of cost")
    cheapest_first = np.minimum.reduceat(loss[:, order], first, axis=1)
    lowest = np.minimum.accumulate(cheapest_first, axis=1)
    improves = np.ones_like(lowest, dtype=bool)
    improves[:, 1:] = np.diff(lowest, axis=1) < 0
    return np.stack(
        [np.interp(grid, sides[keep], row[keep]) for row, keep in zip(lowest, improves, strict=True)]
    )


def advantage_over_cost(evidence: Evidence, stratum: Stratum, losses: Array) -> Array:
    """(draws, grid): how many per cent the loss of `one` is below that of `other` at equal cost."""
    grid = np.linspace(stratum.low, stratum.high, _GRID)
    one, other = list(stratum.one), list(stratum.other)
    ours = attainable(evidence.cost[one], losses[:, one], grid)
    theirs = attainable(evidence.cost[other], losses[:, other], grid)
    return saving_pct(np.log(ours / theirs))


def equal_cost_advantage(
    evidence: Evidence, found: Sequence[Stratum], names: Sequence[str]
) -> list[Quantity]:
    """One quantity per name: the overlap is cut into as many equal parts of ln cost; mean over strata."""
    points = _parts(evidence, found, evidence.loss[None, :], len(names))
    losses = evidence.loss_draws
    draws = None if losses is None else _parts(evidence, found, losses, len(names))
    units = math.inf if evidence.scores is None else float(evidence.images)
    return [
        Quantity(name, "%", float(points[0, part]), None if draws is None else draws[:, part], units)
        for part, name in enumerate(names)
    ]


def equal_cost_rows(evidence: Evidence, found: Sequence[Stratum]) -> tuple[dict[str, object], ...]:
    """One record per stratum and cost of the grid."""
    return tuple(
        {"families": stratum.name, "cost_kflop_per_px": float(cost), "advantage_pct": float(advantage)}
        for stratum in found
        for cost, advantage in zip(
            np.exp(np.linspace(stratum.low, stratum.high, _GRID)),
            advantage_over_cost(evidence, stratum, evidence.loss[None, :])[0],
            strict=True,
        )
    )


def _parts(evidence: Evidence, found: Sequence[Stratum], losses: Array, parts: int) -> Array:
    """(draws, parts)."""
    return np.mean(
        [
            advantage_over_cost(evidence, stratum, losses).reshape(len(losses), parts, -1).mean(axis=2)
            for stratum in found
        ],
        axis=0,
    )


# ---------------------------------------------------------------------- at their best, and on the frontier


def best_advantage(evidence: Evidence, sides: Sequence[tuple[list[int], list[int]]], name: str) -> Quantity:
    """How many per cent the best loss of `one` is below the best of `other`; mean over (one, other)."""

    def compute(losses: Array) -> Array:
        return np.mean(
            [
                saving_pct(np.log(losses[:, one].min(axis=1) / losses[:, other].min(axis=1)))
                for one, other in sides
            ],
            axis=0,
        )

    losses = evidence.loss_draws
    units = math.inf if evidence.scores is None else float(evidence.images)
    return Quantity(
        name,
        "%",
        float(compute(evidence.loss[None, :])[0]),
        None if losses is None else compute(losses),
        units,
    )


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
