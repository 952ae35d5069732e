"""Servers that lock, forget, answer too late or lose runs, and killed drivers: one run per trial."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from analysis.frontier import write_report
from rdc.files import read_json, write_sealed
from sweep.tracking import open_tracker, watch
from sweep.tracking.client import Client, ServerError
from sweep.tracking.content import file_metrics
from sweep.tracking.mirror import Mirror
from sweep.tracking.state import JOURNAL_FILE, STATE_FILE, State, read_state
from tests.sweep.conftest import wait_until
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_fixtures import empty_database as empty_database
from tests.sweep.tracking_fixtures import mirror_of
from tests.sweep.tracking_fixtures import runs as runs
from tests.sweep.tracking_reader import SETTINGS, curve_of, poll_until, server_of

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_a_locked_database_is_written_once_it_is_free(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=50)
    said: list[str] = []
    # Not the five seconds that SQLite waits by default.
    uri = f"sqlite:///{runs}/mlflow.db?timeout=0.1"
    with sqlite3.connect(runs / "mlflow.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        tracker = open_tracker({**SETTINGS, "uri": uri}, sweep.folder, sweep.sweep, said.append)
        sweep.write_trial(0, picture=False)
        poll_until(tracker, lambda: bool(said))
        other.execute("ROLLBACK")
    other.close()
    assert "does not take the sweep's record, the sweep goes on" in said[0]
    assert "database is locked" in said[0]
    poll_until(tracker, lambda: len(said) == 2)
    tracker.finish("FINISHED")
    (run,) = server_of(sweep).children().values()
    assert server_of(sweep).history(run, "train/rd_loss") == curve_of(sweep, 0, "train/rd_loss")
    assert said[1:] == [f"MLflow at {uri} answers again; what it missed is logged"]


def test_a_server_that_comes_back_while_the_sweep_ends_gets_the_end_too(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    sweep.write_trial(0, picture=False)
    tracker = open_tracker(SETTINGS, sweep.folder, sweep.sweep, list[str]().append)
    poll_until(tracker, lambda: recorded(sweep) == 1)
    away = runs / "away.db"
    (runs / "mlflow.db").rename(away)
    (runs / "mlflow.db").mkdir()  # no database can be opened or created there
    sweep.write_trial(1, picture=False)
    said: list[str] = []

    def show(line: str) -> None:
        said.append(line)
        if away.exists():
            (runs / "mlflow.db").rmdir()
            away.rename(runs / "mlflow.db")

    monkeypatch.setattr(tracker, "_say", show)
    tracker.finish("FINISHED")
    assert "does not take the sweep's record" in said[0]
    assert len(said) == 1 or "answers again" in said[1]
    assert {run.info.status for run in server_of(sweep).runs()} == {"FINISHED"}
    assert len(server_of(sweep).children()) == 2


def recorded(sweep: SyntheticSweep) -> int:
    if not (sweep.folder / STATE_FILE).exists():
        return 0
    servers = State(sweep.folder, f"sqlite:///{sweep.folder.parent}/mlflow.db", print).server
    return sum(bool(entry.get("result")) for entry in servers.get("trials", {}).values())


class LateClient(Client):
    """Whose server creates each run twice as slowly as the client waits: the first answer never comes."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri, 10)
        self.asked = 0

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        run_id = super().create_run(experiment_id, name, tags, start_ms)
        self.asked += 1
        if self.asked % 2:
            raise ServerError("Read timed out")
        return run_id


def test_an_unanswered_request_for_a_run_gives_no_second_one(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=3, steps=20)
    for number in range(3):
        sweep.write_trial(number, picture=False)
    mirror = Mirror(
        LateClient(f"sqlite:///{runs}/mlflow.db"),
        experiment="rdc",
        artifacts=runs / "mlartifacts",
        folder=sweep.folder,
        sweep=sweep.sweep,
        say=list[str]().append,
    )
    failures = 0
    while failures < 10:
        try:
            mirror.sync("FINISHED")
            break
        except ServerError:
            failures += 1
    assert failures == 2, "the sweep's own run, and that of the second trial"
    assert len(server_of(sweep).children()) == 3
    assert {run.info.status for run in server_of(sweep).runs()} == {"FINISHED"}
    assert len(server_of(sweep).runs()) == 4


