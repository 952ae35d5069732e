"""A real cluster of two nodes, one of which goes away in the middle of a sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.conftest import HERE, ROOT
from tests.sweep.two_nodes import Driver, OwnCluster, steps_of

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(HERE)])
    return {
        **os.environ,
        "PYTHONPATH": path,
        "RDC_CACHE": str(tmp_path_factory.mktemp("cache")),
        "STEPS": "200",
    }


@pytest.fixture(scope="module")
def cluster(surroundings: dict[str, str]) -> Iterator[OwnCluster]:
    cluster = OwnCluster(surroundings)
    yield cluster
    cluster.shutdown()


def sweep_on_two_nodes(
    command: list[str], folder: Path, cluster: OwnCluster, surroundings: dict[str, str]
) -> Driver:
    """Two trials are in the middle of their training."""
    cluster.add()
    on_cluster = [*command, f"cluster.address={cluster.address}"]
    driver = Driver(on_cluster, folder.parent.parent / "output.txt", surroundings)
    driver.wait_for(lambda: sum(step >= 20 for step in steps_of(folder)) >= 2)
    assert "2 trials at a time on 2 nodes" in driver.output
    return driver


def test_trials_whose_node_was_killed_give_what_they_would_have_given(
    base_overrides: list[str], tmp_path: Path, cluster: OwnCluster, surroundings: dict[str, str]
) -> None:
    training = [
        "time=false",
        "budget.steps=250",
        "budget.checkpoint_every_s=0.2",
        "budget.log_every=10",
        "budget.ms_ssim=false",
        "budget.fresh_decode_images=0",
    ]
    command = [sys.executable, "-m", "sweep", *base_overrides, *training]
    folder = tmp_path / "runs/tiny"
    driver = sweep_on_two_nodes([*command, "seeds=[0,1]"], folder, cluster, surroundings)
    # Whichever of the two is struck has something to go on from.
    driver.wait_for(lambda: len(list(folder.glob("trials/*/resume.pt"))) == 2)
    cluster.kill()
    driver.ends_well()
    results = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    assert [result["attempt"] for result in results] == [1, 1]
    struck = [result for result in results if result["training"]["resumed_at_steps"]]
    assert struck
    seeds = [result["spec"]["seed"] for result in struck]
    ours = [f"seeds={seeds}", f"runs_dir={tmp_path}/undisturbed", "cluster=inline"]
    done = subprocess.run([*command, *ours], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for found in struck:
        path = tmp_path / "undisturbed/tiny/trials" / found["spec_id"] / "result.json"
        wanted = json.loads(path.read_text())
        for result in (found, wanted):
            del result["evaluation"]["wall_s"]
        assert found["evaluation"] == wanted["evaluation"]
        assert found["training"]["val_rd_loss"] == wanted["training"]["val_rd_loss"]


def test_a_node_that_is_told_to_go_hands_its_trial_over_and_times_nothing(
    base_overrides: list[str], tmp_path: Path, cluster: OwnCluster, surroundings: dict[str, str]
) -> None:
    trials = ["seeds=[0,1]", "space.axes={depth.latent_channels:[8,12]}"]
    command = [sys.executable, str(HERE / "entries.py"), *base_overrides, *trials]
    folder = tmp_path / "runs/tiny"
    driver = sweep_on_two_nodes(command, folder, cluster, surroundings)
    cluster.tell()
    assert "4 trials ok, 0 failed" in driver.ends_well()
    results = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    assert len(results) == 4
    assert any(result["training"]["resumed_at_steps"] for result in results)
    assert len(list(folder.glob("timing/*.json"))) == 2  # both on the node that is left


# Comes last: it leaves no cluster.
def test_when_the_head_is_killed_the_driver_says_so_and_ends(
    base_overrides: list[str], tmp_path: Path, cluster: OwnCluster, surroundings: dict[str, str]
) -> None:
    command = [sys.executable, str(HERE / "entries.py"), *base_overrides, "time=false", "seeds=[0,1]"]
    folder = tmp_path / "runs/tiny"
    driver = sweep_on_two_nodes(command, folder, cluster, surroundings)
    cluster.kill_head()
    assert driver.process.wait(timeout=100) == 2
    assert "error: Ray's head at " in driver.output
    assert "what is finished is kept, and the same command continues" in driver.output
    assert json.loads((folder / "sweep.json").read_text())["status"] == "failed"
