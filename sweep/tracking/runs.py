"""One sweep's runs on a server: its own run and one per trial, found again or created, and never twice."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.tracking import content, notes
from sweep.tracking.client import Client, RejectedError
from sweep.tracking.state import State

EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": notes.EXPERIMENT_NOTE,
}
COMPARED_ANYWAY = 500  # this many runs are listed in a single request
UID_TAG = "sweep_uid"


class SweepRuns:
    """Which run on the server is whose. What is known of it is `state.server`."""

    def __init__(
        self,
        client: Client,
        state: State,
        sweep: Mapping[str, Any],
        *,
        experiment: str,
        artifacts: Path | str | None,
    ) -> None:
        """experiment: its name; artifacts: their root, None if the server decides."""
        self._client = client
        self._state = state
        self._sweep = sweep
        self._experiment = experiment
        self._artifacts = artifacts
        self._uid = content.sweep_uid(sweep)
        self._unsure: set[str] = set()  # trials whose run was asked for, and no answer came

    def open(self, *, compare: bool) -> None:
        """Find or create experiment and the sweep's run. compare: with each trial's run on the server.

        Else, in a large sweep, only runs that the server holds for running are looked at: one that was
        created just before a crash is among them, and their number does not grow with the sweep.
        """
        self._client.connect()
        known = self._state.server
        experiment_id = self._client.experiment(self._experiment, self._artifacts, EXPERIMENT_TAGS)
        if "run_id" not in known or not self._client.is_active(known["run_id"], experiment_id):
            self._find_or_create(experiment_id)
            compare = True
        compare |= len(known["trials"]) <= COMPARED_ANYWAY
        self._describe(known)
        self._client.set_status(known["run_id"], "RUNNING")
        self._take_over(compare=compare)
        self._state.save_whole()

    def _describe(self, known: dict[str, Any]) -> None:
        """How the last command ran the sweep. Parameters of a run cannot change: the first ones stay."""
        if not known.get("has_params"):
            with contextlib.suppress(RejectedError):
                self._client.log(known["run_id"], params=content.sweep_params(self._sweep))
            known["has_params"] = True
        self._client.log(known["run_id"], tags=content.command_tags(self._sweep))

    def create_trial(self, spec_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        """The id of the trial's new run; of the one that an unanswered request has made, if there is one."""
        known = self._state.server
        run_id = self._answered_late(spec_id) if spec_id in self._unsure else None
        if run_id is None:
            tags = {
                **content.origin_tags(),
                **tags,
                "mlflow.parentRunId": known["run_id"],
                "sweep": known["view_key"],
                "kind": "trial",
            }
            self._unsure.add(spec_id)
            run_id = self._client.create_run(known["experiment_id"], name, tags, start_ms)
        self._unsure.discard(spec_id)
        known["trials"][spec_id] = {"run_id": run_id}
        self._state.touch(spec_id)
        return run_id

    def end_stragglers(self) -> None:
        """Leave no run running: what the server still holds for running is ended, or is one too many."""
        known = self._state.server
        for run in self._client.runs_tagged(known["experiment_id"], self._of_sweep()):
            if run.run_id != known["run_id"]:  # made by a request that nobody waited for any more
                self._client.delete_run(run.run_id)
        for run in self._client.runs_tagged(known["experiment_id"], self._of_trials(), status="RUNNING"):
            entry = known["trials"].get(run.spec_id, {})
            if entry.get("run_id") != run.run_id:
                self._client.delete_run(run.run_id)
            else:
                status = entry.get("status") if entry.get("status") not in ("", "RUNNING", None) else "KILLED"
                self._client.set_status(run.run_id, str(status), round(1000 * time.time()))

    def _find_or_create(self, experiment_id: str) -> None:
        known = self._state.server
        if "run_id" in known:
            # Runs of trials that outlived the sweep's would stand beside those that take their place.
            for run in self._client.runs_tagged(experiment_id, self._of_trials()):
                self._client.delete_run(run.run_id)
        name = str(self._sweep.get("name"))
        known.clear()
        known |= {"experiment_id": experiment_id, "parent": {}, "trials": {}}
        found = self._client.runs_tagged(experiment_id, self._of_sweep())
        if found:
            run_id = found[0].run_id
        else:
            tags = {**content.sweep_tags(self._sweep), **self._of_sweep()}
            start_ms = round(1000 * float(self._sweep.get("started_at") or time.time()))
            run_id = self._client.create_run(experiment_id, f"sweep {name}", tags, start_ms)
        # The value of the tag that the view filters by, and the view's own name in its address. Two folders
        # may hold sweeps of one name: the id keeps them apart on a shared server.
        view_key = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{self._uid[:6]}"
        known |= {"run_id": run_id, "view_key": view_key}

    def _take_over(self, *, compare: bool) -> None:
        """One run per trial: the one that we know, else the server's oldest; the rest goes."""
        known = self._state.server
        status = "" if compare else "RUNNING"
        on_server: dict[str, list[str]] = {}
        for run in self._client.runs_tagged(known["experiment_id"], self._of_trials(), status=status):
            if run.spec_id is not None:
                on_server.setdefault(run.spec_id, []).append(run.run_id)
        for spec_id, run_ids in on_server.items():
            mine = known["trials"].get(spec_id, {}).get("run_id")
            if mine not in run_ids and (compare or mine is None):
                mine = run_ids[0]
                known["trials"][spec_id] = {"run_id": mine}
            for run_id in run_ids:
                if run_id != mine:
                    self._client.delete_run(run_id)
        if compare:
            known["trials"] = {s: entry for s, entry in known["trials"].items() if s in on_server}

    def _answered_late(self, spec_id: str) -> str | None:
        found = self._client.runs_tagged(
            self._state.server["experiment_id"], {**self._of_trials(), "spec_id": spec_id}
        )
        return found[0].run_id if found else None

    def _of_sweep(self) -> dict[str, str]:
        return {UID_TAG: self._uid, "kind": "sweep"}

    def _of_trials(self) -> dict[str, str]:
        return {"mlflow.parentRunId": self._state.server["run_id"]}
