"""Job entries that can be asked to end, as trials can: for workers, without torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pretend


def preemptible(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Waits for SIGTERM, takes save_s to write folder/saved, then says so. Further ones change nothing.

    Once folder/finish exists it ends well instead. Every process leaves a line in folder/pids, and every
    SIGTERM a line in folder/asked.
    """
    folder = Path(payload["folder"])
    wanted = []

    def on_sigterm(*_: object) -> None:
        wanted.append(True)
        with open(folder / "asked", "a") as file:
            file.write("SIGTERM\n")

    signal.signal(signal.SIGTERM, on_sigterm)
    with open(folder / "pids", "a") as file:
        file.write(f"{os.getpid()} {os.getppid()}\n")
    while not wanted:
        if (folder / "finish").exists():
            return {"status": "ok"}
        time.sleep(0.02)
    ends_at = time.monotonic() + payload["save_s"]
    while time.monotonic() < ends_at:
        time.sleep(0.02)
    (folder / "saved").touch()
    return {"status": "preempted", "step": 7}


def alone(payload: Mapping[str, Any]) -> None:
    """Fails unless no other process is in here at the same time."""
    inside = Path(payload["folder"]) / "inside"
    inside.mkdir()
    time.sleep(payload["sleep_s"])
    inside.rmdir()


def trial(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A pretended trial of STEPS steps of 20 ms; it goes on from resume.pt, and writes it when preempted."""
    from rdc.files import append_jsonl, write_sealed
    from rdc.preempt import Preemption

    folder, steps = Path(payload["run"]["folder"]), int(os.environ["STEPS"])
    folder.mkdir(parents=True, exist_ok=True)
    resume = folder / "resume.pt"
    first = int(resume.read_text()) if resume.exists() else 0
    append_jsonl(folder / "metrics.jsonl", {"event": "phase", "phase": "train", "t": time.time()})
    preemption = Preemption()
    with preemption.listening():
        for step in range(first + 1, steps + 1):
            time.sleep(0.02)
            row = {"step": step, "t": time.time(), "train/loss": 1.0, "eta_s": 0.02 * (steps - step)}
            append_jsonl(folder / "metrics.jsonl", row)
            if preemption.wanted:
                resume.write_text(str(step))
                return {"status": "preempted", "step": step}
    pretend.misbehave(payload["spec"]["seed"])
    (folder / "model.safetensors").write_bytes(b"weights")
    resume.unlink(missing_ok=True)
    result = pretend.good_result(folder, payload["spec"])
    result["training"]["resumed_at_steps"] = [first] if first else []
    return write_sealed(folder / "result.json", result)


def main() -> int:
    """A sweep of such trials from the command line: the overrides are the arguments."""
    import conf
    from rdc.errors import UserError
    from sweep.driver import run_sweep
    from sweep.machines import Entries

    overrides = sys.argv[1:]
    entries = Entries(
        trial="entries:trial",
        timing="pretend:timing",
        probe=os.environ.get("PROBE", "pretend:probe"),
        preload=("rdc.spec", "entries"),
    )
    command = ["python", "entries.py", *overrides]
    try:
        return run_sweep(conf.compose(overrides), overrides=overrides, command=command, entries=entries)
    except UserError as error:
        print(f"error: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
