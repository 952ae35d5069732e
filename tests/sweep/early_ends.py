"""Job entries of trials that end early, or make the sweep end early."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pretend


def preempted_twice(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A trial whose node asks it to go, two times; then a good one."""
    folder = Path(payload["run"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "starts", "a") as file:
        file.write("x")
    if (folder / "starts").stat().st_size <= 2:
        return {"status": "preempted", "step": 5}
    return pretend.trial(payload)


def asks_to_stop(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A good trial, during which somebody asks the sweep to stop."""
    from sweep.drain import write_request

    write_request(Path(payload["run"]["folder"]).parent.parent, now=False)
    return pretend.trial(payload)


def preempted_by_a_stop(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A trial that is asked to checkpoint and end, as the whole sweep is."""
    from rdc.preempt import Preemption
    from sweep.drain import write_request

    folder = Path(payload["run"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    preemption = Preemption()
    with preemption.listening():
        if preemption.wanted:
            raise RuntimeError("nobody has asked yet")
        write_request(folder.parent.parent, now=True)
        return {"status": "preempted", "step": 5} if preemption.wanted else pretend.trial(payload)


class Preempted(Exception):
    """How an executor names the end of a job that it had to kill after asking it to end."""


def killed_when_asked_to_end(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A trial that gave no answer in its grace; the next attempt is a good one."""
    folder = Path(payload["run"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "begun").exists():
        (folder / "begun").touch()
        raise Preempted("it was asked to end")
    return pretend.trial(payload)


def large(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A good trial that kept most of its GPU for itself."""
    from rdc.files import atomic_write_json

    result = pretend.trial(payload)
    result["training"] |= {"peak_reserved_mb": 60 * 1024.0, "device_memory_mb": 80 * 1024.0}
    atomic_write_json(Path(payload["run"]["folder"]) / "result.json", result)
    return result


def taken_over(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A trial during which a driver on another machine takes the folder, and this one notices."""
    folder = Path(payload["run"]["folder"]).parent.parent
    other = {"pid": 7, "host": "far", "place": "elsewhere", "born": 1, "started_at": 1.0}
    (folder / "driver.json").write_text(json.dumps(other))
    time.sleep(1.0)
    return pretend.trial(payload)


def full_disk(payload: Mapping[str, Any]) -> dict[str, Any]:
    from rdc.files import StorageError

    raise StorageError("/mnt/results: is full; make room, and the same command continues")
