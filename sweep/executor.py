"""Ray: one actor per slot, each with a fork server; the only file that knows Ray.

Every node gets as many slots as its resources allow. A slot that dies is replaced, and its job runs again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from sweep.guardian import start_guardian
from sweep.jobs import PREEMPT_GRACE_S, Job, JobError, NodeSlots, Outcome, pythonpath
from sweep.placing import Handle, Placing
from sweep.slot import Slot, SlotSettings

# How long a node gets no new slots after one was told to leave: batch systems end the node within that time.
_LEFT_NODE_S = 45.0
_LOOK_FOR_NODES_EVERY_S = 10.0
_CONNECT_LIMIT_S = 10.0
# How long a cluster's head may be silent. After a minute of it, Ray would end this process without a word.
_HEAD_SILENT_S = 20.0
# How long a sweep may be without any slot that takes jobs, at the start or after nodes have died.
_NO_SLOT_LIMIT_S = 180.0
# How often each slot of a node may die while it starts, before the node is given up.
_MAX_FAILED_STARTS = 3
_CONTINUE = "what is finished is kept, and the same command continues"
# The processes of an embedded Ray without which nothing runs any more. They are children of this process.
_VITAL = ("raylet", "gcs_server")


class RayExecutor:
    """Slots on an embedded Ray or on a running cluster. See sweep.jobs.Executor for the methods."""

    def __init__(
        self,
        *,
        address: str | None,
        slots: int | None,
        cpus_per_trial: int,
        gpus_per_trial: float | None,
        preload: Sequence[str],
        env: Mapping[str, str],
        log: str,
    ) -> None:
        self._address = address
        self._wanted_slots = slots
        self._cpus = cpus_per_trial
        self._wanted_gpus = gpus_per_trial
        self._gpus = gpus_per_trial or 0.0
        self._settings = SlotSettings(preload=tuple(preload), env=dict(env), log=log)
        self._placing = Placing()
        self._ended: list[Outcome] = []  # without a slot, for the next poll
        self._left_nodes: dict[str, float] = {}  # node -> when a slot there was told to leave
        self._looked_for_nodes_at = -math.inf
        self._failed_starts: Counter[str] = Counter()  # by node, since a slot there was last ready
        self._slots_since = 0.0
        self._owns_connection = True
        self._vital: dict[int, str] = {}  # pid -> name, of an embedded Ray
        self._head: str | None = None  # address of a cluster's
        self._head_lost = False

    def start(self) -> list[NodeSlots]:
        """Start or join Ray and begin to start the slots, which import for seconds before they take jobs."""
        self._connect()
        if self._wanted_gpus is None:
            self._gpus = 1.0 if any(self._gpus_of(n) >= 1 for n in self._alive_nodes()) else 0.0
        self._fill_nodes()
        if not self._placing.handles:
            raise UserError(
                f"no node has room for a trial of {self._cpus} CPUs and {self._gpus:g} GPUs; there are "
                f"{_resources_text(self._alive_nodes())}; lower cluster.cpus_per_trial or gpus_per_trial"
            )
        self._placing.admitted = {handle.node for handle in self._placing.handles}
        self._slots_since = time.monotonic()
        return self.nodes()

    def nodes(self) -> list[NodeSlots]:
        return [node for node in self._node_slots() if node.node in self._placing.admitted]

    def joined(self) -> list[NodeSlots]:
        return [node for node in self._node_slots() if node.node not in self._placing.admitted]

    def admit(self, node: str) -> None:
        self._placing.admitted.add(node)

    def leave_out(self, node: str, reason: str) -> None:
        self._placing.left_out[node] = reason
        for handle in self._placing.slots_of(node):
            self._forget(handle)

    def free_slots(self) -> int:
        return self._placing.free_slots()

    def submit(self, job: Job) -> bool:
        if error := self._placing.hopeless(job):
            self._end(job, error, node=str(job.node))
            return True
        self._place_returned()
        return self._place(job)

    def poll(self, timeout_s: float) -> list[Outcome]:
        import ray

        self._require_ray()
        self._look_after_slots()
        self._place_returned()
        busy = {handle.job_ref: handle for handle in self._placing.handles if handle.job_ref is not None}
        done, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0) if busy else ([], [])
        if not done and not self._ended:
            if busy:
                done, _ = ray.wait(list(busy), num_returns=1, timeout=timeout_s)
            else:
                time.sleep(timeout_s)
        for ref in done:
            self._collect(busy[ref])
        ended, self._ended = self._ended, []
        return ended

    def running(self) -> list[Job]:
        return self._placing.running() + [outcome.job for outcome in self._ended]

    def preempt(self, grace_s: float = PREEMPT_GRACE_S) -> None:
        self._placing.ending = True
        for handle in self._placing.handles:
            if handle.job_ref is not None:
                handle.actor.stop.remote(grace_s)

    def stop(self, grace_s: float) -> None:
        import ray

        if self._dead() or self._head_lost:  # with all slots; whatever is asked of it now only waits
            self._placing = Placing()
            with contextlib.suppress(Exception):
                ray.shutdown()
            return
        busy = [handle for handle in self._placing.handles if handle.job_ref is not None]
        with contextlib.suppress(ray.exceptions.RayError):
            for handle in busy:
                handle.actor.stop.remote(grace_s)
            if busy:
                ray.wait([h.job_ref for h in busy], num_returns=len(busy), timeout=grace_s + 2.0)
        for handle in self._placing.handles:
            ray.kill(handle.actor)
        self._placing = Placing()
        if self._owns_connection:
            ray.shutdown()

    # Jobs

    def _place(self, job: Job) -> bool:
        """Run the job on a free slot, if there is one for it."""
        handle = self._placing.slot_for(job)
        if handle is None:
            return False
        fields = {"job_id": job.job_id, "entry": job.entry, "payload": job.payload, "log": job.log}
        handle.job = job
        handle.submitted_at = time.time()
        handle.job_ref = handle.actor.run.remote({**fields, "deadline_s": job.deadline_s})
        return True

    def _place_returned(self) -> None:
        """Jobs whose slots died come first."""
        waiting, self._placing.returned = self._placing.returned, []
        for job in waiting:
            if error := self._placing.hopeless(job):
                self._end(job, error, node=str(job.node))
            elif not self._place(job):
                self._placing.returned.append(job)

    def _collect(self, handle: Handle) -> None:
        """Note how an ended job ended, unless its slot died and it will be tried again."""
        import ray

        job = handle.job
        assert job is not None, "only busy slots are collected"
        self._ask_whether_leaving(handle)
        try:
            ended = ray.get(handle.job_ref)
        except ray.exceptions.RayError as error:
            self._placing.see({node["NodeID"] for node in self._alive_nodes()})
            lost = self._placing.lost(handle, type(error).__name__)
            self._forget(handle)
            if lost is not None:
                self._end(job, lost, node=handle.node, started_at=handle.submitted_at)
            return
        if handle.leaving:
            self._forget(handle)
        handle.job = handle.job_ref = None
        failure = JobError(**ended["error"]) if ended.get("error") else None
        times = {"started_at": ended["started_at"], "ended_at": ended["ended_at"]}
        self._ended.append(
            Outcome(job=job, value=ended.get("value"), error=failure, node=handle.node, **times)
        )

    def _end(self, job: Job, error: JobError, *, node: str, started_at: float | None = None) -> None:
        """The job has ended without a word of its own."""
        now = time.time()
        started_at = now if started_at is None else started_at
        self._ended.append(Outcome(job=job, error=error, started_at=started_at, ended_at=now, node=node))

    # Slots and nodes

    def _forget(self, handle: Handle) -> None:
        """Give up a slot that is dead or about to be, and look at once where else there is room."""
        import ray

        ray.kill(handle.actor)
        self._placing.handles.remove(handle)
        self._looked_for_nodes_at = -math.inf

    def _require_ray(self) -> None:
        """Ray itself does not tell its driver when its raylet is killed."""
        if dead := self._dead():
            raise UserError(f"Ray on this machine has died (its {dead} is gone); {_CONTINUE}")

    def _require_head(self) -> None:
        """UserError if the cluster's head is gone: whatever it is asked then does not come back."""
        give_up_at = time.monotonic() + _HEAD_SILENT_S
        while self._head is not None and (reason := _unreachable(self._head)):
            if time.monotonic() >= give_up_at:
                self._head_lost = True
                raise UserError(f"Ray's head at {self._head} does not answer ({reason}); {_CONTINUE}")
            time.sleep(1.0)

    def _dead(self) -> str:
        """Which vital process of an embedded Ray has ended; empty if none."""
        return next((name for pid, name in self._vital.items() if _name_of_child(pid) != name), "")

    def _look_after_slots(self) -> None:
        self._look_for_ready_slots()
        self._look_for_leaving_slots()
        now = time.monotonic()
        if any(handle.ready for handle in self._placing.handles):
            self._slots_since = now
        elif now - self._slots_since > _NO_SLOT_LIMIT_S:
            raise UserError(
                f"no slot was ready for {_NO_SLOT_LIMIT_S:.0f} s; see {self._settings.log}; {_CONTINUE}"
            )
        if now - self._looked_for_nodes_at >= _LOOK_FOR_NODES_EVERY_S:
            self._fill_nodes()

    def _look_for_ready_slots(self) -> None:
        import ray

        waiting = {handle.ready_ref: handle for handle in self._placing.handles if not handle.ready}
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0) if waiting else ([], [])
        for handle in (waiting[ref] for ref in done):
            if handle not in self._placing.handles:  # its node has just been left out
                continue
            try:
                answer = ray.get(handle.ready_ref)
            except ray.exceptions.RayError as error:
                self._failed_to_start(handle, type(error).__name__)
                continue
            if answer["failed"]:
                name, reason = next(iter(answer["failed"].items()))
                self._give_up(handle.node, f"workers cannot import {name}: {reason}")
            else:
                handle.ready = True
                self._failed_starts[handle.node] = 0

    def _failed_to_start(self, handle: Handle, error: str) -> None:
        """Another slot will be tried there, unless that has been done often enough, or the node has gone."""
        slots = len(self._placing.slots_of(handle.node))
        self._forget(handle)
        if handle.node in {node["NodeID"] for node in self._alive_nodes()}:
            self._failed_starts[handle.node] += 1
        if self._failed_starts[handle.node] > _MAX_FAILED_STARTS * slots:
            self._give_up(handle.node, f"slots die while they start ({error}); see {self._settings.log}")

    def _give_up(self, node: str, reason: str) -> None:
        """A node that cannot run slots ends the sweep if it ever had trials, and is left out if it is new."""
        hosts = {known["NodeID"]: known["NodeManagerHostname"] for known in self._alive_nodes()}
        reason = f"node {hosts.get(node, node)}: {reason}"
        if node in self._placing.admitted:
            raise UserError(reason)
        self.leave_out(node, reason)

    def _look_for_leaving_slots(self) -> None:
        """Slots that were told to leave end the job they have and get no other; idle dead ones are found."""
        for handle in [h for h in self._placing.handles if h.ready and not h.leaving]:
            if self._ask_whether_leaving(handle) and handle.job is None:
                self._forget(handle)

    def _ask_whether_leaving(self, handle: Handle) -> bool:
        """Whether the slot takes no further job; whether it was told so is noted."""
        import ray

        ended, _ = ray.wait([handle.leaving_ref], timeout=0)
        if not ended:
            return False
        with contextlib.suppress(ray.exceptions.RayError):
            handle.leaving = ray.get(handle.leaving_ref)
        if handle.leaving:
            self._left_nodes[handle.node] = time.monotonic()
        return True

    def _fill_nodes(self) -> None:
        """Give every node the slots that it lacks: at the start, after a death, when a node has joined."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        now = self._looked_for_nodes_at = time.monotonic()
        actor_class: Any = ray.remote(Slot)
        handles = self._placing.handles
        budget = (self._wanted_slots or math.inf) - len(handles)
        hide_gpus = {} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""}
        settings = dataclasses.replace(self._settings, env={**self._settings.env, **hide_gpus})
        nodes = self._alive_nodes()
        self._placing.see({node["NodeID"] for node in nodes})
        for node in nodes:
            name = node["NodeID"]
            left_at = self._left_nodes.get(name, -math.inf)
            if name in self._placing.left_out or now - left_at < _LEFT_NODE_S:
                continue
            for _ in range(int(min(budget, self._room(node) - len(self._placing.slots_of(name))))):
                actor = actor_class.options(
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    max_concurrency=4,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
                ).remote(settings)
                refs = {"ready_ref": actor.ready.remote(), "leaving_ref": actor.leaving.remote()}
                handles.append(Handle(actor=actor, node=name, **refs))
                budget -= 1

    def _room(self, node: dict[str, Any]) -> int:
        by_cpu = int(node["Resources"].get("CPU", 0) // self._cpus)
        return min(by_cpu, int(self._gpus_of(node) / self._gpus + 1e-6)) if self._gpus else by_cpu

    def _gpus_of(self, node: dict[str, Any]) -> float:
        return float(node["Resources"].get("GPU", 0.0))

    def _alive_nodes(self) -> list[dict[str, Any]]:
        import ray

        self._require_head()
        return [node for node in ray.nodes() if node["Alive"]]

    def _node_slots(self) -> list[NodeSlots]:
        counts = Counter(handle.node for handle in self._placing.handles)
        return [
            NodeSlots(node=node, slots=slots, cpus_per_slot=self._cpus, gpus_per_slot=self._gpus)
            for node, slots in counts.items()
        ]

    def _connect(self) -> None:
        """Start Ray on this machine or join the cluster at the address, unless this process has done so."""
        path = pythonpath()
        os.environ["PYTHONPATH"] = path  # an embedded Ray hands its environment to the workers
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # A trial that takes too much memory is to die itself, as data, and not its slot.
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
        import ray

        if ray.is_initialized():
            self._owns_connection = False
            return
        address = self._address or "local"
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        _check_reachable(address)
        try:
            if address == "local":
                usable = len(os.sched_getaffinity(0))
                cpus = max(usable, (self._wanted_slots or 0) * self._cpus)
                start_guardian()
                ray.init(address="local", num_cpus=cpus, object_store_memory=100 * 2**20, **quiet)
                self._vital = _vital_children()
            else:
                quiet.pop("include_dashboard")
                ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": path}}, **quiet)
                self._head = ray.get_runtime_context().gcs_address
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = "on this machine" if address == "local" else f"at {address}"
            text = " ".join(str(error).split())
            raise UserError(f"cannot start Ray {where}: {text}") from error


def _vital_children() -> dict[int, str]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {pid: name for pid in pids if (name := _name_of_child(pid)) in _VITAL}


def _name_of_child(pid: int) -> str:
    """The name of a living child of this process; empty for any other process, and for a zombie."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return ""
    state, parent = after.split()[:2]
    return before.partition("(")[2] if state not in "ZX" and int(parent) == os.getpid() else ""


def _check_reachable(address: str) -> None:
    """UserError within seconds if nothing listens there; Ray itself would wait for minutes."""
    host, separator, port = address.rpartition(":")
    if address in ("local", "auto"):
        return
    if not separator or not port.isdigit() or "//" in host:
        raise UserError(f"cluster.address={address}: must be HOST:PORT of the cluster's head, or auto")
    if reason := _unreachable(address):
        raise UserError(f"cannot start Ray at {address}: nothing answers there ({reason})")


def _unreachable(address: str) -> str:
    """Why nothing listens at HOST:PORT; empty if something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_LIMIT_S).close()
    except OSError as error:
        return str(error)
    return ""


def _resources_text(nodes: list[dict[str, Any]]) -> str:
    parts = [
        f"{n['Resources'].get('CPU', 0):g} CPUs and {n['Resources'].get('GPU', 0):g} GPUs" for n in nodes
    ]
    return "; ".join(parts) or "no nodes"
