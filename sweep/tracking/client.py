"""The only file that knows MLflow: a dozen calls with explicit run ids, and errors sorted by what helps."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rdc.errors import UserError
from sweep.tracking.address import redact, server_name
from sweep.tracking.content import Point

ITEMS_PER_BATCH = 1000  # MLflow's limit for metrics, params and tags of one request together
ERROR_CHARS = 200

_QUIET = {
    # An experiment's curves are nobody else's business, and a usage report must not delay the first import.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Lines that the client would print into the progress display.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # The writer thread has its own back-off; a retry inside a request would only hold it up.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}


# What matters in the page of text that a failed connection gives.
_NETWORK_REASON = re.compile(
    r"\[Errno -?\d+\] [A-Za-z ]+|[Cc]onnection refused|(Read|Connect\w*) timed out"
    r"|\[SSL[^]]*\][^'()]*|Remote end closed connection without response|IncompleteRead",
    flags=re.ASCII,
)
# What the client would try again: overload, a server's own trouble, a proxy that cannot reach it.
_TROUBLE = re.compile(r"too many (\d+) error responses")
# An answer that is none of MLflow's own, such as a page of a proxy: whatever it says, it decides nothing.
_FOREIGN = re.compile(r"API request to endpoint (?:\S+ failed with error code (\d+)|was successful but)")
# How MLflow refuses to write to a run or an experiment that somebody has deleted.
_DELETED = "must be in the 'active' state"


class FoundRun(NamedTuple):
    """A run on the server; spec_id: None for one that is no trial."""

    run_id: str
    spec_id: str | None


class ServerError(Exception):
    """The server did not do what it was asked; the text is one line without credentials."""


class GoneError(ServerError):
    """The server does not know a run or experiment that it knew before, or only as a deleted one."""


class RejectedError(ServerError):
    """The server works and refuses this content, now and later."""


class ForbiddenError(ServerError):
    """This user may not do that on the server."""


def require_mlflow() -> None:
    """UserError if the package is missing; does not import it, which takes more than a second."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(
            "tracking=mlflow needs the package mlflow: pip install 'rdc[all]', or say tracking=none"
        )


