"""Ends what a driver has started once the driver is gone, however it went.

Trials, fork servers, workers and Ray's own servers end with their parents. Ray's agents do not where Ray's
head has died too, which a killed driver takes with it: they then wait a minute for an answer from it. So a
process of its own holds a pipe to the driver, remembers what descends from it, and at the end of the pipe
kills what is still there after the time that trials have for their checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_KILL_AFTER_S = 7.0  # more than trials get for a checkpoint when their slot has died
# Ray's processes come in the first seconds; what comes later ends with its parent.
_OFTEN_S, _OFTEN_FOR_S, _SELDOM_S = 0.2, 60.0, 5.0

_Processes = dict[int, str]  # pid -> when it started, which with the pid names a process for good


def start_guardian() -> None:
    """Let a process of its own watch over this one and what descends from it, from now on."""
    read, _ = os.pipe()  # the other end stays open as long as this process lives, and nobody inherits it
    # No site packages: it needs none of them, and starts in milliseconds.
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(read)]
    subprocess.Popen(
        command,
        pass_fds=[read],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the driver's group is not for it
    )
    os.close(read)


def _watch(driver: int, pipe: int) -> _Processes:
    """Returns, once the driver is gone, what descended from it."""
    known: _Processes = {}
    often_until = time.monotonic() + _OFTEN_FOR_S
    while True:
        known.update(_descendants(driver))
        pause_s = _OFTEN_S if time.monotonic() < often_until else _SELDOM_S
        if select.select([pipe], [], [], pause_s)[0]:
            return known


def _end(known: _Processes) -> None:
    """Wait until they have ended; kill those that do not."""
    known.pop(os.getpid(), None)
    kill_at = time.monotonic() + _KILL_AFTER_S
    while alive := [pid for pid, started in known.items() if _started(pid) == started]:
        for pid in alive if time.monotonic() > kill_at else []:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _descendants(pid: int) -> _Processes:
    """Empty on kernels that do not list children."""
    found: _Processes = {}
    waiting = [pid]
    while waiting:
        for path in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in map(int, path.read_text().split()):
                    if started := _started(child):  # else it has ended since it was listed
                        found[child] = started
                        waiting.append(child)
    return found


def _started(pid: int) -> str:
    """Empty for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19] if fields[0] not in "ZX" else ""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # batch systems send it to all: the driver is still at work
    _end(_watch(int(sys.argv[1]), int(sys.argv[2])))
