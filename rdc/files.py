"""Files that survive a crash: whole or absent, never half written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError

_LOCK_POLL_S = 0.1


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write beside `path`, flush to the disk, rename over it: a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def atomic_write_text(path: str | Path, text: str) -> None:
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: str | Path, value: Any) -> None:
    """JSON without NaN and infinity, which other readers refuse: put None in their place."""
    atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The file's content; UserError names a file that is missing or damaged."""
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        text = " ".join(str(error).split())
        raise UserError(f"{path}: is not valid JSON ({text}); delete it and repeat what wrote it") from None


def append_jsonl(path: str | Path, *rows: Mapping[str, Any]) -> None:
    """Append one line per row in a single write, so that a reader beside us never sees rows mixed up."""
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with open(path, "ab") as file:
        file.write(lines.encode())


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All complete lines; one that is still being written is left out. A missing file has no lines."""
    path = Path(path)
    if not path.exists():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}: line {number} is not JSON; delete it and repeat the trial") from None
    return rows


@contextlib.contextmanager
def locked(path: str | Path, *, timeout_s: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (created if missing) for the time of the block.

    The system releases it when the process ends, however it ends. timeout_s: None waits without end, 0 tries
    once; a lock that is not free in time raises UserError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    with open(path, "a") as file:
        while not _try_lock(file.fileno()):
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise UserError(f"{path}: another process holds this lock; wait for it to end, or stop it")
            time.sleep(_LOCK_POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # Reading it means setting it. mkstemp makes private files; results are for everyone the user allows.
    current = os.umask(0o022)
    os.umask(current)
    return current
