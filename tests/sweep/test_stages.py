"""The order in which stages are planned, whatever the order of results, and what a repeated command plans."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import conf
from rdc.configured import model_of
from rdc.result import MODEL_FILE
from rdc.spec import ModelSpec
from sweep.plan import Candidate, PlannedTrial
from sweep.search.source import Summary
from sweep.settings import Settings, read_settings
from sweep.stage import read_stages
from sweep.stages import Node, Staged, Stages, nodes_of

Graph = dict[str, dict[str, Any]]
LMBDAS = (0.01, 0.02)
OVERRIDES = ["budget=smoke", "depth.channels=[8,8,8]", "depth.latent_channels=8", "budget.precision=fp32"]
CONFIG = conf.compose(OVERRIDES)
SETTINGS = read_settings({**CONFIG, "lmbdas": list(LMBDAS)})
POINTS = [{**CONFIG, "depth": {**CONFIG["depth"], "channels": [n, 8, 8]}} for n in (8, 12)]


class Images:
    """What a spec needs to know of a set."""

    content_hash = "c" * 12


class Data:
    train = validation = evaluation = Images()


def kmac(model: ModelSpec) -> Mapping[str, Any]:
    """A cost that grows with the widths, and takes no time to count."""
    cost = {"executed_kmac_per_px": float(sum(model.depth.channels))}
    return {"encode": cost, "decode": cost}


class World:
    """Trials that end at once: their weights follow from their ids, and some fail each time."""

    def __init__(self, folder: Path, fails: Callable[[str], bool]) -> None:
        self.settings: Settings = dataclasses.replace(SETTINGS, folder=folder)
        self.fails = fails
        self.results: dict[str, Summary] = {}

    def run(self, trial: PlannedTrial) -> Summary:
        spec_id = trial.spec_id
        if self.fails(spec_id):
            found: Summary = {"status": "failed", "error": {"class": "Oops", "message": "no luck"}}
        else:
            trial.folder.mkdir(parents=True, exist_ok=True)
            (trial.folder / MODEL_FILE).touch()
            cost = {"mean": 5.0 + int(spec_id[:2], 16) % 9}
            gating = {"encode_kmac_per_px": cost, "decode_kmac_per_px": cost}
            sha256 = hashlib.sha256(spec_id.encode()).hexdigest()
            found = {"status": "ok", "model_sha256": sha256, "evaluation": {"gating": gating}}
        self.results[spec_id] = found
        return found

    def read(self, trial: PlannedTrial) -> Summary | None:
        found = self.results.get(trial.spec_id)
        return None if found is None or found["status"] == "failed" else found

    def source(self, graph: Graph, seeds: tuple[int, ...]) -> tuple[Stages, list[Node]]:
        nodes = nodes_of(staged(graph, self.settings), seeds)
        stages = Stages(
            nodes,
            settings=self.settings,
            data=Data(),  # type: ignore[arg-type]
            precision="fp32",
            read=self.read,
            work=lambda node: 1.0,
            count=kmac,
            say=lambda text: None,
        )
        return stages, nodes


def staged(graph: Graph, settings: Settings) -> list[Staged]:
    """As the composed configuration would be, without composing it."""
    found = []
    for number, stage in enumerate(read_stages(graph, LMBDAS)):
        candidates = [Candidate(point=(f"n={n}",), model=model_of(POINTS[n])) for n in range(len(POINTS))]
        # Without a budget of its own two stages could ask for the very same trials.
        recipe = dataclasses.replace(settings.budget.recipe, steps=100 + number)
        budget = dataclasses.replace(settings.budget, recipe=recipe)
        found.append(Staged(stage=stage, budget=budget, candidates=tuple(candidates), configs=tuple(POINTS)))
    return found


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to five stages; each may start from, measure or match one that stands before it."""
    graph: Graph = {}
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(("alone", "start", "measure", "match"))) if graph else "alone"
        trained = [name for name, given in graph.items() if not given.get("measure")]
        given: dict[str, Any] = {}
        if kind == "match":
            given["match"] = draw(st.sampled_from(list(graph)))
        elif kind != "alone":
            given["start"] = draw(st.sampled_from(trained))
            given["measure"] = kind == "measure"
        if kind == "alone" and draw(st.booleans()):
            given["lmbdas"] = [0.02]
        graph[f"s{number}"] = given
    for name, given in graph.items():  # at several lmbdas only what finds its other one at a single lmbda
        others = [graph[given[key]] for key in ("start", "match") if key in given]
        if others and all(other.get("lmbdas") == [0.02] for other in others):
            given["lmbdas"] = [0.02] if name[-1] in "13" else [0.01, 0.02, 0.04]
            if any(graph[n].get("start") == name or graph[n].get("match") == name for n in graph):
                given["lmbdas"] = [0.02]
    return graph


