"""Reading on in a file that another process appends to, and sometimes cuts back and writes again."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.tracking.content import Point, curve_points

TAIL_BYTES = 256  # enough of the end of what is logged to notice that the file was rewritten


class CurveReader:
    """The lines of a metrics.jsonl that are not logged yet.

    entry: what earlier calls of `place` returned. A resumed trial cuts its file back to the checkpoint and
    repeats steps with the same values: after such a cut, steps that are logged already are left out.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any]) -> None:
        self._steps: dict[str, int] = dict(entry.get("steps", {}))
        self._offset, self._tail = int(entry.get("offset", 0)), entry.get("tail", zlib.crc32(b""))
        self.rows: list[dict[str, Any]] = []
        self.points: list[Point] = []
        try:
            size = os.stat(path).st_size
        except OSError:
            return
        if size != self._offset:
            self._read(path)

    def place(self) -> dict[str, Any]:
        """To be kept once `points` are logged."""
        return {"offset": self._offset, "tail": self._tail, "steps": self._steps}

    @property
    def last_step(self) -> int | None:
        """The last step that is logged, or to be logged now."""
        return max(self._steps.values(), default=None)

    def _read(self, path: Path) -> None:
        logged_steps: dict[str, int] = {}
        with open(path, "rb") as file:
            if self._tail_at(file, self._offset) != self._tail:
                self._offset, logged_steps = 0, dict(self._steps)
            file.seek(self._offset)
            whole, newline, _unfinished = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            self._tail = self._tail_at(file, self._offset)
        for line in whole.decode(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # torn when its writer was killed; the others stand
                continue
            if not isinstance(row, dict):
                continue
            self.rows.append(row)
            for point in curve_points(row):
                kind = point.key.partition("/")[0]
                if point.step > logged_steps.get(kind, -1):
                    self.points.append(point)
                    if point.step > self._steps.get(kind, -1):
                        self._steps[kind] = point.step

    @staticmethod
    def _tail_at(file: Any, offset: int) -> int:
        start = max(0, offset - TAIL_BYTES)
        file.seek(start)
        return zlib.crc32(file.read(offset - start))
