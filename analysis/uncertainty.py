"""How sure a frontier is: a paired bootstrap over the evaluation images, and over seeds if there are several.

Images differ far more from each other than architectures do on one image, so every architecture is given the
same resampled images (a paired comparison, as recommended for means over common test items by Efron &
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 16). Seeds of an architecture are resampled apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import AnalysisError
from analysis.objectives import costs, sign
from analysis.pareto import frontier_mask
from analysis.schema import column

# Scores that are plain means over images of what analysis.images holds.
IMAGE_MEANS = ("rd_loss", "bpp", "psnr_db", "mse", "ms_ssim")
INTERVAL_PCT = (2.5, 97.5)
# From this probability on a dominated architecture may well belong on the frontier.
NEAR = 0.05

# Numbers held at a time, in float64: 64 MB.
_BLOCK = 1 << 23
# A trial's stated mean and the mean of its images' scores differ by rounding alone.
_SAME = 1e-6

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """resamples: how many. seed: of the random numbers; the same seed gives the same probabilities."""

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.resamples <= 1_000_000:
            raise AnalysisError(f"--resamples {self.resamples}: must lie between 1 and 1,000,000")
        if self.seed < 0:
            raise AnalysisError(f"--seed {self.seed}: must be 0 or greater")


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Per architecture, in their order; NaN throughout where `missing` says why there is nothing.

    probability: share of the resamples in which it is on the frontier. rd_loss_low, rd_loss_high: percentile
    interval of its rd_loss. text: what was resampled, and what therefore is not covered.
    """

    probability: Floats
    rd_loss_low: Floats
    rd_loss_high: Floats
    text: str = ""
    missing: str = ""


class _MissingError(Exception):
    """Why there is nothing to resample, in one line."""


@dataclasses.dataclass(frozen=True)
class _Sample:
    """Per-image scores of the compared trials, sorted by architecture, and how often each counts.

    scores: column -> (trials, images). starts: (architectures,) first trial of each. image_counts:
    (resamples, images). seed_counts: (resamples, trials), None where each architecture has one trial.
    """

    scores: dict[str, Floats]
    starts: npt.NDArray[np.int64]
    image_counts: Floats
    seed_counts: npt.NDArray[np.uint8] | None

    def means(self, name: str, resamples: slice, trials: slice = slice(None)) -> Floats:
        """(resamples, architectures): mean over the drawn images, then over the drawn seeds.

        trials: must begin and end with an architecture.
        """
        drawn = self.image_counts[resamples]
        means = drawn @ self.scores[name][trials].T / drawn.shape[1]
        if self.seed_counts is None:
            return means
        counts = self.seed_counts[resamples, trials]
        first = trials.start or 0
        inside = (self.starts >= first) & (self.starts < first + means.shape[1])
        starts = self.starts[inside] - first
        sums = np.add.reduceat(means * counts, starts, axis=1)
        return sums / np.diff(starts, append=means.shape[1])


def bootstrap(
    trials: pd.DataFrame,
    architectures: pd.DataFrame,
    images: pd.DataFrame,
    objectives: Sequence[str],
    settings: Bootstrap | None = None,
) -> Uncertainty:
    """trials: the compared ones. architectures: their means over seeds. images: as of analysis.images.

    Objectives that do not depend on the images stay as they are. Without per-image scores of every compared
    trial there is no number, and `missing` says why.
    """
    settings = settings or Bootstrap()
    nothing = np.full(len(architectures), np.nan)
    if architectures.empty:
        return Uncertainty(nothing, nothing, nothing)
    # Sorted, so that the order in which trials were read is of no influence.
    ids = ["arch_id", "curve_id"]
    order = np.lexsort([architectures[name].to_numpy(dtype=str) for name in ids[::-1]])
    rows = architectures.iloc[order]
    try:
        varying = _varying(objectives)
        wanted = list(dict.fromkeys([*varying, "rd_loss"]))
        sample = _sample(trials.sort_values([*ids, "spec_id"]), images, wanted, settings)
        probability = _probability(sample, rows, objectives, varying, settings)
    except _MissingError as reason:
        return Uncertainty(nothing, nothing, nothing, missing=str(reason))
    low, high = _interval(sample, settings)
    back = np.argsort(order)
    text = _text(sample, settings)
    return Uncertainty(probability[back], low[back], high[back], text)


