"""`python -m sweep sync`: an empty server filled from a sweep's files is the one that was there all along."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from analysis.frontier import write_report
from sweep.lock import sweep_lock
from sweep.sync import main
from sweep.tracking import open_tracker
from sweep.tracking.state import JOURNAL_FILE, STATE_FILE, read_state
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_fixtures import empty_database as empty_database
from tests.sweep.tracking_fixtures import mirror_of
from tests.sweep.tracking_fixtures import runs as runs
from tests.sweep.tracking_fixtures import shared_runs as shared_runs
from tests.sweep.tracking_reader import SETTINGS, Server, server_of, unused_port

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@dataclasses.dataclass(frozen=True)
class Logged:
    """A sweep, what its server holds of it, and the ids of the runs there."""

    sweep: SyntheticSweep
    server: Server
    wanted: dict[str, Any]
    run_ids: set[str]


@pytest.fixture(scope="module")
def logged(shared_runs: Path) -> Logged:
    sweep = logged_sweep(shared_runs)
    server = server_of(sweep)
    return Logged(sweep, server, server.content(), {run.info.run_id for run in server.runs()})


def logged_sweep(runs: Path) -> SyntheticSweep:
    """A sweep that was followed as it ran: ended in every way, timed, ranked, one trial cut short."""
    sweep = SyntheticSweep(runs / "frontier", trials=6, steps=60, kodak=True)
    mirror = mirror_of(sweep)
    sweep.write_trial(0)
    sweep.write_curve(1, last_step=30)
    mirror.sync(None)
    sweep.write_trial(2, status="failed")
    mirror.sync(None)
    sweep.write_curve(1, first_step=30)
    sweep.write_result(1)
    sweep.write_trial(3, status="rate_mismatch")
    sweep.write_curve(4, last_step=20)
    sweep.write_timing(0)
    sweep.write_timing(1)
    mirror.sync(None)
    write_report(sweep.folder, print_table=False)
    record(sweep, tracking={**SETTINGS, "name": "mlflow"}, status="finished", ended_at=sweep.start_t + 500.0)
    mirror.sync("FINISHED")
    return sweep


def record(
    sweep: SyntheticSweep, *, tracking: dict[str, object], status: str, ended_at: float | None = None
) -> None:
    """What a driver writes into sweep.json."""
    content = sweep.sweep | {"status": status, "ended_at": ended_at}
    content["config"]["tracking"] = tracking
    (sweep.folder / "sweep.json").write_text(json.dumps(content))


def sync(*arguments: object) -> int:
    return main(["sync", *map(str, arguments)])


def test_an_empty_server_is_filled_with_the_same(
    logged: Logged, empty_database: Path, tmp_path: Path
) -> None:
    assert {found["status"] for found in logged.wanted.values()} == {"FINISHED", "FAILED", "KILLED"}
    other = tmp_path / "other.db"
    shutil.copy(empty_database, other)
    assert sync(logged.sweep.folder, "--uri", f"sqlite:///{other}") == 0
    assert Server(f"sqlite:///{other}").content() == logged.wanted


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_second_time_changes_nothing(logged: Logged, forgotten: bool) -> None:
    if forgotten:  # or a copy of the folder, from before it was logged
        (logged.sweep.folder / STATE_FILE).unlink()
        (logged.sweep.folder / JOURNAL_FILE).unlink(missing_ok=True)
    for _ in range(2):
        assert sync(logged.sweep.folder) == 0
    assert logged.server.content() == logged.wanted
    assert {run.info.run_id for run in logged.server.runs()} == logged.run_ids


def test_a_deleted_run_comes_back_and_a_second_one_goes(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.tracking.runs.COMPARED_ANYWAY", -1)  # as in a sweep of thousands
    sweep, server, wanted, children = logged.sweep, logged.server, logged.wanted, logged.server.children()
    first, second = (children[sweep.trials[number]["spec_id"]] for number in (0, 1))
    server.client.delete_run(first.info.run_id)
    extra = server.client.create_run(second.info.experiment_id, tags=second.data.tags)
    server.client.set_terminated(extra.info.run_id)
    assert sync(sweep.folder) == 0
    assert server.content() == wanted
    assert server.children()[second.data.tags["spec_id"]].info.run_id == second.info.run_id


def test_the_sweeps_own_server_may_have_lost_everything(
    logged: Logged, shared_runs: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, shared_runs / "mlflow.db")
    assert sync(logged.sweep.folder) == 0
    assert server_of(logged.sweep).content() == logged.wanted


def test_a_sweep_whose_driver_was_killed_has_ended(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=50)
    sweep.write_trial(0, picture=False)
    sweep.write_curve(1, last_step=20)
    mirror_of(sweep).sync(None)
    record(sweep, tracking=SETTINGS, status="running")
    assert {run.info.status for run in server_of(sweep).runs()} == {"RUNNING", "FINISHED"}
    assert sync(sweep.folder) == 0
    assert server_of(sweep).parent().info.status == "KILLED"
    children = server_of(sweep).children()
    assert [children[trial["spec_id"]].info.status for trial in sweep.trials] == ["FINISHED", "KILLED"]


def test_the_experiment_may_be_another_one(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_trial(0, picture=False)
    record(sweep, tracking=SETTINGS, status="finished")
    assert sync(sweep.folder, "--experiment", "archive") == 0
    client = server_of(sweep).client
    (experiment,) = [e for e in client.search_experiments() if e.name == "archive"]
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_what_cannot_be_synced_is_one_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_trial(0, picture=False)
    folder, away = sweep.folder, f"http://someone:s3cret@127.0.0.1:{unused_port()}"

    def refusal(*arguments: object) -> str:
        assert sync(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "s3cret" not in line
        return line

    record(sweep, tracking={"name": "none"}, status="finished")
    assert "ran without tracking; name a server: --uri URI, or set MLFLOW_TRACKING_URI" in refusal(folder)
    assert f"{runs / 'no'}: there is no such folder" in refusal(runs / "no")
    assert f"{runs}: is not the folder of a sweep, it has no sweep.json" in refusal(runs)
    assert "'s3://bucket' (or $MLFLOW_TRACKING_URI) is nothing that" in refusal(
        folder, "--uri", "s3://bucket"
    )
    line = refusal(folder, "--uri", away)
    assert "does not take the record: [Errno 111] Connection refused; 0 ended trials are there" in line

    record(sweep, tracking={**SETTINGS, "uri": "http://***@tracker:5000"}, status="finished")
    assert "was logged to http://tracker:5000 with credentials, which the folder does not keep" in refusal(
        folder
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:s3cret@elsewhere:5000")
    assert "give --uri URI, or set MLFLOW_TRACKING_URI to it" in refusal(folder)

    with sweep_lock(folder):
        line = refusal(folder, "--uri", f"sqlite:///{runs}/mlflow.db")
    assert (
        f"is in use by process {os.getpid()} on {socket.gethostname()}, which keeps MLflow up to date" in line
    )


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"trials": 3}',
        '{"config": "x", "trials": []}',
        '{"config": {"tracking": [1]}, "trials": []}',
        '{"started_at": "x", "trials": []}',
        '{"schema_ver',
        "\x00",
    ],
)
def test_what_is_no_record_of_a_sweep_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (runs / "odd").mkdir()
    (runs / "odd" / "sweep.json").write_text(content)
    assert sync(runs / "odd", "--uri", f"sqlite:///{runs}/mlflow.db") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {runs}/odd/sweep.json: is not ")


def test_damaged_results_are_named_and_the_others_logged(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=5, steps=20)
    folders = [sweep.folder / "trials" / trial["spec_id"] for trial in sweep.trials]
    for number in range(5):
        sweep.write_trial(number, picture=False)
    (folders[1] / "result.json").write_text('{"status": "ok"}')  # of a program that is not ours
    (folders[2] / "result.json").write_text('{"status": "o')
    with open(folders[3] / "metrics.jsonl", "a") as file:
        file.write('3\n[]\n{"step": "x", "t": null}\n')
    shutil.copytree(folders[0], folders[0].with_name(f"{folders[0].name}.bak"))
    (sweep.folder / "trials" / "notes.txt").write_text("mine")
    record(sweep, tracking=SETTINGS, status="finished")
    assert sync(sweep.folder) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": its files are damaged")[0] for line in lines] == [
        f"trial {sweep.trials[number]['spec_id']}" for number in (1, 2)
    ]
    children = server_of(sweep).children()
    assert set(children) == {trial["spec_id"] for trial in sweep.trials}
    statuses = [children[trial["spec_id"]].info.status for trial in sweep.trials]
    assert statuses == ["FINISHED", "KILLED", "KILLED", "FINISHED", "FINISHED"]


def test_the_sweeps_own_server_is_known_in_another_folder_and_environment(
    runs: Path, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of its environment when it ran, and a file that was named as seen from where it ran."""
    here = tmp_path / "here"
    here.mkdir()
    for name, uri in (("env", None), ("file", "sqlite:///team.db")):
        sweep = SyntheticSweep(runs / name, trials=1, steps=20)
        sweep.write_trial(0, picture=False)
        with monkeypatch.context() as there:
            there.chdir(here)
            shutil.copy(empty_database, here / "team.db")
            if uri is None:
                there.setenv("MLFLOW_TRACKING_URI", "sqlite:///team.db")
            open_tracker({**SETTINGS, "uri": uri}, sweep.folder, sweep.sweep).finish("KILLED")
        record(sweep, tracking={**SETTINGS, "uri": uri}, status="finished")
        assert sync(sweep.folder) == 0
        assert Server(f"sqlite:///{here}/team.db").parent().info.status == "FINISHED"
    assert not (tmp_path / "team.db").exists()


