"""Files that survive a crash: whole or absent, never half written, and known to be what was written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError

_LOCK_POLL_S = 0.1
CHECKSUM = "checksum"

# What says that the place cannot take files, whatever is written: full, read-only, forbidden, broken.
_STORAGE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
}


class StorageError(OSError, UserError):
    """A folder that takes no files: full, read-only, forbidden or broken. Says nothing about what was run."""


@contextlib.contextmanager
def storing(path: str | Path) -> Iterator[None]:
    """Work on files at `path`; what the disk refuses becomes a StorageError with the way out."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); make room there or permit writing, and "
            "repeat the command: what is finished is kept"
        ) from error


def atomic_write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write beside `path`, flush to the disk, rename over it: a reader sees the old file or the new one.

    StorageError if the disk does not take it; the old file then stands.
    """
    with storing(path):
        _atomic_write(Path(path), data)


def _atomic_write(path: Path, data: bytes | memoryview) -> None:
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


def atomic_link(source: str | Path, path: str | Path) -> None:
    """`path` becomes another name of the file `source`, or a copy where the file system has no such links.

    Whatever was at `path` is replaced. Files that are only ever replaced as a whole may be shared so.
    """
    source, path = Path(source), Path(path)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.samefile(source):
            return
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        os.unlink(temporary)
        try:
            os.link(source, temporary)
        except OSError:
            _atomic_write(path, source.read_bytes())
            return
        os.replace(temporary, path)
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


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a checksum of itself, by which `is_intact` knows it again after reading."""
    return {**content, CHECKSUM: _checksum(content)}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether the checksum of what was read is right. Content without one, of older releases, counts."""
    return CHECKSUM not in content or content[CHECKSUM] == _checksum(content)


def write_sealed(path: str | Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write JSON with its checksum; returns what the file then holds."""
    whole = sealed(content)
    atomic_write_json(path, whole)
    return whole


def read_sealed(path: str | Path) -> dict[str, Any]:
    """The JSON object in the file; UserError if it is missing, damaged, or not what was written."""
    content = read_json(path)
    if not isinstance(content, dict) or not is_intact(content):
        raise UserError(f"{path}: is damaged (its content does not match its checksum); delete it and repeat")
    return content


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that it can be examined and is not met again; returns its new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged{number}")).exists():
        number += 1
    with storing(path):
        os.replace(path, aside)
    return aside


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete what killed writers of `name` left half written; nobody else may be writing there now."""
    for path in folder.glob(f".{name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError), storing(path):
            path.unlink()


def _checksum(content: Mapping[str, Any]) -> str:
    """Of the values alone: neither the order of the keys nor the layout of the file enters."""
    values = {key: value for key, value in content.items() if key != CHECKSUM}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def append_jsonl(path: str | Path, *rows: Mapping[str, Any]) -> None:
    """Append one line per row in a single write, so that a reader beside us never sees rows mixed up."""
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with storing(path), open(path, "ab") as file:
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
