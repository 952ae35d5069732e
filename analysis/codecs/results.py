"""From measurements to the anchor table: complete settings only, with what they rest on in every row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from analysis.anchors.table import ANCHOR_COLUMNS, AVERAGING, PSNR_RULE
from analysis.codecs.cache import Measured
from analysis.codecs.codec import Codec, psnr_db
from analysis.codecs.images import SourceImage, content_sha256
from analysis.codecs.runner import Outcome, Task, in_order

DIGITS = 6


@dataclasses.dataclass(frozen=True)
class MeanPoint:
    """One setting over all images."""

    codec: str
    setting: str
    bpp: float
    psnr_db: float


@dataclasses.dataclass(frozen=True)
class Results:
    """rows: ANCHOR_COLUMNS, one per image. means: by codec and rising rate. left_out: one line a setting."""

    rows: pd.DataFrame
    means: tuple[MeanPoint, ...]
    left_out: tuple[str, ...]

    def of(self, codec: str) -> list[MeanPoint]:
        return [mean for mean in self.means if mean.codec == codec]


def collect(
    codecs: Sequence[Codec], images: Sequence[SourceImage], dataset: str, outcome: Outcome
) -> Results:
    """A setting takes part if every image was measured at it and none came back exactly."""
    rows: list[dict[str, object]] = []
    means: list[MeanPoint] = []
    left_out: list[str] = []
    for codec in codecs:
        points = []
        for value, tasks in in_order(codec, images):
            if why := _why_not(tasks, outcome):
                left_out.append(f"{codec.name} {codec.setting(value)}: {why}")
                continue
            found = [_row(task, outcome.measured[task], dataset) for task in tasks]
            rows += found
            points.append(_mean(codec, value, found))
        means += sorted(points, key=lambda point: point.bpp)
    frame = pd.DataFrame(rows, columns=list(ANCHOR_COLUMNS))
    return Results(frame.assign(source=_source(images)), tuple(means), tuple(left_out))


def _why_not(tasks: Sequence[Task], outcome: Outcome) -> str:
    lack = [task for task in tasks if task not in outcome.measured]
    if failed := [task for task in lack if task in outcome.failures]:
        first = failed[0]
        return (
            f"failed on {len(failed)} of {len(tasks)} images, {first.image.name}: {outcome.failures[first]}"
        )
    if lack:
        return f"not measured on {len(lack)} of {len(tasks)} images"
    exact = [task for task in tasks if outcome.measured[task].mse == 0]
    if exact:
        return f"{exact[0].image.name} comes back exactly: its PSNR is infinite, and has no mean with others"
    return ""


def _row(task: Task, measured: Measured, dataset: str) -> dict[str, object]:
    codec = task.codec
    return {
        "codec": codec.name,
        "dataset": dataset,
        "image": task.image.name,
        "setting": codec.setting(task.value),
        "bpp": round(8 * measured.size_bytes / task.image.pixels, DIGITS),
        "psnr_db": round(psnr_db(measured.mse), DIGITS),
        "ms_ssim": "",
        "encoder": codec.encoder,
        "version": codec.version,
        "colour": codec.colour,
        "psnr_rule": PSNR_RULE,
        "averaging": AVERAGING,
    }


def _mean(codec: Codec, value: float, rows: Sequence[dict[str, object]]) -> MeanPoint:
    bpp, psnr = (math.fsum(float(str(row[name])) for row in rows) / len(rows) for name in ("bpp", "psnr_db"))
    return MeanPoint(codec.name, codec.setting(value), bpp, psnr)


def _source(images: Sequence[SourceImage]) -> str:
    noun = "image" if len(images) == 1 else "images"
    return f"python -m analysis anchors; {len(images)} {noun}, content {content_sha256(images)[:12]}"
