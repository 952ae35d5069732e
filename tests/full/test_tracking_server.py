"""Tracking through a real MLflow server: away at first, stopped and slow, killed and restarted, wiped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from analysis.frontier import write_report
from sweep.sync import main
from sweep.tracking import Tracker, open_tracker
from sweep.tracking.client import Client, ServerError
from sweep.tracking.mirror import Mirror
from sweep.ui import serve
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_fixtures import empty_database as empty_database
from tests.sweep.tracking_proxy import FaultyProxy
from tests.sweep.tracking_reader import SETTINGS, Server, curve_of, poll_until, unused_port

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


class Place:
    """A port, and the database and artifacts of the server that may run there."""

    def __init__(self, folder: Path, empty_database: Path) -> None:
        self.folder = folder
        self.port = unused_port()
        self.empty_database = empty_database
        self.database = f"sqlite:///{folder}/mlflow.db"
        self.wipe()

    def wipe(self) -> None:
        shutil.rmtree(self.folder / "artifacts", ignore_errors=True)
        shutil.copy(self.empty_database, self.folder / "mlflow.db")

    def serve(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        return serve(self.database, self.folder / "artifacts", self.port, log=self.folder / "server.log")

    def tracker(self, sweep: SyntheticSweep, said: list[str], **settings: Any) -> Tracker:
        settings = {**SETTINGS, "uri": f"http://127.0.0.1:{self.port}", **settings}
        return open_tracker(settings, sweep.folder, sweep.sweep, said.append)

    def content(self) -> dict[str, dict[str, Any]]:
        return Server(self.database).content()


@pytest.fixture
def place(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # Servers here are away for seconds only: it needs no patience with them.
    monkeypatch.setattr("sweep.tracking.tracker.RETRY_S", (0.5,))
    return Place(tmp_path, empty_database)


def contains(said: list[str], text: str, times: int = 1) -> bool:
    return sum(text in line for line in said) >= times


def test_catching_up_with_a_server_that_comes_back(place: Place) -> None:
    sweep = SyntheticSweep(place.folder / "runs" / "frontier", trials=2, steps=50)
    sweep.write_trial(0)
    said: list[str] = []
    tracker = place.tracker(sweep, said)
    poll_until(tracker, lambda: contains(said, "does not take the sweep's record"))
    with place.serve():
        poll_until(tracker, lambda: contains(said, "answers again"))
        sweep.write_trial(1)
        tracker.finish("FINISHED")
    server = Server(place.database)
    assert server.parent().info.status == "FINISHED"
    children = server.children()
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    first = children[sweep.trials[0]["spec_id"]]
    assert server.history(first, "train/rd_loss") == curve_of(sweep, 0, "train/rd_loss")
    assert server.artifacts(first) == {"result.json", "reconstructions.png"}
    assert len(said) == 2, said


def test_a_server_killed_and_then_wiped_has_everything_in_the_end(place: Place) -> None:
    sweep = SyntheticSweep(place.folder / "runs" / "frontier", trials=4, steps=400)
    said: list[str] = []
    tracker = place.tracker(sweep, said)
    with place.serve() as server:
        sweep.write_trial(0)
        sweep.write_curve(1, last_step=200)
        poll_until(tracker, lambda: len(known_runs(place)) == 3)
        sweep.write_curve(1, first_step=200)
        tracker.poll()
        os.killpg(server.pid, signal.SIGKILL)
    sweep.write_result(1)
    poll_until(tracker, lambda: contains(said, "does not take the sweep's record"))
    with place.serve() as server:
        poll_until(tracker, lambda: contains(said, "answers again"))
        assert len(known_runs(place)) == 3
        sweep.write_trial(2, status="failed")
        tracker.poll()
        os.killpg(server.pid, signal.SIGKILL)
    place.wipe()
    with place.serve():
        sweep.write_trial(3)
        write_report(sweep.folder, print_table=False)
        tracker.finish("FINISHED")
        found = place.content()
        assert not contains(said, "lacks"), said
        # What somebody gets who logs the same files to a server that nothing happens to.
        arguments = ["--uri", f"http://127.0.0.1:{place.port}", "--experiment", "again"]
        assert main(["sync", str(sweep.folder), *arguments]) == 0
        wanted = Server(place.database, experiment="again").content()
    wanted[""]["status"] = "FINISHED"  # sweep.json was written by no driver here
    for runs in (found, wanted):
        del runs[""]["start and end"]
    assert found == wanted


def known_runs(place: Place) -> list[Any]:
    server = Server(place.database)
    return server.runs() if server.client.get_experiment_by_name("rdc") else []


def test_a_server_that_stops_answering_makes_no_run_twice(place: Place) -> None:
    """A stopped process still accepts, and later does what the client has given up on."""
    sweep = SyntheticSweep(place.folder / "runs" / "frontier", trials=6, steps=50)
    said: list[str] = []
    tracker = place.tracker(sweep, said, request_timeout_s=1.0)
    with place.serve() as server:
        sweep.write_trial(0)
        poll_until(tracker, lambda: len(known_runs(place)) == 2)
        for number in range(1, 4):
            os.killpg(server.pid, signal.SIGSTOP)
            sweep.write_trial(number)
            poll_until(tracker, lambda number=number: contains(said, "does not take", number))  # type: ignore[misc]
            os.killpg(server.pid, signal.SIGCONT)
            poll_until(tracker, lambda number=number: contains(said, "answers again", number))  # type: ignore[misc]
        sweep.write_curve(4, last_step=20)
        tracker.finish("FINISHED")
        assert not contains(said, "lacks"), said
    runs = known_runs(place)
    assert len(runs) == 6
    assert len(Server(place.database).children()) == 5
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 5 + ["KILLED"]


def test_whatever_a_proxy_answers_all_is_there_once_in_the_end(place: Place) -> None:
    """Its own pages, answers that get lost after the work was done: as without it, and one run per trial."""
    sweep = SyntheticSweep(place.folder / "runs" / "frontier", trials=6, steps=50)
    said: list[str] = []

    def mirror(uri: str, experiment: str) -> Mirror:
        client = Client(uri, 10)
        return Mirror(
            client,
            experiment=experiment,
            artifacts=None,
            folder=sweep.folder,
            sweep=sweep.sweep,
            say=said.append,
        )

    with place.serve(), FaultyProxy(place.port, share=0.3, seed=1) as proxy:
        faulty = mirror(proxy.uri, "faulty")
        for number in range(6):
            sweep.write_trial(number, status="failed" if number == 3 else "ok", picture=False)
            with contextlib.suppress(ServerError):
                faulty.sync(None)
        ended = False
        for _attempt in range(500):
            with contextlib.suppress(ServerError):
                faulty.sync("FINISHED")
                ended = True
                break
        assert ended
        assert {fault.split()[-1] for fault in proxy.faults} >= {"400", "404", "200", "after"}
        proxy.shutdown()
        mirror(f"http://127.0.0.1:{place.port}", "clean").sync("FINISHED")
    found = Server(place.database, experiment="faulty")
    assert len(found.children()) == 6, "one run per trial"
    assert said == []
    wanted = Server(place.database, experiment="clean").content()
    content = found.content()
    for runs in (content, wanted):
        del runs[""]["start and end"]  # sweep.json was closed by no driver here
    assert content == wanted


def test_a_server_restarted_while_the_sweep_ends_leaves_nothing_running(place: Place) -> None:
    sweep = SyntheticSweep(place.folder / "runs" / "frontier", trials=2, steps=50)
    said: list[str] = []
    tracker = place.tracker(sweep, said)
    with place.serve() as server:
        sweep.write_curve(0, last_step=20)
        sweep.write_trial(1)
        poll_until(tracker, lambda: len(known_runs(place)) == 3)
        os.killpg(server.pid, signal.SIGKILL)
    ended = threading.Event()

    def serve_late() -> None:
        with place.serve():
            ended.wait()

    late = threading.Thread(target=serve_late)
    late.start()
    try:
        tracker.finish("FINISHED")
    finally:
        ended.set()
        late.join()
    assert not contains(said, "lacks"), said
    runs = known_runs(place)
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED", "KILLED"]
