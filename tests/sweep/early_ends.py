"""Job entries of trials that end early, or make the sweep end early."""

from __future__ import annotations

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
    from sweep.drain import write_request

    folder = Path(payload["run"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    write_request(folder.parent.parent, now=True)
    return {"status": "preempted", "step": 5}


def full_disk(payload: Mapping[str, Any]) -> dict[str, Any]:
    from rdc.files import StorageError

    raise StorageError("/mnt/results: is full; make room, and the same command continues")