def good(world: World, spec_id: str) -> bool:
    return spec_id in world.results and world.results[spec_id]["status"] == "ok"


def drive(world: World, source: Stages, chance: random.Random, *, at_most: int = 10**6) -> list[PlannedTrial]:
    """Run what the source asks for, in any order and several at a time; the trials that have run."""
    ran: list[PlannedTrial] = []
    running: list[PlannedTrial] = []
    while len(ran) < at_most:
        for trial in source.ask(chance.randint(0, 3)):
            for needed in (trial.spec.warm_start, trial.spec.weights):
                assert needed is None or good(world, needed.spec_id), "before what it starts from"  # type: ignore[union-attr]
            assert trial.spec_id not in {t.spec_id for t in (*ran, *running)}, "twice"
            running.append(trial)
        if not running:
            if source.done:
                break
            continue
        trial = running.pop(chance.randrange(len(running)))
        source.tell(trial.spec_id, world.run(trial))
        ran.append(trial)
    return ran


def names(trials: list[PlannedTrial]) -> set[str]:
    return {trial.spec_id for trial in trials}


EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@EXAMPLES
@given(graph=graphs(), seeds=st.sampled_from([(0,), (0, 1)]), chance=st.integers(0, 2**32))
def test_every_trial_is_planned_once_and_after_those_that_it_needs(
    graph: Graph, seeds: tuple[int, ...], chance: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), fails=lambda spec_id: False)
        source, nodes = world.source(graph, seeds)
        waiting = [node for node in nodes if node.waits_for and not node.is_its_start]
        assert source.to_come == len(waiting)
        ran = drive(world, source, random.Random(chance))
        assert (source.done, source.to_come, source.not_run()) == (True, 0, [])
        assert all(node.trial is not None for node in nodes)
        assert names(ran) == {node.trial.spec_id for node in nodes if node.trial is not None}
        for node in nodes:
            check_what_it_starts_from(node)
        # Whatever the order of results.
        other = World(Path(folder) / "other", fails=lambda spec_id: False)
        assert names(drive(other, other.source(graph, seeds)[0], random.Random(chance + 1))) == names(ran)


def check_what_it_starts_from(node: Node) -> None:
    trial, stage = node.trial, node.stage
    assert trial is not None
    if node.start is None or node.start.trial is None or node.is_its_start:
        return
    parent = node.start.trial
    assert (parent.spec.seed, node.start.candidate.point) == (trial.spec.seed, node.candidate.point)
    assert trial.checkpoint == str(parent.folder / MODEL_FILE)
    assert trial.spec.model == parent.spec.model  # also where that was made narrower to match another
    if stage.measure:
        assert (trial.spec.curve_id, trial.spec.budget_id) == (parent.spec.curve_id, parent.spec.budget_id)
    else:
        assert trial.spec.warm_start is not None
        assert trial.spec.warm_start.curve_id == parent.spec.curve_id


