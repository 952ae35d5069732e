"""From the cluster settings to an executor, and what its machines mean for a sweep."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from sweep.drain import Drain
from sweep.executor import RayExecutor
from sweep.jobs import NODE_LOST, PREEMPTED, Executor, InlineExecutor, Job, NodeSlots, Outcome
from sweep.plan import Precision
from sweep.record import read_sweep
from sweep.settings import ClusterSettings, Settings
from sweep.storage import write_check

DRIVER_LOG = "driver.log"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """What runs as a trial, as a timing and as a probe: "module:function" of sweep.jobs.Job.

    preload: modules that the workers import before they fork.
    """

    trial: str = "rdc.trial:run_payload"
    timing: str = "rdc.runtime:time_payload"
    probe: str = "sweep.jobs:probe_machine"
    preload: tuple[str, ...] = ("sweep.preload",)


def open_executor(settings: Settings, entries: Entries, drain: Drain, say: Callable[[str], None]) -> Executor:
    """The executor that the settings ask for, not yet started."""
    cluster = settings.cluster
    if cluster.name == "inline":
        return InlineExecutor(preempted=lambda: drain.now)
    from rdc.machine import allocator_env, thread_env

    address = cluster.address or os.environ.get("RAY_ADDRESS")
    say(f"joining Ray at {address}" if address else "starting Ray on this machine")
    return RayExecutor(
        address=address,
        slots=cluster.slots,
        cpus_per_trial=cluster.cpus_per_trial,
        gpus_per_trial=cluster.gpus_per_trial,
        preload=entries.preload,
        env={**allocator_env(), **thread_env(cluster.cpus_per_trial)},
        log=str(settings.folder / DRIVER_LOG),
    )


def slots_line(nodes: Sequence[NodeSlots]) -> str:
    """What the nodes offer, for the user."""
    count = sum(node.slots for node in nodes)
    gpus = f", {nodes[0].gpus_per_slot:g} GPU each" if nodes[0].gpus_per_slot else ""
    where = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    return f"{_trials(count)} at a time{where}{gpus}; the workers import torch once"


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def device_of(node: NodeSlots) -> str:
    """The kind of device that trials use there: cuda or cpu."""
    return "cuda" if node.gpus_per_slot else "cpu"


class Nodes:
    """Asks each node what it is and whether it can run this sweep (sweep.storage), before it gets trials.

    A node of the start that cannot ends the sweep with its reason. One that joins later is left out.
    probes: node -> rdc.machine.probe of it.
    """

    def __init__(self, executor: Executor, entry: str, folder: Path, say: Callable[[str], None]) -> None:
        self.probes: dict[str, dict[str, Any]] = {}
        self._executor, self._entry, self._folder, self._say = executor, entry, folder, say
        self._check: dict[str, Any] | None = None
        self._new: dict[str, NodeSlots] = {}  # by the job that asks them
        self._waiting: list[Job] = []

    def first_jobs(self) -> list[Job]:
        """One job per node, alone on it. The manifests of the images have to be in the folder by now."""
        self._check = write_check(self._folder)
        return [self._job(node) for node in self._executor.nodes()]

    def answered(self, outcome: Outcome) -> None:
        """One of the first jobs has ended."""
        error = outcome.error
        if error is None:
            self.probes[outcome.node] = outcome.value
        elif error.kind == NODE_LOST:
            self._say("a node has left before it was asked what it is")
        elif error.kind != PREEMPTED:
            what = "" if error.kind == UserError.__name__ else f"workers cannot run: {error.kind}: "
            raise UserError(f"{what}{error.message}")

    def check_new(self) -> None:
        """Ask the nodes that have joined since the start."""
        asked = {node.node for node in self._new.values()}
        for node in self._executor.joined():
            if self._check is not None and node.node not in asked:
                job = self._job(node)
                self._new[job.job_id] = node
                self._waiting.append(job)
        self._waiting = [job for job in self._waiting if not self._executor.submit(job)]

    def took(self, outcome: Outcome) -> bool:
        """Admit a node that has joined, leave it out, or have it asked again; False for another job."""
        node = self._new.pop(outcome.job.job_id, None)
        if node is None:
            return False
        error = outcome.error
        if error is None:
            self.probes[node.node] = outcome.value
            self._executor.admit(node.node)
            self._say(f"a node has joined, with room for {_trials(node.slots)} at a time")
        elif error.kind != PREEMPTED:
            self._executor.leave_out(node.node, error.message)
            self._say(f"a node that has joined is left out: {error.message}")
        return True

    def _job(self, node: NodeSlots) -> Job:
        return Job(
            job_id=f"probe {node.node}",
            entry=self._entry,
            payload={"device": device_of(node), "check": self._check},
            exclusive=True,
            node=node.node,
        )


class MemoryWatch:
    """Says once if trials that share a GPU may not fit there together."""

    def __init__(self, cluster: ClusterSettings, say: Callable[[str], None]) -> None:
        gpus = cluster.gpus_per_trial or 1.0
        self._sharing = int(min(1 / gpus + 1e-6, cluster.slots or math.inf))
        self._say = say
        self._peaks_mb: list[float] = []

    def look_at(self, result: Mapping[str, Any]) -> None:
        """A trial has ended with this."""
        from rdc.machine import memory_warning

        training = result.get("training") or {}
        if self._sharing < 2 or "peak_reserved_mb" not in training:
            return
        peaks_mb = sorted([*self._peaks_mb, float(training["peak_reserved_mb"])], reverse=True)
        self._peaks_mb = peaks_mb[: self._sharing]  # smaller ones never count
        there_mb = float(training["device_memory_mb"])
        warning = memory_warning(self._peaks_mb, there_mb, slots=self._sharing)
        if warning is not None:
            self._say(f"warning: {warning}")
            self._sharing = 1


def known_precision(settings: Settings) -> Precision | None:
    """The precision if it needs no probe: asked for by name, or decided when this sweep began."""
    if settings.budget.precision != "auto":
        return settings.budget.precision
    before = (read_sweep(settings.folder) or {}).get("precision")
    return before if before in ("fp32", "bf16") else None


def precision_by_probes(probes: Sequence[Mapping[str, Any]]) -> Precision:
    """bf16 where every node has it fast: one precision for the whole sweep, so that trials are comparable."""
    return "bf16" if all(probe["bf16_fast"] for probe in probes) else "fp32"
