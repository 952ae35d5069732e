"""The search: asks the study what to train, trains nothing twice, and tells the study the results.

An architecture has one Optuna trial, whatever its seeds, rungs and interruptions. Trials with the attribute
`dup_of` are suggestions that were met before; rejected ones carry `rejected` and their violations.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rdc.result import read_rung
from sweep.plan import PlannedTrial
from sweep.search.asked import Architecture, Choose, Refused
from sweep.search.objectives import Objectives
from sweep.search.rungs import Rungs, RungsRecord
from sweep.search.source import Summary
from sweep.search.space import Params, Point, Space
from sweep.search.study import PastTrial, Study

_MAX_REPEATS = 20  # suggestions in a row that were trained already, before a random unseen point is taken
_MAX_REJECTED = 200
_MAX_DRAWN = 1000
_REJECTED = "rejected"


@dataclasses.dataclass
class _Entry:
    """An architecture that the search trains. number: its trial in the study while that runs."""

    architecture: Architecture
    params: Params
    number: int | None
    values: tuple[float, ...] | None = None  # told to the study
    left: set[str] = dataclasses.field(default_factory=set)  # spec_ids that are queued or run
    results: dict[str, Summary] = dataclasses.field(default_factory=dict)
    paused: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)  # step, validation rd_loss
    stop_at: int | None = None


class Search:
    """A TrialSource. wanted: how many distinct architectures. read: the summary of a finished trial's result.

    times: of an architecture that was timed, in ms by the names of columns; else None. recall: the planned
    trial of an earlier command by its spec_id. rungs: None trains everything to its end.
    """

    eager = False
    to_come = 0  # nothing that is chosen waits for others

    def __init__(
        self,
        *,
        study: Study,
        space: Space,
        objectives: Objectives,
        wanted: int,
        seed: int,
        choose: Choose,
        read: Callable[[PlannedTrial], Summary | None],
        times: Callable[[PlannedTrial], Mapping[str, float] | None],
        recall: Callable[[str], PlannedTrial | None],
        rungs: Rungs | None,
        record: RungsRecord,
        say: Callable[[str], None],
    ) -> None:
        self._study, self._space, self._objectives = study, space, objectives
        self._wanted = wanted
        self._choose, self._read, self._times, self._recall_trial = choose, read, times, recall
        self._rungs, self._record = rungs, record
        self._say = say
        self._entries: dict[str, _Entry] = {}  # by arch_id
        self._of_spec: dict[str, _Entry] = {}
        self._trials: list[PlannedTrial] = []  # of all entries, in the order in which they were added
        self._seen: dict[Point, str] = {}  # arch_id, or _REJECTED
        self._queue: deque[PlannedTrial] = deque()
        self._running: set[str] = set()
        self._untimed: list[_Entry] = []  # trained, and told to the study once their times are known
        self._exhausted = False
        self._repeats = self._rejected = 0
        history = study.history()
        self._random = np.random.default_rng([seed, len(history)])
        self._take_up(history)

    # What the driver calls

    @property
    def done(self) -> bool:
        if self._queue or self._running or self._untimed or self._wants_more():
            return False
        return self._rungs is None or not self._rungs.promotable(last=True)

    def ask(self, free_slots: int) -> list[PlannedTrial]:
        asked: list[PlannedTrial] = []
        if self._untimed:
            return asked
        while len(asked) < free_slots and (self._queue or self._fill_queue()):
            asked.append(self._queue.popleft())
            self._running.add(asked[-1].spec_id)
        return asked

    def trials(self) -> Sequence[PlannedTrial]:
        return self._trials

    def tell(self, spec_id: str, result: Mapping[str, Any]) -> None:
        self._running.discard(spec_id)
        entry = self._of_spec[spec_id]
        entry.left.discard(spec_id)
        if result["status"] == "paused":
            trial = next(t for t in entry.architecture.trials if t.spec_id == spec_id)
            rd_loss = _rd_loss(read_rung(trial.folder, spec_id=spec_id))
            entry.paused[spec_id] = int(result["step"]), rd_loss
        else:
            entry.results[spec_id] = dict(result)
        if not entry.left:
            self._leg_ended(entry)

    @property
    def wants_times(self) -> bool:
        return bool(self._untimed)

    def timed(self) -> None:
        untimed, self._untimed = self._untimed, []
        for entry in untimed:
            self._tell_study(entry)

    def stopped(self) -> dict[str, int]:
        waiting = self._rungs.stopped() if self._rungs is not None else {}
        return {
            trial.spec_id: step
            for arch_id, step in waiting.items()
            if arch_id in self._entries
            for trial in self._entries[arch_id].architecture.trials
            if trial.spec_id not in self._entries[arch_id].results
        }

    def not_run(self) -> list[str]:
        """A failed trial keeps no other from running."""
        return []

    def close(self) -> None:
        """Tell the study of those that were stopped early, unless the search goes on in a later command."""
        if not self.done:
            return
        self._study.close()
        stopped = self.stopped()
        for entry in self._entries.values():
            steps = [stopped[t.spec_id] for t in entry.architecture.trials if t.spec_id in stopped]
            if steps and entry.number is not None:
                self._study.note(entry.number, stopped_at_step=steps[0])
                self._study.prune(entry.number)
                entry.number = None
        self._say(self.text())

    # For messages

    def text(self) -> str:
        """Counts, in a line."""
        parts = [f"{len(self._entries)} of {self._wanted} architectures"]
        if self._repeats:
            parts.append(f"{self._repeats} repeated suggestions answered without training")
        if self._rejected:
            parts.append(f"{self._rejected} rejected before training")
        return f"search: {', '.join(parts)}"

    # What comes next

    def _wants_more(self) -> bool:
        return len(self._entries) < self._wanted and not self._exhausted

    def _fill_queue(self) -> bool:
        """Queue the next architecture's trials; False if that has to wait, or nothing is left."""
        while True:
            if self._promote(last=False):
                return True
            if not self._wants_more():
                break
            entry = self._suggest()
            if entry is not None and self._continue(entry):
                return True
        return not self._running and self._promote(last=True)

    def _promote(self, *, last: bool) -> bool:
        promotable = self._rungs.promotable(last=last) if self._rungs is not None else []
        for arch_id, step in promotable:
            assert self._rungs is not None, "only rungs promote"
            self._rungs.promoted(arch_id, step)
            self._record.promoted(arch_id, step)
            entry = self._entries.get(arch_id)
            if entry is not None and self._continue(entry):
                return True
        return False

    def _continue(self, entry: _Entry) -> bool:
        """Queue what the architecture has to run next; False if nothing, as it has all its results."""
        trials = entry.architecture.trials
        for trial in trials:
            found = self._read(trial)
            if found is not None:
                entry.results[trial.spec_id] = found
        missing = [trial for trial in trials if trial.spec_id not in entry.results]
        if not missing:
            if self._rungs is not None:
                self._rungs.finished(entry.architecture.arch_id)
            self._complete(entry)
            return False
        entry.stop_at = self._next_stop(entry.architecture.arch_id)
        entry.left = {trial.spec_id for trial in missing}
        entry.paused.clear()
        self._queue += [dataclasses.replace(trial, stop_at_step=entry.stop_at) for trial in missing]
        return True

    def _next_stop(self, arch_id: str) -> int | None:
        if self._rungs is None:
            return None
        return self._rungs.next_step(self._rungs.last_promotion(arch_id))

    def _suggest(self) -> _Entry | None:
        """A new architecture: the sampler's, or a random one where that only repeats itself."""
        repeats = rejected = 0
        while repeats < _MAX_REPEATS and rejected < _MAX_REJECTED:
            number, params = self._study.ask()
            point = self._space.point(params)
            if point in self._seen:
                self._answer(number, self._seen[point])
                repeats += 1
                continue
            entry = self._consider(number, params, point)
            if entry is not None:
                return entry
            repeats += self._seen[point] != _REJECTED
            rejected += self._seen[point] == _REJECTED
        return self._random_unseen()

    def _consider(self, number: int, params: Params, point: Point) -> _Entry | None:
        """Take up a point that was not met before, unless it is impossible or an architecture met before."""
        found = self._choose(point)
        if isinstance(found, Refused):
            self._reject(number, point, {"possible": 1.0}, found.reason)
            return None
        violations = self._objectives.violations(found.costs)
        if beyond := self._objectives.beyond(found.costs):
            self._reject(number, point, violations, beyond)
            return None
        self._seen[point] = found.arch_id
        if found.arch_id in self._entries:
            self._answer(number, found.arch_id)
            return None
        entry = self._add(found, params, number)
        self._study.limit(number, violations)
        self._study.note(number, **_attrs(found))
        return entry

    def _random_unseen(self) -> _Entry | None:
        """A random point that was not met before and may be trained; None, and said so, if there is none."""
        drawn = 0
        why = "that is all that it holds within the limits"
        for params in self._space.in_random_order(self._random):
            point = self._space.point(params)
            if point in self._seen:
                continue
            if (drawn := drawn + 1) > _MAX_DRAWN:
                why = f"of {_MAX_DRAWN} more random points none may be trained"
                break
            found = self._choose(point)
            if (
                isinstance(found, Refused)
                or max(self._objectives.violations(found.costs).values(), default=0) > 0
            ):
                self._seen[point] = _REJECTED
                self._rejected += 1
                continue
            self._seen[point] = found.arch_id
            if found.arch_id in self._entries:
                continue
            number = self._study.ask_for(params)
            self._study.limit(number, self._objectives.violations(found.costs))
            self._study.note(number, **_attrs(found))
            return self._add(found, params, number)
        self._exhausted = True
        count = f"{len(self._entries)} architectures of search.trials={self._wanted}"
        self._say(f"the space is exhausted: {count}; {why}")
        return None

    def _add(self, architecture: Architecture, params: Params, number: int | None) -> _Entry:
        entry = _Entry(architecture=architecture, params=params, number=number)
        self._entries[architecture.arch_id] = entry
        self._trials += architecture.trials
        for trial in architecture.trials:
            self._of_spec[trial.spec_id] = entry
        return entry

    # What the study is told

    def _answer(self, number: int, known: str) -> None:
        """A suggestion that was met before."""
        self._repeats += 1
        self._study.note(number, dup_of=known)
        values = self._entries[known].values if known in self._entries else None
        if values is not None:
            self._study.tell(number, values)
        elif known == _REJECTED:
            self._study.limit(number, {"possible": 1.0})
            self._study.prune(number)
        else:  # it runs, or has failed
            self._study.fail(number)

    def _reject(self, number: int, point: Point, violations: Mapping[str, float], reason: str) -> None:
        self._rejected += 1
        self._seen[point] = _REJECTED
        self._study.note(number, rejected=reason)
        self._study.limit(number, violations)
        self._study.prune(number)

    def _leg_ended(self, entry: _Entry) -> None:
        """All that was queued of an architecture has run: it is complete, or has come to a rung."""
        trials = entry.architecture.trials
        if len(entry.results) == len(trials) or any(r["status"] != "ok" for r in entry.results.values()):
            self._complete(entry)
        elif entry.stop_at is not None:
            steps, rd_losses = zip(*entry.paused.values(), strict=True)
            if max(steps) == entry.stop_at:
                self._arrive(entry, entry.stop_at, rd_losses)
            else:
                self._pass(entry, min(steps))

    def _arrive(self, entry: _Entry, step: int, rd_losses: Sequence[float]) -> None:
        assert self._rungs is not None, "only rungs are arrived at"
        costs, cost = entry.architecture.costs, self._objectives.cost
        values = (sum(rd_losses) / len(rd_losses), *([costs[cost]] if cost else []))
        self._record.arrived(entry.architecture.arch_id, step, values)
        self._rungs.arrived(entry.architecture.arch_id, step, values)

    def _pass(self, entry: _Entry, step: int) -> None:
        """Train on what was past its rung already, from before there were these rungs.

        Its validation comes from a later step: no fair comparison with those at the rung.
        """
        assert self._rungs is not None, "only rungs are passed"
        arch_id, passed = entry.architecture.arch_id, max(r for r in self._rungs.steps if r <= step)
        self._record.promoted(arch_id, passed)
        self._rungs.promoted(arch_id, passed)
        self._continue(entry)

    def _complete(self, entry: _Entry) -> None:
        """Tell the study once, if need be when the architecture has been timed."""
        if entry.values is not None:
            return
        trained = all(result["status"] == "ok" for result in entry.results.values())
        if trained and self._objectives.timed and self._times(entry.architecture.trials[0]) is None:
            self._untimed.append(entry)
        else:
            self._tell_study(entry)

    def _tell_study(self, entry: _Entry) -> None:
        """If the trial there has ended already, stopped or failed, it gets another."""
        bad = [f"{spec_id} {r['status']}" for spec_id, r in entry.results.items() if r["status"] != "ok"]
        times = self._times(entry.architecture.trials[0]) if self._objectives.timed else None
        values = self._objectives.values(
            {**entry.architecture.costs, **(times or {})}, list(entry.results.values())
        )
        if not bad and any(map(math.isnan, values)):
            bad = [
                f"no {name}" for name, v in zip(self._objectives.names, values, strict=True) if math.isnan(v)
            ]
        if bad:
            if entry.number is not None:
                self._study.note(entry.number, failed=", ".join(bad))
                self._study.fail(entry.number)
                entry.number = None
            return
        if entry.number is None:
            entry.number = self._study.ask_for(entry.params)
            self._study.limit(entry.number, self._objectives.violations(entry.architecture.costs))
            self._study.note(entry.number, **_attrs(entry.architecture))
        self._study.tell(entry.number, values)
        entry.number, entry.values = None, tuple(values)

    # What earlier commands left

    def _take_up(self, history: Sequence[PastTrial]) -> None:
        for past in history:
            self._take_up_trial(past)
        if self._rungs is not None:
            self._record.replay(self._rungs)
        for entry in list(self._entries.values()):
            finished = all(self._read(trial) is not None for trial in entry.architecture.trials)
            if finished or not self._waits_at_a_rung(entry):
                self._continue(entry)

    def _take_up_trial(self, past: PastTrial) -> None:
        attrs = past.attrs
        if "arch_id" not in attrs or "dup_of" in attrs or _REJECTED in attrs:
            if past.state == "RUNNING":  # its driver ended between asking and deciding
                self._study.fail(past.number)
            elif past.params and (_REJECTED in attrs or "dup_of" in attrs):
                self._seen[self._space.point(past.params)] = str(attrs.get("dup_of", _REJECTED))
            return
        point = self._space.point(past.params)
        self._seen[point] = attrs["arch_id"]
        entry = self._entries.get(attrs["arch_id"])
        if entry is None:
            architecture = self._recall(point, attrs)
            if architecture is None:
                if past.state == "RUNNING":
                    self._study.fail(past.number)
                return
            entry = self._add(architecture, past.params, None)
        if past.state == "COMPLETE":
            entry.values = past.values
        elif past.state == "RUNNING":
            entry.number = past.number

    def _recall(self, point: Point, attrs: Mapping[str, Any]) -> Architecture | None:
        """From the sweep's record, or else composed again."""
        trials = [self._recall_trial(spec_id) for spec_id in attrs["spec_ids"]]
        known = [trial for trial in trials if trial is not None]
        if len(known) == len(trials):
            return Architecture(
                arch_id=attrs["arch_id"], label=known[0].label, trials=tuple(known), costs=attrs["costs"]
            )
        found = self._choose(point)
        return None if isinstance(found, Refused) else found

    def _waits_at_a_rung(self, entry: _Entry) -> bool:
        """Whether only a promotion takes the architecture on; records an arrival that nobody recorded."""
        if self._rungs is None:
            return False
        reached = [read_rung(trial.folder, spec_id=trial.spec_id) for trial in entry.architecture.trials]
        known = [rung for rung in reached if rung is not None]
        if len(known) < len(reached):
            return False
        arch_id, step = entry.architecture.arch_id, min(int(rung["step"]) for rung in known)
        at = max((rung for rung in self._rungs.steps if rung <= step), default=None)
        if at is None:
            return False
        if not self._rungs.has_arrived(arch_id, at):
            self._arrive(entry, at, [_rd_loss(rung) for rung in known])
        return self._rungs.last_promotion(arch_id) < at


def _attrs(architecture: Architecture) -> dict[str, Any]:
    """What a study's trial says of its architecture, for the dashboard and for the next command."""
    return {
        "label": architecture.label,
        "costs": architecture.costs,
        "spec_ids": [trial.spec_id for trial in architecture.trials],
        "arch_id": architecture.arch_id,  # last, after the limits too: a trial that has it has all
    }


def _rd_loss(rung: Mapping[str, Any] | None) -> float:
    """NaN, the worst there is, where the validation gave no number."""
    value = (rung or {}).get("val_rd_loss")
    return math.nan if value is None else float(value)
