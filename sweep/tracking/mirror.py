"""Brings a tracking server up to a sweep's files. All of it runs in the writer thread."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import atomic_write_json, read_json
from sweep.tracking import content, view
from sweep.tracking.address import redact, server_name
from sweep.tracking.client import Client, GoneError, RejectedError, keeps_artifacts_itself
from sweep.tracking.curve import CurveReader

STATE_FILE = "tracking.json"
TRIAL_ARTIFACTS = ("result.json", "reconstructions.png")
FAILED_TRIAL_ARTIFACTS = ("result.json", "log.txt")
SWEEP_ARTIFACTS = ("*.csv", "*.png", "*.html", "data_*.json")
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": content.EXPERIMENT_NOTE,
}


class Mirror:
    """One sweep as MLflow runs.

    tracking.json keeps, per server: the ids of experiment and parent run, and per trial its run id, how far its
    curve is logged, and a mark (size and time) of each other file as it was logged.
    """

    def __init__(
        self,
        uri: str,
        config: Mapping[str, Any],
        folder: Path,
        sweep: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._client = Client(uri, float(config["request_timeout_s"]))
        self._experiment = str(config["experiment"])
        self._artifacts = None
        if not keeps_artifacts_itself(uri):
            self._artifacts = Path(config["artifacts"] or folder.parent / "mlartifacts")
        self._folder = folder
        self._sweep = sweep
        self._name = str(sweep.get("name") or folder.name)
        self._planned: dict[str, Mapping[str, Any]] = {trial["spec_id"]: trial for trial in sweep["trials"]}
        self._say = say
        self._results: dict[str, tuple[list[int], dict[str, Any]]] = {}  # spec_id -> mark, content
        self._rejected: set[str] = set()
        self._is_open = False
        self._file = _read_state(folder / STATE_FILE, say)
        self._file["latest"] = server_name(uri)
        self._state: dict[str, Any] = self._file["servers"].setdefault(server_name(uri), {})
        self._saved_text = ""

    def sync(self, final_status: str | None) -> None:
        """Log everything that the files hold and the server lacks; ServerError leaves the rest for the next call."""
        try:
            self._sync_once(final_status)
        except GoneError:
            # Somebody emptied the server: forget what it knew and log all of it again, once.
            self._state.clear()
            self._is_open = False
            self._sync_once(final_status)

    def _sync_once(self, final_status: str | None) -> None:
        try:
            if not self._is_open:
                self._open()
            changed = [self._sync_trial(spec_id, final_status) for spec_id in self._trial_ids()]
            if any(changed) or final_status:
                self._sync_parent()
            self._sync_ranking()
            # Last, so that a store of artifacts that is out of reach holds no number back.
            self._sync_artifacts(final_status)
            if final_status:
                self._client.set_status(self._state["run_id"], final_status, round(1000 * time.time()))
        finally:
            self._save()

    def _open(self) -> None:
        """Find or create experiment, parent run and view; keep only the child runs that the server still has."""
        self._client.connect()
        state = self._state
        experiment_id = self._client.experiment(self._experiment, self._artifacts, EXPERIMENT_TAGS)
        if "run_id" not in state or not self._client.is_active(state["run_id"], experiment_id):
            state.clear()
            state |= {"experiment_id": experiment_id, "parent": {}, "trials": {}}
            self._create_parent()
        self._client.set_status(state["run_id"], "RUNNING")
        on_server = self._client.children(experiment_id, state["run_id"])
        known = {s: entry for s, entry in state["trials"].items() if on_server.get(s) == entry["run_id"]}
        # A run that was created just before a crash is on the server and not in our file: its trial takes it over.
        state["trials"] = {s: {"run_id": run_id} for s, run_id in on_server.items()} | known
        value = view.tag_value(self._name, state["sweep_tag"], round(1000 * time.time()))
        self._client.set_experiment_tag(experiment_id, view.TAG_PREFIX + state["view_key"], value)
        self._is_open = True

    def _create_parent(self) -> None:
        tags = {**content.sweep_tags(self._sweep), "kind": "sweep", "mlflow.runColor": content.SWEEP_COLOUR}
        start_ms = _ms(self._sweep.get("started_at"))
        run_id = self._client.create_run(self._state["experiment_id"], f"sweep {self._name}", tags, start_ms)
        # Two folders may hold sweeps of one name: the id keeps them apart on a shared server.
        sweep_tag = f"{self._name} {run_id[:6]}"
        self._client.log(run_id, params=content.sweep_params(self._sweep))
        view_key = re.sub(r"[^A-Za-z0-9_-]+", "-", sweep_tag)
        self._state |= {"run_id": run_id, "sweep_tag": sweep_tag, "view_key": view_key}
        self._save()

    def _trial_ids(self) -> list[str]:
        """Trials that have files: the plan's first, then whatever else lies in the folder."""
        found = {path.name for path in (self._folder / "trials").glob("*") if path.is_dir()}
        return [*(s for s in self._planned if s in found), *sorted(found - self._planned.keys())]

    def _sync_trial(self, spec_id: str, final_status: str | None) -> bool:
        """True if something was logged."""
        if spec_id in self._rejected:
            return False
        try:
            return self._log_trial(spec_id, final_status)
        except RejectedError as error:
            self._rejected.add(spec_id)
            self._say(
                f"MLflow refuses the record of trial {spec_id} ({error}); the trial's own files are complete"
            )
            return False

    def _log_trial(self, spec_id: str, final_status: str | None) -> bool:
        folder = self._folder / "trials" / spec_id
        entry: dict[str, Any] = self._state["trials"].get(spec_id, {})
        curve = CurveReader(folder / "metrics.jsonl", entry)
        result_mark, result = self._result(spec_id)
        timing_file = self._timing_file(result)
        timing_mark = _mark(timing_file) if timing_file else None
        status, end_ms = _run_status(entry, curve, result, final_status)
        news = (curve.rows, result_mark != entry.get("result"), timing_mark != entry.get("timing"))
        if not any(news) and status == entry.get("status"):
            return False

        run_id = entry.get("run_id") or self._create_trial(spec_id, curve, result)
        points, tags = list(curve.points), {}
        if result is not None and result_mark != entry.get("result"):
            points += _final(content.file_metrics(result, "result"), result_mark)
            tags = content.trial_tags(self._plan(spec_id), result)
        if timing_file is not None and timing_mark != entry.get("timing"):
            points += _final(content.file_metrics(read_json(timing_file), "timing"), timing_mark)
        # A run without a place in its curve is new, or was created just before a crash.
        params = {} if "offset" in entry else content.params(self._plan(spec_id).get("spec") or {})
        if points or params or tags:
            self._client.log(run_id, points, params, tags)
        if result is not None and "result" not in entry:
            self._client.log_datasets(run_id, content.datasets(result))
        if status != entry.get("status"):
            self._client.set_status(run_id, status, end_ms)
        entry = self._state["trials"][spec_id]
        entry |= {**curve.place(), "result": result_mark, "timing": timing_mark, "status": status}
        return True

    def _create_trial(self, spec_id: str, curve: CurveReader, result: Mapping[str, Any] | None) -> str:
        trial = self._plan(spec_id)
        family = content.family(trial, result)
        tags = content.trial_tags(trial, None) | {
            "mlflow.parentRunId": self._state["run_id"],
            "mlflow.runColor": content.family_colour(family),
            "sweep": self._state["sweep_tag"],
            "kind": "trial",
        }
        started_at = (result or {}).get("training", {}).get("started_at")
        started_at = started_at or next((row["t"] for row in curve.rows if "t" in row), None)
        label = str(trial.get("label") or (result or {}).get("label") or spec_id)
        run_id = self._client.create_run(self._state["experiment_id"], label, tags, _ms(started_at))
        self._state["trials"][spec_id] = {"run_id": run_id}
        return run_id

    def _plan(self, spec_id: str) -> Mapping[str, Any]:
        if spec_id not in self._planned:
            _, result = self._result(spec_id)
            self._planned[spec_id] = {"spec_id": spec_id, **(result or {})}
        return self._planned[spec_id]

    def _result(self, spec_id: str) -> tuple[list[int] | None, dict[str, Any] | None]:
        path = self._folder / "trials" / spec_id / "result.json"
        mark = _mark(path)
        if mark is None:
            self._results.pop(spec_id, None)
            return None, None
        if spec_id not in self._results or self._results[spec_id][0] != mark:
            self._results[spec_id] = (mark, read_json(path))
        return self._results[spec_id]

    def _timing_file(self, result: Mapping[str, Any] | None) -> Path | None:
        if result is None:
            return None
        return next(iter(sorted((self._folder / "timing").glob(f"{result['arch_id']}__*.json"))), None)

    def _sync_parent(self) -> None:
        """Progress curves and description of the sweep as a whole."""
        results = [result for _, result in self._results.values()]
        parent = self._state["parent"]
        points = [p for p in content.sweep_metrics(results) if p.step > parent.get("step", 0)]
        frontier = content.read_table(self._folder / "frontier.csv")
        note = content.sweep_note(results, len(self._planned), frontier)
        self._client.log(self._state["run_id"], points, tags={"mlflow.note.content": note})
        parent["step"] = max((p.step for p in points), default=parent.get("step", 0))

    def _sync_ranking(self) -> None:
        """What only the analysis of the whole sweep knows of a trial: its place and its rate savings."""
        path = self._folder / "trials.csv"
        mark = _mark(path)
        if mark is None or mark == self._state["parent"].get("ranking"):
            return
        labels = {row["arch_id"]: row["label"] for row in content.read_table(path)}
        for row in content.read_table(path):
            spec_id = row["spec_id"]
            entry, (_, result) = self._state["trials"].get(spec_id), self._result(spec_id)
            if entry is None or result is None or spec_id in self._rejected:
                continue
            points = _final(content.table_metrics(row), mark)
            self._client.log(entry["run_id"], points, tags=content.ranking_tags(row, result, labels))
        self._sync_parent()
        self._state["parent"]["ranking"] = mark

    def _sync_artifacts(self, final_status: str | None) -> None:
        for spec_id, entry in self._state["trials"].items():
            _, result = self._result(spec_id)
            if result is not None and spec_id not in self._rejected:
                names = FAILED_TRIAL_ARTIFACTS if result["status"] == "failed" else TRIAL_ARTIFACTS
                folder = self._folder / "trials" / spec_id
                self._upload(entry, (folder / name for name in names))
        if final_status:
            parent = self._state["parent"]
            parent["run_id"] = self._state["run_id"]
            self._upload(parent, (path for pattern in SWEEP_ARTIFACTS for path in self._folder.glob(pattern)))
            # A tracking address among the settings may hold a password, so this one file goes up as a copy.
            text = json.dumps(self._sweep, indent=2)
            if parent.get("sweep_crc32") != zlib.crc32(text.encode()):
                self._client.log_text(self._state["run_id"], redact(text), "sweep.json")
                parent["sweep_crc32"] = zlib.crc32(text.encode())

    def _upload(self, entry: dict[str, Any], paths: Iterable[Path]) -> None:
        uploaded = entry.setdefault("artifacts", {})
        for path in paths:
            mark = _mark(path)
            if mark is not None and mark != uploaded.get(path.name):
                self._client.log_artifact(entry["run_id"], path)
                uploaded[path.name] = mark

    def _save(self) -> None:
        text = repr(self._file)
        if text != self._saved_text:
            atomic_write_json(self._folder / STATE_FILE, self._file)
            self._saved_text = text


