"""The width multiplier: shape kept, rounding monotone, nothing legal made illegal, and no id of its own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conf
from rdc.complexity import measure
from rdc.configured import model_of
from rdc.errors import UserError
from rdc.spec import ModelSpec, arch_id, parse_model, to_plain
from rdc.width import apportioned, scale, scaled_width
from tests.rdc.shared import legal_combinations

PRESETS = sorted(path.stem for path in (Path(conf.__file__).parent / "model").glob("*.yaml"))
FACTORS = st.floats(0.1, 2.0)
DEPTH = {"channels": [32, 48, 64], "latent_channels": 80, "layers": [1, 0, 2]}


@functools.cache
def preset(name: str) -> ModelSpec:
    return model_of(conf.compose([f"model={name}"]))


@functools.cache
def legal_models() -> list[ModelSpec]:
    return [parse_model(config) for config in legal_combinations(DEPTH).values()]


def numbers(value: Any) -> list[int]:
    """All whole numbers of a spec as JSON, in their order."""
    if isinstance(value, dict):
        return [n for key in value for n in numbers(value[key])]
    if isinstance(value, list):
        return [n for entry in value for n in numbers(entry)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


def shape(value: Any) -> Any:
    """A spec without its numbers."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return None if isinstance(value, int) and not isinstance(value, bool) else value


@given(st.integers(1, 1000), st.floats(0.05, 4), st.floats(0.05, 4), st.integers(1, 12))
def test_a_width_is_monotone_rounds_closely_and_is_itself_at_one(
    width: int, one: float, other: float, multiple: int
) -> None:
    small, large = sorted((one, other))
    assert scaled_width(width, small, multiple) <= scaled_width(width, large, multiple)
    assert scaled_width(width, 1.0, multiple) == max(width, scaled_width(width, 0.05, multiple))
    if width % multiple == 0:
        assert scaled_width(width, 1.0, multiple) == width
        assert scaled_width(width, small, multiple) % multiple == 0
        step = 4 if multiple == 1 else 2 * multiple
        assert scaled_width(width, small, multiple) <= max(width * small + step / 2, step)
        assert scaled_width(width, small, multiple) >= width * small - step / 2


@pytest.mark.parametrize(
    ("width", "factor", "multiple", "expected"),
    [
        (320, 0.25, 10, 80),
        (320, 0.1, 10, 30),  # 32 lies nearer to 30 than to 40; ten slices of three
        (128, 0.25, 1, 32),
        (144, 0.25, 1, 36),
        (30, 0.5, 1, 16),  # 15 lies between 14 and 16: halves go up
        (7, 0.5, 1, 4),  # odd widths stay free: 3.5 goes up
        (128, 0.05, 1, 8),  # 6.4 lies nearer to 8 than to 4
        (16, 0.05, 1, 4),
    ],
)
def test_rounding_by_hand(width: int, factor: float, multiple: int, expected: int) -> None:
    assert scaled_width(width, factor, multiple) == expected


@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(0, 300))
def test_shares_sum_up_stay_themselves_and_only_grow(shares: list[int], more: int) -> None:
    assert apportioned(shares, sum(shares)) == tuple(shares)
    total = len(shares) + more
    parts = apportioned(shares, total)
    assert sum(parts) == total
    assert min(parts) >= 1
    assert all(a <= b for a, b in zip(parts, apportioned(shares, total + 1), strict=True))


def test_elics_groups_at_a_quarter() -> None:
    # 16, 16, 32, 64, 192 of 320 channels, times 80 / 320
    assert apportioned((16, 16, 32, 64, 192), 80) == (4, 4, 8, 16, 48)
    # Nearest to 2.4, 2.4, 4.8, 9.6 and 28.8: neither small nor large groups are favoured.
    assert apportioned((16, 16, 32, 64, 192), 48) == (2, 2, 5, 10, 29)


@settings(deadline=None)  # the first example composes the preset
@given(FACTORS)
def test_a_scaled_elic_keeps_the_proportions_of_its_groups(factor: float) -> None:
    # Its latent goes to multiples of 10, even ones of its five groups, and is cut in the published shares.
    latent_channels = scale(preset("elic"), factor).depth.latent_channels
    assert latent_channels % 10 == 0
    assert abs(latent_channels - 320 * factor) <= 5.001
    groups = apportioned((16, 16, 32, 64, 192), latent_channels)
    for group, share in zip(groups, (16, 16, 32, 64, 192), strict=True):
        assert abs(group - share * latent_channels / 320) < 1


@pytest.mark.parametrize("name", PRESETS)
def test_one_is_the_identity_and_other_factors_keep_the_shape(name: str) -> None:
    model = preset(name)
    assert scale(model, 1.0) == model
    half = scale(model, 0.5)
    assert half != model
    assert shape(to_plain(half)) == shape(to_plain(model))
    assert half.depth.layers == model.depth.layers
    assert half.family == model.family


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=25, deadline=None)
@given(one=FACTORS, other=FACTORS)
def test_no_width_shrinks_as_the_factor_grows(name: str, one: float, other: float) -> None:
    small, large = (numbers(to_plain(scale(preset(name), factor))) for factor in sorted((one, other)))
    assert all(a <= b for a, b in zip(small, large, strict=True))


@settings(max_examples=25, deadline=None)
@given(FACTORS)
def test_legal_combinations_stay_legal(factor: float) -> None:
    for model in legal_models():
        scaled = scale(model, factor)
        assert parse_model(to_plain(scaled)) == scaled


# Every component is in one of them.
@pytest.mark.parametrize("name", ["rdc_b", "rdc_e", "rdc_g", "elic", "joint_autoregressive"])
def test_decoding_costs_the_factor_squared(name: str) -> None:
    # What is not squared: the three channels of the image, products of attention, and rounding.
    full = measure(preset(name), 64, 64).kmac_per_px("decode")
    half = measure(scale(preset(name), 0.5), 64, 64).kmac_per_px("decode")
    assert half / full == pytest.approx(0.25, rel=0.15)


def test_the_factor_is_no_identity() -> None:
    quarter = model_of(conf.compose(["model=rdc_g", "width=0.25"]))
    depth = ["depth.channels=[32,32,32]", "depth.latent_channels=80"]
    hyper = ["hyper_transform.analysis_channels=[40,32,32]", "hyper_transform.synthesis_channels=[80,120]"]
    written_out = model_of(conf.compose(["model=rdc_g", *depth, *hyper]))
    assert quarter == written_out
    assert arch_id(quarter) == arch_id(written_out)


def test_points_of_a_space_may_set_it() -> None:
    points = [["model=rdc_g", "width=0.5"], ["width=0.25"], []]
    widths = [model_of(c).depth.channels[0] for c in conf.compose_points(["model=rdc_g"], points)]
    assert widths == [64, 32, 128]


@pytest.mark.parametrize("value", ["0", "-1", "0.01", "5", "wide", "true", "null", "nan"])
def test_impossible_factors_are_refused(value: str) -> None:
    with pytest.raises(UserError, match="width="):
        model_of(conf.compose([f"width={value}"]))
