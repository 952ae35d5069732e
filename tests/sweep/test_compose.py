"""Composing configurations: Hydra's semantics, errors in one line, many points fast and equal to Hydra's."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conf
from rdc.errors import UserError

POINTS = [
    [],
    ["depth=n64"],
    ["entropy_model=scale_hyperprior", "depth=n32"],
    ["depth=n64", "depth.latent_channels=200"],
    ["depth.channels=[16,24,32]", "entropy_model.quantiser=noise"],
    ["model=rdc_g"],
    ["model=rdc_g", "depth=n64"],
    ["model=scale_hyperprior", "hyper_transform.activation=leaky_relu"],
    ["+depth.comment='not a key of the schema'"],
    ["hyper_transform.analysis_channels=[8,8,8]"],
]
BASES = [
    ["depth=n48", "entropy_model.indexing=ceil"],
    ["+experiment=frontier", "depth.layers=[1,0,0]"],
]


@pytest.mark.parametrize(
    ("base", "points"), [(BASES[0], POINTS), (BASES[1], POINTS[-4:])], ids=["groups", "an experiment"]
)
def test_points_compose_as_hydra_composes_them_one_by_one(base: list[str], points: list[list[str]]) -> None:
    one_by_one = [conf.compose([*base, *point]) for point in points]
    assert conf.compose_points(base, points) == one_by_one


def test_points_do_not_share_what_they_change() -> None:
    first, second = conf.compose_points([], [["depth=n64"], ["depth=n64"]])
    first["depth"]["channels"][0] = 1
    assert second["depth"]["channels"][0] == 64


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["depth=n7"], "depth=n7: there is no such choice; depth has: "),
        (
            ["+experiment=frontir"],
            "experiment=frontir: there is no such choice; experiment has: ",
        ),
        (["experiment=frontier"], "experiment: it is not chosen by default; write +experiment=frontier"),
        (["dept=n64"], "dept: there is no such key (did you mean depth?); the configuration has: "),
        (
            ["budget.step=3"],
            "budget.step: there is no such key (did you mean budget.steps?); budget has: name",
        ),
        (["depth=n64,n32"], "depth=n64,n32: several values need a list; give several rates as 'lmbdas="),
        (["depth.channels=[3"], "depth.channels=[3: this is no override in Hydra's grammar"),
        (
            ["stages={a:{overrides:[budget.steps=250]}}"],
            "; inside of lists, put an override in quotes: 'budget.steps=250'",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_are_named_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        conf.compose(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            ["budget.steps=3"],
            "space point 'budget.steps=3': a point chooses the model (transform, entropy_model",
        ),
        (["depth=n64,n32"], "space point 'depth=n64,n32': one point takes one value"),
        (["depth=n7"], "depth=n7: there is no such choice"),
        (["depth.chanels=[1,2,3]"], "depth.chanels: there is no such key (did you mean depth.channels?)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_point_may_set_the_model_only(point: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        conf.compose_points([], [point])


@pytest.mark.parametrize("text", ["transform=null", "budget=3", "+experiment=true"])
def test_a_group_is_chosen_by_name(text: str) -> None:
    group = text.lstrip("+").partition("=")[0]
    with pytest.raises(UserError, match=re.escape(f"{text}: {group} is chosen by name; it has: ")):
        conf.compose(["lmbda=0.013", text])


def test_grid_is_the_product_with_the_last_axis_fastest() -> None:
    axes: dict[str, list[Any]] = {
        "entropy_model": ["scale_hyperprior", "mean_scale_hyperprior"],
        "depth.channels": [[8, 8, 8], [9, 9, 9]],
    }
    assert conf.grid(axes) == [
        ["entropy_model=scale_hyperprior", "depth.channels=[8,8,8]"],
        ["entropy_model=scale_hyperprior", "depth.channels=[9,9,9]"],
        ["entropy_model=mean_scale_hyperprior", "depth.channels=[8,8,8]"],
        ["entropy_model=mean_scale_hyperprior", "depth.channels=[9,9,9]"],
    ]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n${}\\"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=6, deadline=None)
@given(st.lists(PLAIN, min_size=4, max_size=8))
def test_override_value_survives_hydras_grammar(values: list[object]) -> None:
    config = conf.compose([f"+probe{n}={conf.override_value(value)}" for n, value in enumerate(values)])
    assert [config[f"probe{n}"] for n in range(len(values))] == values
