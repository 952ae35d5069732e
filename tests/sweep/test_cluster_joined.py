"""Nodes that join a real cluster in the middle of a sweep."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from rdc.machine import git_state
from sweep.stop import main as stop
from tests.sweep.conftest import HERE, ROOT
from tests.sweep.two_nodes import Driver, OwnCluster, steps_of


@pytest.mark.full
@pytest.mark.skipif(git_state()[0] is None, reason="what one node runs is told from others by the revision")
def test_a_node_that_joins_gets_trials_if_it_runs_the_same(base_overrides: list[str], tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(HERE)])
    surroundings = {**os.environ, "PYTHONPATH": path, "RDC_CACHE": str(tmp_path / "cache"), "STEPS": "100000"}
    surroundings["PROBE"] = "sweep.jobs:probe_machine"
    cluster = OwnCluster(surroundings)
    folder = tmp_path / "runs/tiny"
    command = [sys.executable, str(HERE / "entries.py"), *base_overrides, "time=false", "seeds=[0,1]"]
    try:
        driver = Driver(
            [*command, f"cluster.address={cluster.address}"], tmp_path / "output.txt", surroundings
        )
        driver.wait_for(lambda: len(steps_of(folder)) == 1)
        assert "\n1 trial at a time; " in driver.output
        cluster.add(GIT_DIR="/nowhere")
        cluster.add()
        driver.says("a node that has joined is left out: node ")
        driver.says(f"has git revision None, the driver has {git_state()[0]}; install the same there")
        driver.says("a node has joined, with room for 1 trial at a time")
        driver.wait_for(lambda: len(steps_of(folder)) == 2)
        assert stop(["stop", str(folder), "--now"]) == 0
        output = driver.ends_well()
    finally:
        cluster.shutdown()
    assert "ended early: stop requested by" in output
    jobs = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    assert len({job["node"] for job in jobs}) == 2
