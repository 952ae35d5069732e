"""The MLflow mirror against a real SQLite store: what a person finds there is what the files say."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.frontier import write_report
from analysis.schema import COLUMNS
from sweep.tracking import open_tracker
from sweep.tracking.state import JOURNAL_FILE, STATE_FILE, read_state
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_fixtures import empty_database as empty_database
from tests.sweep.tracking_fixtures import mirror_of
from tests.sweep.tracking_fixtures import runs as runs
from tests.sweep.tracking_reader import SETTINGS, Server, curve_of, poll_until, server_of

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_a_sweep_is_a_parent_with_a_child_per_trial(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=4, steps=50)
    tracker = open_tracker(SETTINGS, sweep.folder, sweep.sweep)
    sweep.write_trial(0)
    sweep.write_trial(1)
    tracker.poll()
    sweep.write_trial(2, status="failed")
    sweep.write_timing(0)
    write_report(sweep.folder, print_table=False)
    tracker.finish("FINISHED")

    server = server_of(sweep)
    parent, children = server.parent(), server.children()
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "sweep frontier"
    assert parent.data.params["budget.steps"] == "50"
    assert parent.data.metrics["sweep/trials_ended"] == 3
    assert parent.data.metrics["sweep/trials_without_valid_point"] == 1
    assert parent.data.tags["mlflow.note.content"].startswith("**2 of 4 trials gave a valid point")
    assert {"sweep.json", "trials.csv", "frontier.csv", "frontier.png"} <= server.artifacts(parent)

    ids = [trial["spec_id"] for trial in sweep.trials]
    assert set(children) == set(ids[:3]), "the fourth trial has not begun"
    assert [children[i].info.status for i in ids[:3]] == ["FINISHED", "FINISHED", "FAILED"]
    done, failed = children[ids[0]], children[ids[2]]
    assert done.info.run_name == sweep.trials[0]["label"]
    assert done.data.tags["mlflow.parentRunId"] == parent.info.run_id
    wanted = {"git": "mlflow.source.git.commit", "device": "device", "data": "data_hash", "budget": "budget"}
    result = json.loads((sweep.folder / "trials" / ids[0] / "result.json").read_text())
    assert {name: done.data.tags[key] for name, key in wanted.items()} == {
        "git": result["environment"]["git_revision"],
        "device": result["training"]["device"],
        "data": result["evaluation"]["dataset_hash"],
        "budget": "quick",
    }
    assert done.data.params["depth.channels"] == "32-32-32"
    assert done.data.params["lmbda"] == "0.013"
    assert server.artifacts(done) == {"result.json", "reconstructions.png"}
    assert {i.dataset.name for i in done.inputs.dataset_inputs} == {"synthetic", "packaged"}
    assert failed.data.tags["error"] == "MemoryError"
    assert failed.data.tags["mlflow.note.content"].startswith("**Failed:** MemoryError: 12 GiB asked for")
    assert server.artifacts(failed) == {"result.json", "log.txt"}


def test_final_metrics_are_the_tables_numbers_bit_for_bit(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=4, steps=20, kodak=True)
    for number in range(4):
        sweep.write_trial(number, picture=False)
        sweep.write_timing(number)
    # A second device, timed for one architecture only, must not take the place of the first in any of them.
    sweep.write_timing(0, device="cuda:H200", slug="cuda-h200")
    report = write_report(sweep.folder, print_table=False)
    mirror_of(sweep).sync("FINISHED")

    children = server_of(sweep).children()
    keys = {col.name: col.metric for col in COLUMNS if col.metric}
    assert {"rate_saving_vs_bpg_pct", "time_dec_net_ms", "rd_loss"} <= keys.keys()
    for table in (report.trials, report.frontier):
        for _, row in table.iterrows():
            logged = children[row["spec_id"]].data.metrics
            expected = {key: row[name] for name, key in keys.items() if row[name] == row[name]}
            assert {key: logged.get(key) for key in expected} == expected
            others = {key for key in logged if not key.startswith(("train/", "val/"))}
            assert others <= set(expected), "MLflow shows a final number that the table lacks"
    assert len(report.frontier) > 0


def test_curves_are_logged_by_step_with_exact_values(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=2000)  # 1600 values: more than one request
    sweep.write_trial(0, picture=False)
    mirror_of(sweep).sync("FINISHED")
    server = server_of(sweep)
    (run,) = server.children().values()
    rows = map(json.loads, (sweep.folder / "trials" / run.data.tags["spec_id"] / "metrics.jsonl").open())
    keys = {key for row in rows for key in row if key.startswith(("train/", "val/"))}
    assert len(keys) == 11
    for key in keys:
        assert server.history(run, key) == curve_of(sweep, 0, key)


def test_the_same_sweep_again_goes_on_in_the_same_runs(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=100)
    sweep.write_trial(0, picture=False)
    sweep.write_curve(1, last_step=50)
    mirror_of(sweep).sync("KILLED")
    server = server_of(sweep)
    before = {spec_id: run.info.run_id for spec_id, run in server.children().items()}
    interrupted = sweep.trials[1]["spec_id"]
    assert server.children()[interrupted].info.status == "KILLED"
    assert server.children()[interrupted].data.tags["status"] == "interrupted"
    assert server.parent().info.status == "KILLED"

    again = mirror_of(sweep)
    again.sync(None)
    assert server.parent().info.status == "RUNNING"
    assert server.children()[interrupted].info.status == "KILLED", "nobody has gone on with it yet"
    sweep.write_curve(1, first_step=50, last_step=80)
    again.sync(None)
    assert server.children()[interrupted].info.status == "RUNNING"
    assert server.children()[interrupted].data.tags["status"] == "running"
    sweep.write_curve(1, first_step=80)
    sweep.write_result(1)
    again.sync("FINISHED")

    after = server.children()
    assert {spec_id: run.info.run_id for spec_id, run in after.items()} == before
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert server.history(after[interrupted], "train/rd_loss") == curve_of(sweep, 1, "train/rd_loss")
    assert [step for step, _ in server.history(server.parent(), "sweep/trials_ended")] == [1, 2]


def test_a_trial_that_is_tried_again_shows_its_last_result(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=50)
    sweep.write_result(0, status="failed")
    mirror_of(sweep).sync("FINISHED")
    server = server_of(sweep)
    (failed,) = server.children().values()
    assert failed.info.status == "FAILED"
    sweep.write_curve(0)
    sweep.write_result(0, status="rate_mismatch")
    again = mirror_of(sweep)
    again.sync(None)
    result = sweep.write_result(0)
    result["evaluation"]["rd_loss"] = 0.75
    path = sweep.folder / "trials" / sweep.trials[0]["spec_id"] / "result.json"
    path.write_text(json.dumps(result))
    again.sync("FINISHED")
    (run,) = server.children().values()
    assert run.info.run_id == failed.info.run_id
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "ok")
    assert run.data.tags["error"] == ""
    assert run.data.metrics["eval/rd_loss"] == 0.75
    assert run.data.tags["mlflow.note.content"].startswith("**Finished.** rd_loss 0.7500")
    assert len(run.inputs.dataset_inputs) == 3


def test_steps_that_a_resumed_trial_repeats_are_not_logged_twice(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=300)
    sweep.write_curve(0, last_step=200)
    mirror = mirror_of(sweep)
    mirror.sync(None)
    path = sweep.folder / "trials" / sweep.trials[0]["spec_id"] / "metrics.jsonl"
    kept = [line for line in path.read_text().splitlines() if json.loads(line).get("step", 0) <= 120]
    path.write_text("\n".join(kept) + "\n")
    # By the time we look, the file is longer than what we had read of it. The repeated steps come later.
    sweep.write_curve(0, first_step=120, delay_s=1000.25)
    mirror.sync(None)
    server = server_of(sweep)
    (run,) = server.children().values()
    assert server.history(run, "train/rd_loss") == curve_of(sweep, 0, "train/rd_loss")


@pytest.mark.parametrize("loss", ["server", "one run", "tracking.json"])
def test_what_was_lost_is_rebuilt_from_the_files(runs: Path, empty_database: Path, loss: str) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=50)
    for number in range(2):
        sweep.write_trial(number)
    mirror_of(sweep).sync("FINISHED")
    server = server_of(sweep)
    before = server.children()
    first = sweep.trials[0]["spec_id"]
    said: list[str] = []
    if loss == "server":
        shutil.copy(empty_database, runs / "mlflow.db")
    elif loss == "one run":
        server.client.delete_run(before[first].info.run_id)
    else:
        (sweep.folder / STATE_FILE).write_text('{"schema_ver')
    mirror_of(sweep, said).sync("FINISHED")

    server = server_of(sweep)
    after = server.children()
    assert len(server.runs()) == 3
    if loss == "tracking.json":
        assert "is not valid JSON" in said[0]
        assert {s: run.info.run_id for s, run in after.items()} == {
            s: r.info.run_id for s, r in before.items()
        }
    else:
        assert after[first].info.run_id != before[first].info.run_id
    assert {s: run.data.metrics for s, run in after.items()} == {s: r.data.metrics for s, r in before.items()}
    assert {s: run.data.params for s, run in after.items()} == {s: r.data.params for s, r in before.items()}
    assert server.history(after[first], "train/rd_loss") == curve_of(sweep, 0, "train/rd_loss")
    assert server.artifacts(after[first]) == {"result.json", "reconstructions.png"}


def test_a_server_emptied_while_the_sweep_runs_is_filled_again(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=50)
    sweep.write_trial(0, picture=False)
    mirror = mirror_of(sweep)
    mirror.sync(None)
    server = server_of(sweep)
    _purge(runs / "mlflow.db")
    sweep.write_trial(1, picture=False)
    mirror.sync("FINISHED")
    assert set(server.children()) == {trial["spec_id"] for trial in sweep.trials}
    assert server.parent().info.status == "FINISHED"


def _purge(database: Path) -> None:
    """All runs gone, the tables still there."""
    import sqlite3

    with sqlite3.connect(database) as connection:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()


def test_a_run_created_just_before_a_crash_is_taken_over(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=50)
    sweep.write_curve(0, last_step=30)
    mirror_of(sweep).sync(None)
    # As before its creation was remembered.
    (sweep.folder / JOURNAL_FILE).unlink()
    assert read_state(sweep.folder)["trials"] == {}
    sweep.write_curve(0, first_step=30)
    sweep.write_result(0)
    mirror_of(sweep).sync("FINISHED")
    server = server_of(sweep)
    (run,) = server.children().values()
    assert server.history(run, "train/rd_loss") == curve_of(sweep, 0, "train/rd_loss")
    assert run.data.params["transform"] == "conv"


def test_values_that_are_not_finite_are_left_out(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_curve(0)
    result = sweep.write_result(0)
    folder = sweep.folder / "trials" / sweep.trials[0]["spec_id"]
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "t": 2e9, "train/rd_loss": NaN, "train/bpp": Infinity, "train/mse": 0.5}\n')
    result["evaluation"] |= {"psnr_db": float("inf"), "ms_ssim_db": float("nan")}
    (folder / "result.json").write_text(json.dumps(result))
    mirror_of(sweep).sync("FINISHED")
    server = server_of(sweep)
    (run,) = server.children().values()
    assert [step for step, _ in server.history(run, "train/rd_loss")] == [10, 20]
    assert [step for step, _ in server.history(run, "train/mse")] == [10, 20, 30]
    assert "eval/psnr_db" not in run.data.metrics
    assert "eval/ms_ssim_db" not in run.data.metrics
    assert run.data.metrics["eval/bpp"] == result["evaluation"]["bpp"]


def test_one_refused_trial_does_not_hold_up_the_others(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    sweep.write_trial(0, picture=False)
    said: list[str] = []
    mirror = mirror_of(sweep, said)
    mirror.sync(None)
    # Parameters of a run cannot change: what a spec would look like if its id were not made of it.
    sweep.trials[0]["spec"]["lmbda"] = 0.5
    (sweep.folder / JOURNAL_FILE).unlink()
    sweep.write_trial(1, picture=False)
    mirror_of(sweep, said).sync("FINISHED")
    assert "MLflow refuses the record of trial" in said[0]
    assert server_of(sweep).children()[sweep.trials[1]["spec_id"]].info.status == "FINISHED"


def test_the_view_names_the_sweeps_runs_and_what_they_have(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    sweep.write_trial(0, picture=False)
    mirror_of(sweep).sync("FINISHED")
    server = server_of(sweep)
    state = read_state(sweep.folder)
    (run,) = server.children().values()
    assert run.data.tags["sweep"] == state["view_key"]
    assert "sweep" not in server.parent().data.tags, "the charts show trials only"
    tags = server.client.get_experiment(state["experiment_id"]).tags
    assert json.loads(tags[f"mlflow.sharedViewState.{state['view_key']}"])["name"] == "frontier"


class SilentServer:
    """Takes connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._kept.append(self._socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._socket.close()
        for connection in self._kept:
            connection.close()


@pytest.fixture
def silent_server() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()


def test_a_server_that_hangs_takes_no_time_from_the_driver(runs: Path, silent_server: SilentServer) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    said: list[str] = []
    settings = {
        **SETTINGS,
        "uri": f"http://127.0.0.1:{silent_server.port}",
        "request_timeout_s": 60.0,
        "finish_timeout_s": 1.0,
    }
    tracker = open_tracker(settings, sweep.folder, sweep.sweep, said.append)
    sweep.write_trial(0, picture=False)
    for _ in range(20):
        started = time.perf_counter()
        tracker.poll()
        assert time.perf_counter() - started < 0.05
        time.sleep(0.02)
    started = time.perf_counter()
    tracker.finish("FINISHED")
    assert time.perf_counter() - started < 3.0
    assert said == [
        f"MLflow at http://127.0.0.1:{silent_server.port} lacks 1 of 1 ended trials; the files have it, "
        f"and when the server answers, this logs it: python -m sweep sync {sweep.folder}"
    ]


def test_a_refusing_server_stops_nothing_and_learns_no_password(
    runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_trial(0, picture=False)
    said: list[str] = []
    uri = f"http://someone:s3cret-w0rd@127.0.0.1:{port}"
    tracker = open_tracker({**SETTINGS, "uri": uri}, sweep.folder, sweep.sweep, said.append)
    tracker.finish("FINISHED")
    assert said[0] == (
        f"MLflow at http://127.0.0.1:{port} does not take the sweep's record, the sweep goes on: "
        "[Errno 111] Connection refused"
    )
    assert said[-1] == (
        f"MLflow at http://127.0.0.1:{port} lacks 1 of 1 ended trials; the files have it, and when the "
        f"server answers, this logs it: python -m sweep sync {sweep.folder} --uri URI"
    )
    written = [path.read_text() for path in sweep.folder.rglob("*.json")]
    for text in (*said, *caplog.messages, *written):
        assert "s3cret" not in text


def test_catching_up_after_an_outage(runs: Path, tmp_path: Path) -> None:
    """The database is out of reach at first; when it comes back, the same tracker logs what it missed."""
    away, place = tmp_path / "away.db", runs / "share" / "mlflow.db"
    (runs / "mlflow.db").rename(away)
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=50)
    sweep.write_trial(0)
    said: list[str] = []
    settings = {**SETTINGS, "uri": f"sqlite:///{place}"}
    place.parent.write_text("a file where the database's folder should be")
    tracker = open_tracker(settings, sweep.folder, sweep.sweep, said.append)
    poll_until(tracker, lambda: any("does not take the sweep's record" in line for line in said))
    place.parent.unlink()
    place.parent.mkdir()
    away.rename(place)
    poll_until(tracker, lambda: any("answers again" in line for line in said))
    sweep.write_trial(1)
    tracker.finish("FINISHED")
    server = Server(f"sqlite:///{place}")
    assert server.parent().info.status == "FINISHED"
    children = server.children()
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    first = children[sweep.trials[0]["spec_id"]]
    assert server.history(first, "train/rd_loss") == curve_of(sweep, 0, "train/rd_loss")
    assert len(said) == 2, said
