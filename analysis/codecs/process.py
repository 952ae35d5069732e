"""Programs of the user: started without a shell, ended with everything they started, never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from analysis.codecs.codec import CodecError, UnavailableError

_BANNER_TIMEOUT_S = 10.0
_running: set[subprocess.Popen[bytes]] = set()
_stopped = threading.Event()
_lock = threading.Lock()


def run(command: Sequence[str], timeout_s: float) -> None:
    """CodecError in one line if it cannot be started, fails, or takes longer than `timeout_s`."""
    status, output = _finish(command, timeout_s)
    name = Path(command[0]).name
    if status is None:
        raise CodecError(f"{name} was ended after {timeout_s:g} s without an end in sight")
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
        raise CodecError(f"{name} {how}: {last_line(output) or 'it said nothing'}")


def output_of(command: Sequence[str]) -> str:
    """What a program prints when it is asked for help; its exit status says nothing then."""
    try:
        return _finish(command, _BANNER_TIMEOUT_S)[1]
    except CodecError as error:
        raise UnavailableError(str(error)) from None


def end_running() -> None:
    """Kill what `run` is waiting for, in whatever thread, and start nothing more until `allow_running`."""
    with _lock:
        _stopped.set()
        for process in _running:
            _kill(process)


def allow_running() -> None:
    """Take back `end_running`, once the threads that it stopped are gone."""
    _stopped.clear()


def last_line(text: str) -> str:
    """The last line that says something, cut to a length that fits a message."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _finish(command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """Exit status, None if time ran out, and all that was printed."""
    process = _start(command)
    try:
        output, _ = process.communicate(timeout=timeout_s)
        return process.returncode, output.decode(errors="replace")
    except subprocess.TimeoutExpired:
        _kill(process)  # with children that may hold its output open after it has ended itself
        return None, ""
    finally:
        with _lock:
            _running.discard(process)
        if process.poll() is None:
            _kill(process)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    with _lock:  # or a program could start just after all had been ended
        if _stopped.is_set():
            raise CodecError("interrupted")
        try:
            # A session of its own: Ctrl-C is for us, and whatever the program starts ends with it.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CodecError(f"{command[0]}: cannot be started ({error.strerror})") from None
        _running.add(process)
        return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
