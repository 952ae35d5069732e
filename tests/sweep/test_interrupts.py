"""Ctrl-C and kill -9 of a driver on Ray, in a process of its own: no orphans, nothing lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.conftest import HERE, is_alive, wait_until

pytestmark = pytest.mark.usefixtures("environment")

MARK = "RDC_TEST_DRIVER"


class Driver:
    """A sweep of three pretended trials of two minutes each, on two slots."""

    def __init__(self, overrides: list[str], folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output.txt"
        command = [sys.executable, str(HERE / "pretend.py"), *overrides]
        self.mark, self._seen = uuid.uuid4().hex, set[int]()
        environment = {**os.environ, "SLEEP_S": "120", MARK: self.mark}
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def trial_pids(self) -> list[int]:
        return [int(path.read_text() or 0) for path in self.folder.glob("runs/tiny/trials/*/pid")]

    def wait_for_two_trials(self) -> list[int]:
        assert wait_until(lambda: len([p for p in self.trial_pids() if is_alive(p)]) == 2, limit_s=200), (
            self.output.read_text()
        )
        return [pid for pid in self.trial_pids() if is_alive(pid)]

    def processes(self) -> set[int]:
        """All living processes that come from the driver: Ray's, the slots, the fork servers and the trials.

        Those below it, and those with its mark in their environment: what has lost its parents has that
        still, where it has not written its title over it. Without Ray's two agents, which notice within a
        minute that their raylet is gone.
        """
        self._seen |= self._below() | self._marked()
        return {pid for pid in self._seen if is_alive(pid) and "Agent" not in _name(pid)}

    def _below(self) -> set[int]:
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(parent, []).append(int(stat.parent.name))
        found, waiting = set(), [self.process.pid]
        while waiting:
            children = parents.get(waiting.pop(), [])
            found |= set(children)
            waiting += children
        return found

    def _marked(self) -> set[int]:
        mark, found = f"{MARK}={self.mark}".encode(), set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.add(int(path.parent.name))
        return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture
def driver(base_overrides: list[str], tmp_path: Path) -> Iterator[Driver]:
    driver = Driver([*base_overrides, "cluster.slots=2", "seeds=[0,1,2]"], tmp_path)
    yield driver
    if is_alive(driver.process.pid):
        driver.process.send_signal(signal.SIGKILL)
    driver.process.wait()


@pytest.mark.full  # tests/faults kills a driver, too, and looks for orphans
def test_kill_9_of_the_driver_leaves_no_process_behind(driver: Driver) -> None:
    trials = driver.wait_for_two_trials()
    assert {driver.process.pid, *trials} < driver.processes()
    driver.process.kill()
    driver.process.wait()
    assert wait_until(lambda: not driver.processes(), limit_s=10), driver.processes()


def test_ctrl_c_stops_the_trials_and_says_how_to_continue(driver: Driver) -> None:
    trials = driver.wait_for_two_trials()
    assert {driver.process.pid, *trials} < driver.processes()
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(timeout=60) == 130
    assert wait_until(lambda: not any(map(is_alive, trials)), limit_s=5)
    assert wait_until(lambda: not driver.processes(), limit_s=10), driver.processes()
    output = driver.output.read_text()
    assert "interrupted; stopping 2 running trials" in output
    assert "continue with the same command:\n  python pretend.py name=tiny" in output
    assert "Traceback" not in output
    assert not list(
        driver.folder.glob("runs/tiny/trials/*/result.json")
    )  # nothing half done counts as failed


@pytest.mark.full
def test_when_ray_dies_the_driver_ends_within_seconds_and_says_how_to_go_on(driver: Driver) -> None:
    trials = driver.wait_for_two_trials()
    (pid,) = (pid for pid in driver.processes() if Path(f"/proc/{pid}/comm").read_text() == "raylet\n")
    os.kill(pid, signal.SIGKILL)
    assert driver.process.wait(timeout=20) != 0
    assert wait_until(lambda: not any(map(is_alive, trials)), limit_s=10)
    output = driver.output.read_text()
    assert "Ray on this machine has died (its raylet is gone); what is finished is kept" in output
    assert "the same command continues" in output


TWICE = """
import time
from sweep.terminal import Interrupts
interrupts = Interrupts()
with interrupts.caught():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopping", interrupts.grace_s, flush=True)
        while True:
            time.sleep(60)
"""


@pytest.mark.parametrize(("number", "grace"), [(signal.SIGINT, 5.0), (signal.SIGTERM, 30.0)])
def test_a_second_ctrl_c_ends_at_once_and_no_other_signal_does(number: int, grace: float) -> None:
    """Batch systems send SIGTERM more than once, and the record of the sweep is still to be closed."""
    with subprocess.Popen([sys.executable, "-c", TWICE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"stopping {grace}\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGINT)
        if number == signal.SIGTERM:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
