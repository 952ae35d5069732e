"""Which trials to look at: a poll must cost what has changed, not what the sweep's folder holds."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

IN_TURN = 50  # trials that nobody expects a change of are looked at so many at a time
# A folder's time stamp is coarse, and on some file systems late: after a change it is listed for a while.
RELIST_S = 3.0
LISTING_SHARE = 0.01  # of the time at most goes into listing: a folder of thousands takes milliseconds


class Watch:
    """The trials of a sweep that have files, the timings, and what may have changed among them."""

    def __init__(self, folder: Path) -> None:
        # Not what somebody has put beside the trials, such as a copy of one under another name.
        self._trials = _Listing(folder / "trials", re.compile(r"[0-9a-f]+"))
        self._timings = _Listing(folder / "timing", re.compile(r"[^.].*\.json"))
        # arch_id, or spec_id of a trial with gates -> its timing in the newest setting
        self._timed: dict[str, Path] = {}
        self._jobs = folder / "jobs.jsonl"
        self._jobs_at = 0
        self._turn: Iterator[str] = iter(())

    def everything(self) -> set[str]:
        """All trials; from here on the methods below say what has come since."""
        self._jobs_at = self._jobs.stat().st_size if self._jobs.exists() else 0
        self._trials.list(anew=True)
        self._timings.list(anew=True)
        self._timed = self._newest_timings()
        return set(self._trials.names)

    def new(self) -> set[str]:
        """Trials that have begun since."""
        before = self._trials.names
        return self._trials.list() - before

    def ended(self) -> set[str]:
        """Trials whose jobs the driver has seen ending since."""
        if not self._jobs.exists() or self._jobs.stat().st_size == self._jobs_at:
            return set()
        with open(self._jobs, "rb") as file:
            file.seek(self._jobs_at)
            whole, newline, _unfinished = file.read().rpartition(b"\n")
        self._jobs_at += len(whole) + len(newline)
        return {event["job"] for event in _json_lines(whole) if event.get("kind") == "trial"}

    def timed(self) -> set[str]:
        """arch_ids, and spec_ids of trials with gates, that have been timed since."""
        before = self._timings.names
        if self._timings.list() == before and not self._timings.is_young():
            return set()
        earlier, self._timed = self._timed, self._newest_timings()
        return {timed for timed, path in self._timed.items() if earlier.get(timed) != path}

    def in_turn(self) -> set[str]:
        """Some of the others: what changes them unannounced is found sooner or later."""
        some = set(itertools.islice(self._turn, IN_TURN))
        if len(some) < IN_TURN:
            self._turn = iter(self._trials.names)
        return some & self._trials.names

    def timing(self, spec_id: str, arch_id: str) -> Path | None:
        """Of the trial itself where it has one, or else of its architecture."""
        return self._timed.get(spec_id) or self._timed.get(arch_id)

    def _newest_timings(self) -> dict[str, Path]:
        """One setting for all: the newest, which is that of the last command."""
        paths = [self._timings.folder / name for name in self._timings.names]
        return {path.name.split("__")[0]: path for path in sorted(paths, key=lambda p: p.stat().st_mtime)}


class _Listing:
    """The names in a folder that fit a pattern, listed again only when it has changed."""

    def __init__(self, folder: Path, pattern: re.Pattern[str]) -> None:
        self.folder = folder
        self._pattern = pattern
        self.names: set[str] = set()
        self._mtime_ns = -1
        self._young_until = 0.0
        self._is_stale = True
        self._not_before = 0.0

    def is_young(self) -> bool:
        return time.monotonic() < self._young_until

    def list(self, *, anew: bool = False) -> set[str]:
        try:
            mtime_ns = self.folder.stat().st_mtime_ns
        except OSError:
            return self.names
        if mtime_ns != self._mtime_ns:
            self._mtime_ns = mtime_ns
            self._young_until = time.monotonic() + RELIST_S
            self._is_stale = True
        started = time.monotonic()
        if anew or ((self._is_stale or self.is_young()) and started >= self._not_before):
            self.names = {name for name in os.listdir(self.folder) if self._pattern.fullmatch(name)}
            self._is_stale = False
            self._not_before = started + (time.monotonic() - started) / LISTING_SHARE
        return self.names


def _json_lines(text: bytes) -> Iterable[dict[str, str]]:
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "job" in event:
            yield event
