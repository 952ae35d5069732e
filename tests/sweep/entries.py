"""Job entries that can be asked to end, as trials can: for workers, without torch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def preemptible(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Waits for SIGTERM, takes save_s to write folder/saved, then says so. A second SIGTERM ends it at once.

    Once folder/finish exists it ends well instead. Every process leaves a line in folder/pids.
    """
    folder = Path(payload["folder"])
    wanted = []

    def on_sigterm(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        wanted.append(True)

    signal.signal(signal.SIGTERM, on_sigterm)
    with open(folder / "pids", "a") as file:
        file.write(f"{os.getpid()} {os.getppid()}\n")
    while not wanted:
        if (folder / "finish").exists():
            return {"status": "ok"}
        time.sleep(0.02)
    time.sleep(payload["save_s"])
    (folder / "saved").touch()
    return {"status": "preempted", "step": 7}


def alone(payload: Mapping[str, Any]) -> None:
    """Fails unless no other process is in here at the same time."""
    inside = Path(payload["folder"]) / "inside"
    inside.mkdir()
    time.sleep(payload["sleep_s"])
    inside.rmdir()
