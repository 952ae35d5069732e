import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis.pareto import dominates, dominators, frontier_mask

Costs = npt.NDArray[np.float64]

# Few distinct values, so that ties and duplicates are common.
costs = st.integers(2, 4).flatmap(
    lambda k: hnp.arrays(
        np.float64, st.tuples(st.integers(1, 25), st.just(k)), elements=st.integers(0, 5).map(float)
    )
)


def slow_mask(cost: Costs) -> list[bool]:
    """The definition, pair by pair."""
    return [not any(all(a <= b) and any(a < b) for a in cost) for b in cost]


@given(costs)
def test_the_mask_is_the_definition(cost: Costs) -> None:
    assert frontier_mask(cost).tolist() == slow_mask(cost)


@given(costs)
def test_equal_rows_share_one_fate(cost: Costs) -> None:
    twice = frontier_mask(np.vstack([cost, cost])).tolist()
    assert twice[: len(cost)] == twice[len(cost) :] == frontier_mask(cost).tolist()


@given(costs)
def test_adding_dominated_points_changes_nothing(cost: Costs) -> None:
    worse = np.vstack([cost, cost.max(axis=0) + 1, cost[0] + 1])
    assert frontier_mask(worse).tolist() == [*frontier_mask(cost).tolist(), False, False]


@given(costs)
def test_domination_is_antisymmetric_and_irreflexive(cost: Costs) -> None:
    for one in cost:
        assert not dominates(one, one)
        for other in cost:
            assert not (dominates(one, other) and dominates(other, one))


@given(costs)
def test_a_dominator_is_on_the_frontier_and_dominates(cost: Costs) -> None:
    mask = frontier_mask(cost)
    for row, by in enumerate(dominators(cost, mask)):
        assert (by == -1) == mask[row]
        if by >= 0:
            assert mask[by]
            assert dominates(cost[by], cost[row])


def test_of_several_dominators_the_best_in_the_first_objective_is_named() -> None:
    # (1, 3) and (2, 2) both dominate (3, 3); the first objective prefers (1, 3).
    cost = np.array([[2.0, 2.0], [1.0, 3.0], [3.0, 3.0]])
    assert dominators(cost, frontier_mask(cost)).tolist() == [-1, -1, 1]


def test_no_points_have_no_frontier() -> None:
    assert frontier_mask(np.zeros((0, 2))).tolist() == []
