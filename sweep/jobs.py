"""What an executor runs, and what comes back: the seam between the driver and Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from rdc.errors import UserError
from rdc.memory import in_words
from rdc.preempt import asking

# What a job gets to finish its step and write a checkpoint when it has to end early.
PREEMPT_GRACE_S = 30.0
# Kind of error of a job that was asked to end and did so without an answer, or had to be killed.
PREEMPTED = "Preempted"
# The same of a job for one node, which has gone or takes no jobs.
NODE_LOST = "NodeLost"
# What a signal that ended a job usually means.
_SIGNALS = {
    signal.SIGKILL: "killed by the system, most often because memory ran out",
    signal.SIGSEGV: "crashed inside compiled code",
    signal.SIGBUS: "crashed inside compiled code, or a disk or shared memory is full",
    signal.SIGABRT: "aborted inside compiled code",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One call in a process of its own: `entry` is "module:function" and gets `payload`, JSON in, JSON out.

    log: file for the job's stdout and stderr; of several processes with the same log one runs at a time, the
    others wait. exclusive: nothing else of this sweep may run on its node.
    node: run there and nowhere else. deadline_s: the job is killed after that long.
    """

    job_id: str
    entry: str
    payload: Mapping[str, Any]
    log: str | None = None
    exclusive: bool = False
    node: str | None = None
    deadline_s: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class JobError:
    """Why a job has no value.

    kind: exception class, signal name, PREEMPTED, NODE_LOST, "Deadline", "Exit", or "WorkerLost" if it died
    with several workers.
    """

    kind: str
    message: str
    traceback: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a job ended. started_at, ended_at: unix seconds on its node."""

    job: Job
    value: Any = None
    error: JobError | None = None
    started_at: float
    ended_at: float
    node: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NodeSlots:
    """One machine of the executor. gpus: per slot, may be a fraction."""

    node: str
    slots: int
    cpus_per_slot: int
    gpus_per_slot: float


class Executor(Protocol):
    """Runs jobs on slots. `submit` never blocks; `poll` returns what has ended."""

    def start(self) -> list[NodeSlots]:
        """Bring up the slots; UserError says why that is impossible."""

    def nodes(self) -> list[NodeSlots]:
        """The nodes that take any job now: those of the start that are left, and those admitted since."""

    def joined(self) -> list[NodeSlots]:
        """The nodes that have come since the start. They take jobs that name them, and no other."""

    def admit(self, node: str) -> None:
        """Let a node that has joined take any job."""

    def leave_out(self, node: str, reason: str) -> None:
        """Use a node no more."""

    def free_slots(self) -> int:
        """How many jobs that may run on any node could start now."""

    def submit(self, job: Job) -> bool:
        """Start the job if a suitable slot is free; False leaves it with the caller.

        A job for a node that has gone or is left out is taken, and ends with that as its error.
        """

    def poll(self, timeout_s: float) -> list[Outcome]:
        """Jobs that have ended, waiting for the first one up to timeout_s."""

    def running(self) -> list[Job]:
        """Jobs submitted and not yet returned by poll."""

    def preempt(self, grace_s: float = PREEMPT_GRACE_S) -> None:
        """Ask the running jobs to end early, kill them after grace_s; poll returns how each one ended.

        The sweep ends: a job whose worker dies now is not run again.
        """

    def stop(self, grace_s: float) -> None:
        """End all jobs, after a polite request kill what remains, and give back all resources."""


def resolve_entry(entry: str) -> Any:
    """The function that "module:function" names."""
    module, _, function = entry.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"job entry {entry!r} cannot be imported: {error}") from None


def error_of_exception(error: BaseException) -> JobError:
    kind, text = in_words(error)
    return JobError(kind=kind, message=text or kind, traceback="".join(traceback.format_exception(error)))


def error_of_exit(code: int) -> JobError:
    """code: as in subprocess, negative for a signal."""
    if code >= 0:
        return JobError(kind="Exit", message=f"the process ended with exit code {code} and without a result")
    number = signal.Signals(-code)
    meaning = _SIGNALS.get(number, "ended by a signal")
    return JobError(kind=number.name, message=f"exit code {code}: {meaning}")


def probe_machine(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Job entry: what the node is and can do (rdc.machine.probe).

    payload: device (auto, cpu or cuda) and perhaps check, of sweep.storage.write_check.
    """
    from rdc.machine import probe

    if "check" in payload:
        from sweep.storage import check_node

        check_node(payload["check"])
    return probe(payload["device"])


class InlineExecutor:
    """One job at a time in this process, so that breakpoints and prints work.

    preempted: what a running trial asks before each step, as nobody else can ask it to end meanwhile.
    """

    NODE = "this process"

    def __init__(self, preempted: Callable[[], bool] = lambda: False) -> None:
        self._job: Job | None = None
        self._preempted = preempted

    def start(self) -> list[NodeSlots]:
        return self.nodes()

    def nodes(self) -> list[NodeSlots]:
        return [NodeSlots(node=self.NODE, slots=1, cpus_per_slot=1, gpus_per_slot=0.0)]

    def joined(self) -> list[NodeSlots]:
        return []

    def admit(self, node: str) -> None:
        raise AssertionError(f"no node joins this process: {node}")

    def leave_out(self, node: str, reason: str) -> None:
        raise AssertionError(f"this process cannot be left out: {reason}")

    def free_slots(self) -> int:
        return int(self._job is None)

    def submit(self, job: Job) -> bool:
        if self._job is not None:
            return False
        self._job = job
        return True

    def poll(self, timeout_s: float) -> list[Outcome]:
        job, self._job = self._job, None
        if job is None:
            return []
        started_at = time.time()
        value, error = None, None
        with _errors_also_into(job.log), asking(self._preempted):
            try:
                value = resolve_entry(job.entry)(job.payload)
            except Exception as exception:
                error = error_of_exception(exception)
                print(error.traceback, file=sys.stderr)
        ended_at = time.time()
        return [
            Outcome(
                job=job, value=value, error=error, started_at=started_at, ended_at=ended_at, node=self.NODE
            )
        ]

    def running(self) -> list[Job]:
        return [self._job] if self._job is not None else []

    def preempt(self, grace_s: float = PREEMPT_GRACE_S) -> None:
        """Nothing: whoever calls this is in the process of the job, which is not running."""

    def stop(self, grace_s: float) -> None:
        self._job = None


class _Tee(io.TextIOBase):
    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


@contextlib.contextmanager
def _errors_also_into(log: str | None) -> Iterator[None]:
    """Copy stderr into the log; stdin and stdout stay the terminal's, as a debugger needs them."""
    if log is None:
        yield
        return
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", buffering=1) as file, contextlib.redirect_stderr(_Tee(sys.stderr, file)):
        yield


def pythonpath() -> str:
    """PYTHONPATH with which a worker finds the same packages as this process, checkout or installed wheel."""
    here = str(Path(__file__).resolve().parent.parent)
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != here]
    # Installed packages are found anyway, and must not come before the standard library.
    ours = [] if here in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")} else [here]
    return os.pathsep.join([*ours, *inherited])
