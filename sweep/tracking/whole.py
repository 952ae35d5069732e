"""The sweep as a whole on the server: progress, description, ranking, prepared view, and artifacts."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rdc.files import read_json
from rdc.result import read_any
from sweep.tracking import content, notes, view
from sweep.tracking.client import Client, RejectedError
from sweep.tracking.progress import Ended, Progress
from sweep.tracking.public import public_copy, public_tree
from sweep.tracking.state import State, mark

TRIAL_ARTIFACTS = ("result.json", "reconstructions.png")
FAILED_TRIAL_ARTIFACTS = ("result.json", "log.txt")
SWEEP_ARTIFACTS = ("*.csv", "*.png", "*.html", "data_*.json")


class Whole:
    """Fed by `note_end` with what each trial gave; writes the sweep's own run and ranks the trials."""

    def __init__(
        self,
        client: Client,
        state: State,
        folder: Path,
        sweep: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._client = client
        self._state = state
        self._folder = folder
        self._sweep = sweep
        self._say = say
        self._rejected: set[str] = set()
        self._damaged: set[str] = set()
        self._several_lmbdas = False
        self._varied: list[str] = []
        search = (sweep.get("config") or {}).get("search") or {}
        self._search = None if search.get("name", "grid") == "grid" else search
        self._planned = 0
        self.forget()

    def forget(self) -> None:
        """The server may be another one: what is known of its runs has to be told again."""
        self._ended: dict[str, Ended] = {}
        self._progress = Progress()
        self._has_news = True
        self._unsent: dict[str, None] = {}  # trials whose artifacts may not be there yet
        self._best: tuple[str, dict[str, Any]] | None = None

    @property
    def _known(self) -> dict[str, Any]:
        return self._state.server

    def ended(self) -> Iterable[tuple[str, Ended]]:
        return self._ended.items()

    def note_end(self, spec_id: str, ended: Ended | None) -> None:
        """The trial's result as it is now; None if there is none."""
        if self._ended.get(spec_id) == ended:
            return
        self._has_news = True
        if ended is None:
            del self._ended[spec_id]
            self._progress.drop(spec_id)
        else:
            self._ended[spec_id] = ended
            self._progress.put(spec_id, ended)
            self._unsent[spec_id] = None
        if self._best is not None and self._best[0] == spec_id:
            self._best = None

    def guarded(self, spec_id: str, work: Callable[[], None]) -> None:
        """Do something for a trial; what the server refuses for good is said once, and then left out."""
        if spec_id in self._rejected:
            return
        try:
            work()
        except RejectedError as error:
            self._rejected.add(spec_id)
            self._say(
                f"MLflow refuses the record of trial {spec_id} ({error}); the trial's files are complete"
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # nothing that rdc writes
            self.note_damage(spec_id, f"{type(error).__name__}: {error}")

    def note_damage(self, spec_id: str, what: str) -> None:
        """Files of the trial are not as it wrote them; said once."""
        if spec_id not in self._damaged:
            self._damaged.add(spec_id)
            self._say(f"trial {spec_id}: its files are damaged ({what}), so that MLflow lacks a part of it")

    def set_view(self, trials: Collection[Mapping[str, Any]] = ()) -> None:
        """Write the prepared charts and table; what nobody has a value for is left out once that is known."""
        known = self._known
        if trials:
            self._several_lmbdas = len({(trial.get("spec") or {}).get("lmbda") for trial in trials}) > 1
            self._varied = content.varied_params(trials)
        value = view.tag_value(
            str(self._sweep.get("name")),
            known["view_key"],
            time.time(),
            absent=known["parent"].get("absent", [view.SAVING_PCT]),
            several_lmbdas=self._several_lmbdas,
            varied=self._varied,
        )
        self._client.set_experiment_tag(known["experiment_id"], view.TAG_PREFIX + known["view_key"], value)

    def sync_progress(self, planned: int, *, always: bool) -> None:
        """Progress curves and description. planned: how many trials there are to be."""
        self._planned = planned
        if not (self._has_news or always):
            return
        parent = self._known["parent"]
        points = self._progress.points(after_step=parent.get("step", 0))
        frontier = content.read_table(self._folder / "frontier.csv")
        note = notes.sweep_note(
            self._progress.valid,
            planned,
            self._best_result(),
            frontier,
            stopped=self._stopped() if always else 0,
            search=self._search,
        )
        self._client.log(self._known["run_id"], points, tags={"mlflow.note.content": note})
        parent["step"] = max(len(self._progress), parent.get("step", 0))
        self._has_news = False

    def _stopped(self) -> int:
        return sum(entry.get("open") == "paused" for entry in self._known["trials"].values())

    def _best_result(self) -> dict[str, Any] | None:
        spec_id = self._progress.best
        if spec_id is None:
            return None
        if self._best is None or self._best[0] != spec_id:
            result = read_any(self._folder / "trials" / spec_id)
            self._best = (spec_id, result) if result else None
        return self._best[1] if self._best else None

    def sync_ranking(self, trials: Collection[Mapping[str, Any]], *, always: bool) -> None:
        """What only the analysis of the whole sweep knows of a trial: its place and its rate savings.

        trials: entries of sweep.json, to which a search has added. always: even if the table is the one that
        was logged, since a trial's run may be a new one.
        """
        path = self._folder / "trials.csv"
        now = mark(path)
        if now is None or (now == self._known["parent"].get("ranking") and not always):
            return
        rows = content.read_table(path)
        labels = {row["arch_id"]: row["label"] for row in rows}
        present: set[str] = set()
        for row in rows:
            values = content.table_metrics(row)
            present |= values.keys()
            place = content.ranking_tags(row, labels)
            if row["spec_id"] in self._ended and row["spec_id"] in self._known["trials"]:
                self.guarded(row["spec_id"], partial(self._rank, row, values, place, now))
        self._known["parent"]["absent"] = [m for m in view.OPTIONAL_METRICS if m not in present]
        self.set_view(trials)
        self.sync_progress(self._planned, always=True)
        self._known["parent"]["ranking"] = now

    def _rank(
        self, row: Mapping[str, str], values: Mapping[str, float], place: Mapping[str, str], now: list[int]
    ) -> None:
        entry = self._known["trials"][row["spec_id"]]
        told = zlib.crc32(repr((sorted(values.items()), sorted(place.items()), entry.get("result"))).encode())
        if entry.get("ranked") == told:
            return
        result = read_any(self._folder / "trials" / row["spec_id"])
        if result is None:
            return
        note = notes.trial_note(result, place)
        points = [content.Point(key, value, 0, now[1] // 1_000_000) for key, value in values.items()]
        self._client.log(entry["run_id"], points, tags={**place, "mlflow.note.content": note})
        entry["ranked"] = told
        self._state.touch(row["spec_id"])

    def sync_artifacts(self, *, final: bool) -> None:
        for spec_id in list(self._unsent):
            self.guarded(spec_id, partial(self._sync_trial_artifacts, spec_id))
            del self._unsent[spec_id]
        if final:
            self._sync_sweep_artifacts()

    def _sync_trial_artifacts(self, spec_id: str) -> None:
        ended, entry = self._ended.get(spec_id), self._known["trials"].get(spec_id)
        if ended is None or entry is None:
            return
        names = FAILED_TRIAL_ARTIFACTS if ended.status == "failed" else TRIAL_ARTIFACTS
        folder = self._folder / "trials" / spec_id
        if self._upload(entry["run_id"], entry, (folder / name for name in names)):
            self._state.touch(spec_id)

    def _sync_sweep_artifacts(self) -> None:
        from sweep.record import SWEEP_FILE  # not above: it imports this package

        run_id, parent = self._known["run_id"], self._known["parent"]
        paths = (path for pattern in SWEEP_ARTIFACTS for path in sorted(self._folder.glob(pattern)))
        self._upload(run_id, parent, paths)
        sweep = self._closed_sweep()
        text = json.dumps(public_tree(sweep), indent=2, ensure_ascii=False)
        if parent.get("sweep_crc32") != zlib.crc32(text.encode()):
            self._client.log_text(run_id, text, SWEEP_FILE)
            parent["sweep_crc32"] = zlib.crc32(text.encode())

    def ended_at(self) -> float:
        """Unix time of the sweep's end."""
        return float(self._closed_sweep().get("ended_at") or time.time())

    def _closed_sweep(self) -> Mapping[str, Any]:
        """As the driver has closed it, with the end that what we were given lacks."""
        from sweep.record import SWEEP_FILE

        record = self._folder / SWEEP_FILE
        return dict(read_json(record)) if record.exists() else self._sweep

    def _upload(self, run_id: str, entry: dict[str, Any], paths: Iterable[Path]) -> bool:
        """Those of the files that are new or have changed; whether there were any."""
        uploaded = entry.setdefault("artifacts", {})
        before = dict(uploaded)
        for path in paths:
            now = mark(path)
            if now is None or now == uploaded.get(path.name):
                continue
            copy = public_copy(path)
            if copy is None:
                self._client.log_artifact(run_id, path)
            else:
                self._client.log_text(run_id, copy, path.name)
            uploaded[path.name] = now
        return bool(uploaded != before)
