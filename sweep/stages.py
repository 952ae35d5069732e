"""A sweep in stages: each trial is planned once those that it starts from, or matches, have their results.

What a trial starts from enters its id by the weights' SHA-256, which stands in the result of the trial that
has them. From finished results a later command therefore plans the very same trials.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import conf
from rdc.configured import zoo_of
from rdc.errors import UserError
from rdc.result import MODEL_FILE, architecture_label
from rdc.spec import ModelSpec, TrainedWeights, TrialSpec, WarmStart
from sweep.match import Count, Fit, fit, gating_of
from sweep.plan import Candidate, DataSets, PlannedTrial, Precision, SweepPlan, candidate_of, place_of
from sweep.pricing import PriceList
from sweep.search.source import Summary
from sweep.settings import BudgetSettings, Settings, read_budget
from sweep.stage import Stage

_GOOD = ("ok", "rate_mismatch")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """A stage with what it trains: one candidate and its configuration per point of the space.

    One that measures has those of the stage that trained, and its budget.
    """

    stage: Stage
    budget: BudgetSettings
    candidates: tuple[Candidate, ...]
    configs: tuple[Mapping[str, Any], ...]


def compose_stages(overrides: Sequence[str], settings: Settings) -> tuple[Staged, ...]:
    """Every stage of the settings, in their order; impossible candidates carry their refusal.

    UserError for what is wrong with a stage as a whole.
    """
    staged: dict[str, Staged] = {}
    for stage in settings.stages:
        try:
            staged[stage.name] = _composed(stage, overrides, settings, staged)
            _check_rates(staged[stage.name])
        except UserError as error:
            raise UserError(f"stages.{stage.name}: {error}") from None
    return tuple(staged.values())


def _composed(
    stage: Stage, overrides: Sequence[str], settings: Settings, before: Mapping[str, Staged]
) -> Staged:
    if stage.measure:
        return dataclasses.replace(before[str(stage.start)], stage=stage)
    points = settings.space.point_overrides
    configs = conf.compose_points([*overrides, *stage.budget], [[*point, *stage.model] for point in points])
    budget = read_budget(configs[0]["budget"])
    if budget.precision != settings.budget.precision:
        raise UserError(f"budget.precision={budget.precision}: all stages of a sweep have the same one")
    # Weights that are there leave nothing to initialise.
    start = "random" if stage.start else budget.recipe.initialisation
    candidates = []
    for place, (point, config) in enumerate(zip(points, configs, strict=True)):
        candidate = candidate_of((*point, *stage.model), config, start)
        trouble = candidate.refusal or _trouble(stage, candidate, config, place, before)
        if trouble is not None:
            refusal = f"stage {stage.name}: {trouble}"
            candidate = Candidate(point=candidate.point, model=None, refusal=refusal)
        candidates.append(candidate)
    return Staged(stage=stage, budget=budget, candidates=tuple(candidates), configs=tuple(configs))


def _check_rates(staged: Staged) -> None:
    """UserError for an lmbda outside of a model's range, before anything is trained for it."""
    for candidate, lmbda in itertools.product(staged.candidates, staged.stage.lmbdas):
        if candidate.model is not None:
            candidate.model.rate_control.check_lmbda(lmbda)


def _trouble(
    stage: Stage, candidate: Candidate, config: Mapping[str, Any], place: int, before: Mapping[str, Staged]
) -> str | None:
    """Why this model cannot be of this stage."""
    zoo = zoo_of(config)
    if zoo is not None and zoo.checkpoint is not None:
        return (
            f"compressai.checkpoint={zoo.checkpoint}: stages are of models that this sweep trains; leave it "
            "out, or measure it in a sweep without stages"
        )
    assert candidate.model is not None, "a candidate has a model or a refusal"
    if stage.start is not None:
        if stage.match is not None and candidate.model.gating.name != "static":
            return (
                f"match={stage.match} makes the model narrower, so that the weights of start={stage.start} "
                "do not fit; leave one of them out, or choose gating=static"
            )
        parent = before[stage.start].candidates[place].model
        trouble = None if parent is None else _misfit(parent, candidate.model)
        if trouble is not None:
            return f"start={stage.start}: its weights do not fit this model: {trouble}"
    if stage.match is not None:
        matched = before[stage.match].candidates[place].model
        if matched is not None and matched.gating.name == "none":
            return f"match={stage.match}: its model has no gates, and so no cost of its own to match"
    return None


