"""Reference curves with their sources, shipped or read from a file.

curves.csv holds published points and facts.csv what they mean; measured_kodak.csv, where there is one, holds
per-image points of codecs that were run for this package, in the format of `table`.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.anchors.table import AVERAGING, FACT_COLUMNS, PSNR_RULE, Point, read_points
from analysis.bdrate import Curve
from analysis.errors import AnalysisError
from analysis.files import is_file, shorten

DEFAULT = "bpg"
_FOLDER = Path(__file__).parent
_MEASURED = _FOLDER / "measured_kodak.csv"
_NOT_STATED = "not stated"
_KODAK_IMAGES = 24
# A mean row and the mean of its images' rows may differ by the digits that files are written with.
_SAME_BPP_SHARE = 1e-3
_SAME_PSNR_DB = 5e-3


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A reference curve, the images it was measured on, and how.

    curve: of means over the set. images: image -> its own curve, empty where only means are known.
    odd_images: image -> why it has no curve.
    """

    name: str
    title: str
    dataset: str
    curve: Curve
    source: str
    colour: str
    psnr_rule: str
    averaging: str
    note: str
    images: Mapping[str, Curve] = dataclasses.field(default_factory=dict, hash=False)
    odd_images: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def image_count(self) -> int | None:
        """How many images the curve is a mean of, where that is known."""
        return len(self.images) + len(self.odd_images) or (_KODAK_IMAGES if self.dataset == "kodak" else None)

    @property
    def caution(self) -> str:
        """What its PSNR is, if it is not that of trials; '' if it is."""
        if self.psnr_rule == PSNR_RULE:
            return ""
        return f"PSNR of {self.name} is {self.psnr_rule}; that of trials is {PSNR_RULE}"


def names() -> list[str]:
    """Anchors that come with the package, the default first."""
    return list(_names())


def names_with_images() -> list[str]:
    """Those of `names` that have points of single images."""
    return list(dict.fromkeys(point.codec for point in _measured() if point.image))


def load_anchor(name: str) -> Anchor:
    """A shipped anchor by name, PATH.csv, PATH.csv:CODEC of several, or a results JSON of CompressAI."""
    if name in names():
        return _shipped(name)
    path, codec = _split(name)
    if path.suffix.lower() not in (".csv", ".json"):
        raise AnalysisError(
            f"anchor {shorten(name)!r} is not known; known: {', '.join(names())}, "
            "or the path of a .csv or .json file"
        )
    if not is_file(path):
        raise AnalysisError(f"anchor file {shorten(str(path))} does not exist")
    if path.suffix.lower() == ".json":
        return _anchor(path.stem, _json_points(path), f"anchor file {path}")
    return _anchor_of_table(path, codec)


def _split(name: str) -> tuple[Path, str]:
    """PATH and CODEC of PATH.csv:CODEC; a file that is really called so is taken as it is."""
    front, colon, codec = name.rpartition(":")
    if colon and front.lower().endswith(".csv") and not is_file(Path(name)):
        return Path(front), codec
    return Path(name), ""


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(dict.fromkeys([*(row["anchor"] for row in _facts()), *(p.codec for p in _measured())]))


@functools.cache
def _shipped(name: str) -> Anchor:
    facts = next((row for row in _facts() if row["anchor"] == name), {})
    every = _published() if any(point.codec == name for point in _published()) else _measured()
    points = [point for point in every if point.codec == name]
    anchor = _anchor(name, points, f"shipped anchor {name}")
    if not facts:
        return anchor
    return dataclasses.replace(
        anchor,
        title=facts["title"],
        colour=facts["colour"] or anchor.colour,
        psnr_rule=facts["psnr_rule"] or anchor.psnr_rule,
        averaging=facts["averaging"] or anchor.averaging,
        note=facts["note"],
    )


def _anchor_of_table(path: Path, codec: str) -> Anchor:
    points = read_points(path)
    known = list(dict.fromkeys(point.codec for point in points))
    if codec and codec not in known:
        raise AnalysisError(f"anchor file {path} has no codec {codec!r}; it has {', '.join(known)}")
    if len(known) > 1 and not codec:
        choices = ", ".join(f"{path}:{name}" for name in known[:8])
        raise AnalysisError(f"anchor file {path} holds {len(known)} codecs; name one: {choices}")
    chosen = [point for point in points if not codec or point.codec == codec]
    return _anchor(f"{path.stem}:{codec}" if codec else path.stem, chosen, f"anchor file {path}")


