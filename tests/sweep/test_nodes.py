"""Nodes are asked what they are before they get trials: those of the start, and those that join later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rdc.errors import UserError
from sweep.drain import Drain, write_request
from sweep.jobs import NODE_LOST, PREEMPTED, InlineExecutor, Job, JobError, NodeSlots, Outcome
from sweep.loop import Jobs, Loop
from sweep.machines import MemoryWatch, Nodes
from sweep.settings import ClusterSettings, TimingSettings

LATE = NodeSlots(node="late", slots=3, cpus_per_slot=1, gpus_per_slot=0.0)


class Joined(InlineExecutor):
    """This process, and a second node that is there once the first job has run."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted: list[str] = []
        self.left_out: dict[str, str] = {}
        self.ran: list[str] = []

    def joined(self) -> list[NodeSlots]:
        known = {*self.admitted, *self.left_out}
        return [LATE] if any("probe" not in job for job in self.ran) and "late" not in known else []

    def admit(self, node: str) -> None:
        self.admitted.append(node)

    def leave_out(self, node: str, reason: str) -> None:
        self.left_out[node] = reason

    def poll(self, timeout_s: float) -> list[Outcome]:
        ended = super().poll(timeout_s)
        self.ran += [outcome.job.job_id for outcome in ended]
        return ended


