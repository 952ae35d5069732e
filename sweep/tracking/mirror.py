"""Brings a tracking server up to a sweep's files. All of it runs in the writer thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import read_sealed
from rdc.result import RESULT_FILE, RUNG_FILE, read_any
from sweep.tracking import content, notes
from sweep.tracking.client import Client, GoneError
from sweep.tracking.curve import CurveReader
from sweep.tracking.progress import Ended
from sweep.tracking.runs import SweepRuns
from sweep.tracking.state import State, mark
from sweep.tracking.watch import Watch
from sweep.tracking.whole import Whole

CURVE_FILE = "metrics.jsonl"
TRIALS_BETWEEN_SAVES = 100  # what is lost by a crash is logged a second time, and changes nothing


class Mirror:
    """One sweep as MLflow runs: what is known of the server in `State`, the truth in the sweep's folder."""

    def __init__(
        self,
        client: Client,
        *,
        experiment: str,
        artifacts: Path | str | None,
        folder: Path,
        sweep: Mapping[str, Any],
        say: Callable[[str], None],
        compare: bool = False,
    ) -> None:
        """experiment: its name; artifacts: their root, None if the server decides; say: takes lines.

        sweep: the content of sweep.json, whose trials may grow. compare: ask the server for each trial's run
        first, to find what somebody has deleted; otherwise that is seen when something is written to it.
        """
        self._client = client
        self._folder = folder
        self._sweep = sweep
        self._say = say
        self._compare = compare
        self._is_open = False
        self.has_opened = False  # whether the server has answered, some time
        self._plan: dict[str, Mapping[str, Any]] = {}
        self._planned = 0  # entries of sweep["trials"] that are in _plan
        self._todo: dict[str, None] = {}  # trials to look at, in order
        self._live: set[str] = set()  # trials that run, or that this command may run again
        self._state = State(folder, client.server, say)
        self._watch = Watch(folder)
        self._runs = SweepRuns(client, self._state, sweep, experiment=experiment, artifacts=artifacts)
        self._whole = Whole(client, self._state, folder, sweep, say)

    def sync(self, final_status: str | None) -> None:
        """Log all that the files hold and the server lacks; ServerError leaves the rest to the next call."""
        try:
            self._sync_once(final_status)
        except GoneError:
            # Somebody removed runs from the server: look what it still has and log the rest again, once.
            self._is_open, self._compare = False, True
            self._sync_once(final_status)

    def recorded(self) -> int:
        """Trials whose result the server has, as far as known. May be called from another thread."""
        return sum(bool(entry.get("result")) for entry in list(self._known.get("trials", {}).values()))

    @property
    def _known(self) -> dict[str, Any]:
        return self._state.server

    def _sync_once(self, final_status: str | None) -> None:
        try:
            self._open()
            self._choose(final_status)
            self._sync_trials(final_status)
            self._whole.sync_progress(len(self._plan), always=bool(final_status))
            self._whole.sync_ranking(self._plan.values(), always=bool(final_status))
            if final_status:
                self._runs.end_stragglers()
                self._client.set_status(self._known["run_id"], final_status, _ms(self._whole.ended_at()))
            # Last, so that a store of artifacts that is out of reach holds nothing else back.
            self._whole.sync_artifacts(final=bool(final_status))
        finally:
            self._state.save()

    def _open(self) -> None:
        self._read_plan()
        if self._is_open:
            return
        self._runs.open(compare=self._compare)
        self._whole.forget()
        self._whole.set_view(self._plan.values())
        self._todo = {}
        self._live = set()
        self._look_at(self._watch.everything() | self._known["trials"].keys())
        self._is_open, self._compare = True, False
        self.has_opened = True

    def _read_plan(self) -> None:
        """A search adds trials to sweep.json as it asks for them."""
        trials = self._sweep["trials"]
        self._plan |= {trial["spec_id"]: trial for trial in trials[self._planned :]}
        self._planned = len(trials)

    # Trials

    def _choose(self, final_status: str | None) -> None:
        """Which trials to look at: at the end all of them, before it those that may have changed."""
        if final_status:
            self._look_at(self._watch.everything() | self._known["trials"].keys())
            return
        timed = self._watch.timed()
        self._look_at(self._watch.new() | self._live | self._watch.ended() | self._watch.in_turn())
        if timed:
            self._look_at(
                {spec_id for spec_id, ended in self._whole.ended() if timed & {spec_id, ended.arch_id}}
            )

    def _look_at(self, spec_ids: set[str]) -> None:
        """The plan's trials in its order, then whatever else lies in the folder."""
        if len(spec_ids) > len(self._plan) // 2:
            ordered = [*(s for s in self._plan if s in spec_ids), *sorted(spec_ids - self._plan.keys())]
        else:
            ordered = sorted(spec_ids)
        self._todo |= dict.fromkeys(ordered)

    def _sync_trials(self, final_status: str | None) -> None:
        for number, spec_id in enumerate(list(self._todo), start=1):
            self._whole.guarded(spec_id, partial(self._sync_trial, spec_id, final_status))
            del self._todo[spec_id]
            if number % TRIALS_BETWEEN_SAVES == 0:
                self._state.save()

    def _sync_trial(self, spec_id: str, final_status: str | None) -> None:
        entry: dict[str, Any] = self._known["trials"].get(spec_id, {})
        folder = self._folder / "trials" / spec_id
        curve = CurveReader(folder / CURVE_FILE, entry)
        result_mark = mark(folder / RESULT_FILE)
        ended, result = _read_end(folder, result_mark, entry)
        if final_status and result_mark and ended is None:
            self._whole.note_damage(spec_id, RESULT_FILE)
        self._whole.note_end(spec_id, ended)
        timing_file = self._watch.timing(spec_id, ended.arch_id) if ended else None
        timing_mark = mark(timing_file) if timing_file else None
        status, end_ms = _run_status(entry, curve, ended, final_status, mark(folder / CURVE_FILE))
        new_timing = timing_mark is not None and timing_mark != entry.get("timing")
        if not (curve.rows or result or new_timing or status != entry.get("status", "")):
            self._expect(spec_id, ended)
            return

        points, tags = list(curve.points), {}
        spec = (self._plan.get(spec_id) or {}).get("spec") or {}
        if ended is None and status != entry.get("status", ""):
            tags = _open_tags(status, folder, curve, (spec.get("recipe") or {}).get("steps"))
        if result is not None:
            points += _final(content.file_metrics(result, "result"), result_mark)
            tags = content.result_tags(result) | {"mlflow.note.content": notes.trial_note(result)}
            if entry.get("result"):
                tags.setdefault("error", "")  # what an earlier attempt left there
        if timing_file is not None and new_timing:
            points += _final(_timing_metrics(timing_file), timing_mark)
        run_id = entry.get("run_id") or self._create_trial(spec_id, curve, result)
        # A run without a place in its curve is new, or was created just before a crash.
        self._client.log(run_id, points, {} if "offset" in entry else content.params(spec), tags)
        if result is not None:
            self._client.log_datasets(run_id, content.datasets(result))
        if status != entry.get("status", ""):
            self._client.set_status(run_id, status, end_ms)
        self._known["trials"][spec_id] |= {
            **curve.place(),
            "result": result_mark if ended else None,
            "ended": ended,
            "timing": timing_mark,
            "status": status,
            "open": tags.get("status") if ended is None else None,
        }
        self._state.touch(spec_id)
        self._expect(spec_id, ended)

    def _expect(self, spec_id: str, ended: Ended | None) -> None:
        """What may change at any time is looked at each time. The driver tries a failed trial once more."""
        if ended is None or ended.status == "failed":
            self._live.add(spec_id)
        else:
            self._live.discard(spec_id)

    def _create_trial(self, spec_id: str, curve: CurveReader, result: Mapping[str, Any] | None) -> str:
        # What lies in the folder without being planned was planned by an earlier command, and says so itself.
        said = {key: (result or {}).get(key) for key in ("arch_id", "curve_id", "family", "label", "spec")}
        trial = self._plan.setdefault(spec_id, {**said, "spec_id": spec_id})
        colour = content.family_colour(str(trial.get("family", "")))
        times = [_ms(row["t"]) for row in curve.rows if content.is_finite(row.get("t"))]
        said_start = ((result or {}).get("training") or {}).get("started_at")
        started_ms = min(times, default=_ms(said_start))  # the same, whenever the run is made
        label = str(trial.get("label") or spec_id)
        tags = content.plan_tags(trial) | {"mlflow.runColor": colour}
        return self._runs.create_trial(spec_id, label, tags, started_ms)


