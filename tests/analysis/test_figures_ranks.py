"""Inversions and rank correlation against slow definitions."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.families import family_styles
from analysis.figures.ranks import Order, draw_ranks, pair, pairs
from analysis.figures.times import Setting

ONE, TWO = Setting("cpu", 1, "fp32"), Setting("gpu", 1, "fp32")


def order(values: list[float], setting: Setting | None = ONE, spread: float = 0.0) -> Order:
    models = pd.DataFrame({"value": np.array(values, dtype=float)})
    models = models.assign(low=models["value"] - spread, high=models["value"] + spread, family="f/g/h")
    models["label"] = [f"model {index}" for index in range(len(values))]
    models.index = pd.Index([f"id{index}" for index in range(len(values))], name="arch_id")
    return Order(setting, (512, 768) if setting else (0, 0), models)


def signs(x: list[float], y: list[float]) -> list[tuple[float, float]]:
    return [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in itertools.combinations(range(len(x)), 2)]


TIMES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=4, max_size=12)


@settings(max_examples=60, deadline=None)
@given(TIMES)
def test_inversions_are_pairs_in_opposite_order(values: list[tuple[int, int]]) -> None:
    x, y = ([float(value[side]) for value in values] for side in (0, 1))
    found = pair(order(x), order(y, TWO))
    expected = sum(a * b < 0 for a, b in signs(x, y))
    assert len(found.inversions.found) == expected
    rows = found.rows
    for one, other in found.inversions.found:
        assert rows["x"][one] < rows["x"][other]
        assert rows["y"][one] > rows["y"][other]
    same = sum(a * b > 0 for a, b in signs(x, y))
    different = [sum(sign[side] != 0 for sign in signs(x, y)) for side in (0, 1)]
    if all(different):  # Kendall's tau b
        assert found.kendall_tau == pytest.approx((same - expected) / math.sqrt(different[0] * different[1]))


@settings(max_examples=8, deadline=None)
@given(TIMES)
def test_lines_cross_where_an_inversion_is_and_nowhere_else(values: list[tuple[int, int]]) -> None:
    x, y = ([float(value[side]) for value in values] for side in (0, 1))
    found = pair(order(x), order(y, TWO))
    (axes,) = draw_ranks(found, family_styles(["f/g/h"])).axes
    ends = [np.asarray(line.get_ydata()).tolist() for line in axes.lines if line.get_linestyle() == "-"]
    assert len(ends) == len(x)
    crossings = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(ends, 2))
    dots = sum(len(np.asarray(dots.get_offsets())) for dots in axes.collections)
    assert crossings == dots == len(found.inversions.found)


def test_an_inversion_is_clear_if_both_spreads_are_apart() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.0, 4.0]
    exact = pair(order(x, spread=0.2), order(y, TWO, spread=0.2)).inversions
    assert exact.clear == exact.found
    blurred = pair(order(x, spread=0.2), order(y, TWO, spread=0.6))
    assert blurred.inversions.clear == ((0, 2),)
    assert not pair(order(x, spread=1.5), order(y, TWO)).inversions.clear
    text = " ".join(text.get_text() for text in draw_ranks(blurred, family_styles(["f/g/h"])).texts)
    wanted = "Decode times on two devices order 3 of 6 pairs alike; 3 are inverted (Kendall tau 0.00)"
    assert wanted in text
    assert "1 of 3 inversions are clear" in text


def test_pairs_differ_in_one_thing_and_need_four_models() -> None:
    every = [order([1, 2, 3, 4]), order([2, 1, 3, 4], TWO), order([1, 2, 3], Setting("old", 1, "fp32"))]
    other_size = order([1, 2, 3, 4])
    other_size = Order(ONE, (1365, 2048), other_size.models)
    found = pairs([*every, other_size, order([1, 2, 3, 4], None)])
    assert [one.slug for one in found] == [
        "cpu-1-thread-fp32-768x512__vs__gpu-1-thread-fp32-768x512",
        "flops__vs__cpu-1-thread-fp32-768x512",
        "flops__vs__gpu-1-thread-fp32-768x512",
        "flops__vs__cpu-1-thread-fp32-2048x1365",
        "cpu-1-thread-fp32-768x512__vs__cpu-1-thread-fp32-2048x1365",
    ]


def test_settings_of_one_device_differ_in_threads_or_precision_not_both() -> None:
    settings = [Setting("cpu", 1, "fp32"), Setting("cpu", 2, "bf16"), Setting("gpu", 2, "bf16")]
    found = pairs([order([1, 2, 3, 4], setting) for setting in settings])
    assert [(one.x.setting, one.y.setting) for one in found] == [
        (settings[0], settings[2]),
        (settings[1], settings[2]),
    ]


def test_many_models_are_points_in_a_plane_of_ranks() -> None:
    values = [float(value) for value in range(1, 61)]
    moved = [60.5, *values[1:]]
    found = pair(order(values), order(moved, TWO))
    assert len(found.inversions.found) == 59
    (axes,) = draw_ranks(found, family_styles(["f/g/h"])).axes
    points = [line.get_xydata() for line in axes.lines if line.get_marker() != "None"]
    assert np.asarray(points[0])[0].tolist() == [1, 60]
    assert axes.texts[0].get_text() == "model 0"


def test_titles_count_pairs_and_say_what_is_compared() -> None:
    def title(one: Order, other: Order) -> str:
        return draw_ranks(pair(one, other), family_styles(["f/g/h"])).texts[0].get_text()

    work = order([1, 2, 3, 4], None)
    assert title(work, order([1, 2, 4, 3])) == (
        "Decode complexity and decode time order 5 of 6 pairs alike; 1 is inverted (Kendall tau 0.67)"
    )
    assert "order 6 of 6 pairs alike; none is inverted (" in title(work, order([1, 2, 3, 4]))
    assert "order 4 of 6 pairs alike; 1 is inverted, 1 is tied (" in title(work, order([2, 1, 3, 3]))
    large = Order(ONE, (1365, 2048), order([1, 2, 3, 4]).models)
    assert title(order([1, 2, 3, 4]), large).startswith("Decode times for two image sizes order 6 of 6")
    half = order([1, 2, 3, 4], Setting("cpu", 1, "bf16"))
    assert title(order([1, 2, 3, 4]), half).startswith("Decode times in two settings of one device order")


def test_values_have_four_digits_and_the_legend_has_no_symbol_that_is_not_there() -> None:
    drawn = draw_ranks(
        pair(order([5.0, 12.3456, 25.3, 1076.051]), order([1, 2, 4, 3], TWO)), family_styles(["f/g/h"])
    )
    (axes,) = drawn.axes
    assert {"5.000", "12.35", "25.30", "1,076"} <= {text.get_text() for text in axes.texts}
    legend = {text.get_text() for text in drawn.legends[0].get_texts()}
    assert legend == {"f/g/h", "inversion, quartiles of both models apart"}
    none = draw_ranks(pair(order([1, 2, 3, 4]), order([1, 2, 3, 4], TWO)), family_styles(["f/g/h"]))
    assert {text.get_text() for text in none.legends[0].get_texts()} == {"f/g/h"}
