"""The statistics of the claims: against slow definitions, by coverage, and under pure noise."""

from __future__ import annotations

import itertools
import math
import random
import statistics as python_statistics
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from claims_evidence import CHARM, HYPER, arch, evidence, times
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.claims import ranks
from analysis.claims.comparisons import (
    Pairs,
    attainable,
    frontier_share,
    pair_advantage,
)
from analysis.claims.evidence import Evidence
from analysis.claims.statements import STATEMENTS
from analysis.claims.statistics import Quantity, holm, image_draws, pooled_sd, seed_factors
from analysis.claims.verdicts import SUPPORTED
from analysis.errors import AnalysisError
from analysis.pareto import frontier_mask

positive = st.floats(0.5, 2.0)


# ------------------------------------------------------------------------------------------- intervals


def slow_interval(scores: np.ndarray, pairs: Sequence[tuple[int, int]], level: float) -> tuple[float, float]:
    """Paired bootstrap over images in plain Python, with the quantiles of Hesterberg (2015)."""
    chance = random.Random(5)
    images = scores.shape[1]
    found = []
    for _ in range(4000):
        taken = [chance.randrange(images) for _ in range(images)]
        logs = []
        for one, other in pairs:
            ours = sum(scores[one][image] for image in taken)
            theirs = sum(scores[other][image] for image in taken)
            logs.append(math.log(ours / theirs))
        found.append(100 * (1 - math.exp(sum(logs) / len(logs))))
    found.sort()
    t = stats.t.ppf((1 + level) / 2, images - 1) * math.sqrt(images / (images - 1))
    tail = python_statistics.NormalDist().cdf(-t)
    low = found[round(tail * (len(found) - 1))]
    return low, found[round((1 - tail) * (len(found) - 1))]


def paired(images: int = 24, gain: float = 0.02, noise: float = 0.02, rng: int = 0) -> Evidence:
    rows = [arch("elic", HYPER, "conv", 10, 1.0), arch("elic", CHARM, "conv", 20, 1 - gain)]
    rows += [arch("elic", HYPER, "conv", 30, 0.9), arch("elic", CHARM, "conv", 50, 0.9 * (1 - gain))]
    return evidence(rows, images=images, noise=noise, rng=rng)


def test_interval_equals_that_of_a_slow_bootstrap() -> None:
    of = paired()
    assert of.scores is not None
    low, high = pair_advantage(of, Pairs(((1, 0), (3, 2))), "q").interval()
    slow_low, slow_high = slow_interval(of.scores, [(1, 0), (3, 2)], 0.95)
    width = slow_high - slow_low
    assert width > 0.5
    assert low == pytest.approx(slow_low, abs=0.06 * width)
    assert high == pytest.approx(slow_high, abs=0.06 * width)


def test_resampling_images_apart_would_be_far_wider() -> None:
    # Images differ by a factor of e, architectures on one image by 2 %: only a paired interval sees a gain.
    of = paired()
    assert of.loss_draws is not None
    low, high = pair_advantage(of, Pairs(((1, 0),)), "q").interval()
    spread = 100 * of.loss_draws[:, 0].std() * math.sqrt(2) * 1.96
    assert high - low < 0.3 * 2 * spread


@pytest.mark.parametrize("units", [5, 24])
def test_interval_covers_the_truth_as_often_as_it_says(units: int) -> None:
    # The mean of normal values: 95 % +- 3 standard errors of 400 repetitions; a plain percentile interval
    # of 5 units covers about 84 %.
    rng = np.random.default_rng(1)
    hits = plain_hits = 0
    for _ in range(400):
        values = rng.standard_normal((1, units))
        draws = image_draws(values, 1000, rng)[:, 0]
        low, high = Quantity("q", "%", float(values.mean()), draws, units).interval()
        hits += low <= 0 <= high
        plain_low, plain_high = np.quantile(draws, [0.025, 0.975])
        plain_hits += plain_low <= 0 <= plain_high
    assert 0.95 - 0.033 <= hits / 400 <= 0.95 + 0.033
    assert plain_hits < hits


