"""Non-dominated sets: who is on the frontier, and by whom the others are beaten."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt


def frontier_mask(cost: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """cost: (n, k), every column low-is-better and finite -> (n,) bool; equal rows share one fate."""
    if len(cost) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(np.ascontiguousarray(cost), keep_weakly=True), dtype=bool)


def dominators(cost: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For every row the frontier row that dominates it, -1 for rows on the frontier.

    Of several, the one with the lowest cost in the first objective; then in the next ones.
    """
    best_first = [index for index in np.lexsort(cost.T[::-1]) if mask[index]]
    found = np.full(len(cost), -1, dtype=np.int64)
    for row in np.flatnonzero(~mask):
        found[row] = next(index for index in best_first if dominates(cost[index], cost[row]))
    return found


def dominates(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """Nowhere worse and somewhere better."""
    return bool(np.all(one <= other) and np.any(one < other))
