"""Fork server of one slot: imports the heavy libraries once, then forks one child per job.

Importing torch and CompressAI costs seconds of processor time in every new process; a fork of a process that
has them costs milliseconds, can be killed alone, and gives all its memory back to the system.

It speaks JSON lines over the socket whose number is its first argument:
  in   {"run": {job_id, entry, payload, log, deadline_s}}   {"stop": grace_s}   {"leave": grace_s}
  out  {"ready": {...}}   {"ended": {"value" | "error", started_at, ended_at}}

SIGTERM is {"leave": ...}: the machine is taken away. The job is asked to end, and the server ends after it.
So it does, with less patience, at the end of the file: whoever would take the result is gone.

Nothing here may call torch: a process that ran one operation has threads, and children forked from it hang.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from rdc.processes import die_with
from sweep.jobs import PREEMPT_GRACE_S, PREEMPTED, JobError, error_of_exception, error_of_exit, resolve_entry

# What a job gets to write a checkpoint when its slot has died: no process may stay for long without an owner.
_ORPHAN_GRACE_S = 5.0
_LOCK_POLL_S = 0.2


@dataclasses.dataclass
class _Child:
    pid: int
    results: int  # read end of the pipe on which the child reports
    started_at: float
    kill_at: float | None  # deadline, time.monotonic
    received: bytes = b""
    stopping: bool = False
    late: bool = False  # killed for missing its deadline


class ForkServer:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._unread = b""
        self._child: _Child | None = None
        self._leaving = False  # takes no more jobs
        self._stopped = False  # by a request that came before its job
        self._terminated = False  # SIGTERM has come
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(wake_write)
        self._wake = wake_read
        self._selector.register(wake_read, selectors.EVENT_READ)

    def serve(self) -> None:
        """Answer requests until the other side or this machine goes away."""
        try:
            while not (self._leaving and self._child is None):
                for key, _ in self._selector.select(self._wait_s()):
                    if key.fileobj is self._control:
                        self._read_requests()
                    elif key.fd == self._wake:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake, 4096)
                    elif self._child is not None and key.fd == self._child.results:
                        self._read_results(self._child)
                if self._terminated and not self._leaving:
                    self._leave(PREEMPT_GRACE_S)
                self._keep_times()
                self._reap()
        finally:
            if self._child is not None:
                _kill_group(self._child.pid, signal.SIGKILL)

    def send(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True

    def _wait_s(self) -> float | None:
        """Until something has to be done without anybody asking; None for never."""
        kill_at = None if self._child is None else self._child.kill_at
        return None if kill_at is None else max(0.0, kill_at - time.monotonic())

    def _read_requests(self) -> None:
        try:
            chunk = self._control.recv(1 << 20)
        except ConnectionResetError:
            chunk = b""
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "run" in request:
                self._fork(request["run"])
            elif "leave" in request:
                self._leave(request["leave"])
            elif self._child is not None:
                self._ask_to_stop(self._child, request["stop"])
            else:
                self._stopped = True
        if not chunk:
            self._selector.unregister(self._control)
            self._leave(_ORPHAN_GRACE_S)

    def _leave(self, grace_s: float) -> None:
        """Take no more jobs. A trial that has had the batch system's own SIGTERM takes no notice of ours."""
        self._leaving = True
        if self._child is not None:
            self._ask_to_stop(self._child, grace_s)

    def _ask_to_stop(self, child: _Child, grace_s: float) -> None:
        """SIGTERM now, once; SIGKILL after the grace, if no earlier request has set an earlier end."""
        if not child.stopping:
            _kill_group(child.pid, signal.SIGTERM)
        child.stopping = True
        end = time.monotonic() + grace_s
        child.kill_at = end if child.kill_at is None else min(end, child.kill_at)

    def _fork(self, job: dict[str, Any]) -> None:
        assert self._child is None, "a slot runs one job at a time"
        if self._leaving:
            raise ConnectionResetError("no job starts on a machine that is taken away")
        if self._stopped:
            self._refuse()
            return
        results_read, results_write = os.pipe()
        started_at = time.time()
        server = os.getpid()
        # Until the child has given it back its default, our handler would take it and do nothing there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            os.close(results_read)
            os.close(self._wake)
            self._control.close()
            _run_child(job, results_write, server)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(results_write)
        with contextlib.suppress(
            PermissionError, ProcessLookupError
        ):  # the child does the same: whoever is first
            os.setpgid(pid, pid)
        os.set_blocking(results_read, False)
        self._selector.register(results_read, selectors.EVENT_READ)
        deadline_s = job.get("deadline_s")
        kill_at = None if deadline_s is None else time.monotonic() + deadline_s
        self._child = _Child(pid, results_read, started_at, kill_at)

    def _refuse(self) -> None:
        """A sweep that ends asks its slots to stop; Ray may bring that before the job that it was for."""
        self._stopped = False
        error = JobError(kind=PREEMPTED, message="it was asked to end before it began")
        now = time.time()
        self.send({"ended": {"error": dataclasses.asdict(error), "started_at": now, "ended_at": now}})

    def _read_results(self, child: _Child) -> None:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(child.results, 1 << 16):
                child.received += chunk
            self._selector.unregister(child.results)  # end of file: the child has said all it will say

    def _keep_times(self) -> None:
        child, now = self._child, time.monotonic()
        if child is None:
            return
        if child.kill_at is not None and now >= child.kill_at:
            _kill_group(child.pid, signal.SIGKILL)
            child.kill_at = None
            child.late = not child.stopping

    def _reap(self) -> None:
        child = self._child
        if child is None:
            return
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid == 0:
            return
        ended_at = time.time()
        _kill_group(child.pid, signal.SIGKILL)  # whatever the job started and left behind
        with contextlib.suppress(KeyError):
            self._read_results(child)
            self._selector.unregister(child.results)
        os.close(child.results)
        self._child = None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is there to hear it
            self.send(
                {"ended": {**_report(child, status), "started_at": child.started_at, "ended_at": ended_at}}
            )