def test_a_run_deleted_while_the_sweep_goes_on_does_not_end_the_record(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    for number in range(2):
        sweep.write_trial(number, picture=False)
    mirror = mirror_of(sweep)
    mirror.sync(None)
    server = server_of(sweep)
    server.client.delete_run(server.children()[sweep.trials[0]["spec_id"]].info.run_id)
    write_report(sweep.folder, print_table=False, draw=False)
    mirror.sync("FINISHED")
    assert len(server.children()) == 2
    assert all("frontier" in run.data.tags for run in server.children().values())
    assert server.parent().info.status == "FINISHED"


def test_an_experiment_deleted_while_the_sweep_goes_on_is_restored(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    sweep.write_trial(0, picture=False)
    mirror = mirror_of(sweep)
    mirror.sync(None)
    server = server_of(sweep)
    server.client.delete_experiment(server.parent().info.experiment_id)
    sweep.write_trial(1, picture=False)
    mirror.sync("FINISHED")
    assert len(server.children()) == 2
    assert {run.info.status for run in server.runs()} == {"FINISHED"}


def test_after_a_killed_driver_the_next_one_leaves_nothing_running(runs: Path) -> None:
    """Whatever the killed one had begun: with a curve, without any file, unknown to tracking.json."""
    sweep = SyntheticSweep(runs / "frontier", trials=4, steps=50)
    for number in range(3):
        sweep.write_curve(number, last_step=20)
    mirror_of(sweep).sync(None)
    server = server_of(sweep)
    unknown = dict(server.children()[sweep.trials[0]["spec_id"]].data.tags)
    server.client.create_run(server.parent().info.experiment_id, tags=unknown)
    shutil.rmtree(sweep.folder / "trials" / sweep.trials[2]["spec_id"])
    assert len([run for run in server.runs() if run.info.status == "RUNNING"]) == 5

    again = mirror_of(sweep)
    again.sync(None)
    sweep.write_curve(0, first_step=20)
    sweep.write_result(0)
    again.sync("FINISHED")
    children = server.children()  # which asserts one run per trial
    statuses = [children[trial["spec_id"]].info.status for trial in sweep.trials[:3]]
    assert statuses == ["FINISHED", "KILLED", "KILLED"]
    assert children[sweep.trials[2]["spec_id"]].data.tags["status"] == "interrupted"
    assert server.parent().info.status == "FINISHED"


def test_a_run_that_a_slow_server_makes_late_does_not_stay(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_curve(0)
    mirror = mirror_of(sweep)
    mirror.sync(None)
    server = server_of(sweep)
    (run,) = server.children().values()
    server.client.create_run(run.info.experiment_id, tags=run.data.tags)
    sweep.write_result(0)
    mirror.sync("FINISHED")
    (kept,) = server.children().values()
    assert (kept.info.run_id, kept.info.status) == (run.info.run_id, "FINISHED")


def test_in_a_large_sweep_what_changes_is_seen_at_the_next_look(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes some of all trials in turn, which in a small sweep are all of them."""
    monkeypatch.setattr(watch, "IN_TURN", 0)
    sweep = SyntheticSweep(runs / "frontier", trials=4, steps=40)
    sweep.write_trial(0, status="failed")
    sweep.write_trial(1, picture=False)
    mirror = mirror_of(sweep)
    mirror.sync(None)

    def status(number: int) -> str:
        mirror.sync(None)
        run = server_of(sweep).children().get(sweep.trials[number]["spec_id"])
        return "" if run is None else str(run.data.tags["status"])

    sweep.write_curve(2, last_step=20)
    assert wait_until(lambda: status(2) == "running", limit_s=30), "a new folder"
    sweep.write_curve(2, first_step=20)
    sweep.write_result(2)
    assert status(2) == "ok", "a trial that was running"
    sweep.write_result(0)
    assert status(0) == "ok", "one that had failed"
    sweep.write_result(1, status="rate_mismatch")
    assert status(1) == "ok", "nobody expects that"
    with open(sweep.folder / "jobs.jsonl", "a") as file:
        file.write(json.dumps({"kind": "trial", "job": sweep.trials[1]["spec_id"]}) + "\n")
    assert status(1) == "rate_mismatch", "the driver has seen its job ending"
    sweep.write_timing(2)
    mirror.sync(None)
    metrics = server_of(sweep).children()[sweep.trials[2]["spec_id"]].data.metrics
    assert "time/dec_total_ms" in metrics


def test_a_paused_trial_says_so(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=50)
    sweep.write_curve(0, last_step=20)
    rung = sweep.folder / "trials" / sweep.trials[0]["spec_id"] / "rung.json"
    rung.write_text('{"step": 20}')
    record = sweep.sweep
    record["config"]["search"] = {"name": "tpe", "objectives": ["rd_loss", "params_m"]}
    mirror_of(sweep, record=record).sync("FINISHED")
    server = server_of(sweep)
    (run,) = server.children().values()
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "paused")
    assert run.data.tags["mlflow.note.content"].startswith(
        "**Stopped early by the search at step 20 of 50.**"
    )
    note = server.parent().data.tags["mlflow.note.content"]
    assert note.startswith(
        "**0 of 1 trials gave a valid point, 1 were stopped early.** Chosen by tpe for rd_loss"
    )
    assert server.parent().data.params["search.objectives"] == "rd_loss, params_m"

    again = mirror_of(sweep, record=record)
    again.sync(None)
    sweep.write_curve(0, first_step=20, last_step=30)
    again.sync(None)
    (run,) = server.children().values()
    assert (run.info.status, run.data.tags.get("mlflow.note.content", "")) == ("RUNNING", "")
    again.sync("KILLED")
    (run,) = server.children().values()
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted"), "it had been promoted"
    assert run.data.tags["mlflow.note.content"].startswith("**Interrupted at step 30 of 50.**")


def test_trials_that_a_search_adds_are_named_by_its_plan(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    record: dict[str, Any] = sweep.sweep
    later = record["trials"].pop()
    mirror = Mirror(
        Client(f"sqlite:///{runs}/mlflow.db", 10),
        experiment="rdc",
        artifacts=runs / "mlartifacts",
        folder=sweep.folder,
        sweep=record,
        say=list[str]().append,
    )
    mirror.sync(None)
    record["trials"].append(later)
    sweep.write_curve(1, last_step=10)
    mirror.sync(None)
    (run,) = server_of(sweep).children().values()
    assert (run.info.run_name, run.data.params["transform"]) == (later["label"], "conv")


def test_damaged_files_hold_nobody_up(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=50)
    sweep.write_trial(0, picture=False)
    sweep.write_trial(1, picture=False)
    folder = sweep.folder / "trials" / sweep.trials[0]["spec_id"]
    (folder / "result.json").write_text('{"schema_ver')
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([*lines[:2], lines[2][:30], *lines[3:]]) + "\n")
    sweep.write_timing(0)
    next((sweep.folder / "timing").iterdir()).write_text("")
    sweep.write_timing(1)
    (timing,) = (sweep.folder / "timing").glob(f"{sweep.trials[1]['arch_id']}*")
    times = file_metrics(read_json(timing), "timing")
    write_sealed(timing, {**read_json(timing), "repeats": 5})
    timing.write_text(timing.read_text().replace('"repeats": 5', '"repeats": 9'))  # still JSON
    mirror_of(sweep).sync(None)
    sweep.write_result(0, picture=False)
    mirror_of(sweep).sync("FINISHED")
    children = server_of(sweep).children()
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert times.keys().isdisjoint(children[sweep.trials[1]["spec_id"]].data.metrics)
    steps = [s for s, _ in server_of(sweep).history(children[sweep.trials[0]["spec_id"]], "train/rd_loss")]
    assert steps == [10, 30, 40, 50], "the torn line is step 20's"


def test_what_is_remembered_survives_a_crash_at_any_byte(tmp_path: Path) -> None:
    """However much of the journal is there: never an error, never more than what had been written."""
    state = State(tmp_path, "http://tracker", print)
    state.server |= {"run_id": "r", "view_key": "v", "trials": {}, "parent": {}}
    state.save_whole()
    for number in range(3):
        state.server["trials"][f"t{number}"] = {"run_id": f"r{number}", "offset": number}
        state.touch(f"t{number}")
        state.server["parent"]["step"] = number
        state.save()
    whole = (tmp_path / JOURNAL_FILE).read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / JOURNAL_FILE).write_bytes(whole[:length])
        known = read_state(tmp_path)["trials"]
        complete = whole[:length].count(b"\n") + (whole[length : length + 1] == b"\n")
        assert len(known) == complete
        assert known == {k: v for k, v in state.server["trials"].items() if k in known}
    # A journal of before the file was written anew, as a crash between the two leaves it, is not read.
    state.server["trials"]["t0"]["offset"] = 99
    state.save_whole()
    (tmp_path / JOURNAL_FILE).write_bytes(whole)
    assert read_state(tmp_path)["trials"]["t0"]["offset"] == 99
