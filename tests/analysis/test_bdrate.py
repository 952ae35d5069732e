import itertools
import math

import bjontegaard
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.anchors import load_anchor, names
from analysis.bdrate import Curve, OutsideRangeError, bd_rate, rate_saving_pct
from analysis.errors import AnalysisError
from analysis.settings import METHODS, Method

# Published curves on Kodak, pchip over the whole shared range; derived from the same points by other hands.
GOLDEN_VS_VTM = {
    "elic": -7.0,
    "charm": 1.1,
    "cheng2020_anchor": 3.7,
    "mbt2018": 11.0,
    "mbt2018_mean": 21.3,
    "bmshj2018_hyperprior": 30.5,
    "bpg_compressai": 22.0,
}
GOLDEN_VS_BPG = {"vtm": (-16.9, -18.0), "elic": (-25.3, -26.6), "charm_2020": (-15.7, -16.8)}


def shipped(name: str) -> Curve:
    return load_anchor(name).curve


@pytest.mark.parametrize("name", GOLDEN_VS_VTM)
def test_golden_bd_rates_against_vtm(name: str) -> None:
    assert bd_rate(shipped("vtm"), shipped(name)).bd_rate_pct == pytest.approx(GOLDEN_VS_VTM[name], abs=0.1)


@pytest.mark.parametrize("name", GOLDEN_VS_BPG)
def test_golden_bd_rates_against_both_bpg_curves(name: str) -> None:
    against_default, against_compressai = GOLDEN_VS_BPG[name]
    assert bd_rate(shipped("bpg"), shipped(name)).bd_rate_pct == pytest.approx(against_default, abs=0.1)
    measured = bd_rate(shipped("bpg_compressai"), shipped(name)).bd_rate_pct
    assert measured == pytest.approx(against_compressai, abs=0.1)


