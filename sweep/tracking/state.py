"""tracking.json: what of a sweep each server knows. Losing it costs nothing but logging the sweep anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import atomic_write_text, read_json

STATE_FILE = "tracking.json"
JOURNAL_FILE = "tracking.jsonl"
SHORT_JOURNAL_BYTES = 1_000_000  # below this it is not worth while to write the whole anew


class State:
    """Per server (its address without credentials): the ids of experiment, parent run and view; per trial its
    run id, how far its curve is logged, and a mark (size and time) of each other file as it was logged.

    server: the dict of the server in use; change it in place, `touch` the trials that changed, then save.
    The file holds the whole, the journal beside it the trials that have changed since: what is written at a
    time does not grow with the sweep.
    """

    def __init__(self, folder: Path, server: str, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._address = server
        self._say = say
        self._touched: set[str] = set()
        self._saved_head = ""
        try:
            self._file = read_file(folder)
        except UserError as error:
            say(f"{error}; asking the server what it has")
            self._file = {"schema_version": 1, "generation": 0, "servers": {}}
        self._file["latest"] = server
        self.server: dict[str, Any] = self._file["servers"].setdefault(server, {})

    def touch(self, spec_id: str) -> None:
        """The trial's entry has changed."""
        self._touched.add(spec_id)

    def save(self) -> None:
        """Append what has changed to the journal; fold that into the file when it has grown long."""
        head = {key: value for key, value in self.server.items() if key != "trials"}
        if not head or (not self._touched and repr(head) == self._saved_head):
            return  # nothing new, or a server that has never answered
        trials = self.server.get("trials", {})
        line = {
            "generation": self._file["generation"],
            "server": self._address,
            "head": head,
            "trials": {spec_id: trials[spec_id] for spec_id in self._touched if spec_id in trials},
        }
        journal = self._folder / JOURNAL_FILE
        try:
            with open(journal, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            self._cannot_write(error)
            return
        self._touched.clear()
        self._saved_head = repr(head)
        if journal.stat().st_size > max(SHORT_JOURNAL_BYTES, _size(self._folder / STATE_FILE)):
            self.save_whole()

    def save_whole(self) -> None:
        """Write the file, and begin a new journal."""
        # A journal that outlives a crash at this point is of an older generation, and is not read again.
        self._file["generation"] += 1
        try:
            atomic_write_text(self._folder / STATE_FILE, json.dumps(self._file) + "\n")
            (self._folder / JOURNAL_FILE).unlink(missing_ok=True)
        except OSError as error:
            self._cannot_write(error)
            return
        self._touched.clear()
        self._saved_head = repr({key: value for key, value in self.server.items() if key != "trials"})

    def _cannot_write(self, error: OSError) -> None:
        # What is not remembered here is found on the server again; a full disk is for others to complain of.
        if self._say is not _silent:
            self._say(f"{self._folder / STATE_FILE}: cannot be written ({error.strerror or error})")
        self._say = _silent


def read_file(folder: Path) -> dict[str, Any]:
    """The whole content, journal included. UserError if it is damaged; a missing one knows no server."""
    content: dict[str, Any] = {"schema_version": 1, "generation": 0, "servers": {}}
    path = folder / STATE_FILE
    if path.exists():
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("servers"), dict):
            raise UserError(f"{path}: is not the tracker's record of a sweep")
        content |= found
    for line in _journal(folder / JOURNAL_FILE):
        if line.get("generation") == content["generation"]:
            server = content["servers"].setdefault(line["server"], {})
            server |= line["head"]
            server.setdefault("trials", {}).update(line["trials"])
            content["latest"] = line["server"]
    return content


def known_servers(folder: Path) -> list[str]:
    """The servers (addresses without credentials) that the sweep was logged to, the first one first."""
    try:
        servers = read_file(folder)["servers"]
    except UserError:
        return []
    return [address for address, known in servers.items() if known.get("run_id")]


def read_state(folder: Path) -> dict[str, Any]:
    """What the server that the sweep was logged to last knows, with its address under "server"."""
    path = folder / STATE_FILE
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    file = read_file(folder)
    latest = file.get("latest")
    state = file["servers"].get(latest, {})
    if "view_key" not in state:
        raise UserError(f"{path}: nothing of this sweep has been logged yet; wait, or look into driver.log")
    return {"server": latest, **state}


def mark(path: Path) -> list[int] | None:
    """Size in bytes and modification time in ns; None if there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _journal(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:  # torn by a crash
                continue


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _silent(line: str) -> None:
    pass
