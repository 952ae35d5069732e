"""Who is promoted: against slow definitions, in any order of arrival, and read back from the file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.search.rungs import Arrival, Rungs, RungsRecord, crowding_distances, fronts, ranked

VALUES = st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float))
ARRIVALS = st.lists(VALUES, min_size=1, max_size=25)
FAST = settings(max_examples=60, deadline=None)


def arrivals_of(values: Sequence[tuple[float, ...]]) -> list[Arrival]:
    return [Arrival(key=f"a{n}", values=v, order=n) for n, v in enumerate(values)]


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def slow_rank(values: list[tuple[float, ...]], n: int) -> int:
    """The longest chain of points above it, each dominating the next."""
    above = [m for m in range(len(values)) if dominates(values[m], values[n])]
    return max((1 + slow_rank(values, m) for m in above), default=0)


@FAST
@given(st.lists(VALUES, min_size=1, max_size=9))
def test_fronts_are_chains_of_domination(values: list[tuple[float, ...]]) -> None:
    found = {a.key: rank for rank, front in enumerate(fronts(arrivals_of(values))) for a in front}
    assert found == {f"a{n}": slow_rank(values, n) for n in range(len(values))}


@FAST
@given(ARRIVALS, st.sampled_from([1.5, 2.0, 3.0, 4.0]))
def test_promotions_are_the_best_share_at_their_moment(values: list[tuple[float, ...]], eta: float) -> None:
    rungs = Rungs([10], eta)
    promoted: set[str] = set()
    for n, value in enumerate(values):
        rungs.arrived(f"a{n}", 10, value)
        rungs.arrived(f"a{n}", 10, (math.nan, math.nan))  # a second arrival changes nothing
        best = {a.key for a in ranked(arrivals_of(values[: n + 1]))[: math.floor((n + 1) / eta)]}
        now = {key for key, _ in rungs.promotable()}
        assert now == best - promoted
        for key in now:
            rungs.promoted(key, 10)
        promoted |= now
        assert best <= promoted  # nobody waits, and nothing is taken back
    assert rungs.promotable() == []
    assert rungs.stopped() == {f"a{n}": 10 for n in range(len(values)) if f"a{n}" not in promoted}


@FAST
@given(ARRIVALS)
def test_nothing_is_promoted_before_what_dominates_it(values: list[tuple[float, ...]]) -> None:
    rungs = Rungs([10], 2)
    for n, value in enumerate(values):
        rungs.arrived(f"a{n}", 10, value)
    chosen = {key for key, _ in rungs.promotable()}
    for n, value in enumerate(values):
        better = {f"a{m}" for m, other in enumerate(values) if dominates(other, value)}
        assert f"a{n}" not in chosen or better <= chosen


@FAST
@given(ARRIVALS, st.randoms())
def test_promotions_follow_from_the_file_alone(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[float, ...]], random: object
) -> None:
    folder = tmp_path_factory.mktemp("rungs")
    record, rungs = RungsRecord(folder, "study"), Rungs([10, 20], 2)
    for n, value in enumerate(values):
        record.arrived(f"a{n}", 10, value)
        rungs.arrived(f"a{n}", 10, value)
        for key, step in rungs.promotable()[:1]:
            record.promoted(key, step)
            rungs.promoted(key, step)
    with open(folder / "rungs.jsonl", "a") as file:
        file.write('{"study": "study", "event": "arri')  # a driver killed in the middle of a line
    again = Rungs([10, 20], 2)
    RungsRecord(folder, "study").replay(again)
    assert (again.promotable(), again.stopped()) == (rungs.promotable(), rungs.stopped())
    other = Rungs([10, 20], 2)
    RungsRecord(folder, "another study").replay(other)
    assert other.stopped() == {}
    RungsRecord(folder, "study").arrived(
        "new", 10, (math.nan, 1.0)
    )  # the torn line does not swallow the next
    RungsRecord(folder, "study").replay(again)
    assert again.has_arrived("new", 10)


def test_inside_a_front_the_ends_and_the_lonely_go_first() -> None:
    line = [(0.0, 10.0), (1.0, 9.0), (2.0, 8.0), (9.0, 1.0), (10.0, 0.0)]
    # By hand: neighbours of 1 are 0 and 2, so (2 + 2) / 10; of 2: (8 + 8) / 10; of 9: (8 + 8) / 10.
    assert crowding_distances(line) == [
        math.inf,
        pytest.approx(0.4),
        pytest.approx(1.6),
        pytest.approx(1.6),
        math.inf,
    ]
    assert [a.key for a in ranked(arrivals_of(line))] == ["a0", "a4", "a2", "a3", "a1"]


def test_a_broken_validation_is_the_worst() -> None:
    assert [a.key for a in ranked(arrivals_of([(math.nan, 1.0), (5.0, 1.0)]))] == ["a1", "a0"]


def test_the_last_ones_are_not_all_left_behind() -> None:
    rungs = Rungs([10], 4)
    for n in range(3):
        rungs.arrived(f"a{n}", 10, (float(n), 1.0))
    assert rungs.promotable() == []
    assert rungs.promotable(last=True) == [("a0", 10)]
    rungs.promoted("a0", 10)
    assert rungs.promotable(last=True) == []


def test_what_is_further_is_past_the_rungs_below() -> None:
    rungs = Rungs([10, 20], 2)
    rungs.arrived("a", 20, (1.0, 1.0))
    assert rungs.stopped() == {"a": 20}
    rungs.finished("a")
    assert rungs.stopped() == {}
    assert (rungs.next_step(0), rungs.next_step(10), rungs.next_step(20)) == (10, 20, None)