def _run_status(
    entry: Mapping[str, Any],
    curve: CurveReader,
    ended: Ended | None,
    final_status: str | None,
    curve_mark: list[int] | None,
) -> tuple[str, int | None]:
    """MLflow status of a trial's run, empty before it begins, and the time of its end."""
    if ended is not None:
        return ("FINISHED" if ended.status == "ok" else "FAILED"), _ms(ended.ended_at)
    if final_status and (curve.rows or entry):
        return "KILLED", curve_mark[1] // 1_000_000 if curve_mark else _ms(None)
    # An interrupted trial that this sweep does not touch stays as it is.
    return ("RUNNING" if curve.rows else entry.get("status", "")), None


def _read_end(
    folder: Path, result_mark: list[int] | None, entry: Mapping[str, Any]
) -> tuple[Ended | None, dict[str, Any] | None]:
    """(what is to be known of a trial's result, its content if that is not logged yet)."""
    if result_mark is None:
        return None, None
    if entry.get("result") == result_mark and entry.get("ended"):
        return Ended(*entry["ended"]), None
    result = read_any(folder)
    try:
        return (Ended.of(result, result_mark[1] / 1e9), result) if result else (None, None)
    except (KeyError, TypeError, ValueError):  # not as rdc writes it
        return None, None


def _timing_metrics(path: Path) -> dict[str, float]:
    try:
        return content.file_metrics(read_sealed(path), "timing")
    except UserError:  # damaged, and measured again by the next command that times
        return {}


def _open_tags(status: str, folder: Path, curve: CurveReader, steps: int | None) -> dict[str, str]:
    """What a run says of a trial without a result.

    A rung's file tells that the search has paused the trial, unless it has been promoted since.
    """
    last, rung = curve.last_step, _rung_step(folder)
    paused = rung is not None and rung >= (last or 0)
    said = "running" if status != "KILLED" else "paused" if paused else "interrupted"
    return {"status": said, "mlflow.note.content": notes.open_note(said, rung if paused else last, steps)}


def _rung_step(folder: Path) -> int | None:
    try:
        return int(read_sealed(folder / RUNG_FILE)["step"])
    except (UserError, KeyError, TypeError, ValueError):
        return None


def _final(values: Mapping[str, float], file_mark: list[int] | None) -> list[content.Point]:
    """Final values at step 0: MLflow shows a metric as bars instead of a curve only if its step is 0.

    A later value of the same step wins by its time, which is that of the file it came from.
    """
    assert file_mark is not None, "final values come from a file that exists"
    return [content.Point(key, value, 0, file_mark[1] // 1_000_000) for key, value in values.items()]


def _ms(unix_s: float | None) -> int:
    return round(1000 * (unix_s or time.time()))
