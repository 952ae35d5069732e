"""Curves over rate, their looks and legends, and axes: what `draw_rd` and the savings have in common."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from synthetic_results import result, write_sweep

from analysis.anchors import load_anchor
from analysis.curves import TrialCurve, trial_curves
from analysis.families import family_styles
from analysis.figures.lines import MAX_NAMED_CURVES, RateLine, counted, draw_rate_lines
from analysis.figures.rd import REACH_DB, rate_quality
from analysis.figures.savings import saving_over_rate
from analysis.figures.sheet import new_figure
from analysis.figures.style import MIN_TICKS, set_scale
from analysis.labels import label_line_ends
from analysis.load import read

FAMILIES = ("conv/charm/conv", "elic/charm/conv", "swint/charm/swint")
LMBDAS = (0.0035, 0.013, 0.0483)
REFERENCES = [load_anchor(name) for name in ("vtm", "elic", "charm", "mbt2018")]


def line(family: str, level: float, points: int = 3) -> RateLine:
    bpp = tuple(0.1 * 2.0**n for n in range(points))
    return RateLine(f"{family} {level:g}", family, bpp, tuple(level + n for n in range(points)))


def drawn(lines: list[RateLine]) -> tuple[Axes, dict[str, tuple[str, str]]]:
    """The axes, and colour and marker of every legend entry."""
    _, (axes,) = new_figure()
    handles = draw_rate_lines(axes, lines, family_styles(line.family for line in lines))
    return axes, {str(h.get_label()): (str(h.get_color()), str(h.get_marker())) for h in handles}


def curves(folder: Path, penalty: float = 0.0) -> list[TrialCurve]:
    trials = [result(64, "charm", transform="elic", lmbda=lmbda, penalty=penalty) for lmbda in LMBDAS]
    return trial_curves(read(write_sweep(folder, trials)).frame)


def test_curves_of_different_families_look_like_these() -> None:
    lines = [*(line(family, 10.0 * n) for n, family in enumerate(FAMILIES)), line(FAMILIES[0], 3, 1)]
    by_family = family_styles(FAMILIES)
    _, legend = drawn(lines)
    assert legend == {
        **{f"{family} {10 * n}": by_family[family] for n, family in enumerate(FAMILIES)},
        f"{FAMILIES[0]}: single points": by_family[FAMILIES[0]],
    }


def test_curves_of_one_family_have_looks_of_their_own_that_no_single_point_has() -> None:
    lines = [line(FAMILIES[0], n) for n in range(MAX_NAMED_CURVES)] + [line(FAMILIES[0], 30, 1)]
    _, legend = drawn(lines)
    assert len(legend) == len(set(legend.values())) == MAX_NAMED_CURVES + 1
    assert legend[f"{FAMILIES[0]}: single points"] == family_styles(FAMILIES)[FAMILIES[0]]


def test_many_curves_are_a_line_with_gaps_for_each_family() -> None:
    lines = [line(FAMILIES[n % 3], n) for n in range(300)]
    axes, legend = drawn([*lines, *(line(FAMILIES[1], n, 1) for n in range(40))])
    assert set(legend) == {
        *(f"{family}: curves" for family in FAMILIES),
        f"{FAMILIES[1]}: single points",
    }
    assert len(axes.lines) == 4, "thousands of lines would take seconds"
    values = np.asarray(axes.lines[0].get_ydata(), dtype=float)
    pieces = np.split(values, np.flatnonzero(np.isnan(values)))
    expected = {curve.values for curve in lines if curve.family == FAMILIES[0]}
    assert {tuple(piece[~np.isnan(piece)]) for piece in pieces} == expected
    assert counted(lines[:1]) == "1 curve"
    assert counted([*lines[:2], line("f", 1, 1)]) == "2 curves and 1 single point"


def visible_ticks(axes: Axes) -> list[str]:
    axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    return [label.get_text() for at, label in ticks if low <= at <= high and label.get_text()]


@pytest.mark.parametrize(
    ("low", "high"), [(8, 15), (0.18, 0.98), (5, 45), (100, 101), (0.1, 1.2), (2, 9e5), (1e-7, 1e9)]
)
def test_a_logarithmic_axis_has_at_least_four_labels(low: float, high: float) -> None:
    _, (axes,) = new_figure()
    axes.plot([low, high], [0, 1])
    set_scale(axes, "x", pd.Series([low, high]), force_log=True)
    ticks = visible_ticks(axes)
    assert MIN_TICKS <= len(ticks) <= 13
    assert len(set(ticks)) == len(ticks)


def test_references_are_in_view_at_our_rates(tmp_path: Path) -> None:
    ours = curves(tmp_path, penalty=4)
    best_db = max(max(curve.values("psnr_db")) for curve in ours)
    figure = rate_quality(ours, REFERENCES)
    (axes,) = figure.axes
    high_db = axes.get_ylim()[1]
    rate_bpp = max(max(curve.values("bpp")) for curve in ours)
    vtm = load_anchor("vtm").curve
    vtm_db = np.interp(np.log(rate_bpp), np.log(vtm.bpp), vtm.psnr_db)
    assert best_db + 2.5 < vtm_db < min(high_db, best_db + REACH_DB), "the case is one that used to be cut"
    far = rate_quality(curves(tmp_path / "far", penalty=12), REFERENCES).axes[0].get_ylim()[1]
    far_db = max(curves(tmp_path / "again", penalty=12)[0].values("psnr_db"))
    assert far == pytest.approx(far_db + REACH_DB + 0.5)
    assert "lower is better" not in axes.get_xlabel()
    assert "Quality over rate: 1 curve" in {text.get_text() for text in figure.texts}


def words_of(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_the_title_says_how_many_times_the_bits_ours_need(tmp_path: Path) -> None:
    styles = family_styles(["elic/charm/conv"])
    bad = saving_over_rate(curves(tmp_path / "bad", penalty=4), REFERENCES, styles)
    values = np.concatenate([line.get_ydata() for line in bad.axes[0].lines if line.get_marker() == "o"])
    assert values.max() < 0
    times = f"{1 - values.max() / 100:.1f} to {1 - values.min() / 100:.1f}"
    assert f"over rate: 1 curve; ours need {times} times BPG's bits" in words_of(bad)
    assert values.min() < -50
    assert "negative: needs more bits than BPG; -100 %: twice BPG's bits." in words_of(bad)
    better = curves(tmp_path / "good", penalty=-4)
    both = saving_over_rate([*curves(tmp_path / "bad", penalty=4), *better], REFERENCES, styles)
    assert "ours need" not in words_of(both), "some need less"
    good = saving_over_rate(better, REFERENCES, styles)
    assert "ours need" not in words_of(good)
    assert "twice BPG's bits" not in words_of(good)


@pytest.fixture
def axes() -> Axes:
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    found = figure.add_subplot()
    found.set_xlim(0, 1)
    found.set_ylim(-100, 40)
    return found


def test_names_of_line_ends_are_in_the_order_of_the_ends_and_leaders_do_not_cross(axes: Axes) -> None:
    ends = [
        (1.0, 14.0, "vtm"),
        (0.8, 13.0, "charm"),
        (0.9, 20.0, "elic"),
        (1.0, 4.0, "mean"),
        (1.0, 0.0, "bpg"),
    ]
    label_line_ends(axes, ends)
    notes = [text for text in axes.texts if isinstance(text, Annotation)]
    heights = {text.get_text(): text.get_position()[1] for text in notes}
    assert sorted(heights, key=lambda name: heights[name]) == ["bpg", "mean", "charm", "vtm", "elic"]
    assert {float(text.xy[0]) for text in notes} == {1.0}, "all leaders begin at the edge, so none crosses"
    level = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert sorted(level) == [[[0.8, 13.0], [1.0, 13.0]], [[0.9, 20.0], [1.0, 20.0]]]
