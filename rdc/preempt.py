"""How a trial ends before its time: paused at a step that was agreed, or preempted by SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Literal


class StoppedEarly(BaseException):
    """The trial ends here without a result, and can go on from its checkpoint.

    No Exception: what guards against failures must not take it for one. answer: what the trial then returns
    besides its status.
    """

    def __init__(self, status: Literal["paused", "preempted"], **answer: Any) -> None:
        super().__init__(status)
        self.status = status
        self.answer = answer


class Preemption:
    """Listens for SIGTERM. `wanted` says that one has come.

    Further ones change nothing: batch systems send several, to the process, its group and its container, and
    the checkpoint that the first one asked for may still be on its way to the disk.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._at_once = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While the block runs, SIGTERM is a request; only where nobody else has a use for it."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            yield  # as under a driver that runs trials in its own process: its answer to SIGTERM comes first
            return
        signal.signal(signal.SIGTERM, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """The block has nothing to save: a request raises StoppedEarly in the middle of it."""
        self._at_once = True
        try:
            self._obey()
            yield
        finally:
            self._at_once = False
        self._obey()

    def _obey(self) -> None:
        if self.wanted:
            raise StoppedEarly("preempted")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.wanted = not self.wanted, True
        if first and self._at_once:
            self._obey()
