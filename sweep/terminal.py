"""The user's terminal, kept clear of what libraries print: that goes to the sweep's driver.log."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from sweep.jobs import PREEMPT_GRACE_S

_GRACE_S = 5.0


@contextlib.contextmanager
def terminal(log: Path, *, divert: bool) -> Iterator[TextIO]:
    """The stream for our own lines. divert: everything else written to stdout or stderr goes to `log`.

    File descriptors are diverted, not only Python's streams: Ray's native code writes to them directly.
    """
    if not divert:
        yield sys.stdout
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    for copy in saved.values():
        os.set_inheritable(copy, False)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number in saved:
        os.dup2(file, number)
    os.close(file)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        with os.fdopen(os.dup(saved[1]), "w", buffering=1) as stream:
            yield stream
    finally:
        logging.getLogger().removeHandler(handler)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)


class Interrupts:
    """Ctrl-C or SIGTERM raises KeyboardInterrupt; a second Ctrl-C ends this process, and with it its workers.

    Further SIGTERMs change nothing: batch systems send several, and the sweep's record is still to be closed.
    grace_s: between asking a trial to stop and killing it; a person waits for less than a machine.
    """

    def __init__(self) -> None:
        self._interrupted = False
        self._by_hand = 0
        self.grace_s = _GRACE_S

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """While the block runs, the handlers are ours."""
        before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Set the handlers (again: Ray puts one of its own in place of SIGTERM's)."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._by_hand += number == signal.SIGINT
        if self._by_hand > 1:
            os._exit(130)  # fork servers see their owners go and kill their trials
        if not self._interrupted:
            self._interrupted = True
            self.grace_s = PREEMPT_GRACE_S if number == signal.SIGTERM else _GRACE_S
            raise KeyboardInterrupt
