"""One sweep from configuration to report: plan, train what is missing, time, analyse.

A failed trial is data and stops nothing. The same command again runs only what has no result yet, and each
failed trial once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rdc.errors import UserError
from sweep import timing
from sweep.dry_run import show_dry_run
from sweep.executor import RayExecutor
from sweep.jobs import Executor, InlineExecutor, Job, NodeSlots, Outcome
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
from sweep.progress import Display, Tally, duration, open_display
from sweep.record import (
    append_event,
    attempts,
    close_sweep,
    finished_result,
    read_sweep,
    result_after,
    sweep_lock,
    write_sweep,
)
from sweep.settings import Settings, read_settings
from sweep.terminal import Interrupts, terminal
from sweep.warm_start import frontier_candidates

_POLL_S = 0.2
_GRACE_S = 5.0  # between asking a trial to stop and killing it
DRIVER_LOG = "driver.log"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """What runs as a trial, as a timing and as a probe, and what the workers import before they fork."""

    trial: str = "rdc.trial:run_payload"
    timing: str = "rdc.runtime:time_payload"
    probe: str = "sweep.jobs:probe_machine"
    preload: tuple[str, ...] = ("rdc.trial", "rdc.runtime")


def run_sweep(
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    command: Sequence[str] = (),
    entries: Entries | None = None,
) -> int:
    """Run what the configuration asks for; returns the exit code of `python -m sweep`.

    overrides: those that composed `config`; points of the space are composed on top of them.
    """
    settings = read_settings(config)
    print(f"sweep {settings.name} in {_relative(settings.folder)}; loading models", flush=True)
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
    """The state of one command. `run` reads from top to bottom as the command goes."""

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
        self._executor: Executor | None = None
        self._tracker: Any = None
        self._display: Display | None = None
        self._stream: TextIO = sys.stdout
        self._probes: dict[str, dict[str, Any]] = {}

    def run(self) -> int:
        started = time.monotonic()
        diverted = self._settings.cluster.name != "inline"
        with self._interrupts.caught():
            try:
                with terminal(self._settings.folder / DRIVER_LOG, divert=diverted) as self._stream:
                    plan, results = self._train_and_time()
            except KeyboardInterrupt:
                return 130
        self._report(plan, results, time.monotonic() - started)
        return int(any(result["status"] in ("failed", "decode_mismatch") for result in results.values()))

    def _train_and_time(self) -> tuple[SweepPlan, dict[str, dict[str, Any]]]:
        tracker_status = "FAILED"
        try:
            data = choose_data(self._settings, self._say)
            nodes = self._start_executor()
            prices = PriceList()
            precision = self._probe(nodes, prices)
            plan = self._plan(data, precision)
            results = self._train(plan, nodes, prices)
            if self._settings.time:
                self._time(plan, nodes, results)
            close_sweep(plan.folder, "finished")
            self._write_tables(plan)
            tracker_status = "FINISHED"
            return plan, results
        except KeyboardInterrupt:
            tracker_status = "KILLED"
            self._announce_stop()
            raise
        finally:
            self._close(tracker_status)

    # Start

    def _start_executor(self) -> list[NodeSlots]:
        cluster = self._settings.cluster
        if cluster.name == "inline":
            self._executor = InlineExecutor()
            return self._executor.start()
        from rdc.machine import allocator_env, thread_env

        address = cluster.address or os.environ.get("RAY_ADDRESS")
        self._say(f"joining Ray at {address}" if address else "starting Ray on this machine")
        ray_executor = RayExecutor(
            address=cluster.address,
            slots=cluster.slots,
            cpus_per_trial=cluster.cpus_per_trial,
            gpus_per_trial=cluster.gpus_per_trial,
            preload=self._entries.preload,
            env={**allocator_env(), **thread_env(cluster.cpus_per_trial)},
            log=str(self._settings.folder / DRIVER_LOG),
        )
        self._executor = ray_executor
        nodes = ray_executor.start()
        self._interrupts.install()
        self._interrupts.at_once = ray_executor.kill
        count = sum(node.slots for node in nodes)
        gpus = f", {nodes[0].gpus_per_slot:g} GPU each" if nodes[0].gpus_per_slot else ""
        where = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        self._say(f"{count} trials at a time{where}{gpus}; workers import torch once")
        return nodes

    def _probe(self, nodes: Sequence[NodeSlots], prices: PriceList) -> Precision:
        """What each node is; and the precision, the same for the whole sweep."""
        for candidate in self._candidates:
            if candidate.model is not None:
                prices.count(candidate.model)
        jobs = [
            Job(
                job_id=f"probe {node.node}",
                entry=self._entries.probe,
                payload={"device": _device(node)},
                exclusive=True,
                node=node.node,
            )
            for node in nodes
        ]
        self._run_jobs(jobs, on_end=self._keep_probe)
        return self._choose_precision()

    def _keep_probe(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            raise UserError(f"a worker cannot run: {outcome.error.kind}: {outcome.error.message}")
        self._probes[outcome.node] = outcome.value

    def _choose_precision(self) -> Precision:
        wanted = self._settings.budget.precision
        if wanted != "auto":
            return wanted
        before = (read_sweep(self._settings.folder) or {}).get("precision")
        if before in ("fp32", "bf16"):
            self._say(f"precision {before}, as in this sweep so far")
            return before
        gains = [float(probe["bf16_speedup"]) for probe in self._probes.values()]
        fast = all(probe["bf16_fast"] for probe in self._probes.values())
        chosen: Precision = "bf16" if fast else "fp32"
        self._say(f"precision {chosen}: bf16 is {min(gains):.2f} times as fast as fp32 here")
        return chosen

    def _plan(self, data: DataSets, precision: Precision) -> SweepPlan:
        plan = make_plan(self._config, self._settings, self._candidates, data, precision)
        for note in plan.notes:
            self._say(note)
        data.save(plan.folder)
        sweep = write_sweep(plan, self._command, next(iter(self._probes.values())))
        from sweep.tracking import open_tracker

        self._tracker = open_tracker(self._config["tracking"], plan.folder, sweep, self._say)
        return plan

    # Train

    def _train(
        self, plan: SweepPlan, nodes: Sequence[NodeSlots], prices: PriceList
    ) -> dict[str, dict[str, Any]]:
        """Run the missing trials, the longest first; returns the results of all planned ones."""
        found = {trial.spec.spec_id: finished_result(trial) for trial in plan.trials}
        results = {spec_id: result for spec_id, result in found.items() if result is not None}
        work = {t.spec.spec_id: prices.price(t.spec.model, t.spec.recipe).training_pflop for t in plan.trials}
        missing = sorted(
            (t for t in plan.trials if t.spec.spec_id not in results), key=lambda t: -work[t.spec.spec_id]
        )
        self._say(_what_is_missing(plan, missing, results))
        if not missing:
            return results
        slots = sum(node.slots for node in nodes)
        left = {trial.spec.spec_id: work[trial.spec.spec_id] for trial in missing}
        tally = Tally(names=plan.names(), work=left, slots=slots, total=len(missing))
        trials = {trial.spec.spec_id: trial for trial in missing}
        attempts_before = {spec_id: attempts(trial) for spec_id, trial in trials.items()}
        display = self._display = open_display(self._stream, tally)

        def on_start(job: Job) -> None:
            display.started(trials[job.job_id])

        def on_end(outcome: Outcome) -> None:
            spec_id = outcome.job.job_id
            result = result_after(trials[spec_id], attempts_before[spec_id], outcome.error)
            results[spec_id] = result
            self._log_job("trial", outcome)
            display.ended(trials[spec_id], result)

        device = _device(nodes[0])
        jobs = [self._trial_job(plan, trial, device) for trial in missing]
        self._run_jobs(jobs, on_start=on_start, on_end=on_end)
        self._close_display()
        return results

    def _trial_job(self, plan: SweepPlan, trial: PlannedTrial, device: str) -> Job:
        return Job(
            job_id=trial.spec.spec_id,
            entry=self._entries.trial,
            payload=job_payload(plan, trial, device=device),
            log=str(trial.folder / "log.txt"),
            deadline_s=self._settings.cluster.deadline_s,
        )

    # Time

    def _time(
        self, plan: SweepPlan, nodes: Sequence[NodeSlots], results: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Time every trained architecture once per kind of device, alone on its node."""
        jobs = timing.missing_jobs(plan, nodes, self._probes, results, entry=self._entries.timing)
        if not jobs:
            return
        self._say(f"timing {len(jobs)} architectures, each alone on its node")

        def on_end(outcome: Outcome) -> None:
            self._log_job("timing", outcome)
            self._say(f"  {timing.outcome_line(outcome)}")

        self._run_jobs(jobs, on_end=on_end)

    # Jobs

    def _run_jobs(
        self,
        jobs: Sequence[Job],
        *,
        on_end: Callable[[Outcome], None],
        on_start: Callable[[Job], None] = lambda job: None,
    ) -> None:
        """Keep the slots busy until every job has ended."""
        assert self._executor is not None, "the executor is started first"
        waiting = deque(jobs)
        while waiting or self._executor.running():
            self._fill_slots(waiting, on_start)
            outcomes = self._executor.poll(_POLL_S)
            # A free slot gets its next job before what it finished is recorded.
            self._fill_slots(waiting, on_start)
            for outcome in outcomes:
                on_end(outcome)
            if self._display is not None:
                self._display.update()
            if self._tracker is not None:
                self._tracker.poll()

    def _fill_slots(self, waiting: deque[Job], on_start: Callable[[Job], None]) -> None:
        assert self._executor is not None, "the executor is started first"
        for job in list(waiting):
            if self._executor.submit(job):
                waiting.remove(job)
                on_start(job)
            elif job.node is None:  # what fits anywhere and finds no slot: neither will the next
                return

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

    def _say(self, text: str) -> None:
        if self._display is not None:
            self._display.say(text)
        else:
            print(text, file=self._stream, flush=True)

    def _close_display(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None

    def _announce_stop(self) -> None:
        self._close_display()
        running = len(self._executor.running()) if self._executor else 0
        self._say(f"\ninterrupted: stopping {running} running trials (Ctrl-C again kills them at once)")
        close_sweep(self._settings.folder, "interrupted")

    def _close(self, tracker_status: str) -> None:
        """Give everything back, however the command ends."""
        self._close_display()
        if self._executor is not None:
            self._executor.stop(_GRACE_S)
        if self._tracker is not None:
            with contextlib.suppress(KeyboardInterrupt):
                self._tracker.finish(tracker_status)
        if tracker_status == "KILLED":
            self._say(
                f"what is finished is kept; continue with the same command:\n  {shlex.join(self._command)}"
            )

    def _write_tables(self, plan: SweepPlan) -> None:
        """The report's files, before the tracker takes them up; the text is printed at the very end."""
        from analysis.frontier import write_report

        self._report_text = write_report(plan.folder, print_table=False).text

    def _report(self, plan: SweepPlan, results: Mapping[str, Mapping[str, Any]], took_s: float) -> None:
        names = plan.names()
        print()
        print(self._report_text)
        for spec_id, result in results.items():
            if result["status"] != "ok":
                error = result.get("error") or {}
                print(f"{result['status']}: {names[spec_id]}: {error.get('class')}: {error.get('message')}")
                print(f"  {_relative(plan.folder / 'trials' / spec_id / 'log.txt')}")
        count = {status: sum(r["status"] == status for r in results.values()) for status in ("ok", "failed")}
        others = len(results) - sum(count.values())
        mismatches = f", {others} with a mismatch (kept off the frontier)" if others else ""
        print(
            f"{count['ok']} trials ok, {count['failed']} failed{mismatches}; this command took {duration(took_s)}"
        )
        print("next:")
        for line in _next_commands(plan):
            print(f"  {line}")


def _device(node: NodeSlots) -> str:
    return "cuda" if node.gpus_per_slot else "cpu"


def _relative(path: Path) -> str:
    """Shorter where it is below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _what_is_missing(
    plan: SweepPlan, missing: Sequence[PlannedTrial], results: Mapping[str, Mapping[str, Any]]
) -> str:
    text = f"{len(plan.trials)} trials, budget {plan.settings.budget.name} ({plan.precision})"
    if results:
        text += f"; {len(results)} have results already"
    again = sum(attempts(trial) > 0 for trial in missing)
    if again:
        text += f"; {again} failed before and are tried once more"
    return text if missing else f"{text}; nothing is missing"


def _next_commands(plan: SweepPlan) -> list[str]:
    folder = _relative(plan.folder)
    ui = "make ui" if Path("Makefile").exists() else "python -m sweep.ui"
    return [
        f"{ui:<60} curves, tables and images in MLflow",
        f"{f'python -m analysis bdrate {folder}':<60} against BPG and VTM",
        f"{'python -m sweep +experiment=frontier budget=paper dry_run=true':<60} what the study's budget would cost",
    ]
