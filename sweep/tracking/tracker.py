"""What the driver holds: it signals, a thread of its own writes; nothing of it can stop or slow a sweep."""

from __future__ import annotations

import dataclasses
import logging
import queue
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from rdc.errors import UserError
from rdc.result import RESULT_FILE
from rdc.spec import parse
from sweep.tracking.address import artifact_root, redact, server_name, tracking_uri
from sweep.tracking.client import Client, ServerError, require_mlflow
from sweep.tracking.mirror import Mirror

log = logging.getLogger(__name__)

MIN_INTERVAL_S = 1.0
FINISH_RETRY_S = 1.0  # a server that is being restarted at the sweep's end is back in seconds
PATIENCE_IF_KILLED_S = 10.0  # somebody has pressed Ctrl-C and waits
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
    uri = tracking_uri(settings.uri, runs_dir)
    artifact_root(uri, settings.artifacts, runs_dir)
    return settings, uri


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
        self._folder = folder
        self._finish_timeout_s = settings.finish_timeout_s
        # The folder does not keep credentials, so whoever gave them on the command line gives them again.
        needs_uri = settings.uri is not None and redact(settings.uri) != settings.uri
        self._sync_command = f"python -m sweep sync {_shown(folder)}{' --uri URI' if needs_uri else ''}"
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._mirror = Mirror(
            Client(uri, settings.request_timeout_s),
            experiment=settings.experiment,
            artifacts=artifact_root(uri, settings.artifacts, folder.parent),
            folder=folder,
            sweep=sweep,
            say=self._messages.put,
        )
        self._writer = _Writer(self._mirror, self._server, self._messages.put)
        self._writer.start()

    def poll(self) -> None:
        self._writer.wake.set()
        self._show_messages()

    def finish(self, status: str) -> None:
        patience_s = self._finish_timeout_s
        if status == "KILLED":
            patience_s = min(patience_s, PATIENCE_IF_KILLED_S)
        deadline = time.monotonic() + patience_s
        self._writer.finish(status, deadline)
        while self._writer.is_alive() and time.monotonic() < deadline:
            self._writer.join(0.1)
            self._show_messages()
        if not self._writer.complete:
            self._messages.put(
                f"MLflow at {self._server} lacks {self._what_is_missing()}; the files have it, and when the "
                f"server answers, this logs it: {self._sync_command}"
            )
        self._show_messages()

    def _what_is_missing(self) -> str:
        ended = sum(1 for _ in self._folder.glob(f"trials/*/{RESULT_FILE}"))
        missing = ended - self._mirror.recorded()
        return f"{missing} of {ended} ended trials" if missing > 0 else "the end of this sweep"

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
        self._give_up_at = 0.0

    def finish(self, status: str, give_up_at: float) -> None:
        """Log the rest and end; give_up_at: by time.monotonic()."""
        self._give_up_at = give_up_at
        self.final_status = status
        self.wake.set()

    def run(self) -> None:
        while True:
            final_status = self.final_status
            try:
                reached = self._sync(final_status)
            except Exception as error:
                # A mistake of ours must not end somebody's sweep; it must be seen, though.
                log.error("tracking stopped\n%s", redact(traceback.format_exc()))
                self._say(
                    f"tracking stopped, the sweep goes on: {type(error).__name__}: {redact(str(error))}"
                )
                return
            if final_status is not None:
                self.complete = reached
                if reached or not self._may_come_back():
                    return
                time.sleep(FINISH_RETRY_S)
            elif reached:
                self._pause(MIN_INTERVAL_S)
                self.wake.wait(IDLE_S)
                self.wake.clear()
            else:
                self._pause(RETRY_S[min(self._failures, len(RETRY_S)) - 1])

    def _may_come_back(self) -> bool:
        """Whether the sweep's end should wait for a server: not for one that was never there."""
        return self._mirror.has_opened and time.monotonic() + FINISH_RETRY_S < self._give_up_at

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


def _shown(folder: Path) -> str:
    """The folder as the user would type it here."""
    here = Path.cwd()
    return shlex.quote(str(folder.relative_to(here) if folder.is_relative_to(here) else folder))


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
