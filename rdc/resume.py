"""What an interrupted trial continues from: metrics.jsonl up to a step, resume.pt with the state after it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import time
from pathlib import Path
from typing import Any

import torch

from rdc.files import append_jsonl, atomic_write_bytes, read_jsonl

RESUME_VERSION = 1
RESUME_FILE = "resume.pt"
METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """The trial's metrics.jsonl: one JSON object per line, in the order in which things happened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_FILE

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def truncate(self, size_bytes: int) -> None:
        """Drop what was logged after a checkpoint: the resumed run logs it again."""
        if self.size_bytes > size_bytes:
            os.truncate(self.path, size_bytes)

    def points(self, step: int, **values: Any) -> None:
        append_jsonl(self.path, {"step": step, "t": round(time.time(), 3), **values})

    def event(self, event: str, **values: Any) -> None:
        append_jsonl(self.path, {"event": event, "t": round(time.time(), 3), **values})

    def rows(self) -> list[dict[str, Any]]:
        return read_jsonl(self.path)


@dataclasses.dataclass
class Progress:
    """Where training stands. step: finished steps; elapsed_s: training time over all attempts.

    window: sums of the statistics since the last logged line, window_steps of them.
    """

    step: int = 0
    elapsed_s: float = 0.0
    window: list[float] = dataclasses.field(default_factory=list)
    window_steps: int = 0
    best_rd_loss: float | None = None
    rollbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    resumed_at_steps: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """learner: Learner.state() after progress.step steps. metrics_bytes: length of metrics.jsonl then."""

    progress: Progress
    learner: dict[str, Any]
    metrics_bytes: int


def save_resume(folder: Path, point: ResumePoint, *, spec_id: str) -> None:
    """Replace resume.pt by this point, whole or not at all."""
    content = {
        "schema_version": RESUME_VERSION,
        "spec_id": spec_id,
        "progress": dataclasses.asdict(point.progress),
        "learner": point.learner,
        "metrics_bytes": point.metrics_bytes,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write_bytes(folder / RESUME_FILE, buffer.getvalue())


def open_resume(folder: Path, *, spec_id: str, device: torch.device) -> tuple[ResumePoint | None, str | None]:
    """(point to continue from or None, why an existing resume.pt was not used or None).

    A file that is damaged or of another trial is renamed, so that it can be examined and is not met again.
    """
    path = folder / RESUME_FILE
    if not path.exists():
        return None, None
    data = path.read_bytes()
    try:
        content = _load(data, torch.device("cpu"))
        if (content["schema_version"], content["spec_id"]) != (RESUME_VERSION, spec_id):
            raise ValueError(f"it belongs to trial {content['spec_id']}, version {content['schema_version']}")
        progress = Progress(**content["progress"])
        point = ResumePoint(progress, content["learner"], content["metrics_bytes"])
    except Exception as error:  # torch.load raises many kinds for a damaged file; all mean the same here
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # it says nothing about the file
        aside = _set_aside(path)
        return None, f"{RESUME_FILE} could not be used and is now {aside.name}: {_one_line(error)}"
    if device.type != "cpu":  # what fails from here on is the device
        point = dataclasses.replace(point, learner=_load(data, device)["learner"])
    return point, None


def _load(data: bytes, device: torch.device) -> Any:
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)


def drop_resume(folder: Path) -> None:
    """A finished trial needs no point to continue from; the file is several times as large as the model."""
    with contextlib.suppress(FileNotFoundError):
        (folder / RESUME_FILE).unlink()


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"resume.damaged{number}.pt")).exists():
        number += 1
    os.replace(path, aside)
    return aside


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
