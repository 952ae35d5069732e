"""An MLflow server that can be killed and comes back on the same port with the same database."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

_START_LIMIT_S = 90.0


class TrackingServer:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: threading.Timer | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self, *, after_s: float = 0.0) -> None:
        """Bring it up, now or in a while; nothing happens where it runs or is about to."""
        if self._starting is not None:
            if after_s:
                return
            self._starting.join()
            self._starting = None
        if self._process is not None and self._process.poll() is None:
            return
        if after_s:
            self._starting = threading.Timer(after_s, self._launch)
            self._starting.start()
        else:
            self._launch()

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self._starting is not None:
            self._starting.join()
            self._starting = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    stop = kill

    def problem_with(self, sweep: str, spec_ids: set[str]) -> str | None:
        """What is wrong with the runs of a sweep that has ended; None if nothing."""
        from mlflow import MlflowClient

        self.start()
        self._wait_until_up()
        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name("rdc")
        if experiment is None:
            return "there is no experiment"
        runs = client.search_runs([experiment.experiment_id], max_results=5000)
        parents = [run for run in runs if run.info.run_name == f"sweep {sweep}"]
        if len(parents) != 1:
            return f"{len(parents)} runs of the sweep"
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
        found = sorted(run.data.tags["spec_id"] for run in children)
        if found != sorted(spec_ids):
            return f"runs of trials {found} instead of {sorted(spec_ids)}"
        states = {run.info.run_id: run.info.status for run in [*parents, *children]}
        return f"states {states}" if "RUNNING" in states.values() else None

    def _launch(self) -> None:
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        store = [f"--backend-store-uri=sqlite:///{self._folder}/mlflow.db"]
        artifacts = ["--no-serve-artifacts", f"--default-artifact-root=file://{self._folder}/artifacts"]
        address = ["--host=127.0.0.1", f"--port={self._port}", "--workers=1"]
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *address],
                env={**os.environ, **quiet},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_until_up(self) -> None:
        ends_at = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < ends_at:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.5)
        raise TimeoutError(f"the MLflow server does not come up; see {self._folder}/server.log")
