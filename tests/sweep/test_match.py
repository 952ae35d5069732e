"""A model of the cost of another: what widths allow, and channels per layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conf
from rdc.configured import model_of
from rdc.errors import UserError
from rdc.spec import ModelSpec
from sweep.match import executed_kmac_per_px, fit, fit_width
from sweep.pricing import PriceList

CONFIG = conf.compose(["depth.channels=[96,96,96]", "depth.latent_channels=144"])
STATIC = conf.compose(["depth.channels=[16,16,16]", "depth.latent_channels=24", "gating=static"])


def count(model: ModelSpec) -> Mapping[str, Any]:
    """Grows as a convolution's cost does, and takes no time."""
    n, m = sum(model.depth.channels), model.depth.latent_channels
    return {"encode": {"executed_kmac_per_px": n * n / 100}, "decode": {"executed_kmac_per_px": n * m / 100}}


@settings(max_examples=10, deadline=None)
@given(wanted=st.floats(0.1, 2000))
def test_no_other_width_comes_closer(wanted: float) -> None:
    """Compared with every thousandth of the width, the factor being the only thing that may vary."""
    found = fit_width(CONFIG, wanted, count, of="gated")
    assert found.width is not None
    off = abs(executed_kmac_per_px(count(model_of(found.applied(CONFIG)))) - wanted)
    every = {
        executed_kmac_per_px(count(model_of({**CONFIG, "width": n / 1000}))) for n in range(50, 1001, 10)
    }
    assert off <= min(abs(cost - wanted) for cost in every) + 1e-9


def gated(kmac_per_px: float, *, padded_px_ratio: float = 1.0) -> dict[str, Any]:
    cost = {"mean": kmac_per_px / 2}
    gating = {"encode_kmac_per_px": cost, "decode_kmac_per_px": cost}
    return {"gating": gating, "padded_px_ratio": padded_px_ratio}


def test_the_cost_is_that_of_operators_that_run_and_its_deviation_is_said() -> None:
    small = {**CONFIG, "depth": {**CONFIG["depth"], "channels": [32, 32, 32], "latent_channels": 48}}
    prices, wanted = PriceList(), model_of({**small, "width": 0.75})
    kmac = executed_kmac_per_px(prices.count(wanted))
    found = fit(small, gated(kmac), prices.count, of="gated")
    assert model_of(found.applied(small)) == wanted
    assert found.note == f"costs {kmac:.4g} kMAC/px, gated {kmac:.4g}: +0.0 %"
    (text,) = found.overrides
    assert model_of({**small, "width": float(text.removeprefix("width="))}) == wanted


def test_what_padding_costs_is_no_cost_of_the_model() -> None:
    """Where five pixels are coded for every four of the images, so are they with the model that matches."""
    assert fit(CONFIG, gated(500, padded_px_ratio=1.25), count, of="gated") == fit(
        CONFIG, gated(400), count, of="gated"
    )


def test_a_cost_beyond_what_widths_reach_gives_the_nearest_and_says_so() -> None:
    wide, thin = (fit_width(CONFIG, wanted, count, of="gated") for wanted in (1e6, 1e-3))
    assert (wide.width, thin.width) == (1.0, 0.05)
    assert wide.note == "costs 1244 kMAC/px, gated 1e+06: -99.9 %"


def test_a_fixed_mask_keeps_what_was_open_on_average() -> None:
    names = [
        *("g_a.2", "g_a.4", "g_a.6", "entropy_model.h_a.0", "entropy_model.h_a.2", "entropy_model.h_a.4"),
        *("g_s.0", "g_s.2", "g_s.4", "g_s.6"),
    ]
    opened = [7.4, 7.5, 16.0, 3.2, 0.0, 0.4, 12.5, 13.49, 1.0, 9.0]
    layers = [{"name": name, "open": value} for name, value in zip(names, opened, strict=True)]
    evaluation = {"gating": {"layers": layers[::-1]}}  # by their names, in whatever order
    found = fit(STATIC, evaluation, count, of="gated")
    channels = (7, 8, 16, 3, 1, 1, 13, 13, 1, 9)
    assert (found.channels, found.note) == (channels, "")
    assert model_of(found.applied(STATIC)).gating.channels == channels
    assert found.overrides == ("gating.channels=[7,8,16,3,1,1,13,13,1,9]",)
    with pytest.raises(UserError, match=r"gated has gates elsewhere than this model \(g_s\.6\); give both"):
        fit(STATIC, {"gating": {"layers": layers[:-1]}}, count, of="gated")


def test_a_trial_that_says_nothing_of_its_gates_cannot_be_matched() -> None:
    with pytest.raises(UserError, match="base says nothing of what its gates cost; match a stage whose"):
        fit(CONFIG, {"gating": None}, count, of="base")