class Client:
    """Blocking calls on one tracking server; ServerError in case of trouble. For use in one thread."""

    def __init__(self, uri: str, request_timeout_s: float) -> None:
        self._uri = uri
        self.server = server_name(uri)
        self._request_timeout_s = request_timeout_s
        self._mlflow: Any = None

    def connect(self) -> None:
        """Import MLflow and, for a database, create or check its tables: seconds the first time."""
        if self._mlflow is not None:
            return
        for key, value in {
            **_QUIET,
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(self._request_timeout_s)),
        }.items():
            os.environ.setdefault(key, value)
        try:
            from mlflow import MlflowClient

            # After the import, which gives these loggers levels of their own.
            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            client = MlflowClient(tracking_uri=self._uri)
        except Exception as error:
            raise _sorted(error) from None
        self._mlflow = client

    def experiment(self, name: str, artifacts: Path | str | None, tags: Mapping[str, str]) -> str:
        """Its id; created if missing. artifacts: the root of its artifacts, None if the server decides."""
        found = self._call("get_experiment_by_name", name)
        if found is None:
            location = artifacts.as_uri() if isinstance(artifacts, Path) else artifacts
            try:
                return _id(self._call("create_experiment", name, artifact_location=location, tags=dict(tags)))
            except ServerError:
                # Another sweep may have created it in the meantime.
                found = self._call("get_experiment_by_name", name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            self._call("restore_experiment", found.experiment_id)
        return _id(found.experiment_id)

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        self._call("set_experiment_tag", experiment_id, key, value)

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        run = self._call(
            "create_run", experiment_id, start_time=start_ms, tags=_storable(tags), run_name=_text(name)
        )
        return _id(run.info.run_id)

    def is_active(self, run_id: str, experiment_id: str) -> bool:
        """Whether the server still has this run, undeleted, in this experiment."""
        try:
            info = self._call("get_run", run_id).info
        except (GoneError, RejectedError):
            return False
        return info.lifecycle_stage == "active" and str(info.experiment_id) == experiment_id

    def runs_tagged(self, experiment_id: str, tags: Mapping[str, str], *, status: str = "") -> list[FoundRun]:
        """The active runs that have all of these tags, the oldest first; status: only those in this one."""
        terms = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        terms += [f"attributes.status = '{status}'"] if status else []
        found: list[FoundRun] = []
        token = None
        while True:
            page = self._call(
                "search_runs",
                [experiment_id],
                filter_string=" and ".join(terms),
                order_by=["attributes.start_time ASC"],
                max_results=1000,
                page_token=token,
            )
            found += [FoundRun(str(run.info.run_id), run.data.tags.get("spec_id")) for run in page]
            token = page.token
            if not token:
                return found

    def delete_run(self, run_id: str) -> None:
        """MLflow keeps it among the deleted ones. Who may not delete ends the run and lets go of it."""
        try:
            self._call("delete_run", run_id)
        except ForbiddenError:
            self.set_status(run_id, "KILLED")
            self.log(run_id, tags={"mlflow.parentRunId": "", "kind": "superfluous"})

    def log(
        self,
        run_id: str,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Everything in as few requests as the server's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        param_items = [Param(key, value) for key, value in _storable(params or {}).items()]
        tag_items = [RunTag(key, value) for key, value in _storable(tags or {}).items()]
        metrics = [Metric(point.key, point.value, point.t_ms, point.step) for point in points]
        first = ITEMS_PER_BATCH - len(param_items) - len(tag_items)
        self._call(
            "log_batch", run_id, metrics=metrics[:first], params=param_items, tags=tag_items, synchronous=True
        )
        for start in range(first, len(metrics), ITEMS_PER_BATCH):
            self._call(
                "log_batch", run_id, metrics=metrics[start : start + ITEMS_PER_BATCH], synchronous=True
            )

    def log_datasets(self, run_id: str, datasets: Sequence[tuple[str, str, str, str]]) -> None:
        """(role, name, digest, source) of each image set; shown in the table's Dataset column."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(name=_text(name), digest=digest, source_type="local", source=_text(source)),
                tags=[InputTag("mlflow.data.context", role)],
            )
            for role, name, digest, source in datasets
        ]
        if inputs:
            self._call("log_inputs", run_id, datasets=inputs)

    def log_artifact(self, run_id: str, path: Path) -> None:
        self._call("log_artifact", run_id, str(path))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """The text as an artifact of that name."""
        self._call("log_text", run_id, _text(text), name)

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """RUNNING, or FINISHED, FAILED, KILLED together with the time of the end."""
        if status == "RUNNING":
            self._call("update_run", run_id, status=status)
        else:
            self._call("set_terminated", run_id, status=status, end_time=end_ms)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._mlflow, method)(*args, **kwargs)
        except Exception as error:
            raise _sorted(error) from None


def _sorted(error: Exception) -> ServerError:
    """Any error of the client as one of ours; `error_code` is how MLflow names the kinds."""
    text = " ".join(redact(str(error)).split()) or type(error).__name__
    foreign = _FOREIGN.search(text)
    if foreign is not None:
        status = f"HTTP {foreign[1]}" if foreign[1] else "something else than JSON"
        return ServerError(f"it answers {status}, not as MLflow itself does; a proxy may be in between")
    trouble = _TROUBLE.search(text)
    if trouble is not None:
        return ServerError(f"it answers HTTP {trouble[1]}")
    reason = _NETWORK_REASON.search(text)
    if reason is not None:
        text = reason.group()
    text = text if len(text) <= ERROR_CHARS else text[: ERROR_CHARS - 1] + "…"
    code = getattr(error, "error_code", "")
    if code == "RESOURCE_DOES_NOT_EXIST" or _DELETED in text:
        return GoneError(text)
    if code == "PERMISSION_DENIED":
        return ForbiddenError(text)
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST"):
        return RejectedError(text)
    return ServerError(text)


def _id(answer: Any) -> str:
    """ServerError for an empty answer, which the client takes for one without any values."""
    if not answer:
        raise ServerError("it answers with nothing, not as MLflow does; a proxy may be in between")
    return str(answer)


def _storable(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: _text(value) for key, value in texts.items()}


def _text(text: str) -> str:
    """Without what no database takes: NUL, and halves of characters, which names of files may hold."""
    return text.encode("utf-8", errors="replace").decode().replace("\0", "?")
