"""The trials of one command, between the source that chooses them and the slots that run them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from sweep.jobs import Executor, Job, Outcome
from sweep.plan import PlannedTrial, SweepPlan
from sweep.progress import Display, Tally
from sweep.record import attempts
from sweep.search.source import Summary, TrialSource


class Trials:
    """Work of sweep.loop. plan: with all trials of the source so far, also those that had a result already.

    job_of: what runs a trial. record: writes down how one has ended, given how often it had ended before, and
    returns the summary. added: is told of trials that the plan did not have. work_of: see Tally.
    """

    def __init__(
        self,
        plan: SweepPlan,
        source: TrialSource,
        *,
        job_of: Callable[[SweepPlan, PlannedTrial], Job],
        record: Callable[[PlannedTrial, int, Outcome], Summary],
        added: Callable[[SweepPlan, list[PlannedTrial]], Any],
        work_of: Callable[[PlannedTrial], float],
        tally: Tally,
        display: Display,
    ) -> None:
        self.plan = plan
        self._source = source
        self._job_of, self._record, self._added, self._work_of = job_of, record, added, work_of
        self._tally, self._display = tally, display
        self._known = {trial.spec_id for trial in plan.trials}
        self._looked_at = 0  # of the source's trials
        self._waiting: deque[PlannedTrial] = deque()
        self._running: dict[str, tuple[PlannedTrial, int]] = {}  # with how often it had ended before

    @property
    def done(self) -> bool:
        """Also where only a timing, which needs empty slots, takes the source on."""
        idle = not self._waiting and not self._running
        return idle and (self._source.done or self._source.wants_times)

    def fill(self, executor: Executor) -> None:
        """Ask the source for what fits, and start it."""
        self._tally.slots = max(1, sum(node.slots for node in executor.nodes()))
        while True:
            self._ask(executor.free_slots())
            if not self._waiting or not executor.submit(self._job_of(self.plan, self._waiting[0])):
                return
            trial = self._waiting.popleft()
            self._running[trial.spec_id] = trial, attempts(trial)
            self._display.started(trial)

    def ended(self, outcome: Outcome) -> None:
        """Tell the source; a preempted trial waits to go on instead, and no attempt is counted."""
        spec_id = outcome.job.job_id
        trial, attempts_before = self._running[spec_id]
        result = self._record(trial, attempts_before, outcome)
        del self._running[spec_id]
        if result["status"] == "preempted":
            self._waiting.appendleft(trial)
        else:
            self._source.tell(spec_id, result)
            self._plan_new()  # also where nothing is asked for any more
        self._display.ended(trial, result)

    def _ask(self, free: int) -> None:
        room = max(free, 1 if self._source.eager else 0) - len(self._waiting)
        if room <= 0:
            return
        asked = self._source.ask(room)
        self._waiting += asked
        self._plan_new()
        unexpected = [trial for trial in asked if trial.spec_id not in self._tally.work]
        names = self.plan.names() if unexpected else {}
        for trial in unexpected:
            self._tally.expect(trial.spec_id, names[trial.spec_id], self._work_of(trial))

    def _plan_new(self) -> None:
        """What the source has chosen belongs to the sweep, whether or not anything of it has to run."""
        trials = self._source.trials()
        new = [trial for trial in trials[self._looked_at :] if trial.spec_id not in self._known]
        self._looked_at = len(trials)
        if new:
            self.plan = self.plan.with_trials(new)
            self._known |= {trial.spec_id for trial in new}
            self._added(self.plan, new)
