"""Reading back what was logged, through MLflow's own client."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep.tracking import Tracker
from tests.sweep.synthetic_sweep import SyntheticSweep

SETTINGS: dict[str, Any] = {
    "name": "mlflow",
    "uri": None,
    "experiment": "rdc",
    "artifacts": None,
    "request_timeout_s": 10.0,
    "finish_timeout_s": 120.0,
}


class Server:
    """What a reader finds on the server."""

    def __init__(self, uri: str, experiment: str = "rdc") -> None:
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        self.experiment = experiment

    def runs(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name(self.experiment)
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], max_results=1000))

    def parent(self) -> Any:
        (found,) = [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]
        return found

    def children(self) -> dict[str, Any]:
        found = [run for run in self.runs() if "mlflow.parentRunId" in run.data.tags]
        by_id = {run.data.tags["spec_id"]: run for run in found}
        assert len(by_id) == len(found), "a trial has more than one run"
        return by_id

    def history(self, run: Any, key: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, key)]

    def artifacts(self, run: Any) -> set[str]:
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}

    def content(self) -> dict[str, dict[str, Any]]:
        """All that the runs hold but ids; the sweep's own is ""."""
        return {run.data.tags.get("spec_id", ""): self._content_of(run) for run in self.runs()}

    def _content_of(self, run: Any) -> dict[str, Any]:
        histories = {key: self.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        return {
            "name": run.info.run_name,
            "status": run.info.status,
            "start and end": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"},
            "metrics": {
                key: [(m.step, m.value, m.timestamp) for m in found] for key, found in histories.items()
            },
            "images": sorted((i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs),
            "artifacts": {name: self._digest(run, name) for name in sorted(self.artifacts(run))},
        }

    def _digest(self, run: Any, name: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = self.client.download_artifacts(run.info.run_id, name, folder)
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def unused_port() -> int:
    """A port that nobody listens on, far from those that a server started by hand looks for."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def server_of(sweep: SyntheticSweep) -> Server:
    return Server(f"sqlite:///{sweep.folder.parent}/mlflow.db")


def curve_of(sweep: SyntheticSweep, number: int, key: str) -> list[tuple[int, float]]:
    """The steps and values in the trial's own file."""
    path = sweep.folder / "trials" / sweep.trials[number]["spec_id"] / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["step"], row[key]) for row in rows if key in row]


def poll_until(tracker: Tracker, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline, "nothing happened within two minutes"
        tracker.poll()
        time.sleep(0.05)
