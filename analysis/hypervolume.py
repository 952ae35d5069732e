"""Hypervolume of a frontier: the volume that it dominates, up to a reference point, and how it grew.

Costs (operations, parameters, times, memory) count by their decimal logarithm, scores as they are
(analysis.objectives.log_scaled): the volume's unit is the product of the scores' units and decades.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import moocore
import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import AnalysisError
from analysis.objectives import costs, log_scaled, scaled, sign
from analysis.pareto import frontier_mask

# How far beyond the frontier's worst values the reference lies, so that the frontier's ends count too.
MARGIN = 0.1


@dataclasses.dataclass(frozen=True)
class Space:
    """Where volumes are measured.

    logs: which objectives count by log10. ideal, reference: (k,) best values of the frontier and the point up
    to which volume counts, as scaled costs. given: the objectives whose reference the user chose.
    """

    objectives: tuple[str, ...]
    logs: tuple[bool, ...]
    ideal: npt.NDArray[np.float64]
    reference: npt.NDArray[np.float64]
    given: tuple[str, ...] = ()

    def points(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """(n, k) scaled costs."""
        return scaled(costs(frame, self.objectives), self.logs)

    def volume(self, points: npt.NDArray[np.float64]) -> float:
        """Dominated volume of scaled costs (n, k); points that do not reach the reference add nothing."""
        return float(moocore.hypervolume(points, ref=self.reference)) if len(points) else 0.0

    def percent(self, volume: float) -> float:
        """Of the box from ideal to reference, which one point at the ideal would fill; NaN without box."""
        sides = self.reference - self.ideal
        return 100 * volume / float(np.prod(sides)) if (sides > 0).all() else float("nan")

    def reference_values(self) -> dict[str, float]:
        """The reference in the columns' own units."""
        values = [10**value if log else value for value, log in zip(self.reference, self.logs, strict=True)]
        return {name: sign(name) * value for name, value in zip(self.objectives, values, strict=True)}

    def describe(self) -> str:
        parts = []
        for (name, value), log in zip(self.reference_values().items(), self.logs, strict=True):
            how = ", log10" if log else ""
            parts.append(f"{name} {value:.4g} ({'given' if name in self.given else 'derived'}{how})")
        return "; ".join(parts)


def space_of(
    architectures: pd.DataFrame, objectives: Sequence[str], reference: Mapping[str, float] | None = None
) -> Space | None:
    """Where to measure the architectures' frontier (on_frontier); None where it has no extent.

    The reference is the worst value on the frontier and MARGIN of the frontier's range beyond it, per
    objective and on its scale, or of the range of all architectures where the frontier has one value; what
    `reference` names, in the column's unit, is taken as it is.
    """
    given = check_reference(reference or {}, objectives)
    logs = log_scaled(architectures, objectives)
    every = scaled(costs(architectures, objectives), logs)
    front = every[architectures["on_frontier"].to_numpy(dtype=bool)]
    if len(front) == 0:
        return None
    ideal, nadir = front.min(axis=0), front.max(axis=0)
    extent = np.where(nadir > ideal, nadir - ideal, every.max(axis=0) - every.min(axis=0))
    point = nadir + MARGIN * extent
    for k, name in enumerate(objectives):
        if name in given:
            point[k] = _scaled_reference(name, given[name], logs[k])
    if any(extent[k] == 0 and name not in given for k, name in enumerate(objectives)):
        return None
    return Space(tuple(objectives), logs, ideal, point, tuple(given))


def parse_reference(text: str) -> dict[str, float]:
    """'rd_loss=2,kmac_per_px_dec=500' -> values by name."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name.strip() in found:
            raise AnalysisError(f"--reference {text!r}: gives {name.strip()} twice; keep one")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise AnalysisError(
                f"--reference {part!r}: must be OBJECTIVE=NUMBER, such as rd_loss=2"
            ) from None
    return found


def check_reference(reference: Mapping[str, float], objectives: Sequence[str]) -> dict[str, float]:
    """The values, if they belong to objectives of this comparison and are finite."""
    for name, value in reference.items():
        if name not in objectives:
            raise AnalysisError(
                f"--reference {name}: is no objective here; objectives: {', '.join(objectives)}"
            )
        if not np.isfinite(value):
            raise AnalysisError(f"--reference {name}={value:g}: must be finite")
    return dict(reference)


def _scaled_reference(name: str, value: float, log: bool) -> float:
    if log and value <= 0:
        raise AnalysisError(f"--reference {name}={value:g}: counts by its logarithm; must be greater than 0")
    return float(np.log10(value)) if log else sign(name) * value


def history(trials: pd.DataFrame, architectures: pd.DataFrame, space: Space) -> pd.DataFrame:
    """One row per architecture in the order in which they were ready, and the hypervolume from then on.

    trials: those that were compared, with ended_at; an architecture is ready when the last of its trials
    (its seeds) has ended. Those without that time are left out. hypervolume_pct: of the box of `space`.
    """
    known = trials.assign(ended_at=trials["ended_at"].fillna(np.inf))
    ended_at = known.groupby(["arch_id", "curve_id"], sort=False)["ended_at"].max().replace(np.inf, np.nan)
    key = pd.MultiIndex.from_frame(architectures[["arch_id", "curve_id"]])
    rows = architectures.assign(ended_at=ended_at.reindex(key).to_numpy())
    rows = rows[rows["ended_at"].notna()].sort_values(["ended_at", "arch_id", "curve_id"], ignore_index=True)
    volumes, joined = _growth(space.points(rows), space)
    names = ["ended_at", "arch_id", "curve_id", "label", "family", *space.objectives]
    first = rows["ended_at"].min() if len(rows) else 0.0
    table = rows[names].assign(
        joined_frontier=joined,
        hypervolume=volumes,
        hypervolume_pct=[space.percent(volume) for volume in volumes],
    )
    table.insert(0, "architectures", np.arange(1, len(rows) + 1))
    table.insert(2, "hours", (rows["ended_at"] - first) / 3600)
    return table


def _growth(points: npt.NDArray[np.float64], space: Space) -> tuple[list[float], list[bool]]:
    """Volume after each point, and whether the point was non-dominated when it came."""
    front = np.empty((0, points.shape[1]))
    volume = 0.0
    volumes, joined = [], []
    for point in points:
        is_new = not bool((front <= point).all(axis=1).any())
        if is_new:
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            volume = space.volume(front)
        volumes.append(volume)
        joined.append(is_new)
    return volumes, joined


def total(architectures: pd.DataFrame, space: Space) -> float:
    """Hypervolume of all architectures."""
    points = space.points(architectures)
    return space.volume(points[frontier_mask(points)])
