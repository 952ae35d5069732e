"""Codes all images at all settings, several at a time, and keeps what is measured whatever happens next.

Threads, not processes: the encoders work outside the interpreter lock or are programs of their own.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from analysis.codecs.cache import Cache, Measured
from analysis.codecs.codec import Codec, CodecError, Coded, mean_squared_error
from analysis.codecs.images import SourceImage, pixel_sha256, read_rgb
from analysis.codecs.process import allow_running, end_running
from analysis.errors import AnalysisError

_PROGRESS_S = 5.0


@dataclasses.dataclass(frozen=True)
class Task:
    """One image, one codec, one value of its parameter."""

    codec: Codec
    image: SourceImage
    value: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """measured: what is known. failures: why the rest is not. interrupted: by Ctrl-C before the end."""

    measured: dict[Task, Measured]
    failures: dict[Task, str]
    recalled: int
    interrupted: bool


def measure(
    codecs: Sequence[Codec],
    images: Sequence[SourceImage],
    cache: Cache,
    *,
    jobs: int,
    progress: Callable[[str], None],
) -> Outcome:
    """What the cache does not know is measured; one failure stops nothing but itself."""
    measured: dict[Task, Measured] = {}
    failures: dict[Task, str] = {}
    recalled, interrupted = 0, False
    for codec in codecs:
        tasks = [Task(codec, image, value) for image in images for value in codec.values]
        known = {task: found for task in tasks if (found := cache.get(task.image, codec, task.value))}
        measured |= known
        recalled += len(known)
        fresh = [task for task in tasks if task not in known]
        report = _Reporter(codec.name, len(fresh), len(known), progress)
        interrupted = _run(fresh, cache, jobs, measured, failures, report)
        if interrupted:
            break
    return Outcome(measured, failures, recalled, interrupted)


def _run(
    tasks: Sequence[Task],
    cache: Cache,
    jobs: int,
    measured: dict[Task, Measured],
    failures: dict[Task, str],
    report: _Reporter,
) -> bool:
    """Fills `measured` and `failures`; whether it was interrupted."""
    waiting = iter(tasks)
    running: dict[Future[Measured], Task] = {}
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="codec")
    try:
        while True:
            for task in itertools.islice(waiting, jobs - len(running)):
                running[pool.submit(_measure, task, cache)] = task
            if not running:
                break
            done, _ = wait(running, timeout=_PROGRESS_S, return_when=FIRST_COMPLETED)
            for future in done:
                _take(future, running.pop(future), measured, failures, report)
            report.now_and_then()
    except KeyboardInterrupt:
        end_running()  # library calls cannot be ended, and take seconds at most
        return True
    finally:
        pool.shutdown(cancel_futures=True)
        allow_running()
    report.end()
    return False


def _take(
    future: Future[Measured],
    task: Task,
    measured: dict[Task, Measured],
    failures: dict[Task, str],
    report: _Reporter,
) -> None:
    report.done += 1
    try:
        measured[task] = future.result()
    except CodecError as error:
        failures[task] = str(error)
        report.failure(task, str(error))


def _measure(task: Task, cache: Cache) -> Measured:
    pixels = _pixels(task.image)
    decoded = _code(task, pixels)
    if decoded.pixels.shape != pixels.shape or decoded.pixels.dtype != np.uint8:
        raise CodecError(
            f"decoded to {decoded.pixels.shape} {decoded.pixels.dtype}, not {pixels.shape} uint8"
        )
    measured = Measured(decoded.size_bytes, mean_squared_error(pixels, decoded.pixels))
    cache.put(task.image, task.codec, task.value, measured)
    return measured


def _code(task: Task, pixels: np.ndarray) -> Coded:
    try:
        return task.codec.code(pixels, task.value)
    except AnalysisError:
        raise
    except MemoryError:
        raise CodecError("there is not enough memory; --jobs 1 needs less") from None
    except Exception as error:
        # Encoders raise what they like: OSError, RuntimeError, ValueError, or exceptions of their own.
        raise CodecError(" ".join(str(error).split())[:200] or type(error).__name__) from None


@functools.lru_cache(maxsize=4)
def _read(path: Path, sha256: str) -> np.ndarray:
    try:
        pixels = read_rgb(path)
    except AnalysisError as error:
        raise CodecError(str(error)) from None
    if pixel_sha256(pixels) != sha256:
        raise CodecError(f"{path} has changed since this command looked at it")
    pixels.setflags(write=False)
    return pixels


def _pixels(image: SourceImage) -> np.ndarray:
    return _read(image.path, image.sha256)


class _Reporter:
    """One line per codec at its end, and one every few seconds while it runs; failures at once."""

    def __init__(self, name: str, fresh: int, recalled: int, progress: Callable[[str], None]) -> None:
        self.name, self.fresh, self.recalled, self.done = name, fresh, recalled, 0
        self._progress = progress
        self._start = self._last = time.monotonic()
        self._failed: collections.Counter[str] = collections.Counter()

    def now_and_then(self) -> None:
        now = time.monotonic()
        # A run of hours is to leave dozens of lines, not thousands.
        if self.done < self.fresh and now - self._last >= max(_PROGRESS_S, (now - self._start) / 10):
            self._last = now
            left_s = (now - self._start) * (self.fresh - self.done) / self.done if self.done else None
            left = "" if left_s is None else f", about {left_s:.0f} s left"
            self._progress(f"{self.name}: {self.done} of {self.fresh}{left}")

    def failure(self, task: Task, text: str) -> None:
        """Every reason once: a codec that fails on all images is to say so in one line."""
        self._failed[text] += 1
        if self._failed[text] == 1:
            self._progress(f"{self.name}, {task.image.name}, {task.codec.setting(task.value)}: {text}")

    def end(self) -> None:
        took = (
            f"{self.fresh} measured in {time.monotonic() - self._start:.0f} s" if self.fresh else "0 measured"
        )
        failed = f", {sum(self._failed.values())} of them failed" if self._failed else ""
        self._progress(f"{self.name}: {took}{failed}, {self.recalled} known from before")


def in_order(codec: Codec, images: Sequence[SourceImage]) -> Iterator[tuple[float, list[Task]]]:
    """Value by value the tasks of all images."""
    for value in codec.values:
        yield value, [Task(codec, image, value) for image in images]
