import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis.knee import knee_mask
from analysis.pareto import frontier_mask

Floats = npt.NDArray[np.float64]

points = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 15), st.just(2)), elements=st.integers(0, 12).map(float)
)


def knees_of(cost: Floats) -> list[bool]:
    return knee_mask(cost, frontier_mask(cost)).tolist()


def slow_depth(front: Floats, point: Floats) -> float:
    """Distance below the straight line through the ends, in units of the normalised axes."""
    left, right = min(map(tuple, front)), max(map(tuple, front))
    x, y = (point[0] - left[0]) / (right[0] - left[0]), (point[1] - right[1]) / (left[1] - right[1])
    return float(np.cross([1.0, -1.0, 0.0], [x, y - 1.0, 0.0])[2] / -np.sqrt(2))


def test_the_knee_of_a_bent_frontier_is_its_corner() -> None:
    # Ends (0, 10) and (10, 0), chord x + y = 10; (2, 3) lies 5 / sqrt(2) below it, (1, 6) 3 / sqrt(2).
    cost = np.array([[0.0, 10.0], [1.0, 6.0], [2.0, 3.0], [10.0, 0.0], [9.0, 9.0]])
    assert knees_of(cost) == [False, False, True, False, False]


@pytest.mark.parametrize(
    "cost",
    [
        [[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]],  # straight
        [[0.0, 2.0], [1.5, 1.5], [2.0, 0.0]],  # bent outward
        [[0.0, 2.0], [2.0, 0.0]],
        [[1.0, 1.0], [1.0, 1.0]],
    ],
)
def test_some_frontiers_have_no_knee(cost: list[list[float]]) -> None:
    assert not any(knees_of(np.array(cost)))


def test_nobody_has_no_knee() -> None:
    assert knees_of(np.zeros((0, 2))) == []


@given(points)
def test_no_frontier_point_lies_farther_below_the_chord(cost: Floats) -> None:
    mask = frontier_mask(cost)
    knees = knee_mask(cost, mask)
    front = np.unique(cost[mask], axis=0)
    assert not (knees & ~mask).any()
    assert len(np.unique(cost[knees], axis=0)) <= 1
    if len(front) < 2:
        assert not knees.any()
        return
    depths = [slow_depth(front, point) for point in front]
    if max(depths) > 1e-6:
        assert slow_depth(front, cost[knees][0]) == pytest.approx(max(depths))
    else:
        assert not knees.any()


@given(points, st.floats(0.1, 50), st.floats(-5, 5))
def test_units_do_not_move_the_knee(cost: Floats, factor: float, shift: float) -> None:
    assert knees_of(cost) == knees_of(cost * [factor, 1.0] + [shift, 0.0])


def test_more_objectives_have_no_chord() -> None:
    with pytest.raises(AssertionError, match="do not span one plane"):
        knee_mask(np.zeros((3, 3)), np.ones(3, dtype=bool))
