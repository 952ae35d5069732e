"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.sweep.conftest import is_alive, wait_until

DECODES = """
import sys
from pathlib import Path
from rdc.fresh_decode import _run
_run(Path(sys.argv[1]), [Path("no.rdc")], device="cpu", threads=1)
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_decoding_interpreter_does_not_outlive_who_waits_for_it(tmp_path: Path) -> None:
    """Its checkpoint is a pipe into which nobody writes: alone it would wait for ever."""
    os.mkfifo(tmp_path / "model.safetensors")
    with subprocess.Popen([sys.executable, "-c", DECODES, tmp_path / "model.safetensors"]) as trial:
        assert wait_until(lambda: len(children(trial.pid)) == 1, limit_s=60)
        (decoder,) = children(trial.pid)
        trial.kill()
    try:
        assert wait_until(lambda: not is_alive(decoder), limit_s=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(decoder, signal.SIGKILL)
