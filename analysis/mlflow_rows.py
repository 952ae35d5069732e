"""An MLflow run -> rows of the results table. The client is imported only when a run is read."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.images import image_rows
from analysis.public import redact
from analysis.rows import trial_row
from analysis.schema import COLUMNS, RESULT_ARTIFACT

# A server that is down should be reported while its user still waits; the client's own default is minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


@dataclasses.dataclass(frozen=True)
class MlflowRows:
    """rows: one per trial. images: their scores, as analysis.images. problems: a line per unusable run."""

    rows: list[dict[str, Any]]
    images: list[tuple[Any, ...]]
    problems: list[str]


def mlflow_rows(run_id: str, *, default_uri: str) -> MlflowRows:
    """The trials of a sweep's parent run, or of the one trial that the run is.

    The address is $MLFLOW_TRACKING_URI, else default_uri.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri
    client = _client(run_id, uri)
    runs = _trial_runs(client, run_id, uri)
    rows, images, problems = [], [], []
    for run in runs:
        try:
            result = _result(client, run)
            rows.append(_row(result, run))
            images += image_rows(result)
        except _failures() as error:
            problems.append(f"MLflow run {run.info.run_id}: {_one_line(error)}; left out")
    if not rows:
        raise AnalysisError(f"MLflow run {run_id} at {redact(uri)} holds no trial to read ({problems[0]})")
    return MlflowRows(rows, images, problems)


def _client(run_id: str, uri: str) -> Any:
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.is_file():  # else the client would create one
        raise AnalysisError(f"MLflow run {run_id}: there is no database {database}; set MLFLOW_TRACKING_URI")
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ImportError:
        raise AnalysisError(f"reading the MLflow run {run_id} needs mlflow: pip install 'rdc[all]'") from None
    for name in ("mlflow", "alembic"):  # their greetings are not part of the report
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow.MlflowClient(tracking_uri=uri)


def _trial_runs(client: Any, run_id: str, uri: str) -> list[Any]:
    """The children of a parent run; a run without children stands for itself."""
    try:
        parent = client.get_run(run_id)
        search = f"tags.`mlflow.parentRunId` = '{run_id}'"
        found = client.search_runs([parent.info.experiment_id], search, max_results=1000)
        runs = list(found)
        while found.token:
            found = client.search_runs(
                [parent.info.experiment_id], search, max_results=1000, page_token=found.token
            )
            runs += found
    except _failures() as error:
        raise AnalysisError(
            f"MLflow run {run_id} at {redact(uri)}: {_one_line(error)}; set MLFLOW_TRACKING_URI"
        ) from None
    return runs or [parent]


def _result(client: Any, run: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(run.info.run_id, RESULT_ARTIFACT, folder)
        tree: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return tree


def _row(result: dict[str, Any], run: Any) -> dict[str, Any]:
    """The attached result, and the logged metrics, among them the times that a result does not hold."""
    row = trial_row(result)
    for col in COLUMNS:
        if col.metric in run.data.metrics:
            row[col.name] = run.data.metrics[col.metric]
    return row


def _failures() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    return (MlflowException, AnalysisError, OSError, ValueError)


def _one_line(error: Exception) -> str:
    return redact(str(error).splitlines()[0] if str(error) else type(error).__name__)
