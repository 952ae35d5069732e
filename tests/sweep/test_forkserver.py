"""The fork server alone, over its socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rdc.machine import thread_env
from sweep.jobs import PREEMPTED
from tests.sweep.conftest import is_alive, wait_until

pytestmark = pytest.mark.usefixtures("environment")


class Server:
    """A started fork server and our end of its socket."""

    def __init__(self, *preload: str) -> None:
        self.control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "sweep.forkserver", str(theirs.fileno()), *preload]
        environment = {**os.environ, **thread_env(1)}
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self.lines = self.control.makefile("r")

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.lines.readline())
        return message

    def start(self, entry: str, payload: Any, **fields: Any) -> None:
        job = {"job_id": "1", "entry": entry, "payload": payload, "log": None, **fields}
        self.control.sendall(json.dumps({"run": job}).encode() + b"\n")

    def run(self, entry: str, payload: Any, **fields: Any) -> dict[str, Any]:
        self.start(entry, payload, **fields)
        ended: dict[str, Any] = self.receive()["ended"]
        return ended


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server("json")
    assert server.receive()["ready"]["failed"] == {}
    yield server
    server.process.kill()
    server.process.wait()


def test_a_job_gives_its_value_and_its_prints_go_to_its_log(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "trial" / "log.txt"
    ended = server.run("pretend:echo", {"a": [1, 2.5, None]}, log=str(log))
    assert ended["value"] == {"a": [1, 2.5, None]}
    assert log.read_text() == "to the log\n"
    assert 0 <= ended["ended_at"] - ended["started_at"] < 30


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("raise", "ValueError", "a reason over two lines"),
        ("memory", "OutOfMemory", "host memory ran out (MemoryError); run fewer trials"),
        ("torch memory", "OutOfMemory", "host memory ran out (DefaultCPUAllocator: can't allocate memory"),
        ("not json", "TypeError", "not JSON serializable"),
        ("exit", "Exit", "exit code 3 and without a result"),
        ("SIGKILL", "SIGKILL", "exit code -9: killed by the system, most often because memory ran out"),
        ("SIGSEGV", "SIGSEGV", "exit code -11: crashed inside compiled code"),
    ],
)
def test_every_way_to_fail_has_its_class(server: Server, what: str, kind: str, message: str) -> None:
    error = server.run("pretend:misbehave_by_payload", {"what": what})["error"]
    assert error["kind"] == kind
    assert message in error["message"]
    assert server.run("pretend:echo", "still there")["value"] == "still there"


def test_an_entry_that_does_not_exist_is_named(server: Server) -> None:
    error = server.run("pretend:nothing_like_it", {})["error"]
    assert error["kind"] == "UserError"
    assert "job entry 'pretend:nothing_like_it' cannot be imported" in error["message"]


def test_a_job_past_its_deadline_is_killed_with_what_it_started(server: Server, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ended = server.run("pretend:pid_after", {"pids": str(pids), "sleep_s": 60}, deadline_s=1.0)
    assert ended["error"]["kind"] == "Deadline"
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())


def test_what_a_job_leaves_running_ends_with_it(server: Server, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert server.run("pretend:pid_after", {"pids": str(pids), "sleep_s": 0.1}).get("error") is None
    assert wait_until(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()), limit_s=10)


def test_stop_ends_the_job(server: Server, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    server.start("pretend:pid_after", {"pids": str(pids), "sleep_s": 60})
    assert wait_until(lambda: pids.exists() and " " in pids.read_text(), limit_s=20)
    server.control.sendall(b'{"stop": 5.0}\n')
    # Not its failure: it had no handler, or was not given one's time.
    assert server.receive()["ended"]["error"]["kind"] == PREEMPTED


def test_a_stop_that_overtakes_its_job_is_not_lost(server: Server) -> None:
    server.control.sendall(b'{"stop": 5.0}\n')
    assert server.run("pretend:echo", "too late")["error"]["kind"] == PREEMPTED
    assert server.run("pretend:echo", "another")["value"] == "another"


def test_a_stop_right_behind_its_job_finds_it(server: Server, tmp_path: Path) -> None:
    """It ends before it has anything to save, or has the time to save it."""
    job = {"job_id": "1", "entry": "entries:preemptible", "payload": {"folder": str(tmp_path), "save_s": 0.0}}
    run = json.dumps({"run": {**job, "log": None}}).encode()
    server.control.sendall(run + b'\n{"stop": 3.0}\n')
    ended = server.receive()["ended"]
    if ended.get("error"):
        assert ended["error"]["kind"] == PREEMPTED
        assert not (tmp_path / "pids").exists(), "it has not heard of the request"


@pytest.mark.parametrize("how", ["end of file", "kill -9"])
def test_without_its_server_or_its_owner_no_job_goes_on(server: Server, tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"
    server.start("pretend:pid_after", {"pids": str(pids), "sleep_s": 60})
    assert wait_until(lambda: pids.exists() and " " in pids.read_text(), limit_s=20)
    job, helper = map(int, pids.read_text().split())
    if how == "kill -9":
        server.process.send_signal(signal.SIGKILL)
    else:
        server.lines.close()
        server.control.close()
    assert wait_until(lambda: not is_alive(job), limit_s=10)
    server.process.wait(timeout=10)
    if how == "end of file":
        assert wait_until(lambda: not is_alive(helper), limit_s=10)
    else:
        os.kill(helper, signal.SIGKILL)  # nobody was left to end it; it is no trial and holds no GPU


def start_preemptible(server: Server, folder: Path, *, save_s: float = 0.3, **fields: Any) -> int:
    """Returns the pid of the job, which is ready to be asked to end."""
    server.start("entries:preemptible", {"folder": str(folder), "save_s": save_s}, **fields)
    pids = folder / "pids"
    assert wait_until(lambda: pids.exists() and "\n" in pids.read_text(), limit_s=20)
    return int(pids.read_text().split()[0])


def test_a_job_that_is_asked_to_stop_can_write_a_checkpoint(server: Server, tmp_path: Path) -> None:
    start_preemptible(server, tmp_path, save_s=1.0)
    server.control.sendall(b'{"stop": 20.0}\n')
    time.sleep(0.5)
    server.control.sendall(b'{"stop": 20.0}\n')
    assert server.receive()["ended"]["value"] == {"status": "preempted", "step": 7}
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "asked").read_text() == "SIGTERM\n"


@pytest.mark.parametrize("order", ["server first", "job first", "server alone"])
def test_when_its_machine_is_taken_away_a_job_ends_with_a_checkpoint(
    server: Server, tmp_path: Path, order: str
) -> None:
    job = start_preemptible(server, tmp_path, save_s=2.0)
    told = {"server first": [server.process.pid, job], "job first": [job, server.process.pid]}
    for pid in told.get(order, [server.process.pid]):
        os.kill(pid, signal.SIGTERM)
    assert server.receive()["ended"]["value"] == {"status": "preempted", "step": 7}
    assert server.process.wait(timeout=10) == 0


def test_a_job_does_not_keep_a_machine_that_is_taken_away(server: Server, tmp_path: Path) -> None:
    start_preemptible(server, tmp_path, save_s=60)
    server.control.sendall(b'{"leave": 2.0}\n')
    assert server.receive()["ended"]["error"]["kind"] == PREEMPTED
    assert server.process.wait(timeout=10) == 0


def test_when_its_slot_dies_a_job_ends_with_a_checkpoint(server: Server, tmp_path: Path) -> None:
    job = start_preemptible(server, tmp_path)
    server.lines.close()
    server.control.close()
    assert wait_until(lambda: not is_alive(job), limit_s=10)
    assert (tmp_path / "saved").exists()
    assert server.process.wait(timeout=10) == 0


def test_when_its_slot_dies_a_job_that_does_not_end_is_killed(server: Server, tmp_path: Path) -> None:
    job = start_preemptible(server, tmp_path, save_s=60)
    server.lines.close()
    server.control.close()
    assert wait_until(lambda: not is_alive(job), limit_s=10)
    assert not (tmp_path / "saved").exists()


def test_two_processes_never_write_to_one_folder_at_the_same_time(tmp_path: Path) -> None:
    servers = [Server("json"), Server("json")]
    log = str(tmp_path / "log.txt")
    for server in servers:
        assert server.receive()["ready"]["failed"] == {}
        server.start("entries:alone", {"folder": str(tmp_path), "sleep_s": 0.7}, log=log)
    ends = [server.receive()["ended"] for server in servers]
    assert [end.get("error") for end in ends] == [None, None]
    for server in servers:
        server.process.kill()
        server.process.wait()


def test_a_module_that_cannot_be_imported_is_reported() -> None:
    server = Server("json", "no_such_module_anywhere")
    ready = server.receive()["ready"]
    server.process.kill()
    server.process.wait()
    assert ready["failed"] == {
        "no_such_module_anywhere": "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    }


def test_the_real_preload_only_imports_so_that_torch_works_in_children() -> None:
    server = Server("sweep.preload")
    try:
        ready = server.receive()["ready"]
        assert ready["failed"] == {}
        # A thread pool of torch would show here, and every child that needs it would hang. The one that may
        # be there belongs to Arrow's allocator, which handles forks.
        assert set(ready["threads"]) <= {"jemalloc_bg_thd"}
        for _ in range(5):
            ended = server.run("pretend:convolution", {}, deadline_s=60)
            assert ended.get("error") is None, ended["error"]
    finally:
        server.process.kill()
        server.process.wait()
