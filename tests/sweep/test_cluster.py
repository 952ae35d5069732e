"""Machines that go away: slots that are told to leave, and two nodes of which one is killed."""

from __future__ import annotations

import functools
import json
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


def is_dead(pid: int) -> bool:
    return not is_alive(pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def outcome_of(executor: RayExecutor, *, limit_s: float = 60) -> Outcome:
    found: list[Outcome] = []

    def ended() -> bool:
        found.extend(executor.poll(0.05))
        return bool(found)

    assert wait_until(ended, limit_s=limit_s)
    return found[0]


def test_a_slot_that_is_told_to_leave_reports_a_checkpoint_and_is_replaced(
    executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.executor._LEFT_NODE_S", 0.0)
    folder = tmp_path / "job"
    job = preemptible(folder)
    for times in (1, 2):
        pid, server = run_until_begun(executor, job, folder, times=times)
        slot = parent(server)
        # The slot alone, then all of its processes, as batch systems do it.
        for each in [slot, server, pid][: 1 if times == 1 else 3]:
            os.kill(each, signal.SIGTERM)
        outcome = outcome_of(executor)
        assert (outcome.error, outcome.value) == (None, {"status": "preempted", "step": 7})
        for each in (slot, server, pid):
            assert wait_until(functools.partial(is_dead, each), limit_s=20)
    # A killed slot takes its job down without a word; it runs again, and that is counted.
    pid, server = run_until_begun(executor, job, folder, times=3)
    os.kill(parent(server), signal.SIGKILL)
    run_until_begun(executor, job, folder, times=4)
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
cluster.remove_node(other, allow_graceful=sys.argv[2] == "told")
print("removed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


class TwoNodes:
    """A cluster of two nodes of one CPU each on this machine."""

    def __init__(self, environment: dict[str, str], how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(HERE), how],
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


def steps_of(folder: Path) -> list[int]:
    """How far each begun trial has got."""
    logs = [path.read_text().splitlines() for path in folder.glob("trials/*/metrics.jsonl")]
    return [max((json.loads(line).get("step", 0) for line in log), default=0) for log in logs]


def sweep_while_a_node_goes(command: list[str], folder: Path, how: str, environment: dict[str, str]) -> str:
    """Run the command on two nodes, take one away when two trials have begun; returns the output."""
    nodes = TwoNodes(environment, how)
    try:
        with subprocess.Popen(
            [*command, f"cluster.address={nodes.address}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as driver:
            assert wait_until(lambda: sum(step >= 20 for step in steps_of(folder)) >= 2, limit_s=200)
            nodes.kill_one()
            output, _ = driver.communicate(timeout=250)
    finally:
        nodes.shutdown()
    assert driver.returncode == 0, output
    assert "2 trials at a time on 2 nodes" in output
    return output


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(HERE)])
    return {**os.environ, "PYTHONPATH": path, "RDC_CACHE": str(tmp_path / "cache"), "STEPS": "300"}


@pytest.mark.full
@pytest.mark.parametrize("how", ["killed", "told"])
def test_when_one_of_two_nodes_goes_the_sweep_finishes_on_the_other(
    base_overrides: list[str], tmp_path: Path, surroundings: dict[str, str], how: str
) -> None:
    command = [sys.executable, str(HERE / "entries.py"), *base_overrides, "time=false", "seeds=[0,1,2,3]"]
    folder = tmp_path / "runs/tiny"
    output = sweep_while_a_node_goes(command, folder, how, surroundings)
    assert "4 trials ok, 0 failed" in output
    results = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    assert len(results) == 4
    assert any(result["training"]["resumed_at_steps"] for result in results)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_trials_whose_node_was_killed_give_what_they_would_have_given(
    base_overrides: list[str], tmp_path: Path, surroundings: dict[str, str]
) -> None:
    ours = [f"runs_dir={tmp_path}/undisturbed", "cluster.slots=2"]
    training = [
        "seeds=[0,1]",
        "time=false",
        "budget.steps=100",
        "budget.log_every=10",
        "budget.ms_ssim=false",
    ]
    command = [sys.executable, "-m", "sweep", *base_overrides, *training]
    done = subprocess.run([*command, *ours], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sweep_while_a_node_goes(command, tmp_path / "runs/tiny", "killed", surroundings)
    resumed = []
    for path in tmp_path.glob("undisturbed/tiny/trials/*/result.json"):
        wanted = json.loads(path.read_text())
        found = json.loads((tmp_path / "runs/tiny/trials" / path.parent.name / "result.json").read_text())
        for result in (found, wanted):
            del result["evaluation"]["wall_s"]
        assert found["evaluation"] == wanted["evaluation"]
        assert found["training"]["val_rd_loss"] == wanted["training"]["val_rd_loss"]
        assert found["attempt"] == 1
        resumed += found["training"]["resumed_at_steps"]
    assert resumed
