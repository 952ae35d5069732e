"""How a trial ends before its time: paused at a step that was agreed, or preempted on request."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
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


def _nobody() -> bool:
    return False


_asked: ContextVar[Callable[[], bool]] = ContextVar("asked", default=_nobody)


@contextlib.contextmanager
def asking(wanted: Callable[[], bool]) -> Iterator[None]:
    """Trials that this process runs inside the block ask `wanted` before each step whether to end."""
    token = _asked.set(wanted)
    try:
        yield
    finally:
        _asked.reset(token)


class Preemption:
    """Listens for SIGTERM, and asks whom `asking` names. `wanted` says that the trial is to end.

    Further ones change nothing: batch systems send several, to the process, its group and its container, and
    the checkpoint that the first one asked for may still be on its way to the disk.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._at_once = False

    @property
    def wanted(self) -> bool:
        return self._signalled or _asked.get()()

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
        """The block has nothing to save: SIGTERM raises StoppedEarly in the middle of it."""
        self._at_once = True
        try:
            if self.wanted:
                raise StoppedEarly("preempted")
            yield
        finally:
            self._at_once = False
        if self._signalled:  # a library may have swallowed what was raised
            raise StoppedEarly("preempted")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self._signalled = not self._signalled, True
        if first and self._at_once:
            raise StoppedEarly("preempted")
