"""The sweep's progress in a few numbers per ended trial, kept up to date one trial at a time."""

from __future__ import annotations

import bisect
import collections
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sweep.tracking.content import Point


class Ended(NamedTuple):
    """What the sweep's own run needs to know of a trial that has ended; JSON types."""

    status: str
    arch_id: str
    ended_at: float  # unix time of the result file: later results are later, and failed ones have it too
    lmbda: float | None
    rd_loss: float | None  # of a valid trial

    @classmethod
    def of(cls, result: Mapping[str, Any], ended_at: float) -> Ended:
        valid = result["status"] == "ok"
        return cls(
            status=str(result["status"]),
            arch_id=str(result.get("arch_id") or ""),
            ended_at=ended_at,
            lmbda=(result.get("spec") or {}).get("lmbda"),
            rd_loss=float(result["evaluation"]["rd_loss"]) if valid else None,
        )


class Progress:
    """After the n-th ended trial (step n): how many without a valid point, and the best rd_loss so far.

    Values of rd_loss compare only at one lmbda: a sweep over several has no best one.
    """

    def __init__(self) -> None:
        self._ended: dict[str, Ended] = {}
        self._order: list[tuple[float, str]] = []  # by the time of the end
        self._lmbdas: collections.Counter[float | None] = collections.Counter()
        self._totals: list[tuple[int, float]] = []  # after each in the order: invalid ones, best rd_loss
        self._best: str | None = None
        self.valid = 0

    def __len__(self) -> int:
        return len(self._order)

    def put(self, spec_id: str, ended: Ended) -> None:
        """The trial has ended; it may have ended otherwise before."""
        if self._ended.get(spec_id) == ended:
            return
        self.drop(spec_id)
        self._ended[spec_id] = ended
        self._lmbdas[ended.lmbda] += 1
        place = (ended.ended_at, spec_id)
        bisect.insort(self._order, place)
        del self._totals[bisect.bisect_left(self._order, place) :]
        if ended.status == "ok":
            self.valid += 1
            if self._best is None or self._loss(spec_id) < self._loss(self._best):
                self._best = spec_id

    def drop(self, spec_id: str) -> None:
        """The trial's result is gone."""
        ended = self._ended.pop(spec_id, None)
        if ended is None:
            return
        index = bisect.bisect_left(self._order, (ended.ended_at, spec_id))
        del self._order[index]
        del self._totals[index:]
        self._lmbdas[ended.lmbda] -= 1
        self._lmbdas += collections.Counter()  # without those that are down to 0
        self.valid -= ended.status == "ok"
        if self._best == spec_id:
            self._best = min(
                (s for s, e in self._ended.items() if e.status == "ok"), key=self._loss, default=None
            )

    @property
    def best(self) -> str | None:
        """The valid trial of the lowest rd_loss, where that can be said."""
        return self._best if len(self._lmbdas) == 1 else None

    def points(self, after_step: int) -> list[Point]:
        """The curves' values at the steps above after_step."""
        self._add_up()
        points: list[Point] = []
        comparable = len(self._lmbdas) == 1
        for index in range(after_step, len(self._order)):
            (ended_at, _), (invalid, best) = self._order[index], self._totals[index]
            number, t_ms = index + 1, round(1000 * ended_at)
            points.append(Point("sweep/trials_ended", float(number), number, t_ms))
            points.append(Point("sweep/trials_without_valid_point", float(invalid), number, t_ms))
            if comparable and math.isfinite(best):
                points.append(Point("sweep/best_rd_loss", best, number, t_ms))
        return points

    def _add_up(self) -> None:
        invalid, best = self._totals[-1] if self._totals else (0, math.inf)
        for _, spec_id in self._order[len(self._totals) :]:
            ended = self._ended[spec_id]
            invalid += ended.rd_loss is None
            best = min(best, ended.rd_loss if ended.rd_loss is not None else math.inf)
            self._totals.append((invalid, best))

    def _loss(self, spec_id: str) -> float:
        loss = self._ended[spec_id].rd_loss
        return math.inf if loss is None else loss
