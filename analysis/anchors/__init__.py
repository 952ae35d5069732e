"""Reference curves with their sources: curves.csv holds the points, facts.csv what a point means."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
from pathlib import Path

from analysis.bdrate import Curve
from analysis.errors import AnalysisError
from analysis.files import is_file, shorten

DEFAULT = "bpg"
_FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A reference curve, the images it was measured on, and how."""

    name: str
    title: str
    dataset: str
    curve: Curve
    source: str
    colour: str
    psnr_rule: str
    averaging: str
    note: str


def names() -> list[str]:
    """Anchors that come with the package, the default first."""
    return [row["anchor"] for row in _rows("facts.csv")]


def load_anchor(name: str) -> Anchor:
    """A shipped anchor by name, a CSV file with bpp, psnr_db and dataset, or a results JSON of CompressAI."""
    if name in names():
        return _shipped(name)
    path = Path(name)
    if path.suffix.lower() not in (".csv", ".json"):
        raise AnalysisError(
            f"anchor {shorten(name)!r} is not known; known: {', '.join(names())}, "
            "or the path of a .csv or .json file"
        )
    if not is_file(path):
        raise AnalysisError(f"anchor file {shorten(name)} does not exist")
    return _from_points(path, _csv_points(path) if path.suffix.lower() == ".csv" else _json_points(path))


@functools.cache
def _shipped(name: str) -> Anchor:
    facts = next(row for row in _rows("facts.csv") if row["anchor"] == name)
    points = [row for row in _rows("curves.csv") if row["anchor"] == name]
    return Anchor(
        name=name,
        title=facts["title"],
        dataset=points[0]["dataset"],
        curve=Curve(name, *_coordinates(points, name)),
        source=points[0]["source"],
        colour=facts["colour"],
        psnr_rule=facts["psnr_rule"],
        averaging=facts["averaging"],
        note=facts["note"],
    )


def _csv_points(path: Path) -> list[dict[str, str]]:
    return [
        {("psnr_db" if key == "psnr_rgb_db" else key): value for key, value in row.items()}
        for row in _read_foreign(path)
    ]


def _read_foreign(path: Path) -> list[dict[str, str]]:
    try:
        return _read(path)
    except (OSError, ValueError, csv.Error) as error:
        raise AnalysisError(f"anchor file {path} is not readable as CSV in UTF-8: {error}") from None


def _json_points(path: Path) -> list[dict[str, str]]:
    """Older files of CompressAI say psnr for psnr-rgb, and only their folder names the images."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        results = tree["results"]
        psnr_db = results["psnr-rgb"] if "psnr-rgb" in results else results["psnr"]
        dataset = tree.get("meta", {}).get("dataset") or path.resolve().parent.name
        pairs = list(zip(results["bpp"], psnr_db, strict=True))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnalysisError(f"anchor file {path} is no results JSON of CompressAI: {error!r}") from None
    return [{"bpp": str(x), "psnr_db": str(y), "dataset": dataset} for x, y in pairs]


def _from_points(path: Path, points: list[dict[str, str]]) -> Anchor:
    missing = [key for key in ("bpp", "psnr_db", "dataset") if not points or key not in points[0]]
    if missing:
        raise AnalysisError(f"anchor file {path} lacks {', '.join(missing)}; needs bpp, psnr_db and dataset")
    for number, row in enumerate(points, start=1):
        short = [key for key in ("bpp", "psnr_db", "dataset") if not row[key]]
        if short:
            raise AnalysisError(f"anchor file {path}, row {number}: lacks {', '.join(short)}")
    datasets = sorted({row["dataset"] for row in points})
    curves = sorted({row[key] or "" for key in ("codec", "anchor") for row in points if key in row})
    if len(datasets) > 1 or len(curves) > 1:
        raise AnalysisError(
            f"anchor file {path} mixes {', '.join([*datasets, *curves])}; keep one curve in a file"
        )
    return Anchor(
        name=path.stem,
        title=path.stem,
        dataset=datasets[0],
        curve=Curve(path.stem, *_coordinates(points, str(path))),
        source=points[0].get("source") or str(path),
        colour=points[0].get("colour") or "not stated",
        psnr_rule=points[0].get("psnr_rule") or "not stated",
        averaging=points[0].get("averaging") or "not stated",
        note="",
    )


def _coordinates(points: list[dict[str, str]], where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        bpp, psnr_db = (tuple(float(row[key]) for row in points) for key in ("bpp", "psnr_db"))
    except (TypeError, ValueError) as error:
        raise AnalysisError(f"anchor {where}: bpp and psnr_db must be numbers ({error})") from None
    return bpp, psnr_db


@functools.cache
def _rows(file_name: str) -> tuple[dict[str, str], ...]:
    return tuple(_read(_FOLDER / file_name))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
