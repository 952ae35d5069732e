"""tracking.json: what of a sweep each server knows. Losing it costs nothing but logging the sweep anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import atomic_write_json, read_json

STATE_FILE = "tracking.json"


class State:
    """Per server (its address without credentials): the ids of experiment, parent run and view; per trial its
    run id, how far its curve is logged, and a mark (size and time) of each other file as it was logged.

    server: the dict of the server in use; change it in place, then save.
    """

    def __init__(self, folder: Path, server: str, say: Callable[[str], None]) -> None:
        self._path = folder / STATE_FILE
        self._file: dict[str, Any] = {"schema_version": 1, "servers": {}}
        if self._path.exists():
            try:
                self._file |= read_json(self._path)
            except UserError as error:
                say(f"{error}; logging the sweep as a new one")
        self._file["latest"] = server
        self.server: dict[str, Any] = self._file["servers"].setdefault(server, {})
        self._saved = ""

    def save(self) -> None:
        """Write the file if anything has changed."""
        now = repr(self._file)
        if now != self._saved:
            atomic_write_json(self._path, self._file)
            self._saved = now


def read_state(folder: Path) -> dict[str, Any]:
    """What the server that the sweep was logged to last knows, with its address under "server"."""
    path = folder / STATE_FILE
    file = read_json(path)
    state = file["servers"].get(file["latest"], {})
    if "view_key" not in state:
        raise UserError(f"{path}: nothing of this sweep has been logged yet; wait, or look into driver.log")
    return {"server": file["latest"], **state}


def mark(path: Path) -> list[int] | None:
    """Size in bytes and modification time in ns; None if there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
