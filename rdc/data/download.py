"""A fixed list of files from the network: checked by hash, resumable, and given up soon when out of reach."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from rdc import __version__
from rdc.data.index import Progress
from rdc.data.roots import writable
from rdc.files import locked

DECIDE_S = 10.0  # without a first byte by then, the network counts as out of reach
STALL_S = 20.0  # without a further byte for so long, the connection counts as broken
ATTEMPTS = 4  # per file, each going on where the last one stopped
MAX_FILE_BYTES = 2**24  # a server that never ends must not fill the disk

_CHUNK_BYTES = 2**16


class OutOfReachError(Exception):
    """The files could not be fetched; the text says why. Whatever arrived is kept for the next try."""


def missing(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Names whose file is absent or has another SHA-256 than it should."""
    return [name for name, sha256 in files.items() if _sha256(folder / name) != sha256]


def download(
    folder: Path,
    files: Mapping[str, str],
    base_urls: Sequence[str],
    *,
    decide_s: float = DECIDE_S,
    stall_s: float = STALL_S,
    progress: Progress | None = None,
    what: str = "downloading",
) -> None:
    """Make sure that `folder` holds all files, name -> SHA-256; each appears there only whole and checked.

    base_urls: tried in turn for every file. OutOfReachError if no server answers within decide_s, or fails to
    deliver later. A second process waits for the first.
    """
    with writable(folder), locked(folder / ".lock"):
        names = missing(folder, files)
        if not names:
            return
        job = _Job(folder=folder, files=files, names=names, base_urls=list(base_urls), stall_s=stall_s)
        job.answer_s = min(decide_s / len(base_urls), stall_s)  # so that every address has its turn
        # A thread of its own, because looking up a host name cannot be interrupted and may take minutes.
        thread = threading.Thread(target=job.run, name="download", daemon=True)
        thread.start()
        try:
            _watch(job, thread, decide_s, progress, what)
        finally:
            job.cancelled.set()
        if job.failure is not None:
            raise OutOfReachError(job.failure)


@dataclasses.dataclass(kw_only=True)
class _Job:
    folder: Path
    files: Mapping[str, str]
    names: list[str]
    base_urls: list[str]
    stall_s: float
    answer_s: float = DECIDE_S
    done: int = 0
    failure: str | None = None
    reached: threading.Event = dataclasses.field(default_factory=threading.Event)
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)

    def run(self) -> None:
        for name in self.names:
            self.failure = self._file(name)
            if self.failure is not None or self.cancelled.is_set():
                return
            self.done += 1

    def _file(self, name: str) -> str | None:
        """Fetch one file; None, or why it failed."""
        part = self.folder / f"{name}.part"
        failure = None
        addresses = tuple(self.base_urls)
        for attempt in range(ATTEMPTS):
            base_url = addresses[attempt % len(addresses)]
            try:
                whole = self._receive(f"{base_url}/{name}", part)
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = (
                    f"{base_url}/{name}: {getattr(error, 'reason', None) or error or type(error).__name__}"
                )
                continue
            if self.cancelled.is_set():
                return "stopped"
            if _sha256(part) == self.files[name]:
                part.replace(self.folder / name)
                # The address that delivered comes first from now on; the others may be silent ones.
                self.base_urls.sort(key=lambda url: url != base_url)
                return None
            if whole:
                failure = f"{base_url}/{name}: is not the expected file (SHA-256 {_sha256(part)})"
                part.unlink()
            else:
                failure = f"{base_url}/{name}: the connection was cut"
        return failure

    def _receive(self, url: str, part: Path) -> bool:
        """Append to `part` what is still missing; whether the server sent all that it had announced."""
        have = part.stat().st_size if part.exists() else 0
        headers = {"User-Agent": f"rdc/{__version__}"}
        if have:
            headers["Range"] = f"bytes={have}-"
        timeout_s = self.stall_s if self.reached.is_set() else self.answer_s
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # there is nothing after what we have: the hash decides
                return True
            raise
        with response:
            self.reached.set()
            resumed = response.status == 206 and _starts_at(response.headers.get("Content-Range", ""), have)
            announced = response.headers.get("Content-Length")
            received = 0
            if self.cancelled.is_set():  # the lock on the folder is no longer ours
                return False
            with open(part, "ab" if resumed else "wb") as out:
                while not self.cancelled.is_set() and out.tell() <= MAX_FILE_BYTES:
                    chunk = response.read1(_CHUNK_BYTES)
                    if not chunk:
                        break
                    received += out.write(chunk)
        return announced is None or received >= int(announced)


def _watch(
    job: _Job, thread: threading.Thread, decide_s: float, progress: Progress | None, what: str
) -> None:
    """Report from the caller's thread until the job ends; give up on a network that does not answer."""
    give_up_at = time.monotonic() + decide_s
    reported = -1
    while thread.is_alive():
        thread.join(0.1)
        if progress is not None and job.reached.is_set() and job.done != reported:
            reported = job.done
            progress(reported, len(job.names), what)
        if not job.reached.is_set() and time.monotonic() >= give_up_at and thread.is_alive():
            raise OutOfReachError(f"no answer within {decide_s:g} s")
    if progress is not None and job.done != reported and job.failure is None:
        progress(job.done, len(job.names), what)


def _starts_at(content_range: str, have: int) -> bool:
    return content_range.startswith(f"bytes {have}-")


def _sha256(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None
