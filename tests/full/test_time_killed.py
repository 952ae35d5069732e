"""python -m rdc time, killed and repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.runtimes import read_runtime_table

pytestmark = pytest.mark.full


def command(table: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "rdc", "time", "--models", "rdc_g width=0.05", "--device", "cpu", "--images",
        "64x64", "--decode-only", "-o", str(table), *arguments,
    ]  # fmt: skip


def test_a_killed_command_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL after the first row; the command repeated makes the rows that are missing, and no other."""
    table = tmp_path / "runtimes.csv"
    wanted = command(table, "--precision", "fp32", "bf16", "--threads", "2", "--repeats", "3")
    with subprocess.Popen(wanted, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "decode" in line:
                os.kill(process.pid, signal.SIGKILL)
                break
    left = table.read_bytes()
    assert left.count(b"\n") >= 2, "the row was there before it was printed"
    done = subprocess.run(wanted, capture_output=True, text=True, check=True, timeout=200)
    missing = 2 - (left.count(b"\n") - 1)
    assert f"{missing} of 2 measurements to make" in done.stdout
    assert table.read_bytes().startswith(left)
    frame = read_runtime_table(table)
    assert len(frame) == 2
    assert set(zip(frame["threads"], frame["precision"], strict=True)) == {(2, "fp32"), (2, "bf16")}
    assert set(frame["model"]) == {"rdc_g width=0.05"}
    assert frame["operators_dec"].min() > 20
    for name in ("torch", "cpu", "measured_at", "family", "label"):
        assert (frame[name] != "").all(), name
    assert "torch.jit" not in done.stderr, "libraries' chatter must not reach the user"