@pytest.mark.parametrize(("high_bpp", "percent"), [(1.0, -22.3), (2.0, -20.0)])
def test_golden_bd_rates_with_the_anchors_rate_cut(high_bpp: float, percent: float) -> None:
    found = bd_rate(shipped("bpg_compressai"), shipped("vtm"), min_bpp=0.1, max_bpp=high_bpp)
    assert found.bd_rate_pct == pytest.approx(percent, abs=0.1)
    assert found.psnr_low_db == pytest.approx(27.24, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("anchor", "test"), list(itertools.permutations(["bpg", "vtm", "elic", "mbt2018_mean"], 2))
)
def test_agrees_with_the_bjontegaard_package(anchor: str, test: str, method: Method) -> None:
    a, t = shipped(anchor), shipped(test)
    theirs = bjontegaard.bd_rate(
        a.bpp, a.psnr_db, t.bpp, t.psnr_db, method=method, require_matching_points=False, min_overlap=0
    )
    ours = bd_rate(a, t, method=method, min_overlap=0.0).bd_rate_pct
    assert ours == pytest.approx(theirs, abs=1e-6)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Monotone curves of 4 to 8 points that start between 28 and 30 dB."""
    n = draw(st.integers(4, 8))
    gaps_db = draw(st.lists(st.floats(0.5, 3.0), min_size=n - 1, max_size=n - 1))
    log_gaps = draw(st.lists(st.floats(0.02, 0.8), min_size=n - 1, max_size=n - 1))
    psnr_db = itertools.accumulate(gaps_db, initial=draw(st.floats(28.0, 29.9)))
    log_bpp = itertools.accumulate(log_gaps, initial=draw(st.floats(-4.0, -1.0)))
    return Curve("drawn", tuple(map(math.exp, log_bpp)), tuple(psnr_db))


@given(curves(), st.sampled_from(METHODS))
def test_a_curve_against_itself_is_zero(curve: Curve, method: Method) -> None:
    assert bd_rate(curve, curve, method=method).bd_rate_pct == pytest.approx(0.0, abs=1e-9)


@given(curves(), curves(), st.sampled_from(METHODS))
def test_log_rate_change_changes_sign_with_the_roles(one: Curve, other: Curve, method: Method) -> None:
    assume(min(one.psnr_db[-1], other.psnr_db[-1]) > max(one.psnr_db[0], other.psnr_db[0]) + 0.01)
    there = bd_rate(one, other, method=method, min_overlap=0.0).bd_rate_pct
    back = bd_rate(other, one, method=method, min_overlap=0.0).bd_rate_pct
    assert math.log1p(there / 100) == pytest.approx(-math.log1p(back / 100), abs=1e-7)


@given(curves(), st.floats(0.25, 4.0), st.sampled_from(METHODS))
def test_scaling_the_rate_is_what_bd_rate_and_saving_measure(
    curve: Curve, factor: float, method: Method
) -> None:
    scaled = Curve("scaled", tuple(factor * b for b in curve.bpp), curve.psnr_db)
    assert bd_rate(curve, scaled, method=method).bd_rate_pct == pytest.approx(100 * (factor - 1), abs=1e-6)
    middle = len(curve.bpp) // 2
    if method != "cubic":  # the fitted polynomial need not pass through the points
        saving = rate_saving_pct(curve, bpp=scaled.bpp[middle], psnr_db=scaled.psnr_db[middle], method=method)
        assert saving == pytest.approx(100 * (1 - factor), abs=1e-6)


def test_rate_saving_interpolates_log_rate() -> None:
    # Log rate is linear in PSNR here: 0.1 bpp at 30 dB, 0.8 at 36 dB, so 0.1 * 2 = 0.2 at 32 dB, by hand.
    line = Curve("line", (0.1, 0.2, 0.4, 0.8), (30.0, 32.0, 34.0, 36.0))
    assert rate_saving_pct(line, bpp=0.15, psnr_db=32.0) == pytest.approx(25.0)
    assert rate_saving_pct(line, bpp=0.1 * 2**0.5, psnr_db=31.0) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("psnr_db", "side"), [(23.0, "below"), (54.0, "above")])
def test_rate_saving_is_never_extrapolated(psnr_db: float, side: str) -> None:
    with pytest.raises(
        OutsideRangeError, match=rf"{psnr_db:.2f} dB is {side} the range of bpg \(23\.79\.\.53\.03 dB\)"
    ):
        rate_saving_pct(shipped("bpg"), bpp=0.1, psnr_db=psnr_db)


def test_points_may_come_in_any_order() -> None:
    assert Curve("c", (0.4, 0.1, 0.2), (34.0, 30.0, 32.0)) == Curve("c", (0.1, 0.2, 0.4), (30.0, 32.0, 34.0))


def test_a_non_monotone_curve_is_refused_by_name() -> None:
    with pytest.raises(
        AnalysisError, match=r"'wobbly' is not monotone: 0\.2000 bpp has 33\.000 dB, 0\.3000 bpp"
    ):
        Curve("wobbly", (0.1, 0.2, 0.3, 0.4), (30.0, 33.0, 32.0, 34.0))


@pytest.mark.parametrize("bad", [(0.0, 30.0), (0.1, math.nan), (0.1, math.inf), (-1.0, 30.0)])
def test_a_point_that_is_no_rate_or_psnr_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(AnalysisError, match="must be greater than 0 and both finite"):
        Curve("bad", (bad[0], 0.5), (bad[1], 40.0))


def test_too_few_points_are_refused() -> None:
    with pytest.raises(AnalysisError, match="'short' has 3 points; BD-rate needs 4"):
        bd_rate(shipped("vtm"), Curve("short", (0.1, 0.2, 0.3), (28.0, 30.0, 32.0)))


def test_too_small_an_overlap_is_refused_with_both_ranges() -> None:
    low = Curve("low", (0.05, 0.1, 0.2, 0.3), (22.0, 24.0, 26.0, 27.0))
    with pytest.raises(
        AnalysisError, match=r"'low' \(22\.00\.\.27\.00 dB\) has 17 % .* at least 50 % is needed"
    ):
        bd_rate(shipped("vtm"), low)  # (27 - 26.145) / 5 = 17 %
    assert bd_rate(shipped("vtm"), low, min_overlap=0.1).overlap == pytest.approx(0.171, abs=1e-3)


def test_curves_that_do_not_meet_are_refused_however_lenient() -> None:
    with pytest.raises(AnalysisError, match="has 0 % of its range"):
        bd_rate(
            shipped("vtm"), Curve("far", (0.01, 0.02, 0.03, 0.04), (10.0, 12.0, 14.0, 16.0)), min_overlap=0.0
        )


def test_an_empty_rate_range_is_refused() -> None:
    with pytest.raises(AnalysisError, match=r"no PSNR range is left where 'bpg' has 5\.\.6 bpp"):
        bd_rate(shipped("bpg"), shipped("elic"), min_bpp=5.0, max_bpp=6.0)


def test_every_shipped_point_has_its_source_and_every_anchor_its_facts() -> None:
    assert names()[0] == "bpg"
    for name in names():
        anchor = load_anchor(name)
        assert anchor.dataset == "kodak"
        assert "@" in anchor.source
        assert all((anchor.colour, anchor.psnr_rule, anchor.averaging))
    assert (len(shipped("bpg").bpp), len(shipped("bpg_compressai").bpp), len(shipped("vtm").bpp)) == (
        52,
        8,
        8,
    )