def _misfit(parent: ModelSpec, child: ModelSpec) -> str | None:
    """Why the weights of one architecture are no start for another."""
    if parent == child:
        return None
    from rdc.complexity import on_meta
    from rdc.start import misfit

    codec = on_meta(child)
    return misfit(codec, dict(codec.named_parameters()), dict(on_meta(parent).named_parameters()))


@dataclasses.dataclass(eq=False, kw_only=True)
class Node:
    """One trial that is to be. name: without its lmbda. model: of its full width until it is planned.

    fit: by what its model was made to cost as much as another's. blocked: why it cannot run in this command.
    """

    stage: Stage
    candidate: Candidate
    config: Mapping[str, Any]
    name: str
    model: ModelSpec
    budget: BudgetSettings
    lmbda: float
    seed: int
    start: Node | None
    match: Node | None
    children: list[Node] = dataclasses.field(default_factory=list)
    trial: PlannedTrial | None = None
    fit: Fit | None = None
    blocked: str | None = None

    @property
    def waits_for(self) -> list[Node]:
        return [node for node in (self.start, self.match) if node is not None]

    @property
    def is_its_start(self) -> bool:
        """Whether it would measure what the trial that it starts from has measured."""
        return self.stage.measure and self.start is not None and self.start.lmbda == self.lmbda

    @property
    def is_fitted(self) -> bool:
        """Whether its model depends on another trial's result."""
        return self.stage.match is not None or (self.start is not None and self.start.is_fitted)

    @property
    def fitted_by(self) -> str:
        """The stage whose result decides its model."""
        if self.stage.match is not None:
            return self.stage.match
        assert self.start is not None, "asked of what is fitted"
        return self.start.fitted_by


def nodes_of(staged: Sequence[Staged], seeds: Sequence[int]) -> list[Node]:
    """Every possible trial of the stages, parents before children; points that are no model are left out."""
    nodes: dict[tuple[str, int, float, int], Node] = {}
    for one in staged:
        stage = one.stage
        for (place, candidate), lmbda, seed in itertools.product(
            enumerate(one.candidates), stage.lmbdas, seeds
        ):
            keys = [
                None if name is None else (name, place, _lmbda_of(staged, name, lmbda), seed)
                for name in (stage.start, stage.match)
            ]
            if candidate.model is None or any(key is not None and key not in nodes for key in keys):
                continue
            start, match = (None if key is None else nodes[key] for key in keys)
            node = Node(
                stage=stage,
                candidate=candidate,
                config=one.configs[place],
                name=_name(stage, candidate.model, seed if len(seeds) > 1 else None),
                model=candidate.model,
                budget=one.budget,
                lmbda=lmbda,
                seed=seed,
                start=start,
                match=match,
            )
            for other in node.waits_for:
                other.children.append(node)
            nodes[stage.name, place, lmbda, seed] = node
    return list(nodes.values())


def open_stages(
    plan: SweepPlan,
    staged: Sequence[Staged],
    prices: PriceList,
    *,
    read: Callable[[PlannedTrial], Summary | None],
    say: Callable[[str], None],
) -> Stages:
    """The source of a sweep's trials. plan: without any trial yet."""

    def work(node: Node) -> float:
        return 0.0 if node.stage.measure else prices.price(node.model, node.budget.recipe).training_pflop

    stages = Stages(
        nodes_of(staged, plan.settings.seeds),
        settings=plan.settings,
        data=plan.data,
        precision=plan.precision,
        read=read,
        work=work,
        count=prices.count,
        say=say,
    )
    if stages.repeated:
        say(f"{stages.repeated} of the planned trials are the same as others and run once")
    return stages


def _name(stage: Stage, model: ModelSpec, seed: int | None) -> str:
    text = f"{stage.name}: {architecture_label(model)}"
    return text if seed is None else f"{text} seed {seed}"


def _lmbda_of(staged: Sequence[Staged], name: str, lmbda: float) -> float:
    return next(one.stage for one in staged if one.stage.name == name).of_lmbda(lmbda)


