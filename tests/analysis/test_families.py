"""What a family looks like must not depend on which others are shown."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.families import (
    COLOURS,
    MARKERS,
    MODEL_MARKERS,
    TRANSFORM_COLOURS,
    curve_styles,
    family_styles,
)

KNOWN = [f"{transform}/{model}" for transform in TRANSFORM_COLOURS for model in MODEL_MARKERS]
NAMES = st.sampled_from(["conv", "elic", "charm", "swint", "mine", "yours", "", "a/b"])
FAMILIES = st.lists(st.tuples(NAMES, NAMES, NAMES).map("/".join), max_size=12)


def test_colour_is_the_transform_and_marker_the_rest() -> None:
    assert family_styles(["conv/charm/conv"]) == {"conv/charm/conv": ("#0072B2", "o")}
    assert family_styles(["elic/charm/swint"]) == {"elic/charm/swint": ("#D55E00", "P")}
    assert family_styles(["swint/mean_scale_hyperprior/swint"]) == {
        "swint/mean_scale_hyperprior/swint": ("#009E73", "D")
    }
    assert len(set(family_styles(KNOWN).values())) == len(KNOWN)


@settings(max_examples=50)
@given(FAMILIES, st.sampled_from(KNOWN))
def test_a_known_family_looks_alike_in_any_company(others: list[str], family: str) -> None:
    assert family_styles([*others, family])[family] == family_styles([family])[family]


@settings(max_examples=50)
@given(FAMILIES)
def test_no_two_families_of_a_figure_look_alike(families: list[str]) -> None:
    found = family_styles(families)
    assert len(set(found.values())) == len(found) == len(set(families))
    assert found == family_styles(reversed(families))


def test_more_families_than_pairs_share_some() -> None:
    found = family_styles([f"t{n}/m/h" for n in range(100)])
    assert set(found.values()) == set(itertools.product(COLOURS, MARKERS))


def test_curves_differ_from_each_other_and_from_what_is_taken() -> None:
    assert len(set(curve_styles(91))) == 91
    taken = curve_styles(5)
    assert not set(curve_styles(12, but=taken)) & set(taken)
    for (one, mark), (other, other_mark) in itertools.pairwise(curve_styles(12)):
        assert one != other
        assert mark != other_mark
    assert len(curve_styles(3, but=itertools.product(COLOURS, MARKERS))) == 3
