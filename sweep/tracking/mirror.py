"""Brings a tracking server up to a sweep's files. All of it runs in the writer thread."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rdc.files import read_json
from sweep.tracking import content, notes, view
from sweep.tracking.address import redact
from sweep.tracking.client import Client, GoneError, RejectedError
from sweep.tracking.curve import CurveReader
from sweep.tracking.state import State, mark

TRIAL_ARTIFACTS = ("result.json", "reconstructions.png")
FAILED_TRIAL_ARTIFACTS = ("result.json", "log.txt")
SWEEP_ARTIFACTS = ("*.csv", "*.png", "*.html", "data_*.json")
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": notes.EXPERIMENT_NOTE,
}


class Mirror:
    """One sweep as MLflow runs: what is known of the server in `State`, the truth in the sweep's folder."""

    def __init__(
        self,
        client: Client,
        *,
        experiment: str,
        artifacts: Path | None,
        folder: Path,
        sweep: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        """experiment: its name; artifacts: their root, None if the server decides; say: takes lines."""
        self._client = client
        self._experiment = experiment
        self._artifacts = artifacts
        self._folder = folder
        self._sweep = sweep
        self._name = str(sweep.get("name") or folder.name)
        self._plan: dict[str, Mapping[str, Any]] = {trial["spec_id"]: trial for trial in sweep["trials"]}
        self._say = say
        self._results: dict[str, tuple[list[int], dict[str, Any]]] = {}  # spec_id -> mark, content
        self._rejected: set[str] = set()
        self._is_open = False
        self._state = State(folder, client.server, say)
        self._known = self._state.server

    def sync(self, final_status: str | None) -> None:
        """Log all that the files hold and the server lacks; ServerError leaves the rest to the next call."""
        try:
            self._sync_once(final_status)
        except GoneError:
            # Somebody removed runs from the server: look what it still has and log the rest again, once.
            self._is_open = False
            self._sync_once(final_status)

    def _sync_once(self, final_status: str | None) -> None:
        try:
            if not self._is_open:
                self._open()
            # One setting for all: the newest, which is that of the last command.
            files = sorted(self._folder.glob("timing/*.json"), key=lambda path: path.stat().st_mtime)
            timings = {path.name.split("__")[0]: path for path in files}
            changed = [self._sync_trial(spec_id, timings, final_status) for spec_id in self._trial_ids()]
            if any(changed) or final_status:
                self._sync_parent()
            self._sync_ranking()
            # Last, so that a store of artifacts that is out of reach holds no number back.
            self._sync_artifacts(final_status)
            if final_status:
                self._client.set_status(self._known["run_id"], final_status, round(1000 * time.time()))
        finally:
            self._state.save()

    def _open(self) -> None:
        """Find or create experiment, parent run and view; keep only child runs that the server still has."""
        self._client.connect()
        known = self._known
        experiment_id = self._client.experiment(self._experiment, self._artifacts, EXPERIMENT_TAGS)
        if "run_id" not in known or not self._client.is_active(known["run_id"], experiment_id):
            if "run_id" in known:
                # Children that outlived their parent would stand beside those that take their place.
                for run_id in self._client.children(experiment_id, known["run_id"]).values():
                    self._client.delete_run(run_id)
            known.clear()
            known |= {"experiment_id": experiment_id, "parent": {}, "trials": {}}
            self._create_parent()
        self._client.set_status(known["run_id"], "RUNNING")
        on_server = self._client.children(experiment_id, known["run_id"])
        kept = {s: entry for s, entry in known["trials"].items() if on_server.get(s) == entry["run_id"]}
        # A run that was created just before a crash is on the server and not in our file: take it over.
        known["trials"] = {s: {"run_id": run_id} for s, run_id in on_server.items()} | kept
        self._set_view()
        self._is_open = True

    def _create_parent(self) -> None:
        tags = {**content.sweep_tags(self._sweep), "kind": "sweep", "mlflow.runColor": content.SWEEP_COLOUR}
        start_ms = _ms(self._sweep.get("started_at"))
        run_id = self._client.create_run(self._known["experiment_id"], f"sweep {self._name}", tags, start_ms)
        self._client.log(run_id, params=content.sweep_params(self._sweep))
        # The value of the tag that the view filters by, and the view's own name in its address. Two folders
        # may hold sweeps of one name: the id keeps them apart on a shared server.
        view_key = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', self._name)}-{run_id[:6]}"
        self._known |= {"run_id": run_id, "view_key": view_key}
        self._state.save()

    def _set_view(self) -> None:
        """Write the prepared charts and table; what nobody has a value for is left out once that is known."""
        known = self._known
        absent = known["parent"].get("absent", [view.SAVING_PCT])
        lmbdas = {(trial.get("spec") or {}).get("lmbda") for trial in self._plan.values()}
        value = view.tag_value(
            self._name, known["view_key"], time.time(), absent=absent, several_lmbdas=len(lmbdas) > 1
        )
        self._client.set_experiment_tag(known["experiment_id"], view.TAG_PREFIX + known["view_key"], value)

    # Trials

    def _trial_ids(self) -> list[str]:
        """Trials that have files: the plan's first, then whatever else lies in the folder."""
        found = {path.name for path in (self._folder / "trials").glob("*") if path.is_dir()}
        return [*(s for s in self._plan if s in found), *sorted(found - self._plan.keys())]

    def _sync_trial(self, spec_id: str, timings: Mapping[str, Path], final_status: str | None) -> bool:
        """True if something was logged."""
        if spec_id in self._rejected:
            return False
        try:
            return self._log_trial(spec_id, timings, final_status)
        except RejectedError as error:
            self._rejected.add(spec_id)
            self._say(
                f"MLflow refuses the record of trial {spec_id} ({error}); the trial's files are complete"
            )
            return False

    def _log_trial(self, spec_id: str, timings: Mapping[str, Path], final_status: str | None) -> bool:
        entry: dict[str, Any] = self._known["trials"].get(spec_id, {})
        curve = CurveReader(self._folder / "trials" / spec_id / "metrics.jsonl", entry)
        result_mark, result = self._result(spec_id)
        timing_file = timings.get(result["arch_id"]) if result else None
        timing_mark = mark(timing_file) if timing_file else None
        status, end_ms = _run_status(entry, curve, result, final_status)
        new_result = result is not None and result_mark != entry.get("result")
        new_timing = timing_file is not None and timing_mark != entry.get("timing")
        if not (curve.rows or new_result or new_timing or status != entry.get("status", "")):
            return False

        points, tags = list(curve.points), {}
        if result is None and status != entry.get("status", ""):
            tags["status"] = "interrupted" if status == "KILLED" else "running"
        if result is not None and new_result:
            points += _final(content.file_metrics(result, "result"), result_mark)
            tags = content.result_tags(result) | {"mlflow.note.content": notes.trial_note(result)}
            if entry.get("result"):
                tags.setdefault("error", "")  # what an earlier attempt left there
        if timing_file is not None and new_timing:
            points += _final(content.file_metrics(read_json(timing_file), "timing"), timing_mark)
        run_id = entry.get("run_id") or self._create_trial(spec_id, curve, result)
        # A run without a place in its curve is new, or was created just before a crash.
        params = (
            {} if "offset" in entry else content.params((self._plan.get(spec_id) or {}).get("spec") or {})
        )
        self._client.log(run_id, points, params, tags)
        if result is not None and new_result:
            self._client.log_datasets(run_id, content.datasets(result))
        if status != entry.get("status", ""):
            self._client.set_status(run_id, status, end_ms)
        self._known["trials"][spec_id] |= {
            **curve.place(),
            "result": result_mark,
            "timing": timing_mark,
            "status": status,
        }
        return True

    def _create_trial(self, spec_id: str, curve: CurveReader, result: Mapping[str, Any] | None) -> str:
        # What lies in the folder without being planned was planned by an earlier command, and says so itself.
        trial = self._plan.setdefault(spec_id, {**(result or {}), "spec_id": spec_id})
        tags = content.plan_tags(trial) | {
            "mlflow.parentRunId": self._known["run_id"],
            "mlflow.runColor": content.family_colour(str(trial.get("family", ""))),
            "sweep": self._known["view_key"],
            "kind": "trial",
        }
        times = [row["t"] for row in curve.rows if "t" in row]
        started_at = ((result or {}).get("training") or {}).get("started_at") or min(times, default=None)
        label = str(trial.get("label") or spec_id)
        run_id = self._client.create_run(self._known["experiment_id"], label, tags, _ms(started_at))
        self._known["trials"][spec_id] = {"run_id": run_id}
        return run_id

    def _result(self, spec_id: str) -> tuple[list[int] | None, dict[str, Any] | None]:
        """Mark and content of the trial's result.json, read again only when it has changed."""
        path = self._folder / "trials" / spec_id / "result.json"
        now = mark(path)
        if now is None:
            self._results.pop(spec_id, None)
            return None, None
        if spec_id not in self._results or self._results[spec_id][0] != now:
            self._results[spec_id] = (now, read_json(path))
        return self._results[spec_id]

    # The sweep as a whole

    def _sync_parent(self) -> None:
        """Progress curves and description."""
        results = [result for _, result in self._results.values()]
        parent = self._known["parent"]
        points = [p for p in content.sweep_metrics(results) if p.step > parent.get("step", 0)]
        frontier = content.read_table(self._folder / "frontier.csv")
        note = notes.sweep_note(results, len(self._plan), frontier)
        self._client.log(self._known["run_id"], points, tags={"mlflow.note.content": note})
        parent["step"] = max((p.step for p in points), default=parent.get("step", 0))

    def _sync_ranking(self) -> None:
        """What only the analysis of the whole sweep knows of a trial: its place and its rate savings."""
        path = self._folder / "trials.csv"
        now = mark(path)
        if now is None or now == self._known["parent"].get("ranking"):
            return
        rows = content.read_table(path)
        labels = {row["arch_id"]: row["label"] for row in rows}
        present: set[str] = set()
        for row in rows:
            entry, (_, result) = self._known["trials"].get(row["spec_id"]), self._result(row["spec_id"])
            if entry is None or result is None or row["spec_id"] in self._rejected:
                continue
            place = content.ranking_tags(row, labels)
            tags = {**place, "mlflow.note.content": notes.trial_note(result, place)}
            values = content.table_metrics(row)
            present |= values.keys()
            self._client.log(entry["run_id"], _final(values, now), tags=tags)
        self._known["parent"]["absent"] = [m for m in view.OPTIONAL_METRICS if m not in present]
        self._set_view()
        self._sync_parent()
        self._known["parent"]["ranking"] = now

    def _sync_artifacts(self, final_status: str | None) -> None:
        for spec_id, entry in self._known["trials"].items():
            _, result = self._result(spec_id)
            if result is not None and spec_id not in self._rejected:
                names = FAILED_TRIAL_ARTIFACTS if result["status"] == "failed" else TRIAL_ARTIFACTS
                folder = self._folder / "trials" / spec_id
                self._upload(entry["run_id"], entry, (folder / name for name in names))
        if final_status:
            run_id, parent = self._known["run_id"], self._known["parent"]
            paths = (path for pattern in SWEEP_ARTIFACTS for path in sorted(self._folder.glob(pattern)))
            self._upload(run_id, parent, paths)
            # A tracking address among the settings may hold a password, so this file goes up as a copy.
            text = json.dumps(self._sweep, indent=2)
            if parent.get("sweep_crc32") != zlib.crc32(text.encode()):
                self._client.log_text(run_id, redact(text), "sweep.json")
                parent["sweep_crc32"] = zlib.crc32(text.encode())

    def _upload(self, run_id: str, entry: dict[str, Any], paths: Iterable[Path]) -> None:
        """Those of the files that are new or have changed."""
        uploaded = entry.setdefault("artifacts", {})
        for path in paths:
            now = mark(path)
            if now is not None and now != uploaded.get(path.name):
                self._client.log_artifact(run_id, path)
                uploaded[path.name] = now


def _run_status(
    entry: Mapping[str, Any], curve: CurveReader, result: Mapping[str, Any] | None, final_status: str | None
) -> tuple[str, int | None]:
    """MLflow status of a trial's run, empty before it begins, and the time of its end."""
    if result is not None:
        ended_at = (result.get("training") or {}).get("ended_at")
        return ("FINISHED" if result["status"] == "ok" else "FAILED"), _ms(ended_at)
    if final_status and (curve.rows or entry):
        return "KILLED", round(1000 * time.time())
    # An interrupted trial that this sweep does not touch stays as it is.
    return ("RUNNING" if curve.rows else entry.get("status", "")), None


def _final(values: Mapping[str, float], file_mark: list[int] | None) -> list[content.Point]:
    """Final values at step 0: MLflow shows a metric as bars instead of a curve only if its step is 0.

    A later value of the same step wins by its time, which is that of the file it came from.
    """
    assert file_mark is not None, "final values come from a file that exists"
    return [content.Point(key, value, 0, file_mark[1] // 1_000_000) for key, value in values.items()]


def _ms(unix_s: float | None) -> int:
    return round(1000 * (unix_s or time.time()))
