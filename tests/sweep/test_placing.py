"""Which slot takes which job, without Ray."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.jobs import NODE_LOST, PREEMPTED, Job
from sweep.placing import Handle, Placing


def job(name: str = "trial", **fields: Any) -> Job:
    return Job(job_id=name, entry="x:y", payload={}, **fields)


def placing(*nodes: str, admitted: str = "ab") -> Placing:
    """A ready slot on each of the nodes; the same name twice is a node with two."""
    made = Placing()
    for node in nodes:
        made.handles.append(Handle(actor=None, node=node, ready_ref=None, leaving_ref=None, ready=True))
    made.admitted = set(admitted)
    made.see(set(nodes))
    return made


def node_for(slots: Placing, wanted: Job) -> str | None:
    handle = slots.slot_for(wanted)
    return None if handle is None else handle.node


def test_slots_that_import_or_leave_or_work_take_nothing() -> None:
    slots = placing("a", "a", "a", "a")
    slots.handles[0].ready = False
    slots.handles[1].leaving = True
    slots.handles[2].job = job()
    assert slots.slot_for(job()) is slots.handles[3]
    assert slots.free_slots() == 1
    slots.handles[3].job = job()
    assert slots.slot_for(job()) is None
    assert slots.free_slots() == 0


def test_a_node_that_joins_takes_only_what_names_it_until_it_is_admitted() -> None:
    slots = placing("late", "a")
    assert node_for(slots, job()) == "a"
    assert node_for(slots, job(node="late", exclusive=True)) == "late"
    assert slots.free_slots() == 1
    slots.admitted.add("late")
    assert node_for(slots, job()) == "late"
    assert slots.free_slots() == 2


def test_a_job_that_has_to_be_alone_waits_for_its_node_and_keeps_it() -> None:
    slots = placing("a", "a", "b")
    slots.handles[0].job = job()
    assert node_for(slots, job(exclusive=True)) == "b"
    assert node_for(slots, job(exclusive=True, node="a")) is None
    slots.handles[0].job = job(exclusive=True)
    assert node_for(slots, job()) == "b"
    slots.handles[0].job = None
    slots.handles[1].ready = False  # it imports, which disturbs as well
    assert node_for(slots, job(exclusive=True, node="a")) is None


def test_a_job_for_a_node_that_is_gone_or_left_out_is_hopeless() -> None:
    slots = placing("a", "late")
    assert slots.hopeless(job()) is None
    assert slots.hopeless(job(node="late")) is None
    slots.left_out["late"] = "it has no torch"
    gone, left_out = slots.hopeless(job(node="elsewhere")), slots.hopeless(job(node="late"))
    assert gone is not None
    assert left_out is not None
    assert (gone.kind, gone.message) == (NODE_LOST, "its node has left the cluster")
    assert (left_out.kind, left_out.message) == (NODE_LOST, "it has no torch")


@pytest.mark.parametrize(("alive", "tries"), [("a", 3), ("b", 21)])
def test_a_job_is_tried_again_as_often_as_its_end_may_not_be_its_fault(alive: str, tries: int) -> None:
    """Three deaths on a node that lives are its own; nodes that go away count far less."""
    slots = placing("a")
    slots.see({alive})
    for number in range(1, tries + 1):
        slots.handles[0].job = slots.returned.pop() if slots.returned else job()
        error = slots.lost(slots.handles[0], "ActorDiedError")
        assert (error is None) == (number < tries)
        assert [waiting.job_id for waiting in slots.running()[1:]] == ["trial"] * (number < tries)
    assert error is not None
    assert (error.kind, error.message) == ("WorkerLost", f"its worker died {tries} times (ActorDiedError)")


def test_jobs_of_dead_slots_have_the_first_call_on_free_ones() -> None:
    slots = placing("a", "b")
    slots.returned.append(job())
    assert slots.free_slots() == 1


def test_once_all_are_asked_to_end_no_job_of_a_dead_slot_starts_again() -> None:
    slots = placing("a")
    slots.handles[0].job = job()
    assert slots.lost(slots.handles[0], "ActorDiedError") is None
    slots.ending = True
    error = slots.hopeless(slots.returned[0])
    assert error is not None
    assert error.kind == PREEMPTED
