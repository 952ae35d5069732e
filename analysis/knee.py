"""Knee of a frontier: where giving a little of one objective no longer buys much of the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Below this share of the diagonal the bulge of a straight frontier is rounding.
_FLAT = 1e-9

DEFINITION = "the frontier point farthest below the chord between the frontier's ends"


def knee_mask(points: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(n,) bool: the knee of the frontier rows `mask` of points (n, 2), costs on the scales that count.

    Both objectives are normalised to 0..1 between the frontier's best and worst value. The knee is the point
    farthest below the chord between its two ends: Das, Structural Optimization 18 (1999), for two objectives.
    Of points equally far the one with the lowest cost in the first objective; rows equal to it are knees too.
    Nobody where no point lies below the chord: on a straight or outward bent frontier, or one of two points.
    """
    assert points.shape[1] == 2, "with more objectives the ends of a frontier do not span one plane"
    knees = np.zeros(len(points), dtype=bool)
    if not mask.any():
        return knees
    front = points[mask]
    low, high = front.min(axis=0), front.max(axis=0)
    if not (high > low).all():
        return knees
    below = 1 - ((points - low) / (high - low)).sum(axis=1)
    depth = below[mask].max()
    if depth <= _FLAT:
        return knees
    deepest = mask & (below >= depth - _FLAT)
    return deepest & (points[:, 0] == points[deepest, 0].min())
