"""BD-rates and rate savings of trials against anchors: one row each, with all that it stands for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.anchors import Anchor, names_with_images
from analysis.bdrate import BdPsnr, BdRate, Curve, bd_psnr, bd_rate, rate_saving_pct
from analysis.bdrate_images import ImageScores, RatePoint, per_image, spread
from analysis.curves import TrialCurve
from analysis.errors import AnalysisError
from analysis.rows import dataset_mismatch
from analysis.settings import Settings


def compare(
    curves: Sequence[TrialCurve],
    anchors: Sequence[Anchor],
    settings: Settings,
    images: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per curve or single point and anchor; `refused` says why a number is missing.

    images: per-image scores of the trials, the columns of analysis.images; needed to average per image.
    Raises AnalysisError if nothing was evaluated on any anchor's images.
    """
    scores = _image_scores(anchors, images) if settings.average == "per_image" else None
    rows = []
    for curve in curves:
        for part in [curve] if curve.is_curve else curve.single_points():
            about = _about(part, settings)
            points = None if scores is None else _points(part, scores)
            rows += [_compare(part, about, anchor, settings, points) for anchor in anchors]
    table = pd.DataFrame(rows)
    if table.empty:
        raise AnalysisError("no trial with status ok has bpp and psnr_db; there is nothing to compare")
    if (table["refused_for_dataset"]).all():
        raise AnalysisError(
            f"{table['refused'].iloc[0]}; name a curve measured on the same images with --anchor PATH.csv"
        )
    return table.drop(columns="refused_for_dataset")


def _image_scores(anchors: Sequence[Anchor], images: pd.DataFrame | None) -> ImageScores:
    for anchor in anchors:
        if not (anchor.images or anchor.odd_images):
            shipped = f"{', '.join(names_with_images())}, or " if names_with_images() else ""
            raise AnalysisError(
                f"--average per_image: {anchor.name} has no points of single images; name {shipped}a CSV "
                "that has, as `python -m analysis anchors` writes it, with --anchor"
            )
    if images is None or images.empty:
        raise AnalysisError(
            "--average per_image: the source holds no scores of single images; name the sweep folder itself"
        )
    return ImageScores(images)


# What a row of ours has per image, or why it has none.
_Points = dict[str, list[RatePoint]] | AnalysisError


def _points(curve: TrialCurve, scores: ImageScores) -> _Points:
    try:
        points = scores.points(curve.label, curve.values("spec_id"))
    except AnalysisError as error:
        return error
    wanted = curve.values("eval_images")[0]
    if not pd.isna(wanted) and int(wanted) != len(points):
        return AnalysisError(
            f"{curve.label}: has scores of {len(points)} images, was evaluated on {int(wanted)}"
        )
    return points


def _about(curve: TrialCurve, settings: Settings) -> dict[str, object]:
    """What a row of the comparison says apart from its anchor."""
    bpp, psnr_db = curve.values("bpp"), curve.values("psnr_db")
    return {
        "kind": "curve" if curve.is_curve else "point",
        **{name: curve.values(name)[0] for name in _COPIED},
        "warm_started": curve.values("warm_start")[0] != "",
        "points": len(bpp),
        "lmbdas": " ".join(f"{lmbda:g}" for lmbda in curve.values("lmbda")),
        "bpp_low": min(bpp),
        "bpp_high": max(bpp),
        "psnr_low_db": min(psnr_db),
        "psnr_high_db": max(psnr_db),
        "method": settings.method,
        "average": settings.average,
        "min_bpp": settings.min_bpp,
        "max_bpp": settings.max_bpp,
    }


_COPIED = (
    "label", "family", "arch_id", "curve_id", "budget", "budget_id", "steps", "percent_of_paper_steps",
    "dataset", "eval_images", "kflop_per_px_dec",
)  # fmt: skip
# Empty until computed; in the order of the table.
_RESULT: dict[str, Any] = {
    "bd_rate_pct": None,
    "bd_psnr_db": None,
    "rate_saving_pct": None,
    "range_low_db": None,
    "range_high_db": None,
    "range_low_bpp": None,
    "range_high_bpp": None,
    "overlap_pct": None,
    "bd_psnr_low_bpp": None,
    "bd_psnr_high_bpp": None,
    "images": None,
    "images_refused": "",
    "median_pct": None,
    "q25_pct": None,
    "q75_pct": None,
    "ci95_low_pct": None,
    "ci95_high_pct": None,
}


def _compare(
    curve: TrialCurve,
    about: dict[str, object],
    anchor: Anchor,
    settings: Settings,
    points: _Points | None,
) -> dict[str, object]:
    found = {
        **about,
        "anchor": anchor.name,
        "anchor_points": len(anchor.curve.bpp),
        **_RESULT,
        "refused": "",
        "refused_for_dataset": False,
        "note": "",
        "anchor_caution": anchor.caution,
        "anchor_source": anchor.source,
    }
    mismatch = _mismatch(about, anchor)
    if mismatch:
        return found | {"refused": f"{anchor.name}: {mismatch}", "refused_for_dataset": True}
    try:
        if isinstance(points, AnalysisError):
            raise points
        if curve.is_curve:
            return found | (
                _bd(curve, anchor, settings)
                if points is None
                else _bd_images(curve, anchor, settings, points)
            )
        return found | (
            _saving(curve, anchor, settings)
            if points is None
            else _saving_images(curve, anchor, settings, points)
        )
    except AnalysisError as error:
        return found | {"refused": str(error)}


