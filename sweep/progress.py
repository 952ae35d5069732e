"""What the user sees while a sweep runs: a bar and a line per running trial, or plain lines in a pipe."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from sweep.plan import PlannedTrial
from sweep.pricing import fit_line

HEARTBEAT_S = 15.0
_REDRAW_S = 0.5


class Display(Protocol):
    """Shows a running sweep. Every method returns at once."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def started(self, trial: PlannedTrial) -> None: ...

    def ended(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None: ...

    def update(self) -> None:
        """Look at the running trials' files; call it often."""

    def close(self) -> None: ...


class TrialWatch:
    """What a running trial has written so far, read from where the last look ended."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._offset = 0
        self.latest: dict[str, Any] = {}
        self.phase = "starting"
        self.started_at = time.monotonic()

    def look(self) -> None:
        """Read the new lines."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size < self._offset:  # a resumed trial cuts what its checkpoint does not cover
            self._offset = 0
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            *lines, unfinished = file.read().split(b"\n")
            self._offset = file.tell() - len(unfinished)
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # cut and grown again between two looks: we are in the middle of a line
                self._offset = 0
                return
            self.phase = row.get("phase", self.phase)
            self.latest.update(row)

    def share(self, steps: int) -> float:
        """How much of its training is done, 0 to 1."""
        return min(1.0, self.latest.get("step", 0) / steps)

    def text(self, steps: int) -> str:
        """step, loss, bpp, PSNR and ETA, as far as they are known."""
        row = self.latest
        if "train/loss" not in row:
            return self.phase
        if self.phase not in ("train", "starting"):
            return f"{self.phase.replace('_', ' ')}"
        parts = [f"step {row['step']}/{steps}", f"loss {row['train/loss']:.3f}"]
        if "train/bpp" in row:
            parts.append(f"{row['train/bpp']:.3f} bpp")
        if "train/psnr_db" in row:
            parts.append(f"{row['train/psnr_db']:.2f} dB")
        if row.get("eta_s") is not None:
            parts.append(f"ETA {duration(row['eta_s'])}")
        return "  ".join(parts)


@dataclasses.dataclass
class Tally:
    """Counts, names, and the estimate of what is left. work: any unit proportional to a trial's duration.

    total: trials that this command will run, also those that a search has not chosen yet.
    """

    names: dict[str, str]
    work: dict[str, float]
    slots: int
    total: int
    done: int = 0
    failed: int = 0
    _finished: list[tuple[float, float]] = dataclasses.field(default_factory=list)  # (work, seconds)
    _left: set[str] = dataclasses.field(default_factory=set)

    def __post_init__(self) -> None:
        self._left = set(self.work)

    def expect(self, spec_id: str, name: str, work: float) -> None:
        """A trial that was not known from the start."""
        self.names[spec_id] = name
        self.work[spec_id] = work
        self._left.add(spec_id)

    def add(self, spec_id: str, busy_s: float, *, failed: bool) -> None:
        self.done += 1
        self.failed += failed
        self._left.discard(spec_id)
        if not failed:
            self._finished.append((self.work[spec_id], busy_s))

    def left_s(self, running: Mapping[str, float]) -> float | None:
        """Seconds to the end; None until a trial has finished. running: seconds that each one has taken."""
        if not self._finished:
            return None
        fixed_s, s_per_work = fit_line([work for work, _ in self._finished], [s for _, s in self._finished])
        left = [
            max(0.0, fixed_s + self.work[spec_id] * s_per_work - running.get(spec_id, 0.0))
            for spec_id in self._left
        ]
        mean_s = sum(seconds for _, seconds in self._finished) / len(self._finished)
        unknown_s = max(0, self.total - self.done - len(left)) * mean_s
        # Never less than the longest of them: one trial does not get faster by idle slots.
        return max([(sum(left) + unknown_s) / self.slots, *left], default=0.0)


class PlainDisplay:
    """Lines for logs and pipes: one per start and end, and a heartbeat."""

    def __init__(self, stream: TextIO, tally: Tally) -> None:
        self._stream = stream
        self._tally = tally
        self._watches: dict[str, tuple[PlannedTrial, TrialWatch]] = {}
        self._spoke_at = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
        self._spoke_at = time.monotonic()

    def started(self, trial: PlannedTrial) -> None:
        self._watches[trial.spec_id] = trial, TrialWatch(trial.folder)
        self.say(f"start   {self._title(trial)}")

    def ended(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        _, watch = self._watches.pop(trial.spec_id)
        self.say(_end_line(self._tally, trial, watch, result))

    def update(self) -> None:
        if time.monotonic() - self._spoke_at < HEARTBEAT_S or not self._watches:
            return
        self.say(f"{_count(self._tally)} done{_left(self._tally, self._watches)}")
        for trial, watch in self._watches.values():
            watch.look()
            self.say(f"        {self._title(trial)}  {watch.text(trial.spec.recipe.steps)}")

    def close(self) -> None:
        self._watches.clear()

    def _title(self, trial: PlannedTrial) -> str:
        return self._tally.names[trial.spec_id]


class LiveDisplay:
    """A bar for the sweep and a line per running trial, redrawn in place."""

    def __init__(self, stream: TextIO, tally: Tally) -> None:
        import rich.console
        import rich.live

        self._tally = tally
        self._watches: dict[str, tuple[PlannedTrial, TrialWatch]] = {}
        self._console = rich.console.Console(file=stream, highlight=False)
        self._live = rich.live.Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        self._drawn_at = 0.0

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def started(self, trial: PlannedTrial) -> None:
        self._watches[trial.spec_id] = trial, TrialWatch(trial.folder)

    def ended(self, trial: PlannedTrial, result: Mapping[str, Any]) -> None:
        _, watch = self._watches.pop(trial.spec_id)
        self.say(_end_line(self._tally, trial, watch, result))

    def update(self) -> None:
        if time.monotonic() - self._drawn_at < _REDRAW_S:
            return
        for _, watch in self._watches.values():
            watch.look()
        self._live.update(self._picture(), refresh=True)
        self._drawn_at = time.monotonic()

    def close(self) -> None:
        self._live.update("", refresh=True)
        self._live.stop()

    def _title(self, trial: PlannedTrial) -> str:
        return self._tally.names[trial.spec_id]

    def _picture(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        head = Table.grid(padding=(0, 1))
        text = f"{self._tally.done}/{self._tally.total} trials{_left(self._tally, self._watches)}"
        running = sum(watch.share(trial.spec.recipe.steps) for trial, watch in self._watches.values())
        bar = ProgressBar(total=max(self._tally.total, 1), completed=self._tally.done + running, width=30)
        head.add_row(bar, text)
        lines = Table.grid(padding=(0, 2))
        for trial, watch in self._watches.values():
            lines.add_row(f"  {self._title(trial)}", watch.text(trial.spec.recipe.steps))
        return Group(head, lines)


def open_display(stream: TextIO, tally: Tally) -> Display:
    """The live display where the stream is a terminal that can be redrawn."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveDisplay(stream, tally)
    return PlainDisplay(stream, tally)


def _end_line(tally: Tally, trial: PlannedTrial, watch: TrialWatch, result: Mapping[str, Any]) -> str:
    """Counts the trial, and says how it ended."""
    busy_s = time.monotonic() - watch.started_at
    if result["status"] not in ("paused", "preempted"):
        tally.add(trial.spec_id, busy_s, failed=result["status"] == "failed")
    return f"{_count(tally)} {tally.names[trial.spec_id]}  {verdict(result)}  {duration(busy_s)}"


def verdict(result: Mapping[str, Any]) -> str:
    """A result in a few words."""
    if result["status"] in ("paused", "preempted"):
        return f"{result['status']} at step {result['step']}"
    if result["status"] == "failed":
        error = result.get("error") or {}
        message = str(error.get("message", ""))
        return f"FAILED {error.get('class')}: {message if len(message) < 160 else message[:157] + '...'}"
    scores = result["evaluation"]
    text = f"{scores['bpp']:.3f} bpp  {scores['psnr_db']:.2f} dB  rd_loss {scores['rd_loss']:.3f}"
    return text if result["status"] == "ok" else f"{result['status'].upper()}  {text}"


def duration(seconds: float) -> str:
    """42 s, 3.5 min, 2.1 h, 4.0 days."""
    for limit, unit, divisor in ((90, "s", 1), (5400, "min", 60), (129600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}" if divisor == 1 else f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _count(tally: Tally) -> str:
    return f"{tally.done:>3}/{tally.total:<3}"


def _left(tally: Tally, watches: Mapping[str, tuple[PlannedTrial, TrialWatch]]) -> str:
    now = time.monotonic()
    seconds = tally.left_s({spec_id: now - watch.started_at for spec_id, (_, watch) in watches.items()})
    failed = f", {tally.failed} failed" if tally.failed else ""
    return failed + (f", about {duration(seconds)} left" if seconds else "")