def _varying(objectives: Sequence[str]) -> list[str]:
    """The objectives that are means over images."""
    varying = [name for name in objectives if name in IMAGE_MEANS]
    for name in objectives:
        col = column(name)
        if name not in IMAGE_MEANS and (col.path.startswith("evaluation.") or name.startswith("rate_saving")):
            raise _MissingError(
                f"{name} depends on the images, but no plain mean of scores per image gives it"
            )
    if not varying:
        raise _MissingError(f"{' and '.join(objectives)} do not depend on the evaluation images")
    return varying


def _sample(trials: pd.DataFrame, images: pd.DataFrame, names: Sequence[str], settings: Bootstrap) -> _Sample:
    scores = _scores(trials, images, names)
    count = next(iter(scores.values())).shape[1]
    first = ~trials.duplicated(["arch_id", "curve_id"]).to_numpy()
    starts = np.flatnonzero(first).astype(np.int64)
    for_images, for_seeds = np.random.default_rng(settings.seed).spawn(2)
    image_counts = for_images.multinomial(count, np.full(count, 1 / count), settings.resamples)
    seed_counts = _seed_counts(np.diff(starts, append=len(trials)), for_seeds, settings.resamples)
    return _Sample(scores, starts, image_counts.astype(np.float64), seed_counts)


def _scores(trials: pd.DataFrame, images: pd.DataFrame, names: Sequence[str]) -> dict[str, Floats]:
    """Column -> (trials, images), images by name; a reason if one is missing or does not fit its mean."""
    wanted = images[images["spec_id"].isin(trials["spec_id"])]
    if wanted.empty:
        raise _MissingError("the source holds no scores per image")
    places = pd.Index(trials["spec_id"]).get_indexer(wanted["spec_id"])
    image, image_names = pd.factorize(wanted["image"], sort=True)
    if len(image_names) < 2:
        raise _MissingError("one evaluation image leaves nothing to resample")
    found = {}
    for name in names:
        values = np.full((len(trials), len(image_names)), np.nan)
        values[places, image] = wanted[name].to_numpy(dtype=np.float64)
        lacking = ~np.isfinite(values).all(axis=1)
        if lacking.any() or len(wanted) != values.size:
            label = trials["label"].iloc[int(np.argmax(lacking))]
            raise _MissingError(
                f"{int(lacking.sum()) or 'some'} of {len(trials)} trials, such as {label}, lack {name} of "
                f"one of {len(image_names)} images, or have it twice"
            )
        stated = trials[name].to_numpy(dtype=np.float64)
        away = ~np.isclose(values.mean(axis=1), stated, rtol=_SAME, atol=_SAME * 1e-3)
        if away.any():
            label = trials["label"].iloc[int(np.argmax(away))]
            raise _MissingError(f"the scores per image of {label} do not have its {name} as their mean")
        found[name] = values
    return found


def _seed_counts(
    sizes: npt.NDArray[np.int64], random: np.random.Generator, resamples: int
) -> npt.NDArray[np.uint8] | None:
    """(resamples, trials): how often each seed of its architecture was drawn, as many as there are."""
    if (sizes == 1).all():
        return None
    counts = np.ones((resamples, int(sizes.sum())), dtype=np.uint8)
    ends = np.cumsum(sizes)
    for size, end in zip(sizes, ends, strict=True):
        if size > 1:
            counts[:, end - size : end] = random.multinomial(size, np.full(size, 1 / size), resamples)
    return counts