@pytest.mark.parametrize("units", [4, 24, math.inf])
def test_p_values_agree_with_intervals(units: float) -> None:
    draws = np.random.default_rng(0).normal(1.0, 1.0, size=20000)
    quantity = Quantity("q", "%", 1.0, draws, units)
    for level in (0.5, 0.8):
        low, high = quantity.interval(level)
        assert quantity.p_above(low) == pytest.approx((1 - level) / 2, rel=0.03)
        assert quantity.p_below(high) == pytest.approx((1 - level) / 2, rel=0.03)


def test_more_images_narrow_the_interval() -> None:
    widths = []
    for images in (8, 32, 128):
        low, high = pair_advantage(paired(images=images), Pairs(((1, 0), (3, 2))), "q").interval()
        widths.append(high - low)
    assert widths[0] > 1.3 * widths[1] > 1.3**2 * widths[2]


def test_more_seeds_narrow_the_interval() -> None:
    widths = []
    for seeds, freedom in ((2, 4), (4, 12), (16, 60)):
        rows = paired().architectures.assign(seeds=seeds).to_dict("records")
        of = evidence(rows, images=24, noise=0.0005, seed_sd=0.02, seed_freedom=freedom)
        low, high = pair_advantage(of, Pairs(((1, 0),)), "q").interval()
        widths.append(high - low)
    assert widths[0] > 1.3 * widths[1] > 1.3**2 * widths[2]


def test_seed_noise_alone_gives_students_t_interval() -> None:
    # Difference of two means of k seeds, pooled sd s with f degrees: t(0.975, f) s sqrt(2 / k).
    rng = np.random.default_rng(0)
    sd, freedom, seeds = 0.01, 6, 4
    factors = seed_factors(sd, freedom, np.array([4.0, 4.0]), 200_000, rng)
    high = np.quantile(np.log(factors[:, 0] / factors[:, 1]), 0.975)
    assert high == pytest.approx(stats.t.ppf(0.975, freedom) * sd * math.sqrt(2 / seeds), rel=0.02)


def test_pooled_sd_of_seeds() -> None:
    # Squares about the means: 0.5 from (1, 2), 2 from (3, 4, 5), none from (9): sqrt(2.5 / (1 + 2)).
    sd, freedom = pooled_sd([np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0]), np.array([9.0])])
    assert sd == pytest.approx(math.sqrt(2.5 / 3))
    assert freedom == 3
    assert pooled_sd([np.array([1.0])])[1] == 0


def test_share_without_an_event_has_the_exact_upper_end() -> None:
    # No event in n trials: (1 - p)^n = 0.025; n = 29: p = 11.94 %, the known 3.7 / n.
    quantity = Quantity("q", "%", 0.0, np.zeros(100), 29, is_share=True)
    assert quantity.interval() == (0.0, pytest.approx(100 * (1 - 0.025 ** (1 / 29))))
    assert quantity.interval()[1] == pytest.approx(11.94, abs=0.01)
    assert quantity.p_below(11.94) == pytest.approx(0.025, abs=1e-4)
    assert quantity.p_above(0) == 1
    every = Quantity("q", "%", 100.0, np.full(100, 100.0), 29, is_share=True)
    assert every.interval() == (pytest.approx(100 - 11.94, abs=0.01), 100.0)
    assert every.p_above(100 - 11.94) == pytest.approx(0.025, abs=1e-4)


def test_holm() -> None:
    # Holm's procedure by hand: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    with pytest.raises(AnalysisError, match=r"p-values \[1\.5\]: must lie between 0 and 1"):
        holm([1.5])


# ------------------------------------------------------------------------------- frontiers at equal cost


def slow_attainable(cost: Sequence[float], loss: Sequence[float], at: float) -> float:
    """By the non-dominated set, a straight line in ln cost, and the last point beyond it."""
    mask = frontier_mask(np.column_stack([cost, loss]))
    points = sorted({(math.log(c), value) for c, value, on in zip(cost, loss, mask, strict=True) if on})
    if at >= points[-1][0] - 1e-12:
        return points[-1][1]
    for (left, above), (right, below) in itertools.pairwise(points):
        if left - 1e-12 <= at <= right:
            return above + (below - above) * (at - left) / (right - left)
    raise AssertionError("outside the range")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), positive), min_size=2, max_size=9))
