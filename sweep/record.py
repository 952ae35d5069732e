"""The sweep's own files: sweep.json, jobs.jsonl, and results of trials whose process could not write one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import append_jsonl, atomic_write_text, read_json
from rdc.result import RESULT_FILE, identity, read_any, read_finished, write_result
from rdc.spec import to_plain
from sweep.jobs import JobError
from sweep.plan import PlannedTrial, SweepPlan
from sweep.tracking.address import redact_command, redact_tree

SWEEP_FILE = "sweep.json"
JOBS_FILE = "jobs.jsonl"
SWEEP_SCHEMA_VERSION = 1


def finished_result(trial: PlannedTrial) -> dict[str, Any] | None:
    """The result of a trial that needs no further run; failed ones are tried once per command."""
    return read_finished(trial.folder, spec_id=trial.spec_id)


def attempts(trial: PlannedTrial) -> int:
    """How often the trial has ended, with or without numbers."""
    return int((read_any(trial.folder) or {}).get("attempt", 0))


def result_after(trial: PlannedTrial, attempts_before: int, error: JobError | None) -> dict[str, Any]:
    """The result of a trial whose job has ended; writes a failed one where the job could not."""
    finished = finished_result(trial)
    if finished is not None:
        return finished
    written = read_any(trial.folder)
    if written is not None and written.get("attempt", 0) > attempts_before:
        return written
    reason = error or JobError(kind="NoResult", message=f"the job ended without writing {RESULT_FILE}")
    return write_result(trial.folder, _failed(trial, reason, attempt=attempts_before + 1))


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """sweep.json of an earlier command, if there is one."""
    path = folder / SWEEP_FILE
    if not path.exists():
        return None
    sweep = read_json(path)
    trials = sweep.get("trials", []) if isinstance(sweep, dict) else None
    if not isinstance(trials, list) or not all(isinstance(t, dict) and "spec_id" in t for t in trials):
        raise UserError(
            f"{path}: is not the record of a sweep; move it away, and the same command keeps what is finished"
        )
    return dict(sweep)


def write_sweep(
    plan: SweepPlan, command: Sequence[str], versions: Mapping[str, Any], *, to_come: int = 0
) -> dict[str, Any]:
    """Record what is about to run. Trials of earlier commands under the same name stay listed.

    to_come: how many trials of the plan have no id yet, as others have to end first.
    """
    before = read_sweep(plan.folder) or {}
    trials = {trial["spec_id"]: trial for trial in before.get("trials", [])}
    trials.update({trial.spec_id: trial.to_dict() for trial in plan.trials})
    sweep = {
        "schema_version": SWEEP_SCHEMA_VERSION,
        "name": plan.settings.name,
        "command": redact_command(command),
        "config": redact_tree(to_plain(plan.config)),  # sweep folders are shared
        "precision": plan.precision,
        "lmbdas": list(plan.settings.every_lmbda),
        "planned": [trial.spec_id for trial in plan.trials],
        "trials": list(trials.values()),
        "to_come": to_come,
        "versions": {
            key: versions.get(key) for key in ("python", "torch", "compressai", "rdc", "semantics_version")
        },
        "git_revision": versions.get("git_revision"),
        "git_dirty": versions.get("git_dirty"),
        "started_at": before.get("started_at") or time.time(),
        "resumed_at": [*before.get("resumed_at", []), *([time.time()] if before else [])],
        "ended_at": None,
        "status": "running",
    }
    _save(plan.folder, sweep)
    return sweep


def add_planned(
    sweep: dict[str, Any], plan: SweepPlan, more: Sequence[PlannedTrial], *, to_come: int = 0
) -> None:
    """Put trials that a search or a stage has asked for into sweep.json before they run.

    sweep: the content of sweep.json as write_sweep returned it; it grows in place, so that who holds it (the
    tracker does) knows the new trials too.
    """
    planned, listed = set(sweep["planned"]), {trial["spec_id"] for trial in sweep["trials"]}
    sweep["planned"] += [trial.spec_id for trial in more if trial.spec_id not in planned]
    sweep["trials"] += [trial.to_dict() for trial in more if trial.spec_id not in listed]
    sweep["to_come"] = to_come
    _save(plan.folder, sweep)


def close_sweep(folder: Path, status: str) -> None:
    """status: finished, stopped, interrupted or failed."""
    sweep = read_sweep(folder)
    if sweep is not None:
        _save(folder, {**sweep, "ended_at": time.time(), "status": status})


def _save(folder: Path, sweep: Mapping[str, Any]) -> None:
    """Without indentation: with it, Python's slow encoder would write all trials again for every new one."""
    atomic_write_text(folder / SWEEP_FILE, json.dumps(sweep, allow_nan=False) + "\n")


def _failed(trial: PlannedTrial, error: JobError, *, attempt: int) -> dict[str, Any]:
    return {
        **identity(trial.spec),
        "stage": trial.stage,
        "status": "failed",
        "error": {"class": error.kind, "message": error.message, "log": "log.txt"},
        "attempt": attempt,
    }


def append_event(folder: Path, event: Mapping[str, Any]) -> None:
    """One line in jobs.jsonl: when and where a job ran, for the record of what shared a node with what."""
    append_jsonl(folder / JOBS_FILE, event)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The lines of jobs.jsonl, without those that a full disk or a power cut has damaged."""
    path = folder / JOBS_FILE
    events = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                events.append(event)
    return events
