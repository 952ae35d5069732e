"""Trials as children of a process that has imported everything, as under a slot's fork server.

Not forked from the tests' own process: that has run torch, and has threads which a child would lack.
`python -m tests.rdc.forked` is that process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rdc.machine import thread_env
from rdc.spec import RunSettings, TrialSpec

# What Python tells audit hooks of: each is the moment before something in the trial's folder changes.
_OPERATIONS = {"open", "os.mkdir", "tempfile.mkstemp", "os.chmod", "os.rename", "os.truncate", "os.remove"}


class Forked:
    """One trial after another, each in a process group of its own.

    pid: of the one that was started last. imported: the modules that the last one had to import itself.
    """

    def __init__(self, server: subprocess.Popen[str]) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._in, self._out = server.stdin, server.stdout
        self.pid = 0
        self.imported: list[str] = []

    def start(self, spec: TrialSpec, run: RunSettings, *, kill_at: tuple[str, int] | None = None) -> None:
        """kill_at: SIGKILL it before the n-th such operation on a file of its folder; "" is any operation."""
        payload = {"spec": spec.to_dict(), "run": dataclasses.asdict(run)}
        self._in.write(json.dumps([payload, kill_at]) + "\n")
        self._in.flush()
        self.pid = json.loads(self._out.readline())

    def wait(self) -> tuple[int, Any]:
        """(exit code, negative for a signal; what run_payload returned)."""
        code, value, self.imported = json.loads(self._out.readline())
        return code, value


@contextlib.contextmanager
def forking() -> Iterator[Forked]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.rdc.forked"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **thread_env(1)},
    )
    forked = Forked(server)
    try:
        yield forked
    finally:
        if forked.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(forked.pid, signal.SIGKILL)
        assert server.stdin is not None
        server.stdin.close()
        server.wait()


def wait_for(condition: Callable[[], Any], *, limit_s: float = 120.0) -> bool:
    ends_at = time.monotonic() + limit_s
    while not (true := condition()) and time.monotonic() < ends_at:
        time.sleep(0.02)
    return bool(true)


def _serve() -> None:
    from rdc.lean_import import lean_compressai

    lean_compressai()
    import rdc.trial
    from rdc.spec import prepare

    prepare()
    for line in sys.stdin:
        payload, kill_at = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            if kill_at is not None:
                _kill_at(payload["run"]["folder"], *kill_at)
            before = set(sys.modules)
            value = rdc.trial.run_payload(payload)
            os.write(write, json.dumps([value, sorted(set(sys.modules) - before)]).encode())
            os._exit(0)
        os.close(write)
        with contextlib.suppress(PermissionError):  # the child does the same: whoever is first
            os.setpgid(child, child)
        print(child, flush=True)
        with os.fdopen(read, "rb") as pipe:
            said = json.loads(pipe.read() or b"[null, []]")
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *said]), flush=True)


def _kill_at(folder: str, operation: str, number: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        paths = [str(a) for a in arguments if isinstance(a, str | Path)]
        meant = {operation} if operation else _OPERATIONS
        if event in meant and any(path.startswith(folder) for path in paths):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
