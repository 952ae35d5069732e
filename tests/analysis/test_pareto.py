import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis.errors import AnalysisError
from analysis.pareto import (
    Epsilon,
    dominates,
    dominators,
    epsilon_limits,
    epsilon_mask,
    frontier_mask,
    ranks,
)

Costs = npt.NDArray[np.float64]


def tables(most: int = 25, k_most: int = 4) -> st.SearchStrategy[Costs]:
    """Few distinct values, so that ties and duplicates are common; above 0, as per cent need them."""
    return st.integers(2, k_most).flatmap(
        lambda k: hnp.arrays(
            np.float64, st.tuples(st.integers(1, most), st.just(k)), elements=st.integers(1, 6).map(float)
        )
    )


costs = tables()
epsilons = st.one_of(
    st.floats(0, 2).map(lambda value: Epsilon(value, relative=True)),
    st.integers(0, 4).map(lambda value: Epsilon(float(value), relative=False)),
)


def slow_mask(cost: Costs) -> list[bool]:
    """The definition, pair by pair."""
    return [not any(all(a <= b) and any(a < b) for a in cost) for b in cost]


def slow_ranks(cost: Costs) -> list[int]:
    """Front after front taken away."""
    found = [-1] * len(cost)
    left = list(range(len(cost)))
    for rank in itertools.count():
        if not left:
            return found
        front = [i for i, best in zip(left, slow_mask(cost[left]), strict=True) if best]
        for i in front:
            found[i] = rank
        left = [i for i in left if i not in front]
    raise AssertionError


def slow_dominator(cost: Costs, row: int) -> int:
    """The lexicographically least of the frontier rows that dominate; of equal ones the first."""
    good = [i for i, best in enumerate(slow_mask(cost)) if best and dominates(cost[i], cost[row])]
    return min(good, key=lambda i: (*cost[i], i), default=-1)


def covers(one: Costs, other: Costs, each: tuple[Epsilon, ...]) -> bool:
    """Epsilon-dominance, written out: nowhere worse by more than epsilon."""
    limits = [
        b * (1 + e.value) if e.relative and b >= 0 else b / (1 + e.value) if e.relative else b + e.value
        for b, e in zip(other, each, strict=True)
    ]
    return all(a <= limit for a, limit in zip(one, limits, strict=True))


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
def test_ranks_are_fronts_taken_away_one_after_the_other(cost: Costs) -> None:
    assert ranks(cost).tolist() == slow_ranks(cost)


@given(costs)
def test_the_dominator_is_the_best_one_in_the_first_objectives(cost: Costs) -> None:
    found = dominators(cost, frontier_mask(cost))
    assert found.tolist() == [slow_dominator(cost, row) for row in range(len(cost))]


def test_of_several_dominators_the_best_in_the_first_objective_is_named() -> None:
    # (1, 3) and (2, 2) both dominate (3, 3); the first objective prefers (1, 3).
    cost = np.array([[2.0, 2.0], [1.0, 3.0], [3.0, 3.0]])
    assert dominators(cost, frontier_mask(cost)).tolist() == [-1, -1, 1]


@pytest.mark.parametrize("k", [2, 3, 4])
def test_dominators_of_many_rows_come_from_every_block(k: int) -> None:
    random = np.random.default_rng(k)
    cost = random.dirichlet(np.ones(k), 3000)  # a frontier of a plane
    cost[1500:] += random.uniform(0.001, 0.1, (1500, 1))
    mask = frontier_mask(cost)
    found = dominators(cost, mask)
    best_first = [i for i in np.lexsort(cost.T[::-1]) if mask[i]]
    for row in random.choice(np.flatnonzero(~mask), 200, replace=False):
        assert found[row] == next(i for i in best_first if dominates(cost[i], cost[row]))
    assert mask.sum() > 1000


def test_no_points_have_no_frontier() -> None:
    none = np.zeros((0, 2))
    assert frontier_mask(none).tolist() == ranks(none).tolist() == []
    assert epsilon_mask(none, (Epsilon(0.1, True),) * 2).tolist() == []


