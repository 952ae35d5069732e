"""When a running sweep has to end early: somebody asked for it, or its time is nearly over."""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import atomic_write_json, read_json

STOP_FILE = "stop.json"
# What is kept of the walltime for trials to write checkpoints and for the report: this, or this share of it.
_RESERVE_S = 120.0
_RESERVE_SHARE = 0.05
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")


class Drain:
    """Asked by the driver at every turn. Requests of before its making were for an earlier driver."""

    def __init__(self, folder: Path, walltime_s: float | None = None) -> None:
        self._stop_file = folder / STOP_FILE
        with contextlib.suppress(FileNotFoundError):
            self._stop_file.unlink()
        self._walltime_s = walltime_s
        self._ends_at = math.inf
        if walltime_s is not None:
            self._ends_at = time.monotonic() + walltime_s - min(_RESERVE_S, _RESERVE_SHARE * walltime_s)

    def reason(self) -> str | None:
        """Why no further trial may start; None while there is no reason."""
        if self._time_is_over():
            return f"the walltime of {self._walltime_s:g} s is nearly over"
        request = read_request(self._stop_file)
        return None if request is None else f"stop requested by {request['by']}"

    @property
    def now(self) -> bool:
        """Whether running trials have to write a checkpoint and end; else they run to their end."""
        request = read_request(self._stop_file)
        return self._time_is_over() or (request is not None and request["now"])

    def _time_is_over(self) -> bool:
        return time.monotonic() >= self._ends_at


def write_request(folder: Path, *, now: bool) -> None:
    """Ask the driver of this sweep folder to end. now: and its trials with it, at their next step."""
    by = f"{_user()} on {socket.gethostname()}"
    atomic_write_json(folder / STOP_FILE, {"by": by, "now": now, "asked_at": time.time()})


def read_request(path: Path) -> dict[str, Any] | None:
    """The request with by and now, None if nobody asked. An empty file made by hand is a request too."""
    if not path.exists():
        return None
    try:
        content = read_json(path)
    except UserError:
        content = None
    known = content if isinstance(content, dict) else {}
    return {"by": str(known.get("by", f"{STOP_FILE}")), "now": known.get("now") is True}


def parse_walltime(value: Any) -> float | None:
    """Seconds of cluster.walltime: a number of them, "HH:MM:SS" or "DAYS-HH:MM:SS"; None is no limit."""
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None or not 0 < seconds < math.inf:
        raise UserError(
            f"cluster.walltime={value!r}: must be seconds above 0, 'HH:MM:SS', 'DAYS-HH:MM:SS' or null"
        )
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    if found := _CLOCK.fullmatch(value.strip()):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(86400 * days + 3600 * hours + 60 * minutes + seconds)
    try:
        return float(value)
    except ValueError:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
