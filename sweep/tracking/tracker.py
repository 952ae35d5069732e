"""What the driver holds: it signals, a thread of its own writes; nothing of it can stop or slow a sweep."""

from __future__ import annotations

import dataclasses
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from rdc.errors import UserError
from rdc.spec import parse
from sweep.tracking.address import artifact_root, redact, server_name, tracking_uri
from sweep.tracking.client import Client, ServerError, require_mlflow
from sweep.tracking.mirror import Mirror

log = logging.getLogger(__name__)

MIN_INTERVAL_S = 1.0
IDLE_S = 5.0  # a driver that runs a trial in its own process does not signal meanwhile
RETRY_S = (2.0, 5.0, 10.0, 30.0, 60.0)


class Tracker(Protocol):
    """poll returns at once, finish within a known time; neither raises."""

    def poll(self) -> None:
        """Something may have changed in the files."""

    def finish(self, status: str) -> None:
        """Log what is left, close all runs; status: FINISHED, FAILED or KILLED. Call it after the report."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The group `tracking` for MLflow; conf/tracking/mlflow.yaml explains the keys."""

    name: Literal["mlflow"]
    uri: str | None
    experiment: str
    artifacts: str | None
    request_timeout_s: float
    finish_timeout_s: float

    def __post_init__(self) -> None:
        for field in ("request_timeout_s", "finish_timeout_s"):
            if not getattr(self, field) > 0:
                raise UserError(f"tracking.{field}={getattr(self, field)}: must be greater than 0")


def check_tracking(config: Mapping[str, Any], runs_dir: Path) -> tuple[Settings, str] | None:
    """The settings and the URI to write to, None for tracking=none; UserError in one line."""
    if config.get("name") == "none":
        return None
    settings = parse(Settings, dict(config), where="tracking")
    require_mlflow()
    return settings, tracking_uri(settings.uri, runs_dir)


def open_tracker(
    config: Mapping[str, Any],
    folder: Path,
    sweep: Mapping[str, Any],
    say: Callable[[str], None] | None = None,
) -> Tracker:
    """config: the composed group `tracking`; sweep: the content of sweep.json; say: shows one line."""
    checked = check_tracking(config, folder.resolve().parent)
    if checked is None:
        return _NoTracker()
    settings, uri = checked
    return MlflowTracker(uri, settings, folder.resolve(), sweep, say or _print_line)


class _NoTracker:
    def poll(self) -> None:
        pass

    def finish(self, status: str) -> None:
        pass


class MlflowTracker:
    """The calling thread prints what the writer has to say: there may be a progress bar to respect."""

    def __init__(
        self,
        uri: str,
        settings: Settings,
        folder: Path,
        sweep: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._say = say
        self._server = server_name(uri)
        self._finish_timeout_s = settings.finish_timeout_s
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        mirror = Mirror(
            Client(uri, settings.request_timeout_s),
            experiment=settings.experiment,
            artifacts=artifact_root(uri, settings.artifacts, folder.parent),
            folder=folder,
            sweep=sweep,
            say=self._messages.put,
        )
        self._writer = _Writer(mirror, self._server, self._messages.put)
        self._writer.start()

    def poll(self) -> None:
        self._writer.wake.set()
        self._show_messages()

    def finish(self, status: str) -> None:
        self._writer.final_status = status
        self._writer.wake.set()
        deadline = time.monotonic() + self._finish_timeout_s
        while self._writer.is_alive() and time.monotonic() < deadline:
            self._writer.join(0.1)
            self._show_messages()
        if not self._writer.complete:
            self._messages.put(
                f"MLflow at {self._server} lacks a part of this sweep; the same command again logs it "
                "from the files"
            )
        self._show_messages()

    def _show_messages(self) -> None:
        while True:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                return
            log.warning(message)
            self._say(message)


class _Writer(threading.Thread):
    """Brings the server up to the files whenever woken, until told to finish."""

    def __init__(self, mirror: Mirror, server: str, say: Callable[[str], None]) -> None:
        # A daemon: a request that hangs at the sweep's end must not keep the process alive.
        super().__init__(name="mlflow-writer", daemon=True)
        self.wake = threading.Event()
        self.final_status: str | None = None
        self.complete = False
        self._mirror = mirror
        self._server = server
        self._say = say
        self._failures = 0

    def run(self) -> None:
        while True:
            final_status = self.final_status
            try:
                reached = self._sync(final_status)
            except Exception as error:
                # A mistake of ours must not end somebody's sweep; it must be seen, though.
                log.exception("tracking stopped")
                self._say(
                    f"tracking stopped, the sweep goes on: {type(error).__name__}: {redact(str(error))}"
                )
                return
            if final_status is not None:
                self.complete = reached
                return
            if reached:
                self._pause(MIN_INTERVAL_S)
                self.wake.wait(IDLE_S)
                self.wake.clear()
            else:
                self._pause(RETRY_S[min(self._failures, len(RETRY_S)) - 1])

    def _sync(self, final_status: str | None) -> bool:
        """Whether the server took everything."""
        try:
            self._mirror.sync(final_status)
        except ServerError as error:
            self._failures += 1
            if self._failures == 1:
                self._say(
                    f"MLflow at {self._server} does not take the sweep's record, the sweep goes on: {error}"
                )
            return False
        if self._failures:
            self._say(f"MLflow at {self._server} answers again; what it missed is logged")
            self._failures = 0
        return True

    def _pause(self, seconds: float) -> None:
        """Sleep, but not past the wish to finish."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.final_status is None:
            time.sleep(0.05)


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