@EXAMPLES
@given(
    graph=graphs(),
    seeds=st.sampled_from([(0,), (0, 1)]),
    chance=st.integers(0, 2**32),
    killed=st.integers(0, 12),
)
def test_a_command_that_is_killed_and_repeated_plans_the_same_trials_and_none_again(
    graph: Graph, seeds: tuple[int, ...], chance: int, killed: int
) -> None:
    def fails(spec_id: str) -> bool:
        return int(spec_id[:4], 16) % 7 == 0

    with tempfile.TemporaryDirectory() as folder:
        whole = World(Path(folder) / "x", fails)
        source, nodes = whole.source(graph, seeds)
        expected = names(drive(whole, source, random.Random(chance)))
        blocked = [node for node in nodes if node.blocked is not None]
        assert bool(source.not_run()) == any(not node.is_its_start for node in blocked)
        assert all(map(has_failed_above, blocked))
        world = World(Path(folder) / "x", fails)
        before = names(drive(world, world.source(graph, seeds)[0], random.Random(chance), at_most=killed))
        again, _ = world.source(graph, seeds)
        after = names(drive(world, again, random.Random(chance + 1)))
        assert before | after == expected
        assert not {spec_id for spec_id in before & after if not fails(spec_id)}
        assert sorted(again.not_run()) == sorted(source.not_run())


def has_failed_above(node: Node) -> bool:
    return any(
        has_failed_above(other) if other.trial is None else int(other.trial.spec_id[:4], 16) % 7 == 0
        for other in node.waits_for
    )


def test_what_failed_is_mended_and_the_rest_follows(tmp_path: Path) -> None:
    graph: Graph = {
        "base": {"lmbdas": [0.01]},
        "more": {"start": "base", "lmbdas": [0.01]},
        "rates": {"start": "more", "measure": True, "lmbdas": [0.02]},
    }
    broken = [True]
    world = World(tmp_path, fails=lambda spec_id: broken[0])
    source, _ = world.source(graph, (0,))
    assert [trial.stage for trial in drive(world, source, random.Random(0))] == ["base", "base"]
    assert (source.done, source.to_come) == (True, 0)
    assert [line.partition(" lmbda ")[2] for line in source.not_run()] == [
        *2 * ["0.01: stage base, which it needs, ended with failed (Oops: no luck)"],
        *2 * ["0.02: stage more, which it needs, was not run"],
    ]
    broken[0] = False
    source, _ = world.source(graph, (0,))
    assert len(drive(world, source, random.Random(0))) == 6
    assert source.not_run() == []


def test_the_longest_way_to_the_end_runs_first(tmp_path: Path) -> None:
    graph: Graph = {name: {"lmbdas": [0.01]} for name in ("short", "long")}
    graph["after"] = {"start": "long", "lmbdas": [0.01]}
    world = World(tmp_path, fails=lambda spec_id: False)
    source, _ = world.source(graph, (0,))
    assert [trial.stage for trial in source.ask(2)] == ["long", "long"]


def test_weights_that_are_gone_are_named_with_the_way_out(tmp_path: Path) -> None:
    graph: Graph = {"base": {"lmbdas": [0.01]}, "more": {"start": "base", "lmbdas": [0.01]}}
    world = World(tmp_path, fails=lambda spec_id: False)
    source, _ = world.source(graph, (0,))
    drive(world, source, random.Random(0))
    more = next(trial for trial in source.trials() if trial.stage == "more")
    base = next(
        t for t in source.trials() if more.spec.warm_start and t.spec_id == more.spec.warm_start.spec_id
    )
    (base.folder / MODEL_FILE).unlink()
    assert world.source(graph, (0,))[0].not_run() == []  # nothing has to start from them any more
    del world.results[more.spec_id]
    again, _ = world.source(graph, (0,))
    (line,) = again.not_run()
    assert line.endswith(
        f"{base.folder / MODEL_FILE}: is missing, and the trial has to start from it; delete {base.folder} "
        "and repeat the command"
    )
