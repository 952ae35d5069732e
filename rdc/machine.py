"""What this machine is and can do: device, threads, fast precision, versions. `python -m rdc.machine`."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rdc.errors import UserError
from rdc.spec import SEMANTICS_VERSION

# Below this gain bf16 would cost quality for nothing.
BF16_WORTHWHILE = 1.3
CONTEXT_MB = 600.0  # a CUDA context with its kernels, before the first tensor
_PROBE_ROUNDS = 5
_PROBE_SHAPE = (4, 128, 32, 32)


def allocator_env() -> dict[str, str]:
    """Environment variables to set before a training process starts; glibc reads them only then.

    Without them glibc hands every large tensor back to the kernel and faults its pages in again at the next
    step, which takes a quarter of a training step on 256-pixel crops.
    """
    return {
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
        "MALLOC_TOP_PAD_": str(2**28),
    }


def thread_env(threads: int) -> dict[str, str]:
    """Environment variables that keep a process at `threads` threads, which sleep while they wait."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def set_threads(threads: int) -> None:
    """Let torch use exactly `threads` threads in this process."""
    if threads < 1:
        raise UserError(f"threads={threads}: must be at least 1")
    torch.set_num_threads(threads)


def resolve_device(device: str) -> torch.device:
    """'auto' is CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device!r}: torch sees no CUDA device here; use device=cpu or device=auto")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"device={device!r}: is not known; use auto, cpu, cuda or cuda:N") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device!r}: there are {torch.cuda.device_count()} CUDA devices here")
    return found


def memory_peaks_mb(device: torch.device) -> dict[str, float]:
    """Most memory that this process has had in use so far, and has kept from others, in MiB.

    Of the GPU, where torch keeps more than it uses; else of the host, where both are the same.
    """
    if device.type == "cuda":
        used, kept = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    else:
        used = kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak_memory_mb": round(used / 2**20, 1), "peak_reserved_mb": round(kept / 2**20, 1)}


def device_memory_mb(device: torch.device) -> float:
    """All memory of the GPU, or of the host, in MiB."""
    if device.type == "cuda":
        return round(torch.cuda.get_device_properties(device).total_memory / 2**20, 1)
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20, 1)


def memory_warning(
    peaks_reserved_mb: Sequence[float], device_memory_mb: float, *, slots: int, context_mb: float = CONTEXT_MB
) -> str | None:
    """One line if the largest trials so far, `slots` of them at a time on one device, would not fit there.

    peaks_reserved_mb: of the trials that have ended. context_mb: what each process takes besides.
    """
    largest = sorted(peaks_reserved_mb, reverse=True)[:slots]
    if slots < 2 or not largest:
        return None
    # Fewer have ended than run at a time: the others may become as large as the smallest of these.
    needed_mb = sum(largest) + largest[-1] * (slots - len(largest)) + slots * context_mb
    if needed_mb <= device_memory_mb:
        return None
    return (
        f"{slots} trials at a time on one device can need {needed_mb / 1024:.1f} GiB of its "
        f"{device_memory_mb / 1024:.1f} GiB; raise cluster.gpus_per_trial or lower cluster.slots"
    )


def device_name(device: torch.device) -> str:
    """'cpu:AMD EPYC 9V74' or 'cuda:NVIDIA H200'."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return f"{device.type}:{name}"


def device_slug(device: torch.device) -> str:
    """device_name as part of a file name: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


@functools.cache
def cpu_name() -> str:
    """The processor's own name; the architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else platform.machine()


@functools.cache
def node_hash() -> str:
    """Tells machines apart in results without publishing their names."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def bf16_speedup(device: torch.device) -> float:
    """Time of a small convolution, forward and backward, in fp32 over bf16; one thread, fastest rounds."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy machine time the other processes
    try:
        return _bf16_speedup(device)
    finally:
        torch.set_num_threads(threads_before)


def _bf16_speedup(device: torch.device) -> float:
    layers = {dtype: _probe_step(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    times_s: dict[torch.dtype, list[float]] = {dtype: [] for dtype in layers}
    for measured in range(_PROBE_ROUNDS + 1):
        for dtype, step in layers.items():
            elapsed_s = _elapsed_s(step, device)
            if measured:  # the first round chooses and compiles kernels
                times_s[dtype].append(elapsed_s)
    # The fastest round, not the median: other processes can only slow a round down.
    return min(times_s[torch.float32]) / min(times_s[torch.bfloat16])


def resolve_precision(precision: str, device: str = "auto") -> str:
    """'auto' becomes bf16 where the probe finds it fast, else fp32."""
    if precision == "auto":
        return "bf16" if probe(device)["bf16_fast"] else "fp32"
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision={precision!r} is not known; known: auto, fp32, bf16")
    return precision


def probe(device: str = "auto") -> dict[str, Any]:
    """Device, measured bf16 gain and versions, as JSON types; about 0.2 s."""
    chosen = resolve_device(device)
    gain = bf16_speedup(chosen)
    return {
        "device_kind": chosen.type,
        "device_slug": device_slug(chosen),
        "bf16_fast": gain >= BF16_WORTHWHILE,
        "bf16_speedup": round(gain, 2),
        "cpu_count": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        **environment(chosen),
    }


def environment(device: torch.device) -> dict[str, Any]:
    """The versions and the machine that stand in every result: no paths, no host names."""
    revision, dirty = git_state()
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "compressai": _version("compressai"),
        "rdc": _version("rdc"),
        "semantics_version": SEMANTICS_VERSION,
        "git_revision": revision,
        "git_dirty": dirty,
        "device": device_name(device),
        "cpu": cpu_name(),
        "node": node_hash(),
    }


@functools.cache
def git_state() -> tuple[str | None, bool | None]:
    """(revision, whether files differ from it) of the checkout we run from; (None, None) if installed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    try:
        revision = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
    return revision, dirty


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked of it; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _probe_step(device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    channels = _PROBE_SHAPE[1]
    layer = nn.Conv2d(channels, channels, 5, padding=2)
    layer = layer.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.ones(_PROBE_SHAPE, device=device, dtype=dtype).to(memory_format=torch.channels_last)

    def step() -> None:
        layer(x).sum().backward()

    return step


def _elapsed_s(step: Callable[[], None], device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - started


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


if __name__ == "__main__":
    print(json.dumps(probe(), indent=2))
