"""What a driver started ends with it, also what takes no notice of its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep import guardian
from tests.sweep.conftest import wait_until

# A driver whose child starts a process in a session of its own and ends: nothing tells that one.
_DRIVER = """
import subprocess, sys, time
from sweep.guardian import start_guardian
start_guardian()
code = "import subprocess,sys,time; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid,"
code += "flush=True); time.sleep(%s)"
child = subprocess.Popen([sys.executable, "-c", code % 2], stdout=sys.stdout)
{end}
"""


def _driver(end: str) -> tuple[subprocess.Popen[str], int]:
    """The driver, and its grandchild that nobody would end."""
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER.format(end=end)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(guardian.__file__).parent.parent,
    )
    assert driver.stdout is not None
    return driver, int(driver.stdout.readline())


def _ends(pid: int, *, limit_s: float) -> bool:
    give_up_at = time.monotonic() + limit_s
    while guardian._started(pid):
        if time.monotonic() > give_up_at:
            os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.05)
    return True


def test_what_outlives_a_killed_driver_is_killed() -> None:
    driver, grandchild = _driver("time.sleep(60)")
    time.sleep(0.5)  # the guardian looks
    driver.kill()
    assert _ends(grandchild, limit_s=guardian._KILL_AFTER_S + 20)


def test_the_guardian_ends_at_once_where_nothing_is_left() -> None:
    code = "import os; from sweep import guardian; guardian.start_guardian();"
    code += "print(*guardian._descendants(os.getpid()))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert _ends(int(ended.stdout), limit_s=guardian._KILL_AFTER_S - 1)


def test_a_child_that_has_just_ended_is_not_waited_for() -> None:
    child = subprocess.Popen(["true"])
    assert wait_until(lambda: not guardian._started(child.pid), limit_s=10)  # a zombie is still listed
    assert child.pid not in guardian._descendants(os.getpid())
    child.wait()


@pytest.mark.parametrize("pid", [0, 1 << 30])
def test_processes_that_are_not_there_have_no_descendants(pid: int) -> None:
    assert guardian._descendants(pid) == {}
