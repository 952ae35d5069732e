"""Which slot takes which job, and what becomes of jobs whose slots die: the executor without Ray."""

from __future__ import annotations

import dataclasses
from typing import Any

from sweep.jobs import NODE_LOST, PREEMPTED, Job, JobError

# How often a job is tried on another slot when its slot or node dies under it.
_MAX_LOST_SLOTS = 2
# The same where the whole node has gone: nodes of a cloud may come and go many times during a long trial.
_MAX_LOST_NODES = 20
_GONE = "its node has left the cluster"


@dataclasses.dataclass(eq=False)
class Handle:
    """The driver's side of a slot. actor, refs: Ray's. submitted_at: unix seconds, of its job."""

    actor: Any
    node: str
    ready_ref: Any
    leaving_ref: Any
    ready: bool = False
    leaving: bool = False
    job: Job | None = None
    job_ref: Any = None
    submitted_at: float = 0.0


class Placing:
    """The slots there are, the nodes they are on, and the jobs that wait for another slot.

    Nodes that were there first are admitted. One that joins later gets only jobs that name it, until `admit`.
    """

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.returned: list[Job] = []  # of dead slots, to be placed again before any other
        self.left_out: dict[str, str] = {}  # node -> why it gets no slots
        self.admitted: set[str] = set()
        self.ending = False  # all jobs were asked to end
        self._alive: set[str] = set()
        self._lost: dict[str, list[str]] = {}  # by job: the nodes whose slots died under it

    def see(self, alive: set[str]) -> None:
        """The nodes that are there now."""
        self._alive = alive

    def running(self) -> list[Job]:
        return [handle.job for handle in self.handles if handle.job is not None] + self.returned

    def slots_of(self, node: str) -> list[Handle]:
        return [handle for handle in self.handles if handle.node == node]

    def free_slots(self) -> int:
        """How many jobs that may run anywhere would find a slot now."""
        free = sum(self._is_free(handle) and handle.node in self.admitted for handle in self.handles)
        return max(0, free - len(self.returned))

    def slot_for(self, job: Job) -> Handle | None:
        """A free slot that may take the job."""
        return next((h for h in self.handles if self._is_free(h) and self._may_run(job, h.node)), None)

    def hopeless(self, job: Job) -> JobError | None:
        """Why no slot will ever take the job; None if one may."""
        if self.ending:
            return JobError(kind=PREEMPTED, message="its worker died while it was asked to end")
        if job.node is None or (job.node in self._alive and job.node not in self.left_out):
            return None
        return JobError(kind=NODE_LOST, message=self.left_out.get(job.node, _GONE))

    def lost(self, handle: Handle, error: str) -> JobError | None:
        """Take back the job of a slot that died, to be tried again; else what to say of it.

        A job that takes its slots down must not do so without end. Nodes that go away are not its fault.
        """
        job = handle.job
        assert job is not None, "asked only of busy slots"
        nodes = self._lost.setdefault(job.job_id, [])
        nodes.append("" if handle.leaving else handle.node)
        died = sum(node in self._alive for node in nodes)
        if died > _MAX_LOST_SLOTS or len(nodes) > _MAX_LOST_NODES:
            return JobError(kind="WorkerLost", message=f"its worker died {len(nodes)} times ({error})")
        self.returned.append(job)
        return None

    def _is_free(self, handle: Handle) -> bool:
        return handle.ready and not handle.leaving and handle.job is None

    def _may_run(self, job: Job, node: str) -> bool:
        if job.node != node and (job.node is not None or node not in self.admitted):
            return False
        others = [handle.job for handle in self.slots_of(node) if handle.job is not None]
        # Slots still importing would disturb a job that has to be alone as much as other jobs do.
        starting = any(not handle.ready for handle in self.slots_of(node))
        if job.exclusive and (others or starting):
            return False
        return not any(other.exclusive for other in others)
