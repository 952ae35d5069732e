"""Job entries that act like trials, timings and failures of all kinds, without training. For workers."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What a pretended trial does, by its seed; any other seed is a good trial.
RAISE, EXIT, KILLED, LIE = 101, 102, 103, 104


def trial(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's files after `SLEEP_S` seconds; its seed may make it fail."""
    from rdc.files import append_jsonl, atomic_write_json

    folder = Path(payload["run"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pid").write_text(str(os.getpid()))
    append_jsonl(folder / "metrics.jsonl", {"event": "phase", "phase": "train", "t": time.time()})
    append_jsonl(folder / "metrics.jsonl", {"step": 1, "t": time.time(), "train/loss": 1.0, "train/bpp": 0.5})
    time.sleep(float(os.environ.get("SLEEP_S", "0")))
    spec = payload["spec"]
    if not any((place / "mended").exists() for place in (folder, folder.parent)):
        misbehave(spec["seed"])
    (folder / "model.safetensors").write_bytes(b"weights of " + spec["precision"].encode())
    result = good_result(folder, spec)
    result["training"]["budget"] = payload["run"]["budget_name"]
    atomic_write_json(folder / "result.json", result)
    return result


def misbehave(seed: int) -> None:
    if seed == RAISE:
        raise RuntimeError("the loss was not finite in spite of three rollbacks")
    if seed == EXIT:
        os._exit(7)
    if seed == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == LIE:
        sys.exit(0)


def good_result(folder: Path, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Names and ids come from sweep.json: to compute them would import torch, seconds in every child."""
    from rdc.result import SCHEMA_VERSION

    planned = json.loads((folder.parent.parent / "sweep.json").read_text())["trials"]
    (trial,) = (trial for trial in planned if trial["spec_id"] == folder.name)
    rates = {"bpp": 0.5, "bpp_payload": 0.5, "bpp_estimated": 0.5, "rate_gap_pct": 0.0}
    quality = {"psnr_db": 30.0, "psnr_of_mean_mse_db": 30.0, "mse": 1e-3, "ms_ssim": 0.95, "ms_ssim_db": 13.0}
    width = spec["model"]["depth"]["channels"][0]
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "ok",
        **{key: trial[key] for key in ("spec_id", "curve_id", "arch_id", "label", "family")},
        "spec": dict(spec),
        "model": model_of(folder),
        "training": {"budget": "pretended", "started_at": time.time(), "ended_at": time.time()},
        "evaluation": {
            "dataset": "x",
            "dataset_hash": "0",
            "images": 1,
            **rates,
            **quality,
            "rd_loss": 9 / width,
        },
        "complexity": {"decode": {"parity_kmac_per_px": float(width), "parity_kflop_per_px": 2.0 * width}},
        "warm_start": spec["warm_start"],
        "error": None,
        "attempt": 1,
    }


def model_of(folder: Path) -> dict[str, Any]:
    weights = (folder / "model.safetensors").read_bytes()
    return {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}


def timing(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A timing file; takes a little time, so that an overlap would show."""
    time.sleep(0.3)
    out = Path(payload["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    spread = {"median": 10.0, "q25": 9.0, "q75": 11.0}
    parts = {f"{part}_ms": spread for part in ("network", "entropy", "total")}
    keys = (
        "arch_id",
        "label",
        "device",
        "threads",
        "precision",
        *(["spec_id"] if "spec_id" in payload else []),
    )
    row = {
        "schema_version": 1,
        **{k: payload[k] for k in keys},
        "device_slug": "cpu-pretended",
        "image_px": [payload["height_px"], payload["width_px"]],
        "alone": True,
    }
    out.write_text(json.dumps({**row, "decode": parts, "encode": parts}))
    return row


def probe(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {"device_slug": "cpu-pretended", "bf16_fast": False, "bf16_speedup": 1.0}


def echo(payload: Any) -> Any:
    print("to the log")
    return payload


def pid_after(payload: Mapping[str, Any]) -> int:
    """Write the pids of this process and a child of its own into a file, then wait."""
    helper = subprocess.Popen(["sleep", "60"])
    Path(payload["pids"]).write_text(f"{os.getpid()} {helper.pid}")
    time.sleep(payload["sleep_s"])
    return os.getpid()


def kill_own_slot(payload: Mapping[str, Any]) -> None:
    """Kill the Ray actor above this job's fork server, and wait for the end that must follow."""
    server = os.getppid()
    actor = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    if not Path(payload["spared"]).exists():
        with open(payload["pids"], "a") as file:
            file.write(f"{os.getpid()} ")
        os.kill(actor, signal.SIGKILL)
        time.sleep(60)


def misbehave_by_payload(payload: Mapping[str, Any]) -> None:
    what = payload["what"]
    if what == "raise":
        raise ValueError("a reason\nover two lines")
    if what == "memory":
        raise MemoryError
    if what == "torch memory":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    if what == "exit":
        os._exit(3)
    if what == "not json":
        return object()  # type: ignore[return-value]
    os.kill(os.getpid(), getattr(signal, what))


def convolution(payload: Mapping[str, Any]) -> float:
    """A torch operation with gradients: it hangs in the child if the fork server has run one."""
    import torch

    layer = torch.nn.Conv2d(3, 8, 5)
    layer(torch.ones(2, 3, 32, 32)).sum().backward()
    return float(torch.get_num_threads())


def main() -> int:
    """A sweep of pretended trials from the command line: the overrides are the arguments."""
    import conf
    from sweep.driver import run_sweep
    from sweep.machines import Entries

    overrides = sys.argv[1:]
    entries = Entries(
        trial="pretend:trial", timing="pretend:timing", probe="pretend:probe", preload=("rdc.spec", "pretend")
    )
    command = ["python", "pretend.py", *overrides]
    return run_sweep(conf.compose(overrides), overrides=overrides, command=command, entries=entries)


if __name__ == "__main__":
    sys.exit(main())