def probe(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Job entry: what `late` says of the second node in the folder comes from there."""
    found = json.loads((Path(payload["check"]["folder"]) / "answer").read_text())
    if "refusal" in found:
        raise UserError(found["refusal"])
    return dict(found)


def ask(folder: Path, answer: Mapping[str, Any]) -> None:
    (folder / "answer").write_text(json.dumps(answer))


def trial(name: str) -> Job:
    return Job(job_id=name, entry="pretend:echo", payload={"name": name})


def run(folder: Path, executor: Joined, said: list[str], late: Mapping[str, Any], count: int = 4) -> Nodes:
    """A sweep of `count` jobs, after the first of which the second node answers `late`."""
    ask(folder, {"device_slug": "first"})
    nodes = Nodes(executor, f"{__name__}:probe", folder, said.append)
    loop = Loop(executor, Drain(folder), nodes, lambda: None)
    loop.run(Jobs(nodes.first_jobs(), nodes.answered))
    ask(folder, late)
    ended: list[Outcome] = []
    loop.run(Jobs([trial(f"{number}") for number in range(count)], ended.append))
    assert [outcome.value["name"] for outcome in ended] == [f"{number}" for number in range(count)]
    assert not loop.ended_early
    return nodes


@pytest.mark.usefixtures("environment")
def test_a_node_that_joins_is_asked_once_and_then_admitted(tmp_path: Path) -> None:
    executor, said = Joined(), list[str]()
    nodes = run(tmp_path, executor, said, {"device_slug": "second"})
    assert executor.ran == ["probe this process", "0", "probe late", "1", "2", "3"]
    assert (executor.admitted, executor.left_out) == (["late"], {})
    assert said == ["a node has joined, with room for 3 trials at a time"]
    assert nodes.probes["late"] == {"device_slug": "second"}


@pytest.mark.usefixtures("environment")
def test_a_node_that_joins_and_differs_is_left_out_while_the_sweep_goes_on(tmp_path: Path) -> None:
    executor, said = Joined(), list[str]()
    why = "node there has torch 1.0, the driver has 2.0; install the same there"
    nodes = run(tmp_path, executor, said, {"refusal": why})
    assert (executor.admitted, executor.left_out) == ([], {"late": why})
    assert said == [f"a node that has joined is left out: {why}"]
    assert set(nodes.probes) == {InlineExecutor.NODE}
    assert executor.ran.count("probe late") == 1


def test_a_node_whose_slots_are_not_ready_yet_is_asked_once(tmp_path: Path) -> None:
    executor = Joined()
    executor.ran.append("0")  # from now on the second node is there
    nodes = Nodes(executor, "x:y", tmp_path, print)
    nodes.first_jobs()
    executor.submit(trial("busy"))
    for _ in range(3):
        nodes.check_new()
    assert [job.job_id for job in nodes._waiting] == ["probe late"]


def test_a_node_whose_answer_was_preempted_is_asked_again(tmp_path: Path) -> None:
    executor = Joined()
    executor.ran.append("0")  # from now on the second node is there
    nodes = Nodes(executor, "x:y", tmp_path, print)
    nodes.first_jobs()
    nodes.check_new()
    (job,) = executor.running()
    error = JobError(kind=PREEMPTED, message="it was asked to end")
    assert nodes.took(Outcome(job=job, error=error, started_at=0, ended_at=1, node="late"))
    executor.stop(0.0)
    nodes.check_new()
    assert [job.job_id for job in executor.running()] == ["probe late"]


@pytest.mark.usefixtures("environment")
def test_a_node_of_the_start_that_differs_ends_the_sweep(tmp_path: Path) -> None:
    executor = Joined()
    nodes = Nodes(executor, f"{__name__}:probe", tmp_path, print)
    ask(tmp_path, {"refusal": "node here has torch 1.0"})
    with pytest.raises(UserError, match=r"^node here has torch 1\.0$"):
        Loop(executor, Drain(tmp_path), nodes, lambda: None).run(Jobs(nodes.first_jobs(), nodes.answered))


@pytest.mark.parametrize("kind", [NODE_LOST, PREEMPTED, "SIGKILL"])
def test_only_what_a_node_says_itself_is_held_against_it(tmp_path: Path, kind: str) -> None:
    nodes = Nodes(Joined(), "x:y", tmp_path, print)
    (job,) = nodes.first_jobs()
    ended = Outcome(job=job, error=JobError(kind=kind, message="gone"), started_at=0, ended_at=1, node="here")
    if kind == "SIGKILL":
        with pytest.raises(UserError, match="workers cannot run: SIGKILL: gone"):
            nodes.answered(ended)
    else:
        nodes.answered(ended)
    assert nodes.probes == {}


@pytest.mark.usefixtures("environment")
def test_what_a_stop_leaves_undone_is_known(tmp_path: Path) -> None:
    executor = Joined()
    loop = Loop(executor, Drain(tmp_path), Nodes(executor, "x:y", tmp_path, print), lambda: None)
    ended: list[str] = []

    def stop(outcome: Outcome) -> None:
        ended.append(outcome.job.job_id)
        write_request(tmp_path, now=False)

    loop.run(Jobs([trial("0")], stop))
    assert not loop.ended_early  # it came when all was done
    loop.run(Jobs([trial("1")], stop))
    assert loop.ended_early
    assert ended == ["0"]


def cluster(gpus: float | None, slots: int | None = None) -> ClusterSettings:
    timing = TimingSettings(threads=1, repeats=1, height_px=64, width_px=64)
    return ClusterSettings(
        name="ray",
        address=None,
        slots=slots,
        cpus_per_trial=1,
        gpus_per_trial=gpus,
        deadline_s=None,
        timing=timing,
    )


@pytest.mark.parametrize(
    ("gpus", "slots", "warned"),
    [
        (0.5, None, True),
        (0.25, 2, True),
        (0.3, None, True),
        (1.0, None, False),
        (0.5, 1, False),
        (None, 4, False),
    ],
)
def test_trials_that_do_not_fit_on_their_gpu_together_are_told_once(
    gpus: float | None, slots: int | None, warned: bool
) -> None:
    said: list[str] = []
    watch = MemoryWatch(cluster(gpus, slots), said.append)
    watch.look_at({"status": "failed"})
    watch.look_at({"training": {"peak_reserved_mb": 1024.0, "device_memory_mb": 80 * 1024.0}})
    assert said == []
    for _ in range(2):
        watch.look_at({"training": {"peak_reserved_mb": 79 * 1024.0, "device_memory_mb": 80 * 1024.0}})
    assert len(said) == warned
    assert all("trials at a time on one device can need" in text for text in said)
