"""What an interrupted trial continues from: metrics.jsonl up to a step, resume.pt with the state after it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import torch

from rdc.files import append_jsonl, atomic_write_bytes, read_jsonl, set_aside, storing
from rdc.memory import where_memory_ran_out

RESUME_VERSION = 5
RESUME_FILE = "resume.pt"
METRICS_FILE = "metrics.jsonl"
NO_METRICS = (0, hashlib.sha256(b"").hexdigest())  # the mark of an empty log

# resume.pt is what torch.save wrote, then this and the SHA-256 of it: torch itself overlooks changed bytes.
_SEAL = b"RDCSEAL1"
_SEAL_BYTES = len(_SEAL) + 32


class MetricsLog:
    """The trial's metrics.jsonl: one JSON object per line, in the order in which things happened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_FILE

    def mark(self) -> tuple[int, str]:
        """(bytes, SHA-256) of the file, by which `go_back` knows this place again."""
        return _mark_of(self._data())

    def go_back(self, mark: tuple[int, str]) -> str | None:
        """Drop what was logged after a mark: the resumed run logs it again.

        Where the lines before it are not those that were logged, the log begins anew; says what they became.
        """
        size_bytes, _ = mark
        if _mark_of(self._data()[:size_bytes]) != mark:
            became = f"damaged and is now {set_aside(self.path).name}" if self.path.exists() else "missing"
            return f"{METRICS_FILE} is {became}; the curve begins anew"
        if self.path.exists():
            with storing(self.path):
                os.truncate(self.path, size_bytes)
        return None

    def sync(self) -> None:
        """Have the lines on the disk before a checkpoint that counts on them."""
        if self.path.exists():
            with storing(self.path), open(self.path, "rb") as file:
                os.fsync(file.fileno())

    def points(self, step: int, **values: Any) -> None:
        append_jsonl(self.path, {"step": step, "t": round(time.time(), 3), **values})

    def event(self, event: str, **values: Any) -> None:
        append_jsonl(self.path, {"event": event, "t": round(time.time(), 3), **values})

    def validation_at(self, step: int) -> dict[str, Any] | None:
        """The row of the validation after this many steps, if there was one."""
        return next((row for row in self.rows() if row.get("step") == step and "val/rd_loss" in row), None)

    def rows(self) -> list[dict[str, Any]]:
        return read_jsonl(self.path)

    def _data(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""


def _mark_of(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


@dataclasses.dataclass
class Progress:
    """Where training stands. step: finished steps; elapsed_s: training time over all attempts.

    window: the statistics of each step since the last logged line.
    """

    step: int = 0
    elapsed_s: float = 0.0
    window: list[list[float]] = dataclasses.field(default_factory=list)
    best_rd_loss: float | None = None
    rollbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    resumed_at_steps: list[int] = dataclasses.field(default_factory=list)
    out_of_memory: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class NoMetrics(MetricsLog):
    """For processes that share a training and leave the writing to the first of them."""

    def points(self, step: int, **values: Any) -> None:
        pass

    def event(self, event: str, **values: Any) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """learner: Learner.state() after progress.step steps. metrics: MetricsLog.mark() then.

    good: the state that training would roll back to from here; None if it is this one.
    """

    progress: Progress
    learner: dict[str, Any]
    metrics: tuple[int, str]
    good: ResumePoint | None = None


def save_resume(folder: Path, point: ResumePoint, *, spec_id: str) -> None:
    """Replace resume.pt by this point, whole or not at all."""
    content = {
        "schema_version": RESUME_VERSION,
        "spec_id": spec_id,
        "point": _to_plain(point),
        "good": None if point.good is None else _to_plain(point.good),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).digest()
    buffer.write(_SEAL + digest)
    atomic_write_bytes(folder / RESUME_FILE, buffer.getbuffer())


def open_resume(folder: Path, *, spec_id: str) -> tuple[ResumePoint | None, str | None]:
    """(point to continue from or None, why an existing resume.pt was not used or None).

    On the CPU, so that a GPU that just holds a training holds it when it goes on, too. A file that is damaged
    or of another trial is renamed, so that it can be examined and is not met again.
    """
    path = folder / RESUME_FILE
    if not path.exists():
        return None, None
    with storing(path):
        data = path.read_bytes()
    try:
        return _read(_unsealed(data), spec_id), None
    except Exception as error:  # torch.load raises many kinds for a damaged file; all mean the same here
        if where_memory_ran_out(error) is not None:
            raise  # it says nothing about the file
        aside = set_aside(path)
        return None, f"{RESUME_FILE} could not be used and is now {aside.name}: {_one_line(error)}"


def _unsealed(data: bytes) -> memoryview:
    """What torch.save wrote; ValueError unless every byte of it is there and right."""
    content, seal = memoryview(data)[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if seal[: len(_SEAL)] != _SEAL:
        raise ValueError("it is cut short or no checkpoint of this version")
    if hashlib.sha256(content).digest() != seal[len(_SEAL) :]:
        raise ValueError("its content does not match its checksum")
    return content


def _read(data: memoryview, spec_id: str) -> ResumePoint:
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if (content["schema_version"], content["spec_id"]) != (RESUME_VERSION, spec_id):
        raise ValueError(f"it belongs to trial {content['spec_id']}, version {content['schema_version']}")
    good = content["good"]
    return dataclasses.replace(
        _from_plain(content["point"]), good=None if good is None else _from_plain(good)
    )


def _to_plain(point: ResumePoint) -> dict[str, Any]:
    return {
        "progress": dataclasses.asdict(point.progress),
        "learner": point.learner,
        "metrics": point.metrics,
    }


def _from_plain(content: dict[str, Any]) -> ResumePoint:
    return ResumePoint(Progress(**content["progress"]), content["learner"], content["metrics"])


def drop_resume(folder: Path) -> None:
    """A finished trial needs no point to continue from; the file is several times as large as the model."""
    with contextlib.suppress(OSError):
        (folder / RESUME_FILE).unlink()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
