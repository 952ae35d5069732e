"""From the cluster settings to an executor, and what its machines mean for a sweep."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.executor import RayExecutor
from sweep.jobs import Executor, InlineExecutor, Job, NodeSlots
from sweep.plan import Precision
from sweep.record import read_sweep
from sweep.settings import Settings
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


def open_executor(settings: Settings, entries: Entries, say: Callable[[str], None]) -> Executor:
    """The executor that the settings ask for, not yet started."""
    cluster = settings.cluster
    if cluster.name == "inline":
        return InlineExecutor()
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
    trials = "1 trial" if count == 1 else f"{count} trials"
    return f"{trials} at a time{where}{gpus}; the workers import torch once"


def device_of(node: NodeSlots) -> str:
    """The kind of device that trials use there: cuda or cpu."""
    return "cuda" if node.gpus_per_slot else "cpu"


def probe_jobs(nodes: Sequence[NodeSlots], entry: str, folder: Path | None = None) -> list[Job]:
    """One job per node that says what the node is (rdc.machine.probe), alone on it.

    folder: the sweep's; then the job also checks that the node can run its trials (sweep.storage).
    """
    check = {} if folder is None else {"check": write_check(folder)}
    return [
        Job(
            job_id=f"probe {node.node}",
            entry=entry,
            payload={"device": device_of(node), **check},
            exclusive=True,
            node=node.node,
        )
        for node in nodes
    ]


def known_precision(settings: Settings) -> Precision | None:
    """The precision if it needs no probe: asked for by name, or decided when this sweep began."""
    if settings.budget.precision != "auto":
        return settings.budget.precision
    before = (read_sweep(settings.folder) or {}).get("precision")
    return before if before in ("fp32", "bf16") else None


def precision_by_probes(probes: Sequence[Mapping[str, Any]]) -> Precision:
    """bf16 where every node has it fast: one precision for the whole sweep, so that trials are comparable."""
    return "bf16" if all(probe["bf16_fast"] for probe in probes) else "fp32"
