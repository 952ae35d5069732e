"""Three correlations with 95 % confidence intervals: Pearson of logarithms, Spearman and Kendall of ranks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from analysis.errors import AnalysisError

MIN_MODELS = 4
_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A correlation and its interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Correlation:
    """pearson: of the logarithms, so that a power law has 1. spearman, kendall (tau b): of the orders."""

    n: int
    pearson: Estimate
    spearman: Estimate
    kendall: Estimate


def correlate(x: Iterable[float], y: Iterable[float]) -> Correlation:
    """Of positive numbers, at least MIN_MODELS pairs. AnalysisError for what has no correlation, and why.

    Intervals are those of Fisher's z, with the variance 1 / (n - 3) for Pearson, (1 + r^2 / 2) / (n - 3) for
    Spearman (Bonett & Wright, Psychometrika 65, 2000) and 0.437 / (n - 4) for Kendall (Fieller, Hartley &
    Pearson, Biometrika 44, 1957). They treat models as drawn at random from models like them.
    """
    from scipy import stats

    first, second = _positive(x, "the first quantity"), _positive(y, "the second quantity")
    if len(first) != len(second):
        raise AnalysisError(f"a correlation needs pairs, got {len(first)} and {len(second)} numbers")
    n = len(first)
    if n < MIN_MODELS:
        raise AnalysisError(f"{n} {'model' if n == 1 else 'models'}; a correlation needs {MIN_MODELS}")
    for values, name in ((first, "cost"), (second, "time")):
        if np.ptp(values) == 0:
            raise AnalysisError(f"all {n} models have the same {name}; nothing can go with it")
    pearson = _clip(float(stats.pearsonr(np.log(first), np.log(second)).statistic))
    spearman = _clip(float(stats.spearmanr(first, second).statistic))
    kendall = _clip(float(stats.kendalltau(first, second).statistic))
    return Correlation(
        n=n,
        pearson=_interval(pearson, 1 / (n - 3), closest=1 - 1e-12),
        # The most that a correlation of n ranks can be short of 1: two neighbours change places.
        spearman=_interval(spearman, (1 + spearman**2 / 2) / (n - 3), closest=1 - 12 / (n * (n**2 - 1))),
        kendall=_interval(kendall, 0.437 / (n - 4) if n > 4 else math.inf, closest=1 - 4 / (n * (n - 1))),
    )


def _positive(values: Iterable[float], name: str) -> Array:
    array = np.asarray(list(values), dtype=np.float64)
    if not (np.isfinite(array) & (array > 0)).all():
        raise AnalysisError(f"{name} has values that are not above 0; leave those models out")
    return array


def _clip(value: float) -> float:
    """Rounding may take a perfect correlation beyond 1."""
    return min(1.0, max(-1.0, value))


def _interval(value: float, variance: float, *, closest: float) -> Estimate:
    """By Fisher's z, in which a perfect correlation counts as the `closest` one that is not."""
    if math.isinf(variance):
        return Estimate(value, -1.0, 1.0)
    inside = min(closest, max(-closest, value))
    half = _Z_95 * math.sqrt(variance)
    low, high = math.tanh(math.atanh(inside) - half), math.tanh(math.atanh(inside) + half)
    return Estimate(value, min(low, value), max(high, value))