def test_attainable_equals_its_slow_definition(points: list[tuple[int, float]]) -> None:
    cost, loss = np.array([float(c) for c, _ in points]), np.array([value for _, value in points])
    grid = np.linspace(np.log(cost.min()), np.log(cost.max()), 7)
    found = attainable(cost, np.stack([loss, loss[::-1]]), np.stack([loss, loss[::-1]]), grid)
    for row, values in zip(found, (loss, loss[::-1]), strict=True):
        slow = [slow_attainable(list(cost), list(values), at) for at in grid]
        np.testing.assert_allclose(row, slow, rtol=1e-9)


def test_attainable_refuses_to_extrapolate() -> None:
    with pytest.raises(AssertionError, match="outside its own range"):
        attainable(np.array([1.0, 2.0]), np.array([[1.0, 0.5]]), np.array([[1.0, 0.5]]), np.array([1.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), positive, st.booleans()), min_size=2, max_size=8))
def test_frontier_share_equals_a_walk_over_costs(points: list[tuple[int, float, bool]]) -> None:
    loss = np.array([value for _, value, _ in points]) + 1e-6 * np.arange(len(points))
    cost, mask = np.array([float(c) for c, _, _ in points]), np.array([m for _, _, m in points])
    rows = [arch("conv", HYPER, "conv", c, v) for c, v in zip(cost, loss, strict=True)]
    low, high = np.log(cost.min()), np.log(10.0)
    found = frontier_share(evidence(rows, images=0), mask, low, high, "q").estimate
    steps = 3000
    hits = 0
    for step in range(steps):
        budget = math.exp(low + (step + 0.5) / steps * (high - low))
        affordable = [(loss[k], k) for k in range(len(points)) if cost[k] <= budget]
        hits += bool(mask[min(affordable)[1]])
    assert found == pytest.approx(100 * hits / steps, abs=0.5)


# ---------------------------------------------------------------------------------------------- ranks


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 50), st.floats(1, 50)), min_size=3, max_size=8), st.integers(0, 99))
def test_inverted_share_equals_counting_pairs(pairs: list[tuple[float, float]], seed: int) -> None:
    frame = times(
        len(pairs), {("cpu", 512): lambda k: pairs[k][0], ("gpu", 512): lambda k: pairs[k][1]}, spread=0.03
    )
    of = evidence([arch("conv", HYPER, "conv", 1, 1)], runtimes=frame)
    (order,) = ranks.device_orders(ranks.timed_settings(of))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(pairs), size=len(pairs))
    for taken in (range(len(pairs)), drawn):
        counted = inverted = 0
        for i, j in ((i, j) for place, i in enumerate(taken) for j in list(taken)[:place]):
            apart = [
                1.03 * min(pairs[i][d], pairs[j][d]) < 0.97 * max(pairs[i][d], pairs[j][d]) for d in (0, 1)
            ]
            counted += all(apart)
            inverted += all(apart) and (pairs[i][0] < pairs[j][0]) != (pairs[i][1] < pairs[j][1])
        weights = np.bincount(np.array(list(taken)), minlength=len(pairs)).astype(np.float32)[None, :]
        share = ranks._share(order, weights)[0]
        assert (np.isnan(share) and not counted) or share == pytest.approx(100 * inverted / counted)


def test_shares_and_kendalls_tau_say_the_same() -> None:
    # Without ties tau = 1 - 2 share.
    values = np.random.default_rng(3).permutation(20).astype(float) + 1
    frame = times(20, {("cpu", 512): lambda k: values[k]}, spread=0.0)
    (timed,) = ranks.timed_settings(evidence([arch("conv", HYPER, "conv", 1, 1)], runtimes=frame))
    share = ranks.inverted_share([ranks.by_flops(timed)], "q").estimate
    assert 1 - 2 * share / 100 == pytest.approx(stats.kendalltau(np.arange(20), values).statistic)


