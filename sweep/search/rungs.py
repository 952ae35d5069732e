"""Who may train on: asynchronous successive halving by non-dominated rank.

Every architecture trains to the first rung. Among those that have reached a rung, the best share 1/eta may go
on, best by non-dominated rank over (validation rd_loss there, exactly known cost); inside a front, the less
crowded go first. Nobody waits for anybody: each arrival may promote someone, and nothing that was promoted is
taken back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdc.files import append_jsonl, read_jsonl

RUNGS_FILE = "rungs.jsonl"  # in the sweep's folder: what reached which step, and what was promoted from there

Values = tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """An architecture at a rung. values: low is better. order: how many had arrived before it."""

    key: str
    values: Values
    order: int


class Rungs:
    """What is known of the rungs; all of it follows from the calls of `arrived` and `promoted`.

    steps: where trainings pause, rising. eta: one in eta goes on.
    """

    def __init__(self, steps: Sequence[int], eta: float) -> None:
        assert list(steps) == sorted(set(steps)), f"rungs rise: {steps}"
        self.steps = tuple(steps)
        self._eta = eta
        self._arrivals: dict[int, dict[str, Arrival]] = {step: {} for step in steps}
        self._promoted: dict[int, set[str]] = {step: set() for step in steps}

    def arrived(self, key: str, step: int, values: Values) -> None:
        """The architecture has trained to a rung, and past those below. A second arrival changes nothing."""
        at = self._arrivals[step]
        at.setdefault(key, Arrival(key=key, values=values, order=len(at)))
        for lower in self.steps[: self.steps.index(step)]:
            self._promoted[lower].add(key)

    def promoted(self, key: str, step: int) -> None:
        """The architecture trains on from the rung at this step."""
        self._promoted[step].add(key)

    def finished(self, key: str) -> None:
        """The architecture has trained to its end, by whatever command."""
        for step in self.steps:
            self._promoted[step].add(key)

    def promotable(self, *, last: bool = False) -> list[tuple[str, int]]:
        """(architecture, step of its rung) of those that may train on now, the furthest first.

        last: nothing more will arrive; then at least one of each rung that was reached goes on.
        """
        found = []
        for step in reversed(self.steps):
            arrivals = self._arrivals[step]
            room = math.floor(len(arrivals) / self._eta)
            if last and arrivals and not self._promoted[step] & arrivals.keys():
                room = max(1, room)
            best = ranked(list(arrivals.values()))[:room]
            found += [(a.key, step) for a in best if a.key not in self._promoted[step]]
        return found

    def has_arrived(self, key: str, step: int) -> bool:
        return key in self._arrivals[step]

    def last_promotion(self, key: str) -> int:
        """The furthest rung from which the architecture was promoted; 0 if from none."""
        return max((step for step, keys in self._promoted.items() if key in keys), default=0)

    def stopped(self) -> dict[str, int]:
        """Architecture -> step, of those that wait at a rung."""
        return {
            key: step
            for step, arrivals in self._arrivals.items()
            for key in arrivals
            if key not in self._promoted[step]
        }

    def next_step(self, step: int) -> int | None:
        """The rung after this one (0: the first); None for the end of training."""
        return next((rung for rung in self.steps if rung > step), None)


def ranked(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """The best first: by front, then the less crowded, then who came first."""
    ordered: list[Arrival] = []
    for front in fronts(arrivals):
        crowding = crowding_distances([arrival.values for arrival in front])
        places = sorted(range(len(front)), key=lambda i: (-crowding[i], front[i].order))
        ordered += [front[place] for place in places]
    return ordered


def fronts(arrivals: Sequence[Arrival]) -> list[list[Arrival]]:
    """Non-dominated fronts, the best first. NaN is worse than any number."""
    if not arrivals:
        return []
    values = np.array([[_number(value) for value in arrival.values] for arrival in arrivals])
    no_worse = np.all(values[:, None] <= values[None], axis=2)
    better = np.any(values[:, None] < values[None], axis=2)
    dominates = no_worse & better  # [i, j]: i dominates j
    found, left = [], np.ones(len(arrivals), dtype=bool)
    while left.any():
        front = left & ~dominates[left].any(axis=0)
        found.append([arrivals[i] for i in np.flatnonzero(front)])
        left &= ~front
    return found


def crowding_distances(front: Sequence[Values]) -> list[float]:
    """How far the neighbours of each point of a front are, as in NSGA-II; the ends are infinitely far."""
    distances = [0.0] * len(front)
    for axis in range(len(front[0]) if front else 0):
        order = sorted(range(len(front)), key=lambda i: _number(front[i][axis]))
        low, high = _number(front[order[0]][axis]), _number(front[order[-1]][axis])
        distances[order[0]] = distances[order[-1]] = math.inf
        if high > low and math.isfinite(high - low):
            for before, here, after in zip(order, order[1:], order[2:], strict=False):
                distances[here] += (front[after][axis] - front[before][axis]) / (high - low)
    return distances


class RungsRecord:
    """rungs.jsonl: one line per arrival and per promotion, so that a later command knows all of them.

    study: only architectures of one study are compared; others in the same folder had other budgets.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self._path = folder / RUNGS_FILE
        self._study = study

    def replay(self, rungs: Rungs) -> None:
        """Tell `rungs` what earlier commands saw. Lines of other rungs than today's are left aside."""
        for line in read_jsonl(self._path):
            if line["study"] != self._study or line["step"] not in rungs.steps:
                continue
            if line["event"] == "arrived":
                rungs.arrived(line["arch_id"], line["step"], tuple(_or_nan(v) for v in line["values"]))
            else:
                rungs.promoted(line["arch_id"], line["step"])

    def arrived(self, key: str, step: int, values: Values) -> None:
        plain = [value if math.isfinite(value) else None for value in values]
        self._append({"event": "arrived", "arch_id": key, "step": step, "values": plain})

    def promoted(self, key: str, step: int) -> None:
        self._append({"event": "promoted", "arch_id": key, "step": step})

    def _append(self, line: dict[str, Any]) -> None:
        _end_the_last_line(self._path)
        append_jsonl(self._path, {"study": self._study, **line})


def _end_the_last_line(path: Path) -> None:
    """Cut what a driver killed in the middle of a line left."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _number(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)