def _mismatch(about: dict[str, object], anchor: Anchor) -> str:
    """Why the images are not the anchor's; '' if nothing speaks against it."""
    other = dataset_mismatch(about, anchor.dataset)
    images: Any = about["eval_images"]
    if other or pd.isna(images) or anchor.image_count in (None, int(images)):
        return other
    return f"anchor is the mean over {anchor.image_count} images, evaluation has {int(images)}"


def _bd(curve: TrialCurve, anchor: Anchor, settings: Settings) -> dict[str, object]:
    own = curve.curve()
    result = _bd_rate(settings)(anchor.curve, own)
    found = {"bd_rate_pct": result.bd_rate_pct, **_ranges([result])}
    try:
        return found | _psnr_change([_bd_psnr(settings)(anchor.curve, own)])
    except AnalysisError as error:
        return found | {"note": f"no BD-PSNR: {error}"}


def _bd_images(
    curve: TrialCurve, anchor: Anchor, settings: Settings, points: dict[str, list[RatePoint]]
) -> dict[str, object]:
    curve.require_alike()
    rates = per_image(
        curve.label, points, anchor, lambda theirs, name, own: _bd_rate(settings)(theirs, _curve(name, own))
    )
    changes = [result.bd_rate_pct for result in rates.found.values()]
    found = {
        **_ranges(list(rates.found.values())),
        **_over_images("bd_rate_pct", changes, rates.refused),
    }
    try:
        psnrs = per_image(
            curve.label,
            points,
            anchor,
            lambda theirs, name, own: _bd_psnr(settings)(theirs, _curve(name, own)),
        )
        return found | _psnr_change(list(psnrs.found.values()))
    except AnalysisError as error:
        return found | {"note": f"no BD-PSNR: {error}"}


def _saving(curve: TrialCurve, anchor: Anchor, settings: Settings) -> dict[str, object]:
    ((bpp,), (psnr_db,)) = curve.values("bpp"), curve.values("psnr_db")
    saving = rate_saving_pct(anchor.curve, bpp=bpp, psnr_db=psnr_db, method=settings.method)
    return {"rate_saving_pct": saving}


def _saving_images(
    curve: TrialCurve, anchor: Anchor, settings: Settings, points: dict[str, list[RatePoint]]
) -> dict[str, object]:
    def saving(theirs: Curve, _: str, own: Sequence[RatePoint]) -> float:
        return rate_saving_pct(theirs, bpp=own[0][0], psnr_db=own[0][1], method=settings.method)

    savings = per_image(curve.label, points, anchor, saving)
    return _over_images("rate_saving_pct", list(savings.found.values()), savings.refused)


def _bd_rate(settings: Settings) -> functools.partial[BdRate]:
    return functools.partial(bd_rate, **_options(settings))


def _bd_psnr(settings: Settings) -> functools.partial[BdPsnr]:
    return functools.partial(bd_psnr, **_options(settings))


def _options(settings: Settings) -> dict[str, Any]:
    names = ("method", "min_bpp", "max_bpp", "min_overlap")
    return {name: getattr(settings, name) for name in names}


def _curve(name: str, points: Sequence[RatePoint]) -> Curve:
    return Curve(name, tuple(bpp for bpp, _ in points), tuple(psnr_db for _, psnr_db in points))


def _ranges(results: Sequence[BdRate]) -> dict[str, object]:
    """Of several images: what their ranges span, and the mean overlap."""
    return {
        "range_low_db": min(result.psnr_low_db for result in results),
        "range_high_db": max(result.psnr_high_db for result in results),
        "range_low_bpp": min(result.bpp_low for result in results),
        "range_high_bpp": max(result.bpp_high for result in results),
        "overlap_pct": 100 * float(np.mean([result.overlap for result in results])),
    }


def _psnr_change(results: Sequence[BdPsnr]) -> dict[str, object]:
    return {
        "bd_psnr_db": float(np.mean([result.bd_psnr_db for result in results])),
        "bd_psnr_low_bpp": min(result.bpp_low for result in results),
        "bd_psnr_high_bpp": max(result.bpp_high for result in results),
    }


def _over_images(name: str, values: Sequence[float], refused: Mapping[str, str]) -> dict[str, object]:
    found = spread(values)
    return {
        name: found.mean,
        "images": len(values),
        "images_refused": ";".join(refused),
        "median_pct": found.median,
        "q25_pct": found.q25,
        "q75_pct": found.q75,
        "ci95_low_pct": found.low,
        "ci95_high_pct": found.high,
    }