def test_repeated_timings_of_a_setting_count_once() -> None:
    frame = times(10, {("cpu", 512): lambda k: 10.0 + k})
    again = frame.assign(dec_net_ms=frame["dec_net_ms"] * 1.001)
    of = evidence([arch("conv", HYPER, "conv", 1, 1)], runtimes=pd.concat([frame, again]))
    (timed,) = ranks.timed_settings(of)
    assert len(timed.rows) == 10


# ------------------------------------------------------------------------------------------- pure noise


def noisy_sweep(rng: int) -> Evidence:
    """All seven families at several costs, all of equal quality: what differs is noise."""
    families = [(t, e, "conv") for t in ("conv", "elic", "swint") for e in (HYPER, CHARM)] + [
        ("elic", CHARM, "swint")
    ]
    rows = [
        arch(*family, (10 + place) * (1.6 if family[1] == CHARM else 1) * 2**step, 1.0, 32 * (step + 1))
        for place, family in enumerate(families)
        for step in range(4)
    ]
    return evidence(rows, noise=0.02, exact=False, rng=rng, draws=200)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_pure_noise_is_seldom_called_support(number: int) -> None:
    # One-sided 2.5 % each, less where several conditions must hold: more than 4 of 40 have a chance of 0.3 %.
    verdicts = [STATEMENTS[number - 1].test(sweep).verdict for sweep in NOISE]
    assert verdicts.count(SUPPORTED) <= 4


NOISE = [noisy_sweep(rng) for rng in range(40)]


def many_against_few(rng: int) -> Evidence:
    rows = [arch("elic", HYPER, "conv", 10 * 1.25**k, 1.0) for k in range(12)]
    rows += [arch("conv", HYPER, "conv", 9.9 * 3.5**k, 1.0) for k in range(3)]
    return evidence(rows, noise=0.02, exact=False, rng=rng, draws=200)


def test_a_family_of_more_members_does_not_win_by_choice_alone() -> None:
    # All equal. Judged by the images that chose them, 16 % of such sweeps call the larger family better.
    findings = [STATEMENTS[2].test(many_against_few(rng)) for rng in range(40)]
    assert [finding.verdict for finding in findings].count(SUPPORTED) <= 4
    advantages = [finding.conditions[0].quantity.estimate for finding in findings]
    assert abs(np.mean(advantages)) < 3 * np.std(advantages) / math.sqrt(len(advantages))


@pytest.mark.parametrize("members", [2, 4, 8])
def test_pure_noise_seldom_gives_the_frontier_to_a_family(members: int) -> None:
    verdicts = []
    for rng in range(40):
        rows = [arch("elic", CHARM, "swint", 10 * 1.5**k, 1.0) for k in range(members)]
        rows += [arch("conv", HYPER, "conv", 9.9 * 1.5**k, 1.0) for k in range(4)]
        verdicts.append(
            STATEMENTS[5].test(evidence(rows, noise=0.02, exact=False, rng=rng, draws=200)).verdict
        )
    assert verdicts.count(SUPPORTED) <= 4


def test_timing_noise_alone_seldom_changes_ranks_between_devices() -> None:
    # True times equal on both devices, neighbours 1-2 % apart; medians and quartiles of 20 noisy runs each.
    random_numbers = np.random.default_rng(0)
    true_ms = np.array([10 + 0.2 * k for k in range(30)])
    supported = 0
    for _ in range(40):
        frame = times(30, {("cpu", 512): lambda k: 1.0, ("gpu", 512): lambda k: 1.0})
        runs = np.tile(true_ms, 2)[:, None] * (1 + 0.02 * random_numbers.standard_normal((60, 20)))
        for name, percent in (("dec_net_ms", 50), ("dec_net_q25_ms", 25), ("dec_net_q75_ms", 75)):
            frame[name] = np.percentile(runs, percent, axis=1)
        of = evidence([arch("conv", HYPER, "conv", 1, 1)], runtimes=frame)
        supported += STATEMENTS[7].test(of).verdict == SUPPORTED
    assert supported <= 4
