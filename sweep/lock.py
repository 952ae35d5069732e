"""One driver per sweep folder, on one machine and across the machines that share the folder.

A lock of the system says at once that another driver is alive, and vanishes with it. Not every shared file
system passes it on to other machines, so a driver also keeps the date of driver.json fresh: where that stands
still, its driver is dead, and a file that a killed one left behind keeps nobody out for longer than the look.
A driver that finds another one's name in the file, because both began at once or it was silent itself, ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rdc.errors import UserError
from rdc.files import atomic_write_json, read_json

LOCK_FILE = "driver.lock"
DRIVER_FILE = "driver.json"
BEAT_S = 5.0
# A driver that has been silent for that long is dead; busy file servers take seconds.
SILENT_S = 20.0
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DriverRecord:
    """Who drives a sweep. place: tells machines, and containers on one, apart. started_at: unix seconds.

    born: when the process started, in the kernel's ticks; a later process may get its number.
    """

    pid: int
    host: str
    place: str
    born: int
    started_at: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """Our hold on a sweep folder, as long as nobody else has taken it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.taken_by: DriverRecord | None = None

    def check(self) -> None:
        """UserError if another driver has taken the folder while this one was silent."""
        if self.taken_by is not None:
            raise UserError(
                f"{self._folder}: {self.taken_by} has taken over this sweep and goes on with it; "
                "this driver ends"
            )


@contextlib.contextmanager
def sweep_lock(folder: Path) -> Iterator[Lease]:
    """One driver per sweep folder; UserError names who has it. Released however the process ends."""
    with _opened_lock(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _in_use(folder, file.read().strip() or "another process") from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
        _refuse_beside_a_living_one(folder, file)
        us = _this_process()
        file.truncate(0)
        file.write(f"{us}\n")
        file.flush()
        with _beating(folder, us) as lease:
            yield lease


def read_driver(folder: Path) -> DriverRecord | None:
    """Who drives the sweep, or drove it and was killed; None if the last driver ended properly."""
    try:
        content: dict[str, Any] = read_json(folder / DRIVER_FILE)
        return DriverRecord(**content)
    except (UserError, TypeError):
        return None


def is_alive(folder: Path, driver: DriverRecord) -> bool:
    """Whether the driver lives: looked up on its own machine, judged by the date of its file elsewhere."""
    if driver.place == _place():
        return _born(driver.pid) == driver.born
    with contextlib.suppress(OSError):
        return time.time() - _date(folder / DRIVER_FILE) < 3 * SILENT_S  # clocks differ
    return False


def _opened_lock(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / LOCK_FILE, "a+")
    except OSError as error:
        raise UserError(
            f"{folder}: a sweep cannot have this folder ({error.strerror}); choose another runs_dir= or name="
        ) from None


def _in_use(folder: Path, holder: object) -> UserError:
    return UserError(
        f"{folder} is in use by {holder}; wait until it has ended, stop it, or choose another name="
    )


def _refuse_beside_a_living_one(folder: Path, lock: TextIO) -> None:
    """UserError if a driver is alive that our lock does not know of; takes SILENT_S at most."""
    other, path = read_driver(folder), folder / DRIVER_FILE
    if other is None:
        return
    if other.place == _place():
        if _born(other.pid) == other.born:
            raise _in_use(folder, other)
        return
    os.utime(lock.fileno())  # now, by the clock that also dates their file
    with contextlib.suppress(OSError):
        last_beat = _date(path)
        if os.fstat(lock.fileno()).st_mtime - last_beat > SILENT_S:
            return
        print(f"{folder} was driven by {other}; looking whether it is alive", flush=True)
        give_up_at = time.monotonic() + SILENT_S
        while time.monotonic() < give_up_at:
            if _date(path) != last_beat:
                raise _in_use(folder, other)
            time.sleep(BEAT_S / 5)


@contextlib.contextmanager
def _beating(folder: Path, us: DriverRecord) -> Iterator[Lease]:
    """Keep the date of our file fresh while the block runs; it goes with us unless we are killed."""
    path, lease, ended = folder / DRIVER_FILE, Lease(folder), threading.Event()
    atomic_write_json(path, dataclasses.asdict(us))

    def beat() -> None:
        while not ended.wait(BEAT_S):
            if (now := read_driver(folder)) not in (us, None):
                lease.taken_by = now
                return
            with contextlib.suppress(OSError):  # a full or absent disk is for others to report
                os.utime(path)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield lease
    finally:
        ended.set()
        if read_driver(folder) in (us, None):
            with contextlib.suppress(OSError):
                path.unlink()


def _date(path: Path) -> float:
    """The file's date. Opening it is what makes a network file system ask its server."""
    with open(path) as file:
        return os.fstat(file.fileno()).st_mtime


def _this_process() -> DriverRecord:
    pid = os.getpid()
    born = _born(pid)
    assert born is not None, "this process exists"
    return DriverRecord(
        pid=pid, host=socket.gethostname(), place=_place(), born=born, started_at=round(time.time(), 3)
    )


def _place() -> str:
    """The same for all processes that see each other's numbers."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    numbers = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {boot} {numbers}".encode()).hexdigest()[:16]


def _born(pid: int) -> int | None:
    """When a living process of this machine started, in ticks since the boot; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