def _report(child: _Child, status: int) -> dict[str, Any]:
    code = os.waitstatus_to_exitcode(status)
    if child.late:
        return {
            "error": dataclasses.asdict(JobError(kind="Deadline", message="it ran longer than its deadline"))
        }
    with contextlib.suppress(ValueError):
        report: dict[str, Any] = json.loads(child.received)
        return report
    if code == -signal.SIGTERM or (child.stopping and code == -signal.SIGKILL):  # says nothing about the job
        return {"error": dataclasses.asdict(JobError(kind=PREEMPTED, message="it was asked to end"))}
    return {"error": dataclasses.asdict(error_of_exit(code))}


def _run_child(job: dict[str, Any], results: int, server: int) -> NoReturn:
    """In the child: run the job, report, end without any of the server's clean-up."""
    code = 1
    try:
        _become_job(job.get("log"), server)
        report: dict[str, Any]
        try:
            report = {"value": resolve_entry(job["entry"])(job["payload"])}
            code = 0
            text = json.dumps(report)
        except BaseException as error:
            failure = error_of_exception(error)
            print(failure.traceback, file=sys.stderr)
            text = json.dumps({"error": dataclasses.asdict(failure)})
        with os.fdopen(results, "w") as pipe:
            pipe.write(text)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _become_job(log: str | None, server: int) -> None:
    """log: see sweep.jobs.Job."""
    os.setpgid(0, 0)
    die_with(server)  # which dies with its actor, which dies with the cluster
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray blocks SIGINT in everything it starts
    with contextlib.suppress(OSError):
        # If memory runs out, the system is to take a trial, not the cluster.
        Path("/proc/self/oom_score_adj").write_text("500")
    if log is not None:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
        _lock(log)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _lock(log: str) -> None:
    """Wait until no other process runs the job with this log, and keep others out while this one lives.

    A job is started again when its slot has died, which may be before its first process has. The lock is held
    on a descriptor of its own: programs that the job starts do not inherit it.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CLOEXEC)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_LOCK_POLL_S)
        except OSError:  # a file system without locks
            return


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _preload(modules: list[str]) -> dict[str, Any]:
    """Import the modules; what failed and how is for the other side to judge."""
    started = time.perf_counter()
    failed = {}
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the shared pages in every child
    return {
        "pid": os.getpid(),
        "import_s": time.perf_counter() - started,
        "failed": failed,
        "threads": _other_threads(),
    }


def _other_threads() -> list[str]:
    """Names of this process's threads but the first: a child would lack them, and hold their locks."""
    tasks = [path for path in Path("/proc/self/task").iterdir() if path.name != str(os.getpid())]
    return sorted((path / "comm").read_text().strip() for path in tasks)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    server = ForkServer(control)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        server.send({"ready": _preload(sys.argv[2:])})
        server.serve()
    os._exit(0)  # the libraries' own ends take long and print about leaks


if __name__ == "__main__":
    main()
