"""One sweep from configuration to report: plan, train what is missing, time, analyse.

A failed trial is data and stops nothing. The same command again runs only what has no result yet, and each
failed trial once more.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from rdc.errors import UserError
from sweep import machines, timing
from sweep.closing import closing_text, relative
from sweep.dry_run import show_dry_run
from sweep.jobs import Executor, Job, NodeSlots, Outcome
from sweep.machines import DRIVER_LOG, Entries
from sweep.plan import (
    Candidate,
    DataSets,
    PlannedTrial,
    Precision,
    SweepPlan,
    choose_data,
    choose_models,
    job_payload,
    make_plan,
    require_possible,
)
from sweep.pricing import PriceList
from sweep.progress import Display, Tally, open_display
from sweep.record import (
    append_event,
    attempts,
    close_sweep,
    finished_result,
    result_after,
    sweep_lock,
    write_sweep,
)
from sweep.settings import Settings, read_settings
from sweep.terminal import Interrupts, terminal
from sweep.warm_start import frontier_candidates

_POLL_S = 0.2
_GRACE_S = 5.0  # between asking a trial to stop and killing it

Results = dict[str, dict[str, Any]]  # spec_id -> content of result.json


def run_sweep(
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    command: Sequence[str] = (),
    entries: Entries | None = None,
) -> int:
    """Run what the configuration asks for; returns the exit code of `python -m sweep`.

    overrides: those that composed `config`; points of the space are composed on top of them.
    command: what the user typed, for the record and for "continue with".
    """
    from sweep.tracking import check_tracking

    settings = read_settings(config)
    check_tracking(config.get("tracking") or {"name": "none"}, settings.runs_dir)
    print(f"sweep {settings.name} in {relative(settings.folder)}; loading models", flush=True)
    if settings.source is not None:
        candidates = frontier_candidates(settings)
    else:
        candidates = choose_models(config, overrides, settings)
    if settings.dry_run:
        show_dry_run(config, settings, candidates)
        return 0
    require_possible(candidates)
    with sweep_lock(settings.folder):
        return _Driver(config, settings, candidates, command, entries or Entries()).run()


class _Driver:
    """The state of one command."""

    def __init__(
        self,
        config: Mapping[str, Any],
        settings: Settings,
        candidates: Sequence[Candidate],
        command: Sequence[str],
        entries: Entries,
    ) -> None:
        self._config = config
        self._settings = settings
        self._candidates = candidates
        self._command = command or ["python", "-m", "sweep"]
        self._entries = entries
        self._interrupts = Interrupts()
        self._prices = PriceList()
        self._stream: TextIO = sys.stdout
        self._executor: Executor | None = None
        self._tracker: Any = None
        self._display: Display | None = None
        self._recorded = False  # whether sweep.json speaks of this command

    def run(self) -> int:
        """The whole command, with everything given back however it ends."""
        started = time.monotonic()
        diverted = self._settings.cluster.name != "inline"
        with self._interrupts.caught():
            try:
                with (
                    terminal(self._settings.folder / DRIVER_LOG, divert=diverted) as self._stream,
                    self._closed_properly(),
                ):
                    plan, results = self._run()
                    report = self._write_report(plan)
            except KeyboardInterrupt:
                return 130
        print(closing_text(plan, results, report, took_s=time.monotonic() - started))
        return int(any(result["status"] in ("failed", "decode_mismatch") for result in results.values()))

    def _run(self) -> tuple[SweepPlan, Results]:
        data = choose_data(self._settings, self._say)
        precision = machines.known_precision(self._settings)
        plan = self._plan(data, precision) if precision else None
        if plan is not None and self._nothing_to_do(plan):
            return plan, _finished(plan)
        nodes = self._start_executor()
        probes = self._probe(nodes)
        plan = plan or self._plan(data, self._precision_of(probes))
        results = self._train(plan, nodes)
        if self._settings.time:
            self._time(plan, timing.missing_jobs(plan, nodes, probes, results, entry=self._entries.timing))
        return plan, results

    # Start

    def _plan(self, data: DataSets, precision: Precision) -> SweepPlan:
        """Decide the trials, and write down what is about to run."""
        from rdc.machine import environment, resolve_device
        from sweep.tracking import open_tracker

        plan = make_plan(self._config, self._settings, self._candidates, data, precision)
        for note in plan.notes:
            self._say(note)
        data.save(plan.folder)
        sweep = write_sweep(plan, self._command, environment(resolve_device("cpu")))
        self._recorded = True
        self._tracker = open_tracker(self._config["tracking"], plan.folder, sweep, self._say)
        return plan

    def _nothing_to_do(self, plan: SweepPlan) -> bool:
        """Whether everything has a result and a timing on this machine, so that no worker is needed."""
        results = _finished(plan)
        if len(results) < len(plan.trials):
            return False
        if self._settings.time and not timing.all_timed_here(plan, results):
            return False
        self._say(_what_is_missing(plan, [], results))
        return True

    def _start_executor(self) -> list[NodeSlots]:
        self._executor = machines.open_executor(self._settings, self._entries, self._say)
        nodes = self._executor.start()
        self._interrupts.install()  # Ray has put its own in place
        self._say(machines.slots_line(nodes))
        return nodes

    def _probe(self, nodes: Sequence[NodeSlots]) -> dict[str, dict[str, Any]]:
        """node -> what it is; meanwhile, as workers import, count what the models cost."""
        for candidate in self._candidates:
            if candidate.model is not None:
                self._prices.count(candidate.model)
        probes = {}

        def on_end(outcome: Outcome) -> None:
            if outcome.error is not None:
                raise UserError(f"workers cannot run: {outcome.error.kind}: {outcome.error.message}")
            probes[outcome.node] = outcome.value

        self._run_jobs(machines.probe_jobs(nodes, self._entries.probe), on_end=on_end)
        return probes

    def _precision_of(self, probes: Mapping[str, Mapping[str, Any]]) -> Precision:
        chosen = machines.precision_by_probes(list(probes.values()))
        gain = min(float(probe["bf16_speedup"]) for probe in probes.values())
        self._say(f"precision {chosen}: bf16 is {gain:.1f} times as fast as fp32 here")
        return chosen

    # Train and time

    def _train(self, plan: SweepPlan, nodes: Sequence[NodeSlots]) -> Results:
        """Run the missing trials, the longest first; returns the results of all planned ones."""
        results = _finished(plan)
        work = {
            trial.spec.spec_id: self._prices.price(trial.spec.model, trial.spec.recipe).training_pflop
            for trial in plan.trials
            if trial.spec.spec_id not in results
        }
        trials = {trial.spec.spec_id: trial for trial in plan.trials if trial.spec.spec_id in work}
        self._say(_what_is_missing(plan, list(trials.values()), results))
        attempts_before = {spec_id: attempts(trial) for spec_id, trial in trials.items()}
        tally = Tally(names=plan.names(), work=work, slots=sum(n.slots for n in nodes), total=len(trials))

        def on_start(job: Job) -> None:
            display.started(trials[job.job_id])

        def on_end(outcome: Outcome) -> None:
            spec_id = outcome.job.job_id
            results[spec_id] = result_after(trials[spec_id], attempts_before[spec_id], outcome.error)
            self._log_job("trial", outcome)
            display.ended(trials[spec_id], results[spec_id])

        with self._shown(open_display(self._stream, tally)) as display:
            longest_first = sorted(trials.values(), key=lambda trial: -work[trial.spec.spec_id])
            device = machines.device_of(nodes[0])
            jobs = [self._trial_job(plan, trial, device) for trial in longest_first]
            self._run_jobs(jobs, on_start=on_start, on_end=on_end)
        return results

    def _trial_job(self, plan: SweepPlan, trial: PlannedTrial, device: str) -> Job:
        return Job(
            job_id=trial.spec.spec_id,
            entry=self._entries.trial,
            payload=job_payload(plan, trial, device=device),
            log=str(trial.folder / "log.txt"),
            deadline_s=self._settings.cluster.deadline_s,
        )

    def _time(self, plan: SweepPlan, jobs: Sequence[Job]) -> None:
        """Time the trained architectures, each alone on its node."""

        def on_end(outcome: Outcome) -> None:
            self._log_job("timing", outcome)
            self._say(f"  {timing.outcome_line(outcome)}")

        if jobs:
            self._say(f"timing {len(jobs)} architectures, each alone on its node")
            self._run_jobs(jobs, on_end=on_end)

    def _run_jobs(
        self,
        jobs: Sequence[Job],
        *,
        on_end: Callable[[Outcome], None],
        on_start: Callable[[Job], None] = lambda job: None,
    ) -> None:
        """Keep the slots busy until every job has ended."""
        executor = self._executor
        assert executor is not None, "the executor is started before any job"
        waiting = deque(jobs)
        while waiting or executor.running():
            _fill_slots(executor, waiting, on_start)
            outcomes = executor.poll(_POLL_S)
            # A free slot gets its next job before what it finished is recorded.
            _fill_slots(executor, waiting, on_start)
            for outcome in outcomes:
                on_end(outcome)
            if self._display is not None:
                self._display.update()
            # The tracker's work would disturb what asked to be alone; it catches up at the end.
            if self._tracker is not None and not any(job.exclusive for job in executor.running()):
                self._tracker.poll()

    def _log_job(self, kind: str, outcome: Outcome) -> None:
        event = {
            "kind": kind,
            "job": outcome.job.job_id,
            "node": outcome.node,
            "started_at": outcome.started_at,
            "ended_at": outcome.ended_at,
            "error": outcome.error.kind if outcome.error else None,
        }
        append_event(self._settings.folder, event)

    # End

    def _write_report(self, plan: SweepPlan) -> str:
        """The tables and figures, before the tracker takes them up; returns the text for the very end."""
        from analysis.errors import AnalysisError
        from analysis.frontier import write_report

        self._close("finished")
        try:
            return write_report(plan.folder, print_table=False).text
        except AnalysisError as error:
            return f"no report: {error}"

    def _close(self, status: str) -> None:
        """A command that ends before it plans leaves the record of earlier ones alone."""
        if self._recorded:
            close_sweep(self._settings.folder, status)

    @contextlib.contextmanager
    def _closed_properly(self) -> Iterator[None]:
        """Stop what runs and end the tracker's runs, whether the block ends well, fails or is interrupted."""
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            running = len(self._executor.running()) if self._executor else 0
            self._say(f"\ninterrupted; stopping {running} running trials (Ctrl-C again kills them at once)")
            self._close("interrupted")
            raise
        except BaseException:
            self._close("failed")
            raise
        finally:
            if self._executor is not None:
                self._executor.stop(_GRACE_S)
            if self._tracker is not None:
                self._tracker.finish(status)
            if status == "KILLED":
                again = shlex.join(self._command)
                self._say(f"what is finished is kept; continue with the same command:\n  {again}")

    @contextlib.contextmanager
    def _shown(self, display: Display) -> Iterator[Display]:
        self._display = display
        try:
            yield display
        finally:
            self._display = None
            display.close()

    def _say(self, text: str) -> None:
        if self._display is not None:
            self._display.say(text)
        else:
            print(text, file=self._stream, flush=True)


def _fill_slots(executor: Executor, waiting: deque[Job], on_start: Callable[[Job], None]) -> None:
    for job in list(waiting):
        if executor.submit(job):
            waiting.remove(job)
            on_start(job)
        elif job.node is None:  # it fits anywhere and finds no slot: neither will the next one
            return


def _finished(plan: SweepPlan) -> Results:
    found = {trial.spec.spec_id: finished_result(trial) for trial in plan.trials}
    return {spec_id: result for spec_id, result in found.items() if result is not None}


def _what_is_missing(plan: SweepPlan, missing: Sequence[PlannedTrial], results: Results) -> str:
    text = f"{len(plan.trials)} trials, budget {plan.settings.budget.name}, {plan.precision}"
    if results:
        text += f"; {len(results)} have results already"
    again = sum(attempts(trial) > 0 for trial in missing)
    if again:
        text += f"; {again} failed before and are tried once more"
    return text if missing else f"{text}; nothing is missing"
