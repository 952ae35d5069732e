"""`python -m sweep status`: how a running or ended sweep stands, from its files alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.result import RUNG_FILE, STATUSES, read_any, read_rung
from sweep.drain import STOP_FILE, read_request
from sweep.lock import DRIVER_FILE, DriverRecord, is_alive, read_driver
from sweep.progress import TrialWatch
from sweep.record import SWEEP_FILE, read_events, read_sweep

# In the order in which they are shown.
STATES = ("ok", "mismatch", "failed", "running", "paused", "interrupted", "waiting")
# What an attempt writes while it runs; spec.json is its first file.
_SIGNS_OF_LIFE = ("metrics.jsonl", "log.txt", "spec.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """One trial. state: one of STATES. steps: of its whole training. watch: of a running one, up to date.

    paused: a search stopped it early, at paused_at_step, and may promote it. interrupted: it will go on from
    its checkpoint.
    """

    spec_id: str
    label: str
    state: str
    steps: int
    result: dict[str, Any] | None
    watch: TrialWatch | None
    paused_at_step: int | None = None

    @property
    def eta_s(self) -> float | None:
        """What it says is left of its training."""
        return None if self.watch is None else self.watch.latest.get("eta_s")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """driver: who drives the sweep, or was killed doing so. stop: who asked it to end. eta_s: seconds left.

    sweep: content of sweep.json; without trials while the first driver still loads models and images.
    elsewhere: trials that earlier commands planned and the last one did not.
    """

    folder: Path
    sweep: dict[str, Any]
    driver: DriverRecord | None
    alive: bool
    stop: str | None
    trials: list[TrialStatus]
    elsewhere: int
    eta_s: float | None

    @property
    def to_come(self) -> int:
        """How many trials are not among these yet, as they need results of others."""
        return int(self.sweep.get("to_come") or 0)

    def count(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)

    def failures(self) -> dict[str, list[TrialStatus]]:
        """Failed trials and mismatches by the class of their error, the most frequent first."""
        classes: dict[str, list[TrialStatus]] = defaultdict(list)
        for trial in self.trials:
            if trial.state in ("failed", "mismatch") and trial.result is not None:
                error = trial.result.get("error") or {}
                classes[str(error.get("class") or trial.result["status"])].append(trial)
        return dict(sorted(classes.items(), key=lambda item: -len(item[1])))


def main(argv: Sequence[str]) -> int:
    """argv: as typed, from "status" on. UserError if there is no such sweep."""
    from sweep.status_text import as_json, counts_text, frontier_text

    options = _parser().parse_args(argv[1:])
    status = read_status(sweep_folder(options.sweep, options.runs_dir))
    if options.json:
        print(json.dumps(as_json(status), indent=2))
        return 0
    print(counts_text(status), flush=True)
    print(frontier_text(status))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweep status", description=__doc__)
    add_sweep_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs; with every trial")
    return parser


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """The sweep that a command is about."""
    parser.add_argument("sweep", nargs="?", help="its folder or its name (default: the newest one)")
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="where sweeps are (default: runs)"
    )


def sweep_folder(sweep: str | None, runs_dir: Path) -> Path:
    """The folder of the named sweep, or of the one that was started or continued last."""
    runs_dir = runs_dir.expanduser()
    found = [path.parent for name in (SWEEP_FILE, DRIVER_FILE) for path in runs_dir.glob(f"*/{name}")]
    known = {folder: _last_start(folder) for folder in found}
    if sweep is None:
        if not known:
            raise UserError(f"{runs_dir}: there is no sweep yet; name its folder, or give --runs-dir")
        return max(known, key=lambda folder: known[folder])
    for folder in (runs_dir / sweep, Path(sweep).expanduser()):
        if any((folder / name).exists() for name in (SWEEP_FILE, DRIVER_FILE)):
            return folder
    names = ", ".join(sorted(folder.name for folder in known))
    raise UserError(f"{sweep}: there is no such sweep; {runs_dir} has {names or 'none yet'}")


def read_status(folder: Path) -> SweepStatus:
    """Look at every trial of the sweep once; a trial of a running sweep may end meanwhile."""
    sweep, driver = read_sweep(folder), read_driver(folder)
    if sweep is None and driver is None:
        raise UserError(f"{folder}: is no sweep folder; it has no {SWEEP_FILE}")
    sweep = {"name": folder.resolve().name, "status": "running", "trials": [], **(sweep or {})}
    alive = driver is not None and is_alive(folder, driver)
    jobs = [job for job in read_events(folder) if job.get("kind") == "trial"]
    last_end = {job.get("job"): job.get("ended_at", 0.0) for job in jobs}
    planned = set(sweep.get("planned") or [trial["spec_id"] for trial in sweep["trials"]])
    trials = []
    for entry in sweep["trials"]:
        if entry["spec_id"] in planned:
            begin = max(last_end.get(entry["spec_id"], 0.0), driver.started_at if driver else 0.0)
            trials.append(_look_at(folder, entry, begin if alive else math.inf))
    request = read_request(folder / STOP_FILE) if alive else None
    return SweepStatus(
        folder=folder,
        sweep=sweep,
        driver=driver,
        alive=alive,
        stop=None if request is None else request["by"],
        trials=trials,
        elsewhere=len(sweep["trials"]) - len(trials),
        eta_s=_eta_s(trials, jobs) if alive else None,
    )


def _last_start(folder: Path) -> float:
    """Unix time of the last command on this sweep."""
    try:
        sweep = read_sweep(folder) or {}
    except UserError:
        return 0.0
    driver = read_driver(folder)
    planned = [sweep.get("started_at") or 0.0, *sweep.get("resumed_at", [])]
    return float(max([*planned, driver.started_at if driver is not None else 0.0]))


def _look_at(folder: Path, entry: Mapping[str, Any], begin: float) -> TrialStatus:
    """begin: a trial that has written anything since then is running; infinite if nothing runs."""
    trial = folder / "trials" / entry["spec_id"]
    result = read_any(trial)
    watch = None
    if result is not None and result.get("status") not in STATUSES:  # of no trial: as good as damaged
        result = None
    may_run = result is None or result["status"] == "failed"
    if may_run and _last_sign_of_life(trial) > begin:
        watch = TrialWatch(trial)
        watch.look()
    state = "running" if watch is not None else _state_at_rest(trial, result)
    rung = read_rung(trial, spec_id=entry["spec_id"]) if state == "paused" else None
    return TrialStatus(
        spec_id=entry["spec_id"],
        label=str(entry.get("label", entry["spec_id"])),
        state=state,
        steps=int(((entry.get("spec") or {}).get("recipe") or {}).get("steps") or 1),
        result=result,
        watch=watch,
        paused_at_step=None if rung is None else int(rung["step"]),
    )


def _state_at_rest(trial: Path, result: Mapping[str, Any] | None) -> str:
    if result is not None:
        status = str(result["status"])
        return status if status in ("ok", "failed") else "mismatch"
    paused_at, saved_at = _date(trial / RUNG_FILE), _date(trial / "resume.pt")
    if saved_at == paused_at == 0.0:
        return "waiting"
    return "paused" if paused_at >= saved_at else "interrupted"


def _last_sign_of_life(trial: Path) -> float:
    """Unix time at which an attempt last wrote something that is no result; 0 if none ever has."""
    return max(_date(trial / name) for name in _SIGNS_OF_LIFE)


def _date(path: Path) -> float:
    """When the file was last written, in unix seconds; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _eta_s(trials: Sequence[TrialStatus], jobs: Iterable[Mapping[str, Any]]) -> float | None:
    """Seconds until the known trials are done, by what the finished ones took; None while none has."""
    done = {trial.spec_id for trial in trials if trial.state in ("ok", "mismatch")}
    took_s: Counter[str] = Counter()
    for job in jobs:  # a trial that was interrupted has several
        if job["job"] in done:
            took_s[job["job"]] += job["ended_at"] - job["started_at"]
    if not took_s:
        return None
    mean_s = sum(took_s.values()) / len(took_s)
    running = [trial for trial in trials if trial.state == "running"]
    rest_s = [mean_s / 2 if trial.eta_s is None else float(trial.eta_s) for trial in running]
    ahead = sum(trial.state in ("waiting", "interrupted") for trial in trials)
    return max([(sum(rest_s) + ahead * mean_s) / max(1, len(running)), *rest_s])
