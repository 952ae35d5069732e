"""Keeps the slots busy, one short turn after the other, until the work is done or the sweep has to end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from sweep.drain import Drain
from sweep.jobs import Executor, Job, Outcome
from sweep.machines import Nodes

_POLL_S = 0.2


class Work(Protocol):
    """What the slots are filled with."""

    @property
    def done(self) -> bool:
        """Whether nothing waits and nothing will."""

    def fill(self, executor: Executor) -> None:
        """Submit what waits, as far as there are slots."""

    def ended(self, outcome: Outcome) -> None:
        """One of its jobs has ended."""


class Jobs:
    """Work that is known from the start."""

    def __init__(self, jobs: Iterable[Job], on_end: Callable[[Outcome], None]) -> None:
        self._waiting = deque(jobs)
        self._on_end = on_end

    @property
    def done(self) -> bool:
        return not self._waiting

    def fill(self, executor: Executor) -> None:
        for job in list(self._waiting):
            if executor.submit(job):
                self._waiting.remove(job)
            elif job.node is None:  # it fits anywhere and finds no slot: neither will the next one
                return

    def ended(self, outcome: Outcome) -> None:
        self._on_end(outcome)


class Loop:
    """rest: what else there is to do at every turn. ended_early: whether work was left undone."""

    def __init__(self, executor: Executor, drain: Drain, nodes: Nodes, rest: Callable[[], None]) -> None:
        self._executor, self._drain, self._nodes, self._rest = executor, drain, nodes, rest
        self._preempted = False  # whether running jobs were asked to end
        self.ended_early = False

    def run(self, work: Work) -> None:
        """Until everything that was submitted has ended, and all work is done unless the sweep has to end."""
        while True:
            draining = self._draining()
            if not draining:
                self._nodes.check_new()
                work.fill(self._executor)
            if not self._executor.running() and (draining or work.done):
                self.ended_early |= self._preempted or not work.done
                return
            for outcome in self._executor.poll(_POLL_S):
                if not self._nodes.took(outcome):
                    work.ended(outcome)
            self._rest()

    def _draining(self) -> bool:
        """Whether no job may start any more; running ones are asked to end if there is no time for them."""
        if self._drain.reason() is None:
            return False
        if self._drain.now and not self._preempted:
            self._preempted = True
            self._executor.preempt()
        return True