def test_an_address_that_never_answered_is_not_remembered(runs: Path) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    sweep.write_trial(0, picture=False)
    mirror_of(sweep).sync("FINISHED")
    record(sweep, tracking=SETTINGS, status="finished")
    assert sync(sweep.folder, "--uri", f"http://127.0.0.1:{unused_port()}") == 2
    assert read_state(sweep.folder)["server"] == f"sqlite:///{runs}/mlflow.db"


def test_a_folder_that_cannot_be_written_is_one_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = SyntheticSweep(runs / "frontier", trials=1, steps=20)
    record(sweep, tracking=SETTINGS, status="finished")
    (sweep.folder / "driver.lock").mkdir()  # as root, who may write anywhere, would find it too
    assert sync(sweep.folder) == 2
    assert "cannot be written, and sync keeps there what the server has" in capsys.readouterr().err


def test_another_server_than_the_sweeps_has_all_of_it_too(
    runs: Path, empty_database: Path, tmp_path: Path
) -> None:
    """The folder remembers each server apart, so that a second one does not get the rest only."""
    sweep = SyntheticSweep(runs / "frontier", trials=2, steps=20)
    sweep.write_trial(0, picture=False)
    tracker = open_tracker(SETTINGS, sweep.folder, sweep.sweep)
    tracker.finish("KILLED")
    record(sweep, tracking=SETTINGS, status="interrupted")
    other = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'other.db')}"
    assert sync(sweep.folder, "--uri", other) == 0
    sweep.write_trial(1, picture=False)
    assert sync(sweep.folder, "--uri", other) == 0
    assert len(Server(other).children()) == 2
    assert len(server_of(sweep).children()) == 1
