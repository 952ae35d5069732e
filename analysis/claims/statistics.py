"""Bootstrap intervals that stay honest with few units, one-sided p-values that agree with them, and Holm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.errors import AnalysisError

Array = npt.NDArray[np.float64]

DRAWS = 4000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True, eq=False)
class Quantity:
    """An estimate with its bootstrap draws.

    draws: (b,) or None where no noise is known. units: how many independent units were resampled, the fewest
        of several kinds; inf where the draws are not those of a bootstrap. exact: counted, not measured.
    is_share: a percentage of pairs among `units` architectures: where no draw leaves 0, the upper end is the
        exact binomial one for `units` trials without an event, and likewise at 100.
    """

    name: str
    unit: str
    estimate: float
    draws: Array | None = None
    units: float = math.inf
    exact: bool = False
    is_share: bool = False

    @property
    def has_interval(self) -> bool:
        return self.exact or self.draws is not None

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Expanded percentile interval: the plain one is too narrow for few units.

        Its quantiles are moved from those of a normal to those of Student's t, and by sqrt(n / (n - 1)) for
        the variance with n instead of n - 1 (Hesterberg 2015, "What teachers should know about the
        bootstrap", section 3.3). NaN without draws.
        """
        if self.exact:
            return self.estimate, self.estimate
        if self.draws is None:
            return math.nan, math.nan
        tail = (1 - level) / 2
        low, high = np.quantile(self.draws, [_expanded(tail, self.units), 1 - _expanded(tail, self.units)])
        if self.is_share:
            nothing_seen = 100 * (1 - tail ** (1 / self.units))
            high = nothing_seen if self.draws.max() <= 0 else high
            low = 100 - nothing_seen if self.draws.min() >= 100 else low
        return float(low), float(high)

    def p_above(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the quantity does not exceed the bound."""
        return self._p(bound, 1)

    def p_below(self, bound: float) -> float:
        return self._p(bound, -1)

    def _p(self, bound: float, sign: int) -> float:
        if self.exact:
            return 0.0 if sign * (self.estimate - bound) > 0 else 1.0
        if self.draws is None:
            return math.nan
        if self.is_share and self.draws.max() <= 0:
            return 1.0 if sign > 0 else float((1 - bound / 100) ** self.units)
        if self.is_share and self.draws.min() >= 100:
            return 1.0 if sign < 0 else float((bound / 100) ** self.units)
        wrong = np.count_nonzero(sign * (self.draws - bound) <= 0)
        return _contracted((wrong + 1) / (len(self.draws) + 1), self.units)


def _expanded(tail: float, units: float) -> float:
    """The quantile of the draws that stands for a tail of the interval."""
    if math.isinf(units):
        return tail
    if units < 2:
        raise AssertionError("an interval needs at least two units")
    width = -stats.t.ppf(tail, units - 1) * math.sqrt(units / (units - 1))
    return float(stats.norm.cdf(-width))


def _contracted(tail: float, units: float) -> float:
    """Inverse of `_expanded`: the p-value that a share of the draws stands for."""
    if math.isinf(units):
        return min(1.0, tail)
    width = -stats.norm.ppf(min(tail, 1 - 1e-12)) / math.sqrt(units / (units - 1))
    return float(stats.t.sf(width, units - 1))


def image_draws(scores: Array, draws: int, rng: np.random.Generator) -> Array:
    """scores: (architectures, images) -> (draws, architectures): means over images drawn with replacement.

    Every draw takes the same images for all architectures, so that differences stay paired.
    """
    images = scores.shape[1]
    counts = rng.multinomial(images, np.full(images, 1 / images), size=draws)
    return np.asarray(counts @ scores.T / images)


def half_draws(
    scores: Array, draws: int, rng: np.random.Generator, *, resample: bool = True
) -> tuple[Array, Array]:
    """Two (draws, architectures) arrays of means over disjoint random halves of the images of each draw.

    What is chosen for being best on one half is judged on the other: on the same images the choice itself
    would look like quality, the more so the more there is to choose from. resample: draw images with
    replacement first. A half that a draw leaves empty is replaced by the whole.
    """
    images = scores.shape[1]
    counts = np.ones((draws, images))
    if resample:
        counts = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
    in_first = rng.permuted(np.tile(np.arange(images) < images // 2, (draws, 1)), axis=1)
    halves = []
    for mask in (in_first, ~in_first):
        taken = counts * mask
        taken = np.where(taken.any(axis=1, keepdims=True), taken, counts)
        halves.append(np.asarray(taken @ scores.T / taken.sum(axis=1, keepdims=True)))
    return halves[0], halves[1]


def seed_factors(sd: float, freedom: int, seeds: Array, draws: int, rng: np.random.Generator) -> Array:
    """(draws, architectures): factors exp(noise) on losses, as other training seeds would change them.

    sd: of ln loss between seeds, pooled over architectures with `freedom` degrees; each draw takes an sd that
    the pooled one is compatible with, so that differences follow Student's t. seeds: averaged by each.
    """
    spread = sd * np.sqrt(freedom / rng.chisquare(freedom, size=(draws, 1)))
    return np.asarray(np.exp(spread * rng.standard_normal((draws, len(seeds))) / np.sqrt(seeds)))


def pooled_sd(groups: Sequence[Array]) -> tuple[float, int]:
    """Standard deviation within groups and its degrees of freedom; (nan, 0) without a repeated one."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return math.nan, 0
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in repeated)
    return math.sqrt(squares / freedom), freedom


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): the k-th smallest times (m + 1 - k), never falling, at most 1."""
    if any(not 0 <= p <= 1 for p in p_values):
        raise AnalysisError(f"p-values {list(p_values)}: must lie between 0 and 1")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
