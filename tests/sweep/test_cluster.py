"""Machines that go away: slots that are told to leave, and two nodes of which one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.executor import RayExecutor
from sweep.jobs import Job, Outcome
from tests.sweep.conftest import HERE, ROOT, is_alive, wait_until
from tests.sweep.test_executor import ray_executor

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[RayExecutor]:
    executor = ray_executor(tmp_path, preload=("entries",))
    executor.start()
    yield executor
    executor.stop(grace_s=1.0)


def preemptible(folder: Path) -> Job:
    folder.mkdir()
    return Job(
        job_id=folder.name,
        entry="entries:preemptible",
        payload={"folder": str(folder), "save_s": 0.3},
        log=str(folder / "log.txt"),
    )


def run_until_begun(executor: RayExecutor, job: Job, folder: Path, *, times: int = 1) -> tuple[int, int]:
    """Submit the job unless it runs already; (pid, pid of its fork server) of its last process."""
    pids = folder / "pids"

    def begun() -> bool:
        if job.job_id not in {running.job_id for running in executor.running()}:
            executor.submit(job)
        executor.poll(0.05)
        return pids.exists() and len(pids.read_text().splitlines()) >= times

    assert wait_until(begun, limit_s=150)
    job_pid, server_pid = pids.read_text().splitlines()[-1].split()
    return int(job_pid), int(server_pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def outcome_of(executor: RayExecutor, *, limit_s: float = 60) -> Outcome:
    found: list[Outcome] = []
    assert wait_until(lambda: bool(found.extend(executor.poll(0.05)) or found), limit_s=limit_s)
    return found[0]


def test_a_slot_that_is_told_to_leave_reports_a_checkpoint_and_is_replaced(
    executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.executor._LEFT_NODE_S", 0.0)
    folder = tmp_path / "job"
    job = preemptible(folder)
    pid, server = run_until_begun(executor, job, folder)
    slot = parent(server)
    # All of its processes are told, as batch systems do it.
    for each in (slot, server, pid):
        os.kill(each, signal.SIGTERM)
    outcome = outcome_of(executor)
    assert (outcome.error, outcome.value) == (None, {"status": "preempted", "step": 7})
    assert wait_until(lambda: not any(map(is_alive, (slot, server, pid))), limit_s=20)
    # A killed slot takes its job down without a word; it runs again, and that is counted.
    pid, server = run_until_begun(executor, job, folder, times=2)
    os.kill(parent(server), signal.SIGKILL)
    run_until_begun(executor, job, folder, times=3)
    assert not is_alive(pid)
    (folder / "finish").touch()
    assert outcome_of(executor).value == {"status": "ok"}


DRIVER = """
import sys, time
from pathlib import Path
from ray.cluster_utils import Cluster
sys.path.insert(0, sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(other, allow_graceful=False)
print("removed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


class TwoNodes:
    """A cluster of two nodes of one CPU each on this machine."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(HERE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.address = self._line()

    def kill_one(self) -> None:
        self._go_on()
        assert self._line() == "removed"

    def shutdown(self) -> None:
        if self.process.poll() is None:
            self._go_on()
            self.process.wait(timeout=60)

    def _go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.mark.full
def test_when_one_of_two_nodes_is_killed_the_sweep_finishes_on_the_other(
    base_overrides: list[str], tmp_path: Path
) -> None:
    path = os.pathsep.join([str(ROOT), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": path, "STEPS": "150", "RDC_CACHE": str(tmp_path / "cache")}
    nodes = TwoNodes(environment)
    command = [sys.executable, str(HERE / "entries.py"), *base_overrides, "time=false", "seeds=[0,1,2,3]"]
    folder = tmp_path / "runs/tiny"
    try:
        with subprocess.Popen(
            [*command, f"cluster.address={nodes.address}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as driver:
            logs = "trials/*/metrics.jsonl"
            assert wait_until(lambda: len(list(folder.glob(logs))) >= 2, limit_s=200)
            nodes.kill_one()
            output, _ = driver.communicate(timeout=250)
    finally:
        nodes.shutdown()
    assert driver.returncode == 0, output
    assert "2 trials at a time on 2 nodes" in output
    assert "4 trials ok, 0 failed" in output
    assert len(list(folder.glob("trials/*/result.json"))) == 4