def test_what_has_no_order_is_our_own_bug() -> None:
    for function in (frontier_mask, ranks):
        with pytest.raises(AssertionError, match="NaN and infinities have no place in an order"):
            function(np.array([[1.0, np.nan], [2.0, 1.0]]))


@given(costs, st.data())
def test_an_epsilon_set_lies_on_the_frontier_and_covers_everybody(cost: Costs, data: st.DataObject) -> None:
    signs = np.array([data.draw(st.sampled_from([1.0, -1.0])) for _ in range(cost.shape[1])])
    cost = cost * signs  # -1: objectives of which more is better
    each = tuple(data.draw(epsilons) for _ in range(cost.shape[1]))
    kept = epsilon_mask(cost, each)
    assert not (kept & ~frontier_mask(cost)).any()
    for row in cost:
        assert any(covers(one, row, each) for one in cost[kept])


@given(costs, st.data())
def test_neither_order_nor_duplicates_nor_dominated_rows_change_an_epsilon_set(
    cost: Costs, data: st.DataObject
) -> None:
    each = tuple(data.draw(epsilons) for _ in range(cost.shape[1]))
    kept = {tuple(row) for row in cost[epsilon_mask(cost, each)]}
    mixed = cost[data.draw(st.permutations(range(len(cost))))]
    more = np.vstack([mixed, mixed[:3], cost.max(axis=0) + 1])
    mask = epsilon_mask(more, each)
    assert {tuple(row) for row in more[mask]} == kept
    assert all(mask[i] == (tuple(row) in kept) for i, row in enumerate(more))


@settings(max_examples=60)
@given(tables(most=9, k_most=2), st.data())
def test_with_two_objectives_no_smaller_set_covers_everybody(cost: Costs, data: st.DataObject) -> None:
    each = (data.draw(epsilons), data.draw(epsilons))
    front = np.unique(cost[frontier_mask(cost)], axis=0)
    size = len(np.unique(cost[epsilon_mask(cost, each)], axis=0))
    smaller = itertools.combinations(front, size - 1)
    assert not any(all(any(covers(one, row, each) for one in few) for row in cost) for few in smaller)


@given(costs)
def test_epsilon_0_is_the_frontier(cost: Costs) -> None:
    for relative in (False, True):
        each = (Epsilon(0.0, relative),) * cost.shape[1]
        assert epsilon_mask(cost, each).tolist() == frontier_mask(cost).tolist()


def test_what_is_within_2_per_cent_of_a_cheaper_one_is_not_kept() -> None:
    # By cost: (1.00, 10) opens; (0.99, 20) is 1 % better for twice the cost; (0.90, 30) is 10 % better;
    # (0.80, 30.3) costs 1 % more than that and is 11 % better, so it stands for it.
    cost = np.array([[1.00, 10.0], [0.99, 20.0], [0.90, 30.0], [0.80, 30.3]])
    assert frontier_mask(cost).all()
    assert epsilon_mask(cost, (Epsilon(0.02, True),) * 2).tolist() == [True, False, False, True]


def test_per_cent_of_what_is_better_high_go_down() -> None:
    # Costs of 40 and 10 of something good: 25 % less good is 40 / 1.25 = 32.
    limits = epsilon_limits(np.array([[-40.0, 10.0]]), (Epsilon(0.25, True), Epsilon(0.25, False)))
    assert limits.tolist() == [[-32.0, 10.25]]


def test_epsilons_are_read_and_refused() -> None:
    assert Epsilon.parse("2%") == Epsilon(0.02, True)
    assert Epsilon.parse(" 0.05 ") == Epsilon(0.05, False)
    assert (str(Epsilon(0.02, True)), str(Epsilon(0.05, False))) == ("2 %", "0.05")
    for text, message in (
        ("two", "epsilon 'two': must be a number such as 0.05, or per cent such as 2%"),
        ("-1%", "epsilon -0.01: must be 0 or greater"),
        ("nan", "epsilon nan: must be 0 or greater"),
        ("inf", "epsilon inf: must be 0 or greater, and finite"),
    ):
        with pytest.raises(AnalysisError, match=message):
            Epsilon.parse(text)
