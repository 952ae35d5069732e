"""Ray slots: dead ones are replaced, exclusive jobs are alone, what cannot start says why."""

from __future__ import annotations

import functools
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import ray

from rdc.errors import UserError
from sweep.executor import RayExecutor
from sweep.jobs import NODE_LOST, Job, Outcome
from tests.sweep.conftest import HERE, ROOT, is_alive, wait_until


def ray_executor(
    folder: Path,
    *,
    preload: Sequence[str] = ("pretend", "entries"),
    gpus: float | None = None,
    address: str | None = None,
) -> RayExecutor:
    return RayExecutor(
        address=address,
        slots=2,
        cpus_per_trial=1,
        gpus_per_trial=gpus,
        preload=preload,
        env={"OMP_NUM_THREADS": "1"},
        log=str(folder / "driver.log"),
    )


# Comes first: once this process has a Ray, addresses are not looked at.
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "cannot start Ray at 127.0.0.1:1: nothing answers there ("),
        (
            "ray://head:10001",
            "cluster.address=ray://head:10001: must be HOST:PORT of the cluster's head, or auto",
        ),
    ],
)
def test_an_address_without_a_cluster_is_named_at_once(tmp_path: Path, address: str, message: str) -> None:
    executor = ray_executor(tmp_path, address=address)
    with pytest.raises(UserError, match=re.escape(message)):
        executor.start()


def test_a_head_that_no_longer_answers_is_named_before_ray_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.executor._HEAD_SILENT_S", 0.0)
    executor = ray_executor(tmp_path)
    executor._head = "127.0.0.1:1"
    with pytest.raises(
        UserError, match=r"Ray.s head at 127\.0\.0\.1:1 does not answer .*; what is finished is kept"
    ):
        executor._alive_nodes()


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    """One Ray for all tests of this file: an executor uses the one that its process has already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def executor(running_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    executor = ray_executor(tmp_path_factory.mktemp("executor"))
    (node,) = executor.start()
    assert (node.slots, node.cpus_per_slot) == (2, 1)
    yield executor
    executor.stop(grace_s=1.0)
    assert ray.is_initialized()  # it was not the executor's to end


def run_all(executor: RayExecutor, jobs: Sequence[Job], *, limit_s: float = 200) -> dict[str, Outcome]:
    waiting, ended = list(jobs), {}
    ends_at = time.monotonic() + limit_s
    while waiting or executor.running():
        assert time.monotonic() < ends_at, f"still running: {executor.running()}"
        for job in list(waiting):
            if executor.submit(job):
                waiting.remove(job)
        ended.update({outcome.job.job_id: outcome for outcome in executor.poll(0.1)})
    return ended


def nap(number: int, *, exclusive: bool = False) -> Job:
    payload = {"pids": "/dev/null", "sleep_s": 0.4}
    return Job(job_id=f"{number}", entry="pretend:pid_after", payload=payload, exclusive=exclusive)


def test_every_job_has_a_process_of_its_own_and_an_exclusive_one_is_alone(executor: RayExecutor) -> None:
    ended = run_all(
        executor, [nap(0), nap(1), nap(2, exclusive=True), nap(3), nap(4, exclusive=True), nap(5)]
    )
    assert all(outcome.error is None for outcome in ended.values())
    assert len({outcome.value for outcome in ended.values()}) == 6
    for alone in ("2", "4"):
        for other, outcome in ended.items():
            if other != alone:
                started, stopped = ended[alone].started_at, ended[alone].ended_at
                assert outcome.ended_at <= started or outcome.started_at >= stopped


def test_a_job_for_a_node_that_is_gone_ends_with_that(executor: RayExecutor) -> None:
    assert executor.submit(Job(job_id="x", entry="pretend:echo", payload={}, node="elsewhere"))
    assert [job.job_id for job in executor.running()] == ["x"]
    (outcome,) = executor.poll(10)
    assert outcome.error is not None
    assert outcome.error.kind == NODE_LOST
    assert not executor.running()


def test_when_its_slot_dies_a_job_runs_again_on_another(executor: RayExecutor, tmp_path: Path) -> None:
    payload = {"pids": str(tmp_path / "pids"), "spared": str(tmp_path / "spared")}
    job = Job(job_id="survivor", entry="pretend:kill_own_slot", payload=payload)
    assert wait_until(lambda: bool(executor.poll(0.05)) or executor.submit(job), limit_s=60)
    pids = tmp_path / "pids"
    assert wait_until(lambda: bool(executor.poll(0.05)) or pids.exists(), limit_s=60)
    (tmp_path / "spared").touch()
    outcome = run_all(executor, [])["survivor"]
    assert outcome.error is None
    assert not is_alive(int(pids.read_text().split()[0]))


def test_a_job_that_takes_its_slot_down_every_time_is_lost(executor: RayExecutor, tmp_path: Path) -> None:
    payload = {"pids": str(tmp_path / "pids"), "spared": str(tmp_path / "spared")}
    jobs = [Job(job_id="killer", entry="pretend:kill_own_slot", payload=payload), nap(1)]
    ended = run_all(executor, jobs)
    error = ended["killer"].error
    assert error is not None
    assert (error.kind, error.message) == ("WorkerLost", "its worker died 3 times (ActorDiedError)")
    assert len((tmp_path / "pids").read_text().split()) == 3
    assert ended["1"].error is None


def test_what_workers_cannot_import_is_named(running_ray: None, tmp_path: Path) -> None:
    executor = ray_executor(tmp_path, preload=("not_there_at_all",))
    try:
        executor.start()
        with pytest.raises(UserError, match="cannot import not_there_at_all: ModuleNotFoundError"):
            wait_until(lambda: bool(executor.poll(0.1)), limit_s=100)
    finally:
        executor.stop(grace_s=1.0)


def test_too_large_a_trial_is_refused_with_what_there_is(running_ray: None, tmp_path: Path) -> None:
    executor = ray_executor(tmp_path, gpus=3)
    try:
        message = (
            r"no node has room for a trial of 1 CPUs and 3 GPUs; there are .*; lower cluster\.cpus_per_trial"
        )
        with pytest.raises(UserError, match=message):
            executor.start()
    finally:
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


# Comes last: it makes away with all slots of this file's executor, one after the other.
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
