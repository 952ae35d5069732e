"""The CSV format of rate-distortion points of codecs: what `anchors` writes and every command reads.

One row per codec, image and setting, or per codec and setting where only means over a set are known:

codec: short name, by which PATH.csv:CODEC chooses it. dataset: as trials name theirs, such as kodak.
image: file name without folder and extension; empty or `mean` for the mean over the set.
setting: what was passed to the encoder, such as q=37; pairs the images of one point.
bpp: bits of the whole file per source pixel. psnr_db: see psnr_rule. ms_ssim: 0 to 1, may be empty.
The rest says how: encoder, version, colour, psnr_rule, averaging, source; each may be empty.

Only dataset, bpp and psnr_db are required. `anchor`, `psnr_rgb_db` and `image_or_mean` are taken for `codec`,
`psnr_db` and `image`.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from analysis.errors import AnalysisError

FACT_COLUMNS = ("encoder", "version", "colour", "psnr_rule", "averaging", "source")
ANCHOR_COLUMNS = ("codec", "dataset", "image", "setting", "bpp", "psnr_db", "ms_ssim", *FACT_COLUMNS)
NEEDED = ("bpp", "psnr_db", "dataset")
MEAN = "mean"

# What trials are measured by; an anchor that states these words was measured alike.
PSNR_RULE = "8-bit RGB against the source image"
AVERAGING = "mean of per-image PSNR and bpp"

_IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".ppm",
    ".avif",
    ".heic",
    ".jxl",
)
_OTHER_NAMES = {"anchor": "codec", "psnr_rgb_db": "psnr_db", "image_or_mean": "image"}


@dataclasses.dataclass(frozen=True)
class Point:
    """One row. image: '' for a mean over the set. facts: FACT_COLUMNS -> text, '' where not stated."""

    codec: str
    dataset: str
    image: str
    setting: str
    bpp: float
    psnr_db: float
    facts: Mapping[str, str]


def image_name(file_name: str) -> str:
    """What an image is called here: kodim01 for kodim01.png or folder/kodim01.png."""
    path = PurePosixPath(file_name)
    return path.stem if path.suffix.lower() in _IMAGE_SUFFIXES else path.name


def read_points(path: Path) -> list[Point]:
    """All rows of a file, checked one by one; AnalysisError names the file, the row and what is wrong."""
    rows = _read(path)
    missing = [name for name in NEEDED if not rows or name not in rows[0]]
    if missing:
        raise AnalysisError(f"anchor file {path} lacks {', '.join(missing)}; needs bpp, psnr_db and dataset")
    points = [_point(row, f"anchor file {path}, row {number}") for number, row in enumerate(rows, start=1)]
    _refuse_repetition(points, path)
    return points


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise AnalysisError(f"anchor file {path} is not readable as CSV in UTF-8: {error}") from None
    return [
        {
            _OTHER_NAMES.get(key, key): (value or "").strip()
            for key, value in row.items()
            if isinstance(key, str)
        }
        for row in rows
    ]


def _point(row: Mapping[str, str], where: str) -> Point:
    empty = [name for name in NEEDED if not row[name]]
    if empty:
        raise AnalysisError(f"{where}: lacks {', '.join(empty)}")
    try:
        bpp, psnr_db = float(row["bpp"]), float(row["psnr_db"])
    except ValueError as error:
        raise AnalysisError(f"{where}: bpp and psnr_db must be numbers ({error})") from None
    if not (bpp > 0 and math.isfinite(bpp) and math.isfinite(psnr_db)):
        raise AnalysisError(
            f"{where}: is the point ({bpp} bpp, {psnr_db} dB); bpp must be greater than 0 and both finite"
        )
    image = image_name(row.get("image", ""))
    return Point(
        codec=row.get("codec", ""),
        dataset=row["dataset"],
        image="" if image == MEAN else image,
        setting=row.get("setting", ""),
        bpp=bpp,
        psnr_db=psnr_db,
        facts={name: row.get(name, "") for name in FACT_COLUMNS},
    )


def _refuse_repetition(points: list[Point], path: Path) -> None:
    seen = set()
    for point in points:
        key = (point.codec, point.dataset, point.image, point.setting)
        if point.setting and key in seen:
            of = f"{point.codec or 'a codec'} on {point.image or point.dataset}"
            raise AnalysisError(f"anchor file {path} has {of} at {point.setting} twice; keep one of the rows")
        seen.add(key)
