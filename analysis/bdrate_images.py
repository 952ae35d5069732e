"""BD-rates and rate savings image by image, and their mean over images with its spread.

The mean over images of BD-rates weighs every image alike. A curve of means weighs the dear ones more, for
they make up most of the mean rate; so the two differ, and each is called by its name.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import pandas as pd

from analysis.anchors import Anchor
from analysis.anchors.table import image_name
from analysis.bdrate import Curve
from analysis.claims.statistics import Quantity, image_draws
from analysis.errors import AnalysisError
from analysis.settings import MAX_REFUSED_IMAGES

DRAWS = 1000
# From fewer images no interval of their mean is worth printing.
MIN_IMAGES = 5

Found = TypeVar("Found")
# Rate in bpp and PSNR in dB.
RatePoint = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Of one number per image. low, high: 95 % bootstrap interval of the mean over images; None for few."""

    mean: float
    median: float
    q25: float
    q75: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class PerImage(Generic[Found]):
    """found: image -> what came out. refused: image -> why nothing did."""

    found: Mapping[str, Found]
    refused: Mapping[str, str]


class ImageScores:
    """The rates and PSNRs of every image of every trial."""

    def __init__(self, images: pd.DataFrame) -> None:
        """images: the columns of analysis.images."""
        self._points: dict[str, list[tuple[str, RatePoint]]] = {}
        columns = (images[name].tolist() for name in ("spec_id", "image", "bpp", "psnr_db"))
        called = functools.cache(image_name)
        for spec_id, image, bpp, psnr_db in zip(*columns, strict=True):
            self._points.setdefault(spec_id, []).append((called(image), (bpp, psnr_db)))

    def points(self, label: str, spec_ids: Sequence[str]) -> dict[str, list[RatePoint]]:
        """Image -> one point per entry of spec_ids: of one trial, or the mean of seeds joined by ';'.

        Raises AnalysisError if a trial lacks scores, or has other images than the first.
        """
        every = [self._of_seeds(label, joined.split(";")) for joined in spec_ids]
        _require_same_images(label, every)
        return {image: [one[image] for one in every] for image in every[0]}

    def _of_seeds(self, label: str, spec_ids: Sequence[str]) -> dict[str, RatePoint]:
        seeds = []
        for spec_id in spec_ids:
            scores = self._points.get(spec_id, [])
            if not scores:
                raise AnalysisError(
                    f"{label}: trial {spec_id} has no scores of images; --average mean_curve needs none"
                )
            seeds.append(dict(scores))
            if len(seeds[-1]) < len(scores):
                raise AnalysisError(f"{label}: two of its images have one name without their extensions")
        _require_same_images(label, seeds)
        if len(seeds) == 1:
            return seeds[0]
        means = {image: np.mean([seed[image] for seed in seeds], axis=0) for image in seeds[0]}
        return {image: (float(bpp), float(psnr_db)) for image, (bpp, psnr_db) in means.items()}


def _require_same_images(label: str, every: Sequence[Mapping[str, RatePoint]]) -> None:
    for one in every:
        if one.keys() != every[0].keys():
            odd = sorted(one.keys() ^ every[0].keys())
            raise AnalysisError(f"{label}: its trials differ in images, such as {odd[0]}")


def per_image(
    label: str,
    points: Mapping[str, Sequence[RatePoint]],
    anchor: Anchor,
    compare: Callable[[Curve, str, Sequence[RatePoint]], Found],
) -> PerImage[Found]:
    """`compare` on every image. AnalysisError if the anchor was measured on others, or too many are refused.

    compare: takes the anchor's curve of an image, a name for ours, and our points there.
    """
    theirs = anchor.images.keys() | anchor.odd_images.keys()
    if odd := sorted(points.keys() ^ theirs):
        raise AnalysisError(
            f"{label} and {anchor.name} were measured on other images: {len(odd)} are not in both, "
            f"such as {odd[0]}"
        )
    found: dict[str, Found] = {}
    refused: dict[str, str] = {}
    for image in sorted(points):
        try:
            if image in anchor.odd_images:
                raise AnalysisError(anchor.odd_images[image])
            found[image] = compare(anchor.images[image], f"{label} on {image}", points[image])
        except AnalysisError as error:
            refused[image] = str(error)
    if len(refused) > MAX_REFUSED_IMAGES * len(points):
        first, why = next(iter(refused.items()))
        raise AnalysisError(
            f"{label}: {len(refused)} of {len(points)} images have no value, and a mean over the rest would "
            f"be of easier or harder images; {first}: {why}"
        )
    return PerImage(found, refused)


def spread(values: Sequence[float]) -> Spread:
    """values: one per image, at least one."""
    numbers = np.array(values)
    q25, median, q75 = np.quantile(numbers, (0.25, 0.5, 0.75))
    low = high = None
    if len(numbers) >= MIN_IMAGES:
        draws = image_draws(numbers[None, :], DRAWS, np.random.default_rng(0))[:, 0]
        low, high = Quantity("", "", float(numbers.mean()), draws, units=len(numbers)).interval()
    return Spread(float(numbers.mean()), float(median), float(q25), float(q75), low, high)
