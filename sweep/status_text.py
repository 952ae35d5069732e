"""What `python -m sweep status` prints."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep.closing import relative
from sweep.progress import duration
from sweep.status import STATES, SweepStatus, TrialStatus

_MOST_LOGS = 3  # per class of failure; --json has them all
_MOST_LINES = 20  # per state
_MOST_ARCHITECTURES = 10
_OBJECTIVES = ("rd_loss", "kmac_per_px_dec")
# What comparing and showing takes; a whole row would take ten times as long, which counts at 10,000 trials.
_COLUMNS = (
    *("spec_id", "curve_id", "arch_id", "label", "status", "lmbda", "semantics_version", "budget"),
    *("dataset", "dataset_hash", "bpp", "psnr_db", "params_m", "kflop_per_px_dec", *_OBJECTIVES),
)
_NAMES = {"paused": "stopped early", "interrupted": "to be continued"}


def counts_text(status: SweepStatus) -> str:
    """Who drives the sweep, how many trials are in which state, what runs and what failed."""
    lines = [f"sweep {status.sweep.get('name')} in {relative(status.folder.resolve())}", _driver_line(status)]
    if status.stop is not None:
        lines.append(f"stop requested by {status.stop}; no further trial starts")
    parts = [f"{status.count(state)} {_NAMES.get(state, state)}" for state in STATES if status.count(state)]
    nothing_yet = "none planned yet" + ("; models and images come first" if status.alive else "")
    lines.append(f"{len(status.trials)} trials: {', '.join(parts) or nothing_yet}")
    if status.to_come:
        lines.append(f"{status.to_come} more need results of others")
    if status.elsewhere:
        lines.append(f"{status.elsewhere} more of earlier commands, not asked for by the last one")
    for state in ("running", "paused"):
        lines += _trial_lines([trial for trial in status.trials if trial.state == state])
    if status.eta_s is not None and status.stop is None:
        lines.append(f"about {duration(status.eta_s)} left")
    return "\n".join([*lines, *_failure_lines(status)])


def frontier_text(status: SweepStatus) -> str:
    """A short table of the frontier so far."""
    from analysis.text import architecture_table

    architectures, compared = _frontier(status)
    if architectures is None:
        return "frontier so far: no trial to compare yet"
    head = f"frontier so far: {len(architectures)} of {compared} architectures"
    shown = architectures.head(_MOST_ARCHITECTURES)
    more = len(architectures) - len(shown)
    lines = [head, architecture_table(shown, _OBJECTIVES)]
    if more:
        lines.append(f"and {more} more: python -m analysis frontier {relative(status.folder.resolve())}")
    return "\n".join(lines)


def as_json(status: SweepStatus) -> dict[str, Any]:
    """Everything that the text says, and every trial, as JSON types."""
    architectures, compared = _frontier(status)
    columns = ["arch_id", "label", *_OBJECTIVES, "bpp", "psnr_db"]
    return {
        "name": status.sweep.get("name"),
        "folder": str(status.folder),
        "status": _word(status),
        "driver": None if status.driver is None else {**_driver(status), "alive": status.alive},
        "command": status.sweep.get("command"),
        "stop_requested_by": status.stop,
        "eta_s": status.eta_s,
        "counts": {state: status.count(state) for state in STATES},
        "to_come": status.to_come,
        "elsewhere": status.elsewhere,
        "failures": {
            name: [{"spec_id": t.spec_id, "message": _message(t), "log": str(_log(status, t))} for t in found]
            for name, found in status.failures().items()
        },
        "frontier": {
            "compared": compared,
            "architectures": [] if architectures is None else architectures[columns].to_dict("records"),
        },
        "trials": [_trial_json(trial) for trial in status.trials],
    }


def _driver_line(status: SweepStatus) -> str:
    driver, word = status.driver, _word(status)
    if driver is not None and status.alive:
        return f"running: driven by {driver} for {duration(time.time() - driver.started_at)}"
    again = how_to_go_on(status)
    if word == "killed":
        who = str(driver) if driver is not None else "the driver"
        return f"killed: {who} is gone; what is finished is kept\n{again}"
    ended_at = status.sweep.get("ended_at")
    ago = f" {duration(max(0.0, time.time() - ended_at))} ago" if ended_at else ""
    return f"{word}{ago}" if word == "finished" else f"{word}{ago}; {again}"


def how_to_go_on(status: SweepStatus) -> str:
    """The command that continues; it is not known before the first plan."""
    return f"continue with: {status.sweep.get('command') or 'the same command'}"


def _word(status: SweepStatus) -> str:
    """running, killed, or how the last command ended."""
    if status.alive:
        return "running"
    recorded = str(status.sweep.get("status", "unknown"))
    return "killed" if recorded == "running" else recorded


def _trial_lines(trials: list[TrialStatus]) -> Iterator[str]:
    for trial in trials[:_MOST_LINES]:
        if trial.watch is not None:
            yield f"  {trial.label}  {trial.watch.text(trial.steps)}"
        else:
            yield f"  {trial.label}  stopped early at step {trial.paused_at_step or '?'}/{trial.steps}"
    if len(trials) > _MOST_LINES:
        yield f"  and {len(trials) - _MOST_LINES} more {_NAMES.get(trials[0].state, trials[0].state)}"


def _failure_lines(status: SweepStatus) -> Iterator[str]:
    for name, trials in status.failures().items():
        yield f"{len(trials)} x {name}: {_message(trials[0])}"
        for trial in trials[:_MOST_LOGS]:
            yield f"  {trial.label}: {relative(_log(status, trial))}"
        if len(trials) > _MOST_LOGS:
            yield f"  and {len(trials) - _MOST_LOGS} more; --json lists them"


def _message(trial: TrialStatus) -> str:
    return str(((trial.result or {}).get("error") or {}).get("message") or "no message")


def _log(status: SweepStatus, trial: TrialStatus) -> Path:
    name = ((trial.result or {}).get("error") or {}).get("log") or "log.txt"
    return Path(os.path.abspath(status.folder / "trials" / trial.spec_id / str(name)))


def _driver(status: SweepStatus) -> dict[str, Any]:
    assert status.driver is not None, "asked for only where there is one"
    return {"pid": status.driver.pid, "host": status.driver.host, "started_at": status.driver.started_at}


def _trial_json(trial: TrialStatus) -> dict[str, Any]:
    fields = {"spec_id": trial.spec_id, "label": trial.label, "state": trial.state, "steps": trial.steps}
    if trial.state == "paused":
        return {**fields, "step": trial.paused_at_step}
    if trial.watch is None:
        return fields
    return {
        **fields,
        "step": trial.watch.latest.get("step"),
        "phase": trial.watch.phase,
        "eta_s": trial.eta_s,
    }


def _frontier(status: SweepStatus) -> tuple[Any, int]:
    """(table of the frontier, lowest rd_loss first, how many were compared); (None, 0) without any."""
    results = [t.result for t in status.trials if t.state == "ok" and t.result is not None]
    if not results:
        return None, 0
    from analysis.comparable import average_seeds, comparable, distinct_labels
    from analysis.frontier import rank
    from analysis.rows import budget_id, frame_of
    from analysis.schema import column, read_value

    columns = [column(name) for name in _COLUMNS]
    rows = [{**{c.name: read_value(r, c) for c in columns}, "budget_id": budget_id(r)} for r in results]
    selection = comparable(frame_of(rows), list(_OBJECTIVES))
    if selection.rows.empty:
        return None, 0
    architectures = rank(average_seeds(distinct_labels(selection.rows)), _OBJECTIVES)
    best = architectures[architectures["on_frontier"]].sort_values("rd_loss", kind="stable")
    return best, len(architectures)