class Stages:
    """A TrialSource. read: the summary of a trial that has its result, None if it has to run.

    work: of a training, in any unit; what is on the longest way to the end runs first. count: what
    rdc.complexity counts of a model.
    """

    eager = True
    wants_times = False

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        settings: Settings,
        data: DataSets,
        precision: Precision,
        read: Callable[[PlannedTrial], Summary | None],
        work: Callable[[Node], float],
        count: Count,
        say: Callable[[str], None],
    ) -> None:
        self._nodes = nodes
        self._settings, self._data, self._precision = settings, data, precision
        self._read, self._count, self._say = read, count, say
        self._rank = _ranks(nodes, work)
        self._trials: dict[str, PlannedTrial] = {}  # in the order in which they were planned
        self._of_trial: dict[str, list[Node]] = defaultdict(list)
        self._ended: dict[str, Summary] = {}
        self._waiting: list[Node] = []
        self._running: set[str] = set()
        self.repeated = 0  # nodes that are the trial of an earlier one
        for node in nodes:
            if not node.waits_for:
                self._take_up(node)

    # What the driver calls

    @property
    def done(self) -> bool:
        """What is blocked waits for nothing that this command could do."""
        return not self._waiting and not self._running

    @property
    def to_come(self) -> int:
        return len(self.to_come_in_order())

    def ask(self, free_slots: int) -> list[PlannedTrial]:
        self._waiting.sort(key=lambda node: -self._rank[id(node)])
        asked, self._waiting = self._waiting[:free_slots], self._waiting[free_slots:]
        trials = [node.trial for node in asked if node.trial is not None]
        self._running |= {trial.spec_id for trial in trials}
        return trials

    def trials(self) -> Sequence[PlannedTrial]:
        return list(self._trials.values())

    def tell(self, spec_id: str, result: Mapping[str, Any]) -> None:
        self._running.discard(spec_id)
        self._ended[spec_id] = dict(result)
        for node in self._of_trial[spec_id]:
            self._go_on(node)

    def not_run(self) -> list[str]:
        """One line for all lmbdas of a stage that lack the same."""
        lmbdas: dict[tuple[str, str], list[str]] = defaultdict(list)
        for node in self._nodes:
            if node.blocked is not None and not node.is_its_start:
                lmbdas[node.name, node.blocked].append(f"{node.lmbda:g}")
        return [f"{name} lmbda {', '.join(found)}: {why}" for (name, why), found in lmbdas.items()]

    def timed(self) -> None:
        pass

    def stopped(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass

    # For the dry run

    def to_come_in_order(self) -> list[Node]:
        """Those whose ids are not known yet, parents before children."""
        return [
            node
            for node in self._nodes
            if node.trial is None and node.blocked is None and not node.is_its_start
        ]

    # What comes next

    def _take_up(self, node: Node) -> None:
        """Plan the trial, unless it has to wait or can never run."""
        assert node.trial is None, f"{node.name} is planned twice"
        hopeless = next(filter(None, map(self._trouble_with, node.waits_for)), None)
        if hopeless is not None:
            self._block(node, hopeless)
            return
        if not all(map(self._has_ended, node.waits_for)):
            return
        try:
            trial, known = self._plan(node)
        except UserError as error:
            self._block(node, str(error))
            return
        node.trial = trial
        self._of_trial[trial.spec_id].append(node)
        if known:
            self.repeated += not node.is_its_start
        elif (found := self._read(trial)) is not None:
            self._ended[trial.spec_id] = found
        else:
            self._waiting.append(node)
        if trial.spec_id in self._ended:
            self._go_on(node)

    def _plan(self, node: Node) -> tuple[PlannedTrial, bool]:
        """(the node's trial, whether another node has it already)."""
        if node.is_its_start:
            return _trial_of(node.start), True
        trial = self._trial(node)
        if trial.spec_id in self._trials:
            return self._trials[trial.spec_id], True
        missing = self._read(trial) is None
        if missing and node.start is not None and not _checkpoint_of(node.start).exists():
            path = _checkpoint_of(node.start)
            raise UserError(
                f"{path}: is missing, and the trial has to start from it; delete {path.parent} and repeat "
                "the command"
            )
        self._trials[trial.spec_id] = trial
        if missing and trial.note:
            self._say(f"{node.name} lmbda {node.lmbda:g}: {trial.note}")
        return trial, False

    def _go_on(self, node: Node) -> None:
        for child in node.children:
            if child.trial is None and child.blocked is None:
                self._take_up(child)

    def _has_ended(self, node: Node) -> bool:
        return node.trial is not None and node.trial.spec_id in self._ended

    def _trouble_with(self, node: Node) -> str | None:
        """Why nothing can be based on the node's trial; None if something can, now or later."""
        if node.blocked is not None:
            return f"stage {node.stage.name}, which it needs, was not run"
        if node.trial is None or not self._has_ended(node):
            return None
        result = self._ended[node.trial.spec_id]
        if result["status"] in _GOOD:
            return None
        error = result.get("error") or {}
        return (
            f"stage {node.stage.name}, which it needs, ended with {result['status']} "
            f"({error.get('class')}: {error.get('message')})"
        )

    def _block(self, node: Node, reason: str) -> None:
        node.blocked = reason
        self._go_on(node)

    # A trial from the results that it depends on

    def _trial(self, node: Node) -> PlannedTrial:
        spec = self._measuring(node) if node.stage.measure else self._training(node)
        fitted = node.fit.overrides if node.fit is not None else ()
        return PlannedTrial(
            spec=spec,
            folder=place_of(self._settings, spec),
            point=(*node.candidate.point, *fitted),
            checkpoint=None if node.start is None else str(_checkpoint_of(node.start)),
            stage=node.stage.name,
            budget=node.budget,
            note=node.fit.note if node.fit is not None and node.match is not None else "",
        )

    def _measuring(self, node: Node) -> TrialSpec:
        assert node.start is not None, "a stage that measures has one"
        trained, node.fit = _trial_of(node.start), node.start.fit
        weights = TrainedWeights(spec_id=trained.spec_id, checkpoint_sha256=self._sha256(trained))
        return dataclasses.replace(trained.spec, lmbda=node.lmbda, weights=weights)

    def _training(self, node: Node) -> TrialSpec:
        node.fit = self._fit(node)
        if node.fit is not None:
            node.model = self._fitted_model(node, node.fit)
        return TrialSpec(
            model=node.model,
            recipe=node.budget.recipe,
            precision=self._precision,
            lmbda=node.lmbda,
            seed=node.seed,
            train_data=self._data.train.content_hash,
            eval_data=self._data.evaluation.content_hash,
            warm_start=self._warm_start(node),
        )

    def _fitted_model(self, node: Node, found: Fit) -> ModelSpec:
        config, point = found.applied(node.config), node.candidate.point
        start = "random" if node.start is not None else node.budget.recipe.initialisation
        candidate = candidate_of(point, config, start)
        if candidate.model is None:
            raise UserError(str(candidate.refusal))
        return candidate.model

    def _fit(self, node: Node) -> Fit | None:
        """By what it matches; else as the one whose weights it starts from, as others would not fit."""
        if node.match is not None:
            evaluation = self._ended[_trial_of(node.match).spec_id]["evaluation"]
            return fit(node.config, evaluation, self._count, of=node.match.stage.name)
        inherited = node.start.fit if node.start is not None else None
        if inherited is not None and inherited.channels and gating_of(node.config) != "static":
            return None
        return inherited

    def _warm_start(self, node: Node) -> WarmStart | None:
        if node.start is None:
            return None
        parent = _trial_of(node.start)
        return WarmStart(
            spec_id=parent.spec_id,
            checkpoint_sha256=self._sha256(parent),
            lmbda=parent.spec.lmbda,
            curve_id=parent.spec.curve_id,
        )

    def _sha256(self, trial: PlannedTrial) -> str:
        found = self._ended[trial.spec_id].get("model_sha256")
        if not found:
            raise UserError(
                f"{trial.folder / 'result.json'}: does not say which weights it has; delete {trial.folder} "
                "and repeat the command"
            )
        return str(found)


def _trial_of(node: Node | None) -> PlannedTrial:
    assert node is not None, "asked where there is another node"
    assert node.trial is not None, "what depends on a trial is planned when that has ended"
    return node.trial


def _checkpoint_of(node: Node) -> Path:
    return _trial_of(node).folder / MODEL_FILE


def _ranks(nodes: Sequence[Node], work: Callable[[Node], float]) -> dict[int, float]:
    """id of a node -> work on the longest way from it to the end."""
    ranks: dict[int, float] = {}
    for node in reversed(nodes):  # children come after their parents
        ranks[id(node)] = work(node) + max((ranks[id(child)] for child in node.children), default=0.0)
    return ranks
