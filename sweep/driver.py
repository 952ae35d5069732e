"""One sweep from configuration to report: plan, train what is missing, time, analyse.

A failed trial is data and stops nothing. The same command again runs only what has no result yet, and each
failed trial once more.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rdc.errors import UserError
from rdc.files import remove_leftovers
from sweep import machines, timing
from sweep.closing import Ending, closing_text, relative, written_report
from sweep.drain import Drain
from sweep.dry_run import show_dry_run
from sweep.jobs import PREEMPTED, Executor, Job, Outcome
from sweep.lock import DRIVER_FILE, Lease, sweep_lock
from sweep.loop import Jobs, Loop
from sweep.machines import DRIVER_LOG, Entries, MemoryWatch, Nodes
from sweep.plan import (
    DATA_FILES,
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
    SWEEP_FILE,
    add_planned,
    append_event,
    attempts,
    close_sweep,
    finished_result,
    result_after,
    write_sweep,
)
from sweep.search.source import Grid, Summary, TrialSource, summary
from sweep.settings import Settings, read_settings
from sweep.stages import Staged, compose_stages, open_stages
from sweep.storage import CHECK_FILE
from sweep.terminal import Interrupts, terminal
from sweep.tracking.address import redact, redact_command
from sweep.tracking.state import STATE_FILE
from sweep.trials import Trials
from sweep.warm_start import frontier_candidates

Results = dict[str, Summary]  # by spec_id
_Planned = tuple[SweepPlan, TrialSource]


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
    loading = f"sweep {settings.name} in {relative(settings.folder)}; loading models"
    if settings.dry_run:
        print(loading, flush=True)
        staged = compose_stages(overrides, settings)
        candidates = _candidates(config, overrides, settings, staged)
        show_dry_run(config, overrides, settings, candidates, staged)
        return 0
    interrupts = Interrupts()
    # First of all: whatever takes its time from here on can be watched and stopped from another terminal.
    with interrupts.caught(), sweep_lock(settings.folder) as lease:
        drain = Drain(settings.folder, settings.cluster.walltime_s)
        _remove_leftovers(settings.folder)
        print(loading, flush=True)
        staged = compose_stages(overrides, settings)
        candidates = _candidates(config, overrides, settings, staged)
        require_possible(candidates)
        return _Driver(
            config,
            overrides,
            settings,
            candidates,
            staged,
            command,
            entries or Entries(),
            interrupts=interrupts,
            drain=drain,
            lease=lease,
        ).run()


def _remove_leftovers(folder: Path) -> None:
    """Of killed drivers. What else is half written there may be a `stop` at work."""
    for name in (SWEEP_FILE, DRIVER_FILE, STATE_FILE, CHECK_FILE, *DATA_FILES.values()):
        remove_leftovers(folder, name)


def _candidates(
    config: Mapping[str, Any], overrides: Sequence[str], settings: Settings, staged: Sequence[Staged]
) -> list[Candidate]:
    """What a grid trains; a search chooses as it goes, from a space that is checked here."""
    if staged:
        return [candidate for stage in staged for candidate in stage.candidates]
    if settings.source is not None:
        return frontier_candidates(settings)
    if settings.search.is_grid:
        return choose_models(config, overrides, settings)
    from sweep.search.asked import check_space

    check_space(settings.space.space, overrides)
    return []


class _Driver:
    """The state of one command."""

    def __init__(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        settings: Settings,
        candidates: Sequence[Candidate],
        staged: Sequence[Staged],
        command: Sequence[str],
        entries: Entries,
        *,
        interrupts: Interrupts,
        drain: Drain,
        lease: Lease,
    ) -> None:
        self._config = config
        self._overrides = overrides
        self._settings = settings
        self._candidates = candidates
        self._staged = staged
        self._command = command or ["python", "-m", "sweep"]
        self._entries = entries
        self._interrupts, self._drain, self._lease = interrupts, drain, lease
        self._device = "cpu"
        self._prices = PriceList()
        self._memory = MemoryWatch(settings.cluster, self._say)
        self._stream: TextIO = sys.stdout
        self._executor: Executor | None = None
        self._tracker: Any = None
        self._display: Display | None = None
        self._sweep: dict[str, Any] | None = None  # sweep.json, once it speaks of this command
        self._results: Results = {}

    def run(self) -> int:
        """The whole command, with everything given back however it ends."""
        started = time.monotonic()
        diverted = self._settings.cluster.name != "inline"
        try:
            with (
                terminal(self._settings.folder / DRIVER_LOG, divert=diverted) as self._stream,
                self._closed_properly(),
            ):
                planned, finished = self._run()
                reason = None if finished else self._drain.reason()
                if planned is None:
                    self._say(f"ended early: {reason}; nothing was started; the same command begins anew")
                    return 0
                plan, source = planned
                report = self._write_report(plan, "finished" if finished else "stopped")
        except KeyboardInterrupt:
            return 130
        ending = Ending(
            stopped_early=source.stopped(),
            not_run=source.not_run(),
            to_come=source.to_come,
            reason=reason,
            again=self._again,
        )
        print(redact(closing_text(plan, self._results, report, ending, took_s=time.monotonic() - started)))
        bad = ("failed", "decode_mismatch")
        return int(bool(ending.not_run) or any(r["status"] in bad for r in self._results.values()))

    def _run(self) -> tuple[_Planned | None, bool]:
        """What was planned, if it came to that, and whether all of it was done."""
        data = choose_data(self._settings, self._say)
        data.save(self._settings.folder)  # before any node is asked whether it sees these images
        precision = machines.known_precision(self._settings)
        timed = (
            self._settings.search.wanted.timed
        )  # where that is wanted, the machines have to be known first
        planned = self._plan(data, precision) if precision and not timed else None
        idle = planned is not None and self._nothing_to_do(*planned)
        if idle or self._drain.reason() is not None:
            if planned is not None:
                planned[1].close()
            return planned, idle
        executor = self._start_executor()
        nodes = Nodes(executor, self._entries.probe, self._settings.folder, self._say)
        loop = Loop(executor, self._drain, nodes, self._between_turns)
        self._probe(loop, nodes)
        if planned is None and loop.ended_early:
            return None, False
        if planned is None:
            planned = self._plan(data, precision or self._precision_of(nodes.probes), _kind(nodes.probes))
        plan, source = planned
        plan = self._train(loop, nodes, plan, source)
        if self._settings.time:
            self._time(loop, nodes, plan)
        return (plan, source), not loop.ended_early

    # Start

    def _plan(self, data: DataSets, precision: Precision, timed_on: str | None = None) -> _Planned:
        """Decide the trials or how they are chosen, and write down what is about to run.

        timed_on: kind of device for objectives that are times.
        """
        from rdc.machine import environment, resolve_device
        from sweep.tracking import open_tracker

        candidates = [] if self._staged else self._candidates
        plan = make_plan(self._config, self._settings, candidates, data, precision)
        plan, source = self._open_source(plan, timed_on)
        for note in plan.notes:
            self._say(note)
        self._sweep = write_sweep(
            plan, self._command, environment(resolve_device("cpu")), to_come=source.to_come
        )
        self._tracker = open_tracker(self._config["tracking"], plan.folder, self._sweep, self._say)
        self._say(_what_is_missing(plan, self._results, source))
        return plan, source

    def _open_source(self, plan: SweepPlan, timed_on: str | None) -> _Planned:
        """Where trials come from, and the plan with those that are known already."""
        if not self._settings.search.is_grid:
            from sweep.search.start import open_search

            search = open_search(
                plan,
                self._overrides,
                self._prices,
                read=self._finished,
                timed_on=timed_on,
                say=self._say,
            )
            return plan.with_trials(search.trials()), search
        if self._staged:
            stages = open_stages(plan, self._staged, self._prices, read=self._finished, say=self._say)
            return plan.with_trials(stages.trials()), stages
        missing = [trial for trial in plan.trials if self._finished(trial) is None]
        missing.sort(key=self._work, reverse=True)  # the longest first
        return plan, Grid(missing)

    def _nothing_to_do(self, plan: SweepPlan, source: TrialSource) -> bool:
        """Whether everything has a result and a timing on this machine, so that no worker is needed."""
        if not source.done:
            return False
        return not self._settings.time or timing.all_timed_here(plan, self._results)

    def _finished(self, trial: PlannedTrial) -> Summary | None:
        """The summary of the trial's result, read once; None if it has to run."""
        if trial.spec_id not in self._results:
            result = finished_result(trial)
            if result is None:
                return None
            self._results[trial.spec_id] = summary(result)
        found = self._results[trial.spec_id]
        return None if found["status"] == "failed" else found

    def _work(self, trial: PlannedTrial) -> float:
        """What its training takes, in 10^15 operations."""
        if trial.spec.weights is not None:
            return 0.0
        return self._prices.price(trial.spec.model, trial.spec.recipe).training_pflop

    def _start_executor(self) -> Executor:
        self._executor = executor = machines.open_executor(
            self._settings, self._entries, self._drain, self._say
        )
        nodes = executor.start()
        self._interrupts.install()  # Ray has put its own in place
        self._device = machines.device_of(nodes[0])
        self._say(machines.slots_line(nodes))
        return executor

    def _probe(self, loop: Loop, nodes: Nodes) -> None:
        """Ask every node what it is; meanwhile, as workers import, count what the models cost."""
        for candidate in self._candidates:
            if candidate.model is not None:
                self._prices.count(candidate.model)
        loop.run(Jobs(nodes.first_jobs(), nodes.answered))

    def _precision_of(self, probes: Mapping[str, Mapping[str, Any]]) -> Precision:
        if not probes:
            raise UserError("no node is left to run trials on; repeat the command when there is one")
        chosen = machines.precision_by_probes(list(probes.values()))
        gain = min(float(probe["bf16_speedup"]) for probe in probes.values())
        self._say(f"precision {chosen}: bf16 is {gain:.1f} times as fast as fp32 here")
        return chosen

    # Train and time

    def _train(self, loop: Loop, nodes: Nodes, plan: SweepPlan, source: TrialSource) -> SweepPlan:
        """Run what the source asks for until it is done or the sweep has to end; returns the grown plan."""
        work = {trial.spec_id: self._work(trial) for trial in plan.trials if self._finished(trial) is None}
        tally = Tally(names=plan.names(), work=work, slots=1, total=self._expected(plan, source))
        with self._shown(open_display(self._stream, tally)) as display:
            trials = Trials(
                plan,
                source,
                job_of=self._trial_job,
                record=self._record,
                added=lambda plan, new: self._add(plan, new, source.to_come),
                work_of=self._work,
                tally=tally,
                display=display,
            )
            loop.run(trials)
            while source.wants_times and not loop.ended_early:
                self._time(loop, nodes, trials.plan)
                if not loop.ended_early:
                    source.timed()
                    loop.run(trials)
        source.close()
        return trials.plan

    def _add(self, plan: SweepPlan, new: Sequence[PlannedTrial], to_come: int) -> None:
        assert self._sweep is not None, "sweep.json is written before any trial"
        add_planned(self._sweep, plan, new, to_come=to_come)

    def _record(self, trial: PlannedTrial, attempts_before: int, outcome: Outcome) -> Summary:
        """Write down how a trial ended; one that was paused or preempted has no result yet."""
        error = outcome.error
        if error is not None and error.kind == "StorageError":
            raise UserError(error.message)  # says nothing about the trial, and the next would fail too
        self._log_job("trial", outcome)
        if error is not None and error.kind == PREEMPTED:
            return {"status": "preempted", "step": "unknown"}
        said = outcome.value if error is None and isinstance(outcome.value, dict) else {}
        if said.get("status") in ("paused", "preempted"):
            return {"status": said["status"], "step": said["step"]}
        result = result_after(trial, attempts_before, error)
        self._memory.look_at(result)
        self._results[trial.spec_id] = summary(result)
        return self._results[trial.spec_id]

    def _expected(self, plan: SweepPlan, source: TrialSource) -> int:
        """How many trials this command will run, as far as that is known."""
        settings = self._settings
        known = sum(trial.spec_id not in self._results for trial in plan.trials)
        if settings.search.is_grid:
            return known + source.to_come
        new = settings.search.trials - len({trial.arch_id for trial in plan.trials})
        return known + max(0, new) * len(settings.seeds)

    def _trial_job(self, plan: SweepPlan, trial: PlannedTrial) -> Job:
        return Job(
            job_id=trial.spec_id,
            entry=self._entries.trial,
            payload=job_payload(plan, trial, device=self._device),
            log=str(trial.folder / "log.txt"),
            deadline_s=self._settings.cluster.deadline_s,
        )

    def _time(self, loop: Loop, nodes: Nodes, plan: SweepPlan) -> None:
        """Time the trained architectures that have not been, each alone on its node."""
        assert self._executor is not None, "the executor is started before any job"
        slots, entry = self._executor.nodes(), self._entries.timing
        jobs = timing.missing_jobs(plan, slots, nodes.probes, self._results, entry)

        def on_end(outcome: Outcome) -> None:
            self._log_job("timing", outcome)
            self._say(f"  {timing.outcome_line(outcome)}")

        if jobs:
            if self._drain.reason() is None:
                self._say(f"timing {len(jobs)} architectures, each alone on its node")
            loop.run(Jobs(jobs, on_end))  # in any case: it notes what is left undone

    def _between_turns(self) -> None:
        assert self._executor is not None, "the executor is started before any job"
        self._lease.check()
        if self._display is not None:
            self._display.update()
        # The tracker's work would disturb what asked to be alone; it catches up at the end.
        if self._tracker is not None and not any(job.exclusive for job in self._executor.running()):
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

    def _write_report(self, plan: SweepPlan, status: str) -> str:
        """The tables, figures and page, before the tracker takes them up; the text for the very end."""
        self._close(status)
        return written_report(plan.folder)

    def _close(self, status: str) -> None:
        """A command that ends before it plans leaves the record of earlier ones alone."""
        if self._sweep is not None and self._lease.taken_by is None:
            close_sweep(self._settings.folder, status)

    @property
    def _again(self) -> str:
        """The command that continues, as it may be shown."""
        return redact_command(self._command)

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
                self._executor.stop(self._interrupts.grace_s)
            if self._tracker is not None:
                self._tracker.finish(status)
            if status == "KILLED":
                self._say(f"what is finished is kept; continue with the same command:\n  {self._again}")

    @contextlib.contextmanager
    def _shown(self, display: Display) -> Iterator[Display]:
        self._display = display
        try:
            yield display
        finally:
            self._display = None
            display.close()

    def _say(self, text: str) -> None:
        text = redact(text)  # an address of Ray, a message of a library
        if self._display is not None:
            self._display.say(text)
        else:
            print(text, file=self._stream, flush=True)


def _kind(probes: Mapping[str, Mapping[str, Any]]) -> str:
    """The device whose times a search goes by: the first by name where nodes differ."""
    return min(str(probe["device_slug"]) for probe in probes.values())


def _what_is_missing(plan: SweepPlan, results: Results, source: TrialSource) -> str:
    so_far = "" if plan.settings.search.is_grid else " so far"
    count = len(plan.trials) + source.to_come
    text = f"{count} trials{so_far}, budget {plan.settings.budget.name}, {plan.precision}"
    missing = [trial for trial in plan.trials if trial.spec_id not in results]
    if results:
        text += f"; {len(results)} have results already"
    again = sum(attempts(trial) > 0 for trial in missing)
    if again:
        text += f"; {again} failed before and are tried once more"
    if source.to_come:
        text += f"; {source.to_come} need results of others and are planned when those are there"
    if missing or source.to_come or source.not_run() or not plan.settings.search.is_grid:
        return text
    return f"{text}; nothing is missing"
