"""What a machine says about itself."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rdc import machine
from rdc.errors import UserError


def test_the_module_prints_its_probe_as_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rdc.machine"], capture_output=True, text=True, check=True, timeout=120
    )
    probe = json.loads(done.stdout)
    assert probe["bf16_fast"] == (probe["bf16_speedup"] >= machine.BF16_WORTHWHILE)
    assert re.fullmatch(r"(cpu|cuda)-[a-z0-9-]+", probe["device_slug"])
    assert probe["torch"] == torch.__version__.split("+")[0]
    assert probe["compressai"] == "1.2.8"


def test_no_record_holds_a_path_or_the_name_of_the_host() -> None:
    text = json.dumps(machine.environment(torch.device("cpu")))
    assert socket.gethostname() not in text
    assert str(Path(machine.__file__).parent.parent) not in text
    assert re.fullmatch(r"[0-9a-f]{8}", machine.node_hash())


def test_probing_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert machine.bf16_speedup(torch.device("cpu")) > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_precision_is_decided_by_name_or_by_the_probe() -> None:
    assert machine.resolve_precision("fp32") == "fp32"
    assert machine.resolve_precision("bf16") == "bf16"
    assert machine.resolve_precision("auto", "cpu") in ("fp32", "bf16")
    with pytest.raises(UserError, match=r"precision='fp16' is not known; known: auto, fp32, bf16"):
        machine.resolve_precision("fp16")


def test_settings_that_a_machine_cannot_have_are_refused() -> None:
    with pytest.raises(UserError, match=r"threads=0: must be at least 1"):
        machine.set_threads(0)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"device='cuda': torch sees no CUDA device here; use device=cpu"):
            machine.resolve_device("cuda")
        assert machine.resolve_device("auto").type == "cpu"


def test_allocator_settings_reach_glibc_in_a_new_process() -> None:
    # With the threshold in force a 64 MiB block comes from the heap, so it is not a mapping of its own.
    code = (
        "import ctypes; libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p\n"
        "at = libc.malloc(ctypes.c_size_t(64 << 20))\n"
        "lines = [l for l in open('/proc/self/maps') if l.rstrip().endswith('[heap]')]\n"
        "low, high = (int(v, 16) for v in lines[0].split()[0].split('-'))\n"
        "print(low <= at < high)"
    )
    for env, expected in (({}, "False"), (machine.allocator_env(), "True")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected


def test_thread_settings_name_every_library_that_starts_threads() -> None:
    assert machine.thread_env(3) == {
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "3",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
