"""What a search asks and tells, on suggestions of any kind and on Optuna's own; nothing is trained."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdc.errors import UserError
from rdc.files import read_jsonl
from sweep.search.rungs import Rungs
from sweep.search.space import Space, read_branches
from sweep.search.study import SamplerName, Study, open_study
from tests.sweep.searching import (
    ARCHITECTURES,
    SPACE,
    STEPS,
    Killed,
    ListStudy,
    Mortal,
    World,
    drive,
    objectives,
    own_trials,
    search,
)

PARAMS = list(SPACE.in_random_order(np.random.default_rng(0)))
SUGGESTIONS = st.lists(st.sampled_from(PARAMS), min_size=1, max_size=30)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def real_study(folder: Path, sampler: SamplerName, seed: int = 0, *, storage: str | None = None) -> Study:
    return open_study(
        name="study",
        folder=folder,
        storage=storage,
        space=SPACE,
        objectives=objectives(),
        sampler=sampler,
        seed=seed,
        population=4,
        about={"lmbda": 0.01},
    )


@MANY
@given(SUGGESTIONS, st.integers(1, 20), st.integers(1, 4), st.integers(0, 99), st.integers(1, 2))
def test_whatever_is_suggested_no_architecture_is_trained_twice(
    tmp_path_factory: pytest.TempPathFactory,
    suggestions: list[dict[str, str]],
    wanted: int,
    slots: int,
    seed: int,
    seeds: int,
) -> None:
    world, study = World(tmp_path_factory.mktemp("w"), seeds=seeds), ListStudy(suggestions)
    source = search(world, study, wanted=wanted)
    drive(source, world, np.random.default_rng(seed), slots=slots)
    assert set(world.finished_runs.values()) == {1}
    assert len(world.finished_runs) == seeds * min(wanted, ARCHITECTURES)
    assert "RUNNING" not in study.states
    assert all(states == ["COMPLETE"] for states in own_trials(study.history()).values())
    for past in study.history():  # a repeat is told what the original was told, or that it says nothing
        if past.state == "COMPLETE" and "dup_of" in past.attrs:
            original = next(p for p in study.history() if p.attrs.get("arch_id") == past.attrs["dup_of"])
            assert past.values == original.values


@pytest.mark.parametrize("in_flight", [False, True])
def test_what_is_suggested_again_is_answered_without_training(tmp_path: Path, in_flight: bool) -> None:
    """The same point, and another one that is the same architecture."""
    eight = {"branch": "conv", "conv/depth.latent_channels": "8"}
    first, alike = ({**eight, "conv/transform.norm": norm} for norm in ("gdn", "gdn1"))
    world = World(tmp_path)
    study = ListStudy([first, first, alike, {**first, "conv/depth.latent_channels": "16"}])
    source = search(world, study, wanted=2)
    if in_flight:
        assert len(source.ask(2)) == 2
        assert study.states == ["RUNNING", "FAIL", "FAIL", "RUNNING"]
    else:
        (asked,) = source.ask(1)
        source.tell(asked.spec_id, world.run(asked))
        assert len(source.ask(2)) == 1
        assert study.states == ["COMPLETE", "COMPLETE", "COMPLETE", "RUNNING"]
        assert study.values[0] == study.values[1] == study.values[2]
    assert [attrs.get("dup_of") for attrs in study.attrs] == [None, "arch0", "arch0", None]


@MANY
@given(
    SUGGESTIONS,
    st.integers(1, 14),
    st.lists(st.integers(1, 12), max_size=4),
    st.integers(0, 99),
    st.booleans(),
)
def test_a_search_that_is_cut_off_anywhere_goes_on_without_a_trace(
    tmp_path_factory: pytest.TempPathFactory,
    suggestions: list[dict[str, str]],
    wanted: int,
    cuts: list[int],
    seed: int,
    with_rungs: bool,
) -> None:
    world, study = World(tmp_path_factory.mktemp("w")), ListStudy(suggestions)
    random = np.random.default_rng(seed)
    for ends in [*cuts, None]:
        rungs = Rungs([20, 50], 2) if with_rungs else None
        # Trials that were running when the driver died go on from where their last checkpoint was.
        drive(search(world, study, wanted=wanted, rungs=rungs), world, random, ends=ends)
    assert set(world.finished_runs.values()) == {1}
    assert "RUNNING" not in study.states
    own = own_trials(study.history())
    assert len(own) == min(wanted, ARCHITECTURES)
    complete = [arch_id for arch_id, states in own.items() if "COMPLETE" in states]
    assert len(complete) == len(world.finished_runs)
    assert all(states.count("COMPLETE") <= 1 for states in own.values())
    if not with_rungs:
        assert all(states == ["COMPLETE"] for states in own.values())


@MANY
@given(
    SUGGESTIONS,
    st.integers(1, 14),
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=4),
    st.integers(0, 99),
    st.booleans(),
)
def test_a_driver_may_die_at_any_word_to_the_study(
    tmp_path_factory: pytest.TempPathFactory,
    suggestions: list[dict[str, str]],
    wanted: int,
    deaths: list[tuple[int, bool]],
    seed: int,
    with_rungs: bool,
) -> None:
    world, study = World(tmp_path_factory.mktemp("w")), ListStudy(suggestions)
    random = np.random.default_rng(seed)

    def rungs() -> Rungs | None:
        return Rungs([20, 50], 2) if with_rungs else None

    for call, after in deaths:
        with contextlib.suppress(Killed):
            mortal = Mortal(study, call=call, after=after)
            drive(search(world, mortal, wanted=wanted, rungs=rungs()), world, random)
    drive(search(world, study, wanted=wanted, rungs=rungs()), world, random)
    assert set(world.finished_runs.values()) == {1}
    assert "RUNNING" not in study.states
    own = own_trials([past for past in study.history() if "arch_id" in past.attrs])
    assert len(own) == min(wanted, ARCHITECTURES)
    assert sum(states.count("COMPLETE") for states in own.values()) == len(world.finished_runs)
    assert all(states.count("COMPLETE") <= 1 for states in own.values())


@pytest.mark.parametrize("call", range(1, 12))
def test_a_complete_trial_has_its_limits_wherever_the_driver_died(tmp_path: Path, call: int) -> None:
    world, study = World(tmp_path), ListStudy(PARAMS)
    limits, random = {"kmac_per_px_dec": 50.0}, np.random.default_rng(0)
    with contextlib.suppress(Killed):
        drive(search(world, Mortal(study, call=call, after=True), wanted=3, limits=limits), world, random)
    drive(search(world, study, wanted=3, limits=limits), world, random)
    complete = [past for past in study.history() if past.state == "COMPLETE" and "dup_of" not in past.attrs]
    assert len(complete) == 3
    assert all(study.constraints[past.number] for past in complete)


def test_what_was_stopped_is_trained_to_its_end_by_a_command_without_rungs(tmp_path: Path) -> None:
    world, study, random = World(tmp_path), ListStudy(PARAMS), np.random.default_rng(0)
    with_rungs = search(world, study, wanted=9, rungs=Rungs([20, 50], 2))
    drive(with_rungs, world, random)
    stopped = with_rungs.stopped()
    assert len(stopped) + len(world.results) == 9
    assert stopped
    assert set(stopped.values()) <= {20, 50}
    assert not stopped.keys() & world.results.keys()
    again = search(world, study, wanted=9, rungs=Rungs([20, 50], 2))
    assert again.done  # nothing new has arrived, so nobody else is promoted
    assert again.stopped() == stopped
    more = search(world, study, wanted=12, rungs=Rungs([20, 50], 2))
    drive(more, world, random)
    assert len(world.results) + len(more.stopped()) == 12
    assert not more.stopped().keys() & world.results.keys()
    drive(search(world, study, wanted=12), world, random)
    assert len(world.results) == 12
    assert set(world.reached.values()) == {STEPS}
    assert all(states.count("COMPLETE") == 1 for states in own_trials(study.history()).values())


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_is_past_a_new_rung_is_not_ranked_there_and_trains_on(tmp_path: Path, seeds: int) -> None:
    world, study = World(tmp_path, seeds=seeds), ListStudy(PARAMS)
    interrupted = search(world, study, wanted=1).ask(seeds)[0]
    world.interrupted_at[interrupted.spec_id] = 35
    source = search(world, study, wanted=1, rungs=Rungs([20, 50], 2))
    for stop_at_step in (20, 50):
        for asked in source.ask(seeds):
            assert asked.stop_at_step == stop_at_step
            source.tell(asked.spec_id, world.run(asked))
    lines = [(line["event"], line["step"]) for line in read_jsonl(tmp_path / "rungs.jsonl")]
    assert lines == [("promoted", 20), ("arrived", 50)]
    drive(source, world, np.random.default_rng(0))
    assert study.states == ["COMPLETE"]


def test_limits_reject_before_training_and_say_so(tmp_path: Path) -> None:
    world, study = World(tmp_path), ListStudy(PARAMS)
    drive(search(world, study, wanted=4, limits={"kmac_per_px_dec": 5.5}), world, np.random.default_rng(0))
    assert len(world.results) == 4
    said: list[str] = []
    source = search(world, study, wanted=9, limits={"kmac_per_px_dec": 5.5}, say=said.append)
    drive(source, world, np.random.default_rng(0))
    assert len(world.results) == 5  # costs are 1, 2, 3, ... in the order in which points are met
    found = "the space is exhausted: 5 architectures of search.trials=9"
    assert said[0] == f"{found}; that is all that it holds within the limits"
    rejected = [past for past in study.history() if "rejected" in past.attrs]
    assert rejected[0].state == "PRUNED"
    assert rejected[0].attrs["rejected"] == "above its limit: kmac_per_px_dec 6 of at most 5.5"
    assert study.constraints[rejected[0].number] == {"kmac_per_px_dec": 0.5}


def test_impossible_points_are_rejected(tmp_path: Path) -> None:
    world = World(tmp_path, refuse=lambda point: "transform=swint" in point)
    study = ListStudy(PARAMS)
    drive(search(world, study, wanted=99), world, np.random.default_rng(0))
    assert len(world.results) == 7
    assert {p.attrs["rejected"] for p in study.history() if "rejected" in p.attrs} == {"impossible"}


def test_a_space_that_cannot_be_listed_is_given_up_and_nothing_is_claimed_of_it(tmp_path: Path) -> None:
    axes = {"depth.latent_channels": {"low": 8, "high": 10**6}}
    world, said = World(tmp_path, refuse=lambda point: True), list[str]()
    suggestions = [{"depth.latent_channels": 8}]
    space = Space(read_branches(axes, None))
    source = search(world, ListStudy(suggestions), wanted=2, space=space, say=said.append)
    assert source.ask(1) == []
    assert source.done
    found = "the space is exhausted: 0 architectures of search.trials=2"
    assert said == [f"{found}; of 1000 more random points none may be trained"]


def test_a_failed_architecture_says_nothing_and_is_tried_once_per_command(tmp_path: Path) -> None:
    world, study = World(tmp_path), ListStudy(PARAMS[:1])
    source = search(world, study, wanted=1)
    (asked,) = source.ask(1)
    source.tell(asked.spec_id, world.run(asked, fails=True))
    assert source.done
    assert (study.states, study.attrs[0]["failed"]) == (["FAIL"], f"{asked.spec_id} failed")
    again = search(world, study, wanted=1)
    assert [t.spec_id for t in again.ask(1)] == [asked.spec_id]
    again.tell(asked.spec_id, world.run(asked))
    assert again.done
    assert study.states == ["FAIL", "COMPLETE"]


def test_a_mismatch_is_no_value(tmp_path: Path) -> None:
    world, study = World(tmp_path), ListStudy(PARAMS[:1])
    source = search(world, study, wanted=1)
    (asked,) = source.ask(1)
    source.tell(asked.spec_id, {**world.run(asked), "status": "rate_mismatch"})
    assert study.states == ["FAIL"]


def test_results_that_lie_there_are_told_without_running(tmp_path: Path) -> None:
    world = World(tmp_path)
    drive(search(world, ListStudy(PARAMS), wanted=13), world, np.random.default_rng(0))
    another = ListStudy(PARAMS)
    source = search(world, another, wanted=13)
    assert source.ask(2) == []
    assert source.done
    assert [states for states in own_trials(another.history()).values()] == [["COMPLETE"]] * 13
    assert set(world.finished_runs.values()) == {1}


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_optuna_searches_the_whole_space_and_repeats_nothing(tmp_path: Path, sampler: SamplerName) -> None:
    world, study, said = World(tmp_path), real_study(tmp_path, sampler), list[str]()
    drive(search(world, study, wanted=99, say=said.append), world, np.random.default_rng(0))
    assert len(world.finished_runs) == ARCHITECTURES
    assert set(world.finished_runs.values()) == {1}
    assert any("the space is exhausted: 13 architectures" in text for text in said)
    for past in study.history():  # a conv transform has no window
        assert set(past.params) == {"branch", *SPACE.parameters[past.params["branch"]]}


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_a_real_study_survives_its_drivers(tmp_path: Path, sampler: SamplerName) -> None:
    world, random = World(tmp_path), np.random.default_rng(2)
    for ends in (3, 1, 4, 0, None):
        drive(search(world, real_study(tmp_path, sampler), wanted=12), world, random, ends=ends)
        journal = tmp_path / "optuna.journal"
        journal.write_bytes(journal.read_bytes() + b'{"op_code":4,"wor')  # a kill in the middle of a line
    history = real_study(tmp_path, sampler).history()
    assert set(world.finished_runs.values()) == {1}
    assert [states for states in own_trials(history).values()] == [["COMPLETE"]] * 12


def test_what_somebody_has_put_into_the_queue_is_ended_too(tmp_path: Path) -> None:
    """As a driver leaves it that is killed between putting a trial there and taking it out again."""
    world, study = World(tmp_path), real_study(tmp_path, "random")
    rungs = search(world, study, wanted=4, rungs=Rungs([20], 2))
    drive(rungs, world, np.random.default_rng(0))
    assert rungs.stopped()
    seen = [past.params for past in study.history()]
    study._study.enqueue_trial(next(params for params in PARAMS if params not in seen))
    drive(search(world, real_study(tmp_path, "random"), wanted=4), world, np.random.default_rng(0))
    history = real_study(tmp_path, "random").history()
    assert {past.state for past in history} == {"COMPLETE", "PRUNED", "FAIL"}
    assert len(world.finished_runs) == 4


def test_a_trial_that_another_sweep_has_ended_is_an_error_in_one_line(tmp_path: Path) -> None:
    one, other = real_study(tmp_path, "random"), real_study(tmp_path, "random")
    number, _ = one.ask()
    other.fail(number)
    with pytest.raises(UserError, match=r"somebody else has ended trial 0 of study study; .*name=") as caught:
        one.tell(number, [1.0, 2.0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"\0", b'"', b"\xff", b"}\n{"], ids=repr)
def test_a_damaged_journal_is_named_with_the_way_out(tmp_path: Path, damage: bytes) -> None:
    world = World(tmp_path)
    drive(search(world, real_study(tmp_path, "random"), wanted=3), world, np.random.default_rng(0))
    journal = tmp_path / "optuna.journal"
    content = journal.read_bytes()
    middle = content.index(b"user_attr")
    journal.write_bytes(content[:middle] + damage + content[middle:])
    with pytest.raises(UserError, match=r"optuna\.journal: is damaged \(.*\); move it away"):
        real_study(tmp_path, "random")


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_the_first_trials_take_the_branches_in_turn(tmp_path: Path, sampler: SamplerName) -> None:
    study = real_study(tmp_path, sampler)
    assert [study.ask()[1]["branch"] for _ in range(4)] == ["conv", "swint"] * 2


def test_a_restart_does_not_suggest_the_same_again(tmp_path: Path) -> None:
    first = [real_study(tmp_path, "random").ask()[1] for _ in range(6)]
    assert len({str(params) for params in first}) > 2


def test_a_repeated_architecture_is_one_parent(tmp_path: Path) -> None:
    study = real_study(tmp_path, "nsga2")
    for params in (PARAMS[0], PARAMS[0], PARAMS[0], PARAMS[1]):  # a generation
        study.tell(study.ask_for(params), [1.0, 2.0])
    study.ask()
    parents = study._study.sampler.get_parent_population(study._study, 1)
    assert [parent.params for parent in parents] in (PARAMS[:2], PARAMS[1::-1])


def test_children_cross_inside_their_branch() -> None:
    """After a first generation, NSGA-II's children take their values from the parents of their own branch."""
    from types import SimpleNamespace

    from sweep.search.study import child_params

    random = np.random.default_rng(0)
    conv = {"branch": "conv", "conv/depth.latent_channels": "8"}
    swint = {"branch": "swint", "swint/transform.window": "4"}
    parents = [
        SimpleNamespace(params={**conv, "conv/transform.norm": "gdn"}, values=[1.0, 2.0]),
        SimpleNamespace(params={**swint, "swint/transform.head_dim": "16"}, values=[2.0, 1.0]),
    ]
    space = {name: None for branch in SPACE.parameters.values() for name in branch}
    for _ in range(200):
        child = child_params(parents, space, SPACE, [1.0, 1.0], random)
        if "branch" in child:
            assert set(child) <= {"branch", *SPACE.parameters[child["branch"]]}
            parent = parents[child["branch"] == "swint"]
            assert child.items() <= parent.params.items()
