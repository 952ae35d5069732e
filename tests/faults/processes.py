"""Who belongs to a sweep that was started with a marker in its environment, and what each of them is."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

MARKER = "RDC_FAULTS"


@dataclasses.dataclass(frozen=True)
class Process:
    """started: clock ticks since boot; with the pid it names a process for good."""

    pid: int
    started: int
    parent: int
    command: str

    @property
    def kind(self) -> str:
        """head, raylet, worker, forkserver, driver or other; a trial is told by its parent, see Family."""
        if self.command.startswith("ray::Slot"):
            return "worker"
        for name, part in (
            ("head", "gcs_server"),
            ("raylet", "raylet/raylet"),
            ("forkserver", "sweep.forkserver"),
        ):
            if part in self.command:
                return name
        return "driver" if "-m sweep" in self.command else "other"


class Family:
    """All processes that ever descended from a marked one: some of them change their titles and parents."""

    def __init__(self, marker: str) -> None:
        self._marker = f"{MARKER}={marker}".encode()
        self._known: set[tuple[int, int]] = set()

    def alive(self) -> list[Process]:
        """Members that run now."""
        processes = {process.pid: process for process in _all_processes()}
        members: set[int] = set()
        for process in processes.values():
            if (process.pid, process.started) in self._known or self._is_marked(process.pid):
                members.add(process.pid)
        for process in sorted(processes.values(), key=lambda p: p.started):
            if process.parent in members:
                members.add(process.pid)
        self._known |= {(pid, processes[pid].started) for pid in members}
        return [processes[pid] for pid in sorted(members)]

    def of_kind(self, kind: str) -> list[Process]:
        """Members of a kind; "trial" for the children of fork servers."""
        alive = self.alive()
        servers = {p.pid for p in alive if p.kind == "forkserver"}
        trials = {p.pid for p in alive if p.parent in servers}
        if kind == "trial":
            return [p for p in alive if p.pid in trials]
        return [p for p in alive if p.kind == kind and p.pid not in trials]

    def _is_marked(self, pid: int) -> bool:
        try:
            return self._marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def send(number: signal.Signals, process: Process) -> None:
    """The signal, unless the process has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def _all_processes() -> Iterator[Process]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if fields[0] not in "ZX":
            yield Process(int(folder.name), int(fields[19]), int(fields[1]), command)
