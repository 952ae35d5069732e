"""One driver per folder: what a living, a dead and a distant one leave to the next."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdc.errors import UserError
from sweep import lock
from sweep.lock import DRIVER_FILE, DriverRecord, is_alive, read_driver, sweep_lock
from tests.sweep.conftest import wait_until

HOLD = """
import sys, time
from pathlib import Path
from sweep.lock import sweep_lock
with sweep_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that drives the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def leave_record(folder: Path, *, place: str, pid: int = 1) -> Path:
    """driver.json of a driver that is not this process."""
    record = DriverRecord(pid=pid, host="far", place=place, born=1, started_at=1.0)
    (folder / DRIVER_FILE).write_text(json.dumps(dataclasses.asdict(record)))
    return folder / DRIVER_FILE


def test_a_driver_says_who_it_is_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with sweep_lock(tmp_path):
        driver = read_driver(tmp_path)
        assert driver is not None
        assert str(driver) == f"process {os.getpid()} on {socket.gethostname()}"
        assert is_alive(tmp_path, driver)
    assert read_driver(tmp_path) is None


def test_a_second_driver_is_told_who_the_first_one_is(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    message = f"in use by process {holder.pid} on {socket.gethostname()}; wait until it has ended"
    with pytest.raises(UserError, match=message), sweep_lock(tmp_path):
        pass
    assert read_driver(tmp_path).pid == holder.pid  # type: ignore[union-attr]


@pytest.mark.parametrize("errno_name", ["ENOLCK", "ENOSYS"])
def test_without_locks_in_the_file_system_a_living_driver_is_seen(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, errno_name: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(getattr(lock.errno, errno_name), "no locks here")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.raises(UserError, match=f"in use by process {holder.pid} on"), sweep_lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with sweep_lock(tmp_path):
        pass


def test_what_a_killed_driver_leaves_keeps_nobody_out(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    driver = read_driver(tmp_path)
    assert driver is not None
    assert is_alive(tmp_path, driver)
    holder.kill()
    holder.wait()
    assert read_driver(tmp_path) == driver
    assert not is_alive(tmp_path, driver)
    with sweep_lock(tmp_path):
        pass


def test_a_later_process_with_the_same_number_is_not_taken_for_the_driver(tmp_path: Path) -> None:
    with sweep_lock(tmp_path):
        driver = read_driver(tmp_path)
    assert driver is not None
    (tmp_path / DRIVER_FILE).write_text(json.dumps({**dataclasses.asdict(driver), "born": driver.born - 1}))
    with sweep_lock(tmp_path):
        pass


def test_a_driver_on_another_machine_is_seen_by_its_heartbeat(tmp_path: Path) -> None:
    path = leave_record(tmp_path, place="elsewhere")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.3):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="in use by process 1 on far"), sweep_lock(tmp_path):
            pass
        assert is_alive(tmp_path, read_driver(tmp_path))  # type: ignore[arg-type]
    finally:
        ended.set()
        thread.join()


def test_a_driver_on_another_machine_that_was_just_killed_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "SILENT_S", 0.5)
    leave_record(tmp_path, place="elsewhere")
    with sweep_lock(tmp_path):
        assert read_driver(tmp_path).pid == os.getpid()  # type: ignore[union-attr]
    assert "was driven by process 1 on far; looking whether it is alive" in capsys.readouterr().out


def test_a_driver_on_another_machine_that_died_long_ago_costs_no_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = leave_record(tmp_path, place="elsewhere")
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    assert not is_alive(tmp_path, read_driver(tmp_path))  # type: ignore[arg-type]
    with sweep_lock(tmp_path):
        pass
    assert capsys.readouterr().out == ""


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    with sweep_lock(tmp_path):
        path = tmp_path / DRIVER_FILE
        os.utime(path, (1.0, 1.0))
        assert wait_until(lambda: path.stat().st_mtime != 1.0, limit_s=20)


def test_a_damaged_record_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / DRIVER_FILE).write_text('{"pid": ')
    assert read_driver(tmp_path) is None
    with sweep_lock(tmp_path):
        pass


def test_of_two_drivers_that_began_at_once_only_the_one_in_the_file_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    with sweep_lock(tmp_path) as lease:
        time.sleep(0.2)
        lease.check()  # our own name is in it
        path = leave_record(tmp_path, place="elsewhere")
        assert wait_until(lambda: lease.taken_by is not None, limit_s=20)
        with pytest.raises(UserError, match="process 1 on far has taken over this sweep and goes on with it"):
            lease.check()
    assert path.exists()  # it is theirs
