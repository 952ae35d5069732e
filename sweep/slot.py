"""The worker's side of a slot: a process with one fork server, which sweep.executor makes an actor."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.jobs import PREEMPT_GRACE_S

_LAST_WORDS_S = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlotSettings:
    """What a slot needs to start its fork server. log: file for the server's own output."""

    preload: tuple[str, ...]
    env: Mapping[str, str]
    log: str


class Slot:
    """Owns one fork server and runs one job at a time in its children."""

    def __init__(self, settings: SlotSettings) -> None:
        self._started_by = os.getppid()
        self._leaving, self._told_to_leave = threading.Event(), False
        threading.Thread(target=self._end_with_raylet, daemon=True).start()
        ours, theirs = socket.socketpair()
        Path(settings.log).parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sweep.forkserver", str(theirs.fileno()), *settings.preload]
        with open(settings.log, "a") as log:
            self._server = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **settings.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        theirs.close()
        self._control = ours
        self._lines = ours.makefile("r", encoding="utf-8")
        threading.Thread(target=self._end_with_server, daemon=True).start()
        self._leave_on_sigterm()

    def ready(self) -> dict[str, Any]:
        """What the fork server says of itself once it has imported everything."""
        answer: dict[str, Any] = self._receive()["ready"]
        return answer

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run the job in a child and wait for its end."""
        self._send({"run": job})
        answer: dict[str, Any] = self._receive()["ended"]
        return answer

    def stop(self, grace_s: float) -> None:
        """Ask the running job to stop, kill it after grace_s."""
        self._send({"stop": grace_s})

    def leaving(self) -> bool:
        """Returns when this slot takes no further job; whether because it was told to leave its machine."""
        self._leaving.wait()
        return self._told_to_leave

    def _leave_on_sigterm(self) -> None:
        """SIGTERM: the machine is taken away. The running job writes a checkpoint and its end is reported.

        Ray's own handler would end this process at once.
        """
        sigterm, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        # Python runs handlers when the first thread next runs Python, and that one waits inside Ray.
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

        def wait() -> None:
            while os.read(sigterm, 1)[0] != signal.SIGTERM:
                pass
            self._told_to_leave = True
            self._leaving.set()
            self._send({"leave": PREEMPT_GRACE_S})

        threading.Thread(target=wait, daemon=True).start()

    def _send(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            line = ""
        if not line:  # the fork server is gone, and its child with it: let Ray see a dead slot
            os._exit(1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _end_with_server(self) -> None:
        self._server.wait()
        self._leaving.set()
        time.sleep(_LAST_WORDS_S)  # the end of its last job is still on its way to the driver
        os._exit(1)

    def _end_with_raylet(self) -> None:
        while os.getppid() == self._started_by:
            time.sleep(0.5)
        os._exit(1)
