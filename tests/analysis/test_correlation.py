"""Correlations, inversions and rooflines against slow definitions and numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.correlation import correlate
from analysis.errors import AnalysisError
from analysis.ranks import Measured, inversions
from analysis.roofline import fit, with_prediction

values = st.lists(st.integers(1, 30), min_size=5, max_size=9)


def slow_ranks(numbers: list[int]) -> list[float]:
    """Ties share the mean of their places."""
    return [sum(o < n for o in numbers) + (sum(o == n for o in numbers) + 1) / 2 for n in numbers]


def slow_pearson(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    both = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return both / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def slow_kendall(x: list[int], y: list[int]) -> float:
    """tau b: concordant less discordant pairs, over the root of the pairs that x and y each tell apart."""
    pairs = list(itertools.combinations(zip(x, y, strict=True), 2))
    signs = [np.sign(a - c) * np.sign(b - d) for (a, b), (c, d) in pairs]
    told_apart = [sum(p[0][axis] != p[1][axis] for p in pairs) for axis in (0, 1)]
    return sum(signs) / math.sqrt(told_apart[0] * told_apart[1])


@settings(max_examples=40, deadline=None)
@given(values, st.randoms(use_true_random=False))
def test_each_correlation_is_its_definition(x: list[int], random: object) -> None:
    y = [random.randint(1, 30) for _ in x]  # type: ignore[attr-defined]
    if len(set(x)) == 1 or len(set(y)) == 1:
        return
    found = correlate(x, y)
    logarithms = [[math.log(v) for v in numbers] for numbers in (x, y)]
    assert found.pearson.value == pytest.approx(slow_pearson(*logarithms))
    assert found.spearman.value == pytest.approx(slow_pearson(slow_ranks(x), slow_ranks(y)))
    assert found.kendall.value == pytest.approx(slow_kendall(x, y))
    for estimate in (found.pearson, found.spearman, found.kendall):
        assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    # Orders do not care for units, nor does the logarithm.
    scaled = correlate([7 * v for v in x], y)
    assert scaled.pearson.value == pytest.approx(found.pearson.value)
    assert scaled.kendall == found.kendall
    turned = correlate(x, [1 / v for v in y])
    assert turned.kendall.low == pytest.approx(-found.kendall.high)


def test_intervals_by_hand() -> None:
    """n = 8, both in order but for the last two, which change places.

    Spearman: 1 - 6 * 2 / (8 * 63) = 0.97619; z = ln(83) / 2 = 2.20942, its deviation sqrt((1 + r^2 / 2) / 5)
    = sqrt(0.295295) = 0.54341: tanh(2.20942 -+ 1.06507) = 0.8159, 0.9971. Kendall: (27 - 1) / 28 = 0.92857;
    z = ln(27) / 2 = 1.64792, deviation sqrt(0.437 / 4) = 0.33053: tanh(1.64792 -+ 0.64783) = 0.7616, 0.9800.
    """
    found = correlate(range(1, 9), [1, 2, 3, 4, 5, 6, 8, 7])
    assert found.spearman.value == pytest.approx(1 - 12 / 504)
    assert (found.spearman.low, found.spearman.high) == pytest.approx((0.8159, 0.9971), abs=1e-4)
    assert found.kendall.value == pytest.approx(26 / 28)
    assert (found.kendall.low, found.kendall.high) == pytest.approx((0.7616, 0.9800), abs=1e-4)


def test_the_interval_of_pearson_is_scipys() -> None:
    from scipy import stats

    generator = np.random.default_rng(1)
    x = np.exp(generator.normal(size=20))
    y = x**0.7 * np.exp(generator.normal(size=20))
    expected = stats.pearsonr(np.log(x), np.log(y)).confidence_interval(0.95)
    found = correlate(x, y).pearson
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_a_power_law_is_a_perfect_correlation_and_few_models_prove_little() -> None:
    x = [1.0, 2, 3, 4, 5]
    found = correlate(x, [3 * v**0.5 for v in x])
    assert found.pearson.value == pytest.approx(1)
    assert (found.kendall.value, found.kendall.high) == pytest.approx((1, 1))
    assert found.kendall.low < 0.9, "five models in order are no proof"
    assert correlate(x[:4], x[:4]).kendall.low == -1, "four say nothing about Kendall's tau"


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2, 3], [1, 2, 3], "3 models; a correlation needs 4"),
        ([1], [1], "1 model; a correlation needs 4"),
        ([], [], "0 models; a correlation needs 4"),
        ([1, 2, 3, 4], [1, 2, 3], "needs pairs, got 4 and 3"),
        ([5, 5, 5, 5], [1, 2, 3, 4], "all 4 models have the same cost"),
        ([1, 2, 3, 4], [5, 5, 5, 5], "all 4 models have the same time"),
        ([1, 2, 3, 0], [1, 2, 3, 4], "the first quantity has values that are not above 0"),
        ([1, 2, 3, 4], [1, 2, 3, math.nan], "the second quantity has values that are not above 0"),
        ([1, 2, 3, 4], [1, 2, 3, math.inf], "the second quantity"),
    ],
)
def test_what_has_no_correlation_is_refused(x: list[float], y: list[float], message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        correlate(x, y)


spread = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(spread, spread), max_size=7))
def test_inversions_are_those_of_brute_force(models: list[tuple[tuple[int, int, int], ...]]) -> None:
    x, y = (
        Measured(
            np.array([m[axis][0] for m in models], float),
            np.array([m[axis][0] - m[axis][1] for m in models], float),
            np.array([m[axis][0] + m[axis][2] for m in models], float),
        )
        for axis in (0, 1)
    )
    found, clear = set(), set()
    for i, j in itertools.permutations(range(len(models)), 2):
        (xi, _, xi_above), (xj, xj_below, _) = models[i][0], models[j][0]
        (yi, yi_below, _), (yj, _, yj_above) = models[i][1], models[j][1]
        if xi < xj and yi > yj:
            found.add((i, j))
            if xi + xi_above < xj - xj_below and yi - yi_below > yj + yj_above:
                clear.add((i, j))
    result = inversions(x, y)
    assert (set(result.found), set(result.clear)) == (found, clear)
    assert result.pairs == len(models) * (len(models) - 1) // 2
    assert {(j, i) for i, j in inversions(y, x).found} == found, "seen from the other order"


def terms(*rows: tuple[float, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["compute_ms", "memory_ms", "serial_ms", "dec_net_ms"])


def test_a_prediction_is_the_sum_of_its_terms() -> None:
    found = with_prediction(terms((3, 2, 1, 12), (1, 5, 2, 4), (1, 2, 3, 6), (1, math.nan, 3, 6)))
    assert list(found["predicted_ms"]) == [6, 8, 6]
    assert list(found["error_pct"]) == [-50, 100, 0]
    assert list(found["bound_by"]) == ["arithmetic", "memory", "launches"]
    assert with_prediction(terms()).empty


def test_a_fit_finds_the_factors_and_is_judged_on_what_it_did_not_see() -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(1, 10, (8, 3))
    found = fit(x, x @ np.array([1.5, 3.0, 0.25]))
    assert found is not None
    assert found.factors == pytest.approx((1.5, 3.0, 0.25))
    assert found.left_out_ms == pytest.approx(x @ np.array([1.5, 3.0, 0.25]))
    # One model that is ten times as slow cannot help itself.
    slow = x @ np.array([1.5, 3.0, 0.25])
    slow[3] *= 10
    surprised = fit(x, slow)
    assert surprised is not None
    assert surprised.left_out_ms[3] == pytest.approx(slow[3] / 10)
    assert fit(x[:5], slow[:5]) is None
    # A term that would need a negative factor gets none.
    negative = fit(x, x @ np.array([2.0, 1.0, -0.1]))
    assert negative is not None
    assert min(negative.factors) == 0
