"""Ray: one actor per slot, each with a fork server; the only file that knows Ray.

Every node gets as many slots as its resources allow. A slot that dies is replaced, and its job runs again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from sweep.jobs import PREEMPT_GRACE_S, Job, JobError, NodeSlots, Outcome, pythonpath

# How often a job is tried on another slot when its slot or node dies under it.
_MAX_LOST_SLOTS = 2
# The same where the whole node has gone: nodes of a cloud may come and go many times during a long trial.
_MAX_LOST_NODES = 20
# How long a node gets no new slots after one was told to leave: batch systems end the node within that time.
_LEFT_NODE_S = 45.0
_LAST_WORDS_S = 1.0
_LOOK_FOR_NODES_EVERY_S = 10.0
_CONNECT_LIMIT_S = 10.0
# How long a sweep may be without any slot that takes jobs, at the start or after nodes have died.
_NO_SLOT_LIMIT_S = 180.0
_CONTINUE = "what is finished is kept, and the same command continues"
# The processes of an embedded Ray without which nothing runs any more. They are children of this process.
_VITAL = ("raylet", "gcs_server")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SlotSettings:
    """What a slot needs to start its fork server. log: file for the server's own output."""

    preload: tuple[str, ...]
    env: Mapping[str, str]
    log: str


class Slot:
    """Ray actor that owns one fork server and runs one job at a time in its children."""

    def __init__(self, settings: SlotSettings) -> None:
        self._started_by = os.getppid()
        self._leaving, self._told_to_leave = threading.Event(), False
        threading.Thread(target=self._end_with_raylet, daemon=True).start()
        ours, theirs = socket.socketpair()
        Path(settings.log).parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sweep.forkserver", str(theirs.fileno()), *settings.preload]
        with open(settings.log, "a") as log:
            self._server = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **settings.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        theirs.close()
        self._control = ours
        self._lines = ours.makefile("r", encoding="utf-8")
        threading.Thread(target=self._end_with_server, daemon=True).start()
        self._leave_on_sigterm()

    def ready(self) -> dict[str, Any]:
        """What the fork server says of itself once it has imported everything."""
        answer: dict[str, Any] = self._receive()["ready"]
        return answer

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run the job in a child and wait for its end."""
        self._send({"run": job})
        answer: dict[str, Any] = self._receive()["ended"]
        return answer

    def stop(self, grace_s: float) -> None:
        """Ask the running job to stop, kill it after grace_s."""
        self._send({"stop": grace_s})

    def leaving(self) -> bool:
        """Returns when this slot takes no further job; whether because it was told to leave its machine."""
        self._leaving.wait()
        return self._told_to_leave

    def _leave_on_sigterm(self) -> None:
        """SIGTERM: the machine is taken away. The running job writes a checkpoint and its end is reported.

        Ray's own handler would end this process at once.
        """
        sigterm, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        # Python runs handlers when the first thread next runs Python, and that one waits inside Ray.
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

        def wait() -> None:
            while os.read(sigterm, 1)[0] != signal.SIGTERM:
                pass
            self._told_to_leave = True
            self._leaving.set()
            self._send({"leave": PREEMPT_GRACE_S})

        threading.Thread(target=wait, daemon=True).start()

    def _send(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            line = ""
        if not line:  # the fork server is gone, and its child with it: let Ray see a dead slot
            os._exit(1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _end_with_server(self) -> None:
        self._server.wait()
        self._leaving.set()
        time.sleep(_LAST_WORDS_S)  # the end of its last job is still on its way to the driver
        os._exit(1)

    def _end_with_raylet(self) -> None:
        while os.getppid() == self._started_by:
            time.sleep(0.5)
        os._exit(1)


@dataclasses.dataclass
class _Handle:
    """The driver's side of a slot."""

    actor: Any
    node: str
    ready_ref: Any
    leaving_ref: Any
    ready: bool = False
    leaving: bool = False
    job: Job | None = None
    job_ref: Any = None
    submitted_at: float = 0.0


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
        self._handles: list[_Handle] = []
        self._lost: dict[str, list[str]] = {}  # by job: the nodes whose slots died under it
        self._left_nodes: dict[str, float] = {}  # node -> when a slot there was told to leave
        self._returned: list[Job] = []  # jobs of dead slots, to be placed again before any other
        self._looked_for_nodes_at = -math.inf
        self._failed_starts = 0
        self._slots_since = 0.0
        self._owns_connection = True
        self._vital: dict[int, str] = {}  # pid -> name, of an embedded Ray

    def start(self) -> list[NodeSlots]:
        """Start or join Ray and begin to start the slots, which import for seconds before they take jobs."""
        self._connect()
        if self._wanted_gpus is None:
            self._gpus = 1.0 if any(self._gpus_of(n) >= 1 for n in self._alive_nodes()) else 0.0
        self._fill_nodes()
        if not self._handles:
            raise UserError(
                f"no node has room for a trial of {self._cpus} CPUs and {self._gpus:g} GPUs; there are "
                f"{_resources_text(self._alive_nodes())}; lower cluster.cpus_per_trial or gpus_per_trial"
            )
        self._slots_since = time.monotonic()
        return self._node_slots()

    def submit(self, job: Job) -> bool:
        job_for_slot = self._returned[0] if self._returned else job
        handle = self._free_slot(job_for_slot)
        if handle is None:
            return False
        if self._returned:
            self._run_on(handle, self._returned.pop(0))
            return self.submit(job)
        self._run_on(handle, job)
        return True

    def poll(self, timeout_s: float) -> list[Outcome]:
        import ray

        self._require_ray()
        self._look_after_slots()
        while self._returned and (handle := self._free_slot(self._returned[0])) is not None:
            self._run_on(handle, self._returned.pop(0))
        busy = {handle.job_ref: handle for handle in self._handles if handle.job_ref is not None}
        if not busy:
            time.sleep(timeout_s)
            return []
        done, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0)
        if not done:
            done, _ = ray.wait(list(busy), num_returns=1, timeout=timeout_s)
        outcomes = [self._collect(busy[ref]) for ref in done]
        return [outcome for outcome in outcomes if outcome is not None]

    def running(self) -> list[Job]:
        return [handle.job for handle in self._handles if handle.job is not None] + self._returned

    def preempt(self, grace_s: float = PREEMPT_GRACE_S) -> None:
        for handle in self._handles:
            if handle.job_ref is not None:
                handle.actor.stop.remote(grace_s)

    def stop(self, grace_s: float) -> None:
        import ray

        if self._dead():  # it took the slots with it; whatever is asked of it now only waits
            self._handles.clear()
            self._returned.clear()
            with contextlib.suppress(Exception):
                ray.shutdown()
            return
        busy = [handle for handle in self._handles if handle.job_ref is not None]
        with contextlib.suppress(ray.exceptions.RayError):
            for handle in busy:
                handle.actor.stop.remote(grace_s)
            if busy:
                ray.wait([h.job_ref for h in busy], num_returns=len(busy), timeout=grace_s + 2.0)
        for handle in self._handles:
            ray.kill(handle.actor)
        self._handles.clear()
        self._returned.clear()
        if self._owns_connection:
            ray.shutdown()

    # Placing jobs

    def _free_slot(self, job: Job) -> _Handle | None:
        for handle in self._handles:
            if handle.ready and not handle.leaving and handle.job is None and self._may_run(job, handle.node):
                return handle
        return None

    def _may_run(self, job: Job, node: str) -> bool:
        if job.node is not None and job.node != node:
            return False
        others = [h.job for h in self._handles if h.node == node and h.job is not None]
        # Slots still importing would disturb a job that has to be alone as much as other jobs do.
        starting = any(h.node == node and not h.ready for h in self._handles)
        if job.exclusive and (others or starting):
            return False
        return not any(other.exclusive for other in others)

    def _run_on(self, handle: _Handle, job: Job) -> None:
        fields = {"job_id": job.job_id, "entry": job.entry, "payload": job.payload, "log": job.log}
        handle.job = job
        handle.submitted_at = time.time()
        handle.job_ref = handle.actor.run.remote({**fields, "deadline_s": job.deadline_s})

    def _collect(self, handle: _Handle) -> Outcome | None:
        """The outcome of an ended job; None if its slot died and the job will be tried again."""
        import ray

        job, submitted_at = handle.job, handle.submitted_at
        assert job is not None, "only busy slots are collected"
        try:
            ended = ray.get(handle.job_ref)
        except ray.exceptions.RayError as error:
            self._forget(handle)
            lost = self._loss(job, handle, type(error).__name__)
            if lost is None:
                self._returned.append(job)
                return None
            return Outcome(
                job=job, error=lost, started_at=submitted_at, ended_at=time.time(), node=handle.node
            )
        if handle.leaving:
            self._forget(handle)
        handle.job = handle.job_ref = None
        failure = JobError(**ended["error"]) if ended.get("error") else None
        return Outcome(
            job=job,
            value=ended.get("value"),
            error=failure,
            started_at=ended["started_at"],
            ended_at=ended["ended_at"],
            node=handle.node,
        )

    def _loss(self, job: Job, handle: _Handle, error: str) -> JobError | None:
        """What to say of a job whose slot died under it; None if it is to be tried again.

        A job that takes its slots down must not do so without end. Nodes that go away are not its fault.
        """
        nodes = self._lost.setdefault(job.job_id, [])
        nodes.append("" if handle.leaving else handle.node)
        alive = {node["NodeID"] for node in self._alive_nodes()}
        died = sum(node in alive for node in nodes)
        if died <= _MAX_LOST_SLOTS and len(nodes) <= _MAX_LOST_NODES:
            return None
        return JobError(kind="WorkerLost", message=f"its worker died {len(nodes)} times ({error})")

    # Slots and nodes

    def _forget(self, handle: _Handle) -> None:
        """Give up a slot that is dead or about to be, and look at once where else there is room."""
        import ray

        ray.kill(handle.actor)
        self._handles.remove(handle)
        self._looked_for_nodes_at = -math.inf

    def _look_for_leaving_slots(self) -> None:
        """Slots that were told to leave end the job they have and get no other; idle dead ones are found."""
        import ray

        staying = {
            handle.leaving_ref: handle for handle in self._handles if handle.ready and not handle.leaving
        }
        left, _ = ray.wait(list(staying), num_returns=len(staying), timeout=0) if staying else ([], [])
        for ref in left:
            handle = staying[ref]
            with contextlib.suppress(ray.exceptions.RayError):
                handle.leaving = ray.get(ref)
            if handle.leaving:
                self._left_nodes[handle.node] = time.monotonic()
            if handle.job is None:
                self._forget(handle)

    def _require_ray(self) -> None:
        """Ray itself does not tell its driver when its raylet is killed."""
        if dead := self._dead():
            raise UserError(f"Ray on this machine has died (its {dead} is gone); {_CONTINUE}")

    def _dead(self) -> str:
        """Which vital process of an embedded Ray has ended; empty if none."""
        return next((name for pid, name in self._vital.items() if _name_of_child(pid) != name), "")

    def _look_after_slots(self) -> None:
        self._look_for_ready_slots()
        self._look_for_leaving_slots()
        now = time.monotonic()
        if any(handle.ready for handle in self._handles):
            self._slots_since = now
        elif now - self._slots_since > _NO_SLOT_LIMIT_S:
            raise UserError(
                f"no slot was ready for {_NO_SLOT_LIMIT_S:.0f} s; see {self._settings.log}; {_CONTINUE}"
            )
        if now - self._looked_for_nodes_at >= _LOOK_FOR_NODES_EVERY_S:
            self._fill_nodes()

    def _look_for_ready_slots(self) -> None:
        import ray

        waiting = {handle.ready_ref: handle for handle in self._handles if not handle.ready}
        if not waiting:
            return
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for ref in done:
            handle = waiting[ref]
            try:
                answer = ray.get(ref)
            except ray.exceptions.RayError as error:
                self._handles.remove(handle)
                self._looked_for_nodes_at = -math.inf
                self._failed_starts += 1
                if self._failed_starts > 3 + 3 * len(self._handles):
                    raise UserError(
                        f"slots die while they start ({type(error).__name__}); see {self._settings.log}"
                    ) from None
                continue
            if answer["failed"]:
                name, reason = next(iter(answer["failed"].items()))
                raise UserError(f"workers cannot import {name}: {reason}")
            handle.ready = True

    def _fill_nodes(self) -> None:
        """Give every node the slots that it lacks: at the start, after a death, when a node has joined."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        now = self._looked_for_nodes_at = time.monotonic()
        actor_class: Any = ray.remote(Slot)
        present = Counter(handle.node for handle in self._handles)
        budget = (self._wanted_slots or math.inf) - len(self._handles)
        hide_gpus = {} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""}
        settings = dataclasses.replace(self._settings, env={**self._settings.env, **hide_gpus})
        for node in self._alive_nodes():
            if now - self._left_nodes.get(node["NodeID"], -math.inf) < _LEFT_NODE_S:
                continue
            for _ in range(int(min(budget, self._room(node) - present[node["NodeID"]]))):
                actor = actor_class.options(
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                    max_concurrency=4,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                ).remote(settings)
                refs = {"ready_ref": actor.ready.remote(), "leaving_ref": actor.leaving.remote()}
                self._handles.append(_Handle(actor=actor, node=node["NodeID"], **refs))
                budget -= 1

    def _room(self, node: dict[str, Any]) -> int:
        by_cpu = int(node["Resources"].get("CPU", 0) // self._cpus)
        return min(by_cpu, int(self._gpus_of(node) / self._gpus + 1e-6)) if self._gpus else by_cpu

    def _gpus_of(self, node: dict[str, Any]) -> float:
        return float(node["Resources"].get("GPU", 0.0))

    def _alive_nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def _node_slots(self) -> list[NodeSlots]:
        counts = Counter(handle.node for handle in self._handles)
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
                ray.init(address="local", num_cpus=cpus, object_store_memory=100 * 2**20, **quiet)
                self._vital = _vital_children()
            else:
                quiet.pop("include_dashboard")
                ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": path}}, **quiet)
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
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_LIMIT_S).close()
    except OSError as error:
        raise UserError(f"cannot start Ray at {address}: nothing answers there ({error})") from None


def _resources_text(nodes: list[dict[str, Any]]) -> str:
    parts = [
        f"{n['Resources'].get('CPU', 0):g} CPUs and {n['Resources'].get('GPU', 0):g} GPUs" for n in nodes
    ]
    return "; ".join(parts) or "no nodes"
