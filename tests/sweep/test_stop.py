"""`python -m sweep stop` on sweeps of pretended trials: what ends, what never starts, what goes on later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rdc.errors import UserError
from sweep.stop import main as stop
from tests.sweep.conftest import HERE, wait_until
from tests.sweep.synthetic_sweep import SyntheticSweep

pytestmark = pytest.mark.usefixtures("environment")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(base_overrides: list[str], tmp_path: Path) -> Iterator[Start]:
    """Starts a driver of pretended trials in a process of its own; overrides and variables on top."""
    started = []

    def run(*overrides: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "entries.py"), *base_overrides, "time=false", *overrides]
        output = subprocess.PIPE
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m sweep ...` from another terminal."""
    done = [sys.executable, "-m", "sweep", *arguments]
    return subprocess.run(done, capture_output=True, text=True)


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]


def wait_for_a_step(folder: Path, *, trials: int = 1) -> None:
    def begun() -> bool:
        logs = [path.read_text() for path in folder.glob("trials/*/metrics.jsonl")]
        return sum('"step"' in log for log in logs) >= trials

    assert wait_until(begun, limit_s=200)


@pytest.mark.full
def test_stop_lets_the_running_trial_finish_and_the_same_command_goes_on(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "runs/tiny"
    driver = start("cluster=inline", "seeds=[0,1,2]", STEPS="300")
    wait_for_a_step(folder)
    asked = command("stop", "tiny", "--runs-dir", str(folder.parent))
    assert asked.returncode == 0, asked.stderr
    assert f"asked process {driver.pid} on " in asked.stdout
    assert "1 running trials run to their end" in asked.stdout
    assert "2 others do not start" in asked.stdout
    status = command("status", str(folder))
    assert "stop requested by " in status.stdout
    output, _ = driver.communicate(timeout=100)
    assert driver.returncode == 0, output
    assert "ended early: stop requested by " in output
    assert len(results(folder)) == 1
    assert json.loads((folder / "sweep.json").read_text())["status"] == "stopped"
    again = start("cluster=inline", "seeds=[0,1,2]", STEPS="2")
    output, _ = again.communicate(timeout=100)
    assert again.returncode == 0, output
    assert len(results(folder)) == 3


@pytest.mark.full
def test_stop_now_ends_trials_with_checkpoints_from_which_they_go_on(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "runs/tiny"
    driver = start("cluster.slots=2", "seeds=[0,1]", STEPS="6000")
    wait_for_a_step(folder, trials=2)
    status = command("status", str(folder), "--json")
    assert json.loads(status.stdout)["counts"]["running"] == 2
    asked = command("stop", str(folder), "--now")
    assert "2 running trials write a checkpoint and end at their next step" in asked.stdout
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, output
    saved = [int(path.read_text()) for path in folder.glob("trials/*/resume.pt")]
    assert len(saved) == 2
    assert not results(folder)
    after = command("status", str(folder))
    assert "2 trials: 2 to be continued" in after.stdout
    again = start("cluster=inline", "seeds=[0,1]", STEPS=str(max(saved) + 2))
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert sorted(result["training"]["resumed_at_steps"][0] for result in results(folder)) == sorted(saved)


@pytest.mark.full
def test_the_walltime_ends_a_sweep_in_time(start: Start, tmp_path: Path) -> None:
    driver = start("cluster=inline", "seeds=[0,1,2]", "cluster.walltime=4", STEPS="300")
    output, _ = driver.communicate(timeout=100)
    assert driver.returncode == 0, output
    assert "ended early: the walltime of 4 s is nearly over" in output
    assert len(results(tmp_path / "runs/tiny")) < 3


@pytest.mark.full
def test_sigterm_to_the_driver_gives_130_and_status_says_so(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "runs/tiny"
    driver = start("cluster=inline", "seeds=[0,1]", STEPS="6000")
    wait_for_a_step(folder)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=60)
    assert driver.returncode == 130
    status = command("status", str(folder))
    assert status.returncode == 0
    assert "\ninterrupted " in status.stdout
    assert "continue with: python entries.py" in status.stdout


@pytest.mark.full
def test_a_killed_driver_is_told_from_a_running_one(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "runs/tiny"
    driver = start("cluster=inline", "seeds=[0,1]", STEPS="6000")
    wait_for_a_step(folder)
    assert f"running: driven by process {driver.pid} on " in command("status", str(folder)).stdout
    driver.kill()
    driver.wait()
    assert f"killed: process {driver.pid} on " in command("status", str(folder)).stdout
    asked = command("stop", str(folder))
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr == f"error: {folder}: is not running; python -m sweep status says how it ended\n"


def test_a_sweep_that_nobody_drives_cannot_be_stopped(tmp_path: Path) -> None:
    made = SyntheticSweep(tmp_path / "made")
    with pytest.raises(UserError, match="made: is not running; python -m sweep status"):
        stop(["stop", str(made.folder)])
    assert not (made.folder / "stop.json").exists()