def _json_points(path: Path) -> list[Point]:
    """Older files of CompressAI say psnr for psnr-rgb, and only their folder names the images."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        results = tree["results"]
        psnr_db = results["psnr-rgb"] if "psnr-rgb" in results else results["psnr"]
        dataset = tree.get("meta", {}).get("dataset") or path.resolve().parent.name
        pairs = [(float(x), float(y)) for x, y in zip(results["bpp"], psnr_db, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnalysisError(f"anchor file {path} is no results JSON of CompressAI: {error!r}") from None
    return [Point("", dataset, "", "", x, y, dict.fromkeys(FACT_COLUMNS, "")) for x, y in pairs]


def _anchor(name: str, points: Sequence[Point], where: str) -> Anchor:
    datasets = sorted({point.dataset for point in points})
    if len(datasets) > 1:
        raise AnalysisError(f"{where} mixes {', '.join(datasets)}; keep one set of images in a file")
    by_image: dict[str, list[Point]] = {}
    for point in points:
        by_image.setdefault(point.image, []).append(point)
    means = by_image.pop("", [])
    if by_image:
        means = _means(by_image, means, where)
    images, odd_images = _image_curves(name, by_image)
    if datasets == ["kodak"] and by_image and len(by_image) != _KODAK_IMAGES:
        raise AnalysisError(
            f"{where} has {len(by_image)} images and calls them kodak, which has {_KODAK_IMAGES}; "
            "give part of a set another name"
        )
    facts = {key: text for key in FACT_COLUMNS if (text := points[0].facts.get(key, ""))} if points else {}
    computed = f"{AVERAGING}, computed from those of {len(by_image)} images" if by_image else _NOT_STATED
    encoder = " ".join(facts[key] for key in ("encoder", "version") if key in facts)
    return Anchor(
        name=name,
        title=f"{name} ({encoder})" if encoder else name,
        dataset="".join(datasets),
        curve=_curve(name, means),
        source=facts.get("source") or where.removeprefix("anchor file "),
        colour=facts.get("colour") or _NOT_STATED,
        psnr_rule=facts.get("psnr_rule") or _NOT_STATED,
        averaging=computed if by_image else facts.get("averaging") or _NOT_STATED,
        note="",
        images=images,
        odd_images=odd_images,
    )


def _means(by_image: Mapping[str, Sequence[Point]], stated: Sequence[Point], where: str) -> list[Point]:
    """One point per setting: mean of the images' bpp and of their PSNR. Stated means must be the same."""
    by_setting: dict[str, list[Point]] = {}
    for points in by_image.values():
        for point in points:
            by_setting.setdefault(point.setting, []).append(point)
    means = []
    for setting, points in by_setting.items():
        if not setting:
            raise AnalysisError(f"{where} gives no setting for points of images; it pairs the images' points")
        lacking = sorted(set(by_image) - {point.image for point in points})
        if lacking:
            raise AnalysisError(
                f"{where} has no point at {setting} for {', '.join(lacking[:4])}; every setting needs all "
                f"{len(by_image)} images"
            )
        bpp = sum(point.bpp for point in points) / len(points)
        psnr_db = sum(point.psnr_db for point in points) / len(points)
        means.append(dataclasses.replace(points[0], image="", bpp=bpp, psnr_db=psnr_db))
    by_name = {point.setting: point for point in means}
    for given in stated:
        found = by_name.get(given.setting)
        if found is None or not _same(given, found):
            computed = f"{found.bpp:.4f} bpp, {found.psnr_db:.3f} dB" if found else "nothing"
            raise AnalysisError(
                f"{where} states a mean of {given.bpp:.4f} bpp, {given.psnr_db:.3f} dB at {given.setting}, "
                f"its images give {computed}; leave the mean rows out"
            )
    return means


def _same(one: Point, other: Point) -> bool:
    near_bpp = abs(one.bpp - other.bpp) <= _SAME_BPP_SHARE * other.bpp
    return near_bpp and abs(one.psnr_db - other.psnr_db) <= _SAME_PSNR_DB


def _image_curves(
    name: str, by_image: Mapping[str, Sequence[Point]]
) -> tuple[dict[str, Curve], dict[str, str]]:
    curves, odd = {}, {}
    for image, points in by_image.items():
        try:
            curves[image] = _curve(f"{name} on {image}", points)
        except AnalysisError as error:
            odd[image] = str(error)
    return curves, odd


def _curve(name: str, points: Sequence[Point]) -> Curve:
    return Curve(name, tuple(point.bpp for point in points), tuple(point.psnr_db for point in points))


@functools.cache
def _published() -> tuple[Point, ...]:
    return tuple(read_points(_FOLDER / "curves.csv"))


@functools.cache
def _measured() -> tuple[Point, ...]:
    return tuple(read_points(_MEASURED)) if _MEASURED.is_file() else ()


@functools.cache
def _facts() -> tuple[dict[str, str], ...]:
    with (_FOLDER / "facts.csv").open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))