def _probability(
    sample: _Sample,
    rows: pd.DataFrame,
    objectives: Sequence[str],
    varying: Sequence[str],
    settings: Bootstrap,
) -> Floats:
    """(architectures,) share of the resamples in which each is on the frontier."""
    cost = costs(rows, objectives)
    fixed = [k for k, name in enumerate(objectives) if name not in varying]
    hits = np.zeros(len(rows), dtype=np.int64)
    size = max(1, _BLOCK // (max(1, len(varying)) * max(len(rows), sample.image_counts.shape[1])))
    for start in range(0, settings.resamples, size):
        part = slice(start, min(start + size, settings.resamples))
        drawn = {name: sample.means(name, part) * sign(name) for name in varying}
        if len(objectives) == 2 and len(fixed) == 1:
            hits += frontier_counts(cost[:, fixed[0]], drawn[varying[0]])
        else:
            hits += _frontier_counts(cost, objectives, drawn)
    return hits / settings.resamples


def frontier_counts(fixed: Floats, drawn: Floats) -> npt.NDArray[np.int64]:
    """(n,): in how many of the rows of `drawn` (resamples, n) each column is non-dominated in (fixed, drawn).

    With one cost fixed its order is the same in every resample: on the frontier is who is the best of those
    that cost as much, and better than all that cost less.
    """
    order = np.argsort(fixed, kind="stable")
    is_first = np.diff(fixed[order], prepend=-np.inf) > 0
    starts, group = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    values = drawn[:, order]
    best = np.minimum.reduceat(values, starts, axis=1)
    cheaper = np.full_like(best, np.inf)
    np.minimum.accumulate(best[:, :-1], axis=1, out=cheaper[:, 1:])
    winning = np.where(best < cheaper, best, -np.inf)
    counts = np.empty(len(fixed), dtype=np.int64)
    counts[order] = (values == winning[:, group]).sum(axis=0)
    return counts


def _frontier_counts(
    cost: Floats, objectives: Sequence[str], drawn: dict[str, Floats]
) -> npt.NDArray[np.int64]:
    """The same for any objectives, one resample after the other."""
    counts = np.zeros(len(cost), dtype=np.int64)
    resampled = cost.copy()
    for row in range(len(next(iter(drawn.values())))):
        for k, name in enumerate(objectives):
            if name in drawn:
                resampled[:, k] = drawn[name][row]
        counts += frontier_mask(resampled)
    return counts


def _interval(sample: _Sample, settings: Bootstrap) -> tuple[Floats, Floats]:
    """(architectures,) ends of the percentile interval of rd_loss."""
    trials = sample.scores["rd_loss"].shape[0]
    size = max(1, _BLOCK // settings.resamples)
    cuts = [0]
    for start in sample.starts:
        if start - cuts[-1] >= size:
            cuts.append(int(start))
    ends = [
        np.percentile(sample.means("rd_loss", slice(None), slice(begin, end)), INTERVAL_PCT, axis=0)
        for begin, end in zip(cuts, [*cuts[1:], trials], strict=True)
    ]
    low, high = np.concatenate(ends, axis=1)
    return low, high


def _text(sample: _Sample, settings: Bootstrap) -> str:
    seeds = np.diff(sample.starts, append=sample.scores["rd_loss"].shape[0])
    images = sample.image_counts.shape[1]
    said = (
        f"share of {settings.resamples:,} resamples of the {images} evaluation images, the same for all "
        f"architectures (paired bootstrap, seed {settings.seed}), in which it is on the frontier"
    )
    if (seeds == 1).all():
        return f"{said}; one training seed each: how much another seed would change is not covered"
    if (seeds > 1).all():
        return f"{said}; its {_range(seeds)} training seeds are resampled too"
    single = int((seeds == 1).sum())
    return (
        f"{said}; training seeds are resampled too, but {single} of {len(seeds)} architectures have one: how "
        "much another seed would change these is not covered"
    )


def _range(numbers: npt.NDArray[np.int64]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return str(low) if low == high else f"{low} to {high}"
