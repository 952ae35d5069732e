"""Tracking through a real MLflow server that is away for a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.tracking import open_tracker
from sweep.ui import free_port, serve
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_reader import SETTINGS, Server, curve_of, poll_until

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


def test_catching_up_with_a_server_that_comes_back(tmp_path: Path) -> None:
    port = free_port()
    sweep = SyntheticSweep(tmp_path / "runs" / "frontier", trials=2, steps=50)
    sweep.write_trial(0)
    said: list[str] = []
    settings = {**SETTINGS, "uri": f"http://127.0.0.1:{port}"}
    tracker = open_tracker(settings, sweep.folder, sweep.sweep, said.append)
    poll_until(tracker, lambda: any("does not take the sweep's record" in line for line in said))
    database = f"sqlite:///{tmp_path}/mlflow.db"
    with serve(database, tmp_path / "artifacts", port, log=tmp_path / "server.log"):
        poll_until(tracker, lambda: any("answers again" in line for line in said))
        sweep.write_trial(1)
        tracker.finish("FINISHED")
        server = Server(database)
        assert server.parent().info.status == "FINISHED"
        children = server.children()
        assert {run.info.status for run in children.values()} == {"FINISHED"}
        first = children[sweep.trials[0]["spec_id"]]
        assert server.history(first, "train/rd_loss") == curve_of(sweep, 0, "train/rd_loss")
        assert server.artifacts(first) == {"result.json", "reconstructions.png"}
    assert len(said) == 2, said
