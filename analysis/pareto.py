"""Non-dominated sets: who is on the frontier, by whom the others are beaten, and who is as good as needed.

Costs are arrays of shape (n, k), every column low-is-better and finite. Equal rows share one fate everywhere.
"""

from __future__ import annotations

import dataclasses

import moocore
import numpy as np
import numpy.typing as npt

from analysis.errors import AnalysisError

Costs = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Pairs of rows compared at a time: a few megabytes.
_BLOCK = 1 << 21


def frontier_mask(cost: Costs) -> Mask:
    """(n,) bool: dominated by no other row."""
    if len(cost) == 0:
        return np.zeros(0, dtype=bool)
    assert np.isfinite(cost).all(), "NaN and infinities have no place in an order; leave such rows out"
    return np.asarray(moocore.is_nondominated(np.ascontiguousarray(cost), keep_weakly=True), dtype=bool)


def ranks(cost: Costs) -> npt.NDArray[np.int64]:
    """(n,): 0 for the frontier, 1 for the frontier of what remains without it, and so on."""
    if len(cost) == 0:
        return np.zeros(0, dtype=np.int64)
    assert np.isfinite(cost).all(), "NaN and infinities have no place in an order; leave such rows out"
    return np.asarray(moocore.pareto_rank(np.ascontiguousarray(cost)), dtype=np.int64)


def dominators(cost: Costs, mask: Mask) -> npt.NDArray[np.int64]:
    """For every row the frontier row that dominates it, -1 for rows on the frontier.

    Of several, the one with the lowest cost in the first objective; then in the next ones; then the first.
    mask: (n,) bool, the frontier.
    """
    best_first = np.flatnonzero(mask)[np.lexsort(cost[mask].T[::-1])]
    beaten = np.flatnonzero(~mask)
    found = np.full(len(cost), -1, dtype=np.int64)
    # The best that is no worse in all objectives but the first is no worse in the first either: any dominator
    # of the row comes after it in that order.
    if cost.shape[1] == 2:
        places = np.searchsorted(-cost[best_first, 1], -cost[beaten, 1], side="left")
    else:
        places = _first_no_worse(cost[best_first, 1:], cost[beaten, 1:])
    found[beaten] = best_first[places]
    return found


def _first_no_worse(candidates: Costs, rows: Costs) -> npt.NDArray[np.int64]:
    """For every row the place of the first candidate that is nowhere worse; every row has one."""
    places = np.full(len(rows), -1, dtype=np.int64)
    left = np.arange(len(rows))
    for start in range(0, len(candidates), 256):
        block = candidates[start : start + 256]
        hopeful = left[(rows[left] >= block.min(axis=0)).all(axis=1)]
        for part in np.array_split(hopeful, 1 + len(hopeful) * len(block) // _BLOCK):
            no_worse = np.ones((len(part), len(block)), dtype=bool)
            for objective in range(rows.shape[1]):
                no_worse &= block[None, :, objective] <= rows[part, None, objective]
            hit = no_worse.any(axis=1)
            places[part[hit]] = start + no_worse[hit].argmax(axis=1)
        left = left[places[left] < 0]
    return places


def dominates(one: Costs, other: Costs) -> bool:
    """Nowhere worse and somewhere better."""
    return bool(np.all(one <= other) and np.any(one < other))


@dataclasses.dataclass(frozen=True)
class Epsilon:
    """How much worse still counts as equal, in one objective.

    relative: `value` is a share of the number itself (0.02 for 2 %), otherwise it is in the objective's unit.
    """

    value: float
    relative: bool

    def __post_init__(self) -> None:
        if not (0 <= self.value < np.inf):
            raise AnalysisError(f"epsilon {self.value:g}: must be 0 or greater, and finite")

    @classmethod
    def parse(cls, text: str) -> Epsilon:
        """'2%' is relative, '0.05' absolute."""
        number = text.strip().removesuffix("%")
        try:
            value = float(number)
        except ValueError:
            raise AnalysisError(
                f"epsilon {text!r}: must be a number such as 0.05, or per cent such as 2%"
            ) from None
        relative = text.strip().endswith("%")
        return cls(value / 100 if relative else value, relative)

    def __str__(self) -> str:
        return f"{100 * self.value:g} %" if self.relative else f"{self.value:g}"


def epsilon_limits(cost: Costs, epsilons: tuple[Epsilon, ...]) -> Costs:
    """(n, k): the highest cost with which another row still epsilon-dominates this one.

    A negative cost is that of an objective of which more is better: there the other may have 1/(1 + epsilon)
    of it (Laumanns, Thiele, Deb & Zitzler, Evolutionary Computation 10(3), 2002, section 3).
    """
    limits = np.empty_like(cost)
    for k, epsilon in enumerate(epsilons):
        column = cost[:, k]
        factor = 1 + epsilon.value
        scaled = np.where(column >= 0, column * factor, column / factor)
        limits[:, k] = scaled if epsilon.relative else column + epsilon.value
    return limits


def epsilon_mask(cost: Costs, epsilons: tuple[Epsilon, ...]) -> Mask:
    """(n,) bool: an epsilon-Pareto set, frontier rows of which one epsilon-dominates each row of all.

    From the lowest cost in the last objective on: each row that is not covered yet is represented by the row
    with the lowest cost in the first objective among those that epsilon-dominate it. With two objectives no
    such set is smaller; with more, finding the smallest is NP-hard, and this one merely has the property
    (Koltun & Papadimitriou, Theoretical Computer Science 371, 2007). The order of the rows is of no
    influence; rows equal to a kept one are kept.
    """
    frontier = np.flatnonzero(frontier_mask(cost))
    points, first_of = np.unique(cost[frontier][:, ::-1], axis=0, return_inverse=True)
    points = np.ascontiguousarray(points[:, ::-1])  # lowest last objective first, each value once
    limits = epsilon_limits(points, epsilons)
    covered = np.zeros(len(points), dtype=bool)
    kept = np.zeros(len(points), dtype=bool)
    for row in range(len(points)):
        if covered[row]:
            continue
        fitting = np.flatnonzero((points <= limits[row]).all(axis=1))
        best = fitting[np.lexsort(points[fitting].T[::-1])[0]]
        kept[best] = True
        covered |= (points[best] <= limits).all(axis=1)
    mask = np.zeros(len(cost), dtype=bool)
    mask[frontier] = kept[first_of.reshape(-1)]
    return mask