def read_state(folder: Path) -> dict[str, Any]:
    """The sweep's ids on the server that it was logged to last, with its name; UserError if never logged."""
    path = folder / STATE_FILE
    file = read_json(path)
    state = file["servers"].get(file["latest"], {})
    if "view_key" not in state:
        raise UserError(f"{path}: nothing of this sweep has been logged yet")
    return {"server": file["latest"], **state}


def _read_state(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    fresh: dict[str, Any] = {"schema_version": 1, "servers": {}}
    if not path.exists():
        return fresh
    try:
        return {**fresh, **read_json(path)}
    except UserError as error:
        say(f"{error}; logging the sweep as a new one")
        return fresh


def _run_status(
    entry: Mapping[str, Any], curve: CurveReader, result: Mapping[str, Any] | None, final_status: str | None
) -> tuple[str, int | None]:
    """MLflow status of a trial's run and, once it has ended, the time."""
    if result is not None:
        ended_at = (result.get("training") or {}).get("ended_at")
        return ("FINISHED" if result["status"] == "ok" else "FAILED"), _ms(ended_at)
    if final_status:
        return "KILLED", round(1000 * time.time())
    # An interrupted trial that this sweep does not touch stays as it is.
    return ("RUNNING" if curve.rows else entry.get("status", "RUNNING")), None


def _final(values: Mapping[str, float], mark: list[int] | None) -> list[content.Point]:
    """Final values at step 0: MLflow shows a metric as bars instead of a curve only if its step is 0.

    A later value of the same step wins by its time, which is that of the file it came from.
    """
    assert mark is not None, "final values come from a file that exists"
    return [content.Point(key, value, 0, mark[1] // 1_000_000) for key, value in values.items()]


def _mark(path: Path) -> list[int] | None:
    """Size in bytes and modification time in ns; None if there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _ms(unix_s: float | None) -> int:
    return round(1000 * (unix_s or time.time()))
