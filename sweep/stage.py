"""What `stages` asks for: trials of one sweep that start from, measure, or match other trials of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from conf import POINT_KEYS
from rdc.errors import UserError
from rdc.spec import parse, require_number

_BUDGET = "budget"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage, for every point of the space and every seed.

    start: stage whose trial of the same point, seed and lmbda has the weights to begin with. model, budget:
    overrides on top of the point's. measure: train nothing, measure those weights at the stage's lmbdas.
    match: stage whose trial of the same point says what the model is to cost.
    """

    name: str
    start: str | None
    match: str | None
    model: tuple[str, ...]
    budget: tuple[str, ...]
    lmbdas: tuple[float, ...]
    measure: bool

    @property
    def waits_for(self) -> tuple[str, ...]:
        return tuple(name for name in (self.start, self.match) if name is not None)

    def of_lmbda(self, lmbda: float) -> float:
        """At which lmbda of this stage a trial at the given one finds its other trial."""
        return lmbda if lmbda in self.lmbdas else self.lmbdas[0]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """A stage as it stands in the configuration."""

    start: str | None = None
    overrides: list[str] | None = None
    lmbdas: list[float] | None = None
    measure: bool = False
    match: str | None = None


def read_stages(config: Any, lmbdas: tuple[float, ...]) -> tuple[Stage, ...]:
    """The configuration's `stages`, checked, each after those that it waits for; () for null.

    lmbdas: the sweep's, which a stage without its own has.
    """
    if config is None:
        return ()
    if not isinstance(config, Mapping) or not config:
        raise UserError(f"stages={config!r}: needs a mapping of names to stages, or null for none")
    stages = {str(name): _stage(str(name), given, lmbdas) for name, given in config.items()}
    for stage in stages.values():
        _check_names(stage, stages)
    ordered = _in_order(stages)
    for stage in ordered:
        _check(stage, stages)
    return ordered


def _stage(name: str, config: Any, lmbdas: tuple[float, ...]) -> Stage:
    where = f"stages.{name}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise UserError(f"{where}: a stage's name begins with a letter and has letters, digits, '-' and '_'")
    given = parse(_Given, {} if config is None else config, where=where)
    if given.lmbdas is not None and not given.lmbdas:
        raise UserError(f"{where}.lmbdas=[]: give at least one value, or null for those of the sweep")
    own = tuple(dict.fromkeys(given.lmbdas or lmbdas))
    for lmbda in own:
        require_number(f"{where}.lmbdas", lmbda, above=0)
    overrides = given.overrides or []
    return Stage(
        name=name,
        start=given.start,
        match=given.match,
        model=tuple(text for text in overrides if _root(text, where) != _BUDGET),
        budget=tuple(text for text in overrides if _root(text, where) == _BUDGET),
        lmbdas=own,
        measure=given.measure,
    )


def _root(override: str, where: str) -> str:
    """The group that an override is about; UserError where a stage cannot choose it."""
    root = re.split(r"[.@=]", override.lstrip("+~"), maxsplit=1)[0]
    if root in (*POINT_KEYS, _BUDGET):
        return root
    way_out = f"; give {where}.lmbdas" if root in ("lmbda", "lmbdas") else ""
    raise UserError(
        f"{where}: {override!r}: a stage chooses the model ({', '.join(POINT_KEYS)}) and the budget, not "
        f"{root}{way_out}"
    )


def _check_names(stage: Stage, stages: Mapping[str, Stage]) -> None:
    for key, other in (("start", stage.start), ("match", stage.match)):
        if other is not None and other not in stages:
            raise UserError(
                f"stages.{stage.name}.{key}={other}: there is no such stage; known: {', '.join(stages)}"
            )


def _in_order(stages: Mapping[str, Stage]) -> tuple[Stage, ...]:
    """Each after those that it waits for, otherwise as given; UserError for a circle."""
    ordered: dict[str, Stage] = {}
    while len(ordered) < len(stages):
        ready = [
            stage for stage in stages.values()
            if stage.name not in ordered and all(name in ordered for name in stage.waits_for)
        ]  # fmt: skip
        if not ready:
            circle = _circle(stages, [name for name in stages if name not in ordered])
            raise UserError(
                f"stages: {' waits for '.join(circle)}: none of them could ever begin; take out one "
                "start or match"
            )
        ordered[ready[0].name] = ready[0]
    return tuple(ordered.values())


def _circle(stages: Mapping[str, Stage], stuck: Sequence[str]) -> list[str]:
    """Names along one circle, the first again at its end. stuck: each waits for one of them."""
    path = [stuck[0]]
    while path.count(path[-1]) == 1:
        path.append(next(name for name in stages[path[-1]].waits_for if name in stuck))
    return path[path.index(path[-1]) :]


def _check(stage: Stage, stages: Mapping[str, Stage]) -> None:
    """What does not depend on any model."""
    where = f"stages.{stage.name}"
    if stage.measure:
        _check_measure(stage, where)
    if stage.start is not None and stages[stage.start].measure:
        trained_by = stages[stage.start].start
        raise UserError(f"{where}.start={stage.start}: it trains nothing; start from {trained_by}")
    for key, name in (("start", stage.start), ("match", stage.match)):
        if name is not None:
            _check_lmbdas(stage, f"{where}.{key}={name}", stages[name].lmbdas)


def _check_measure(stage: Stage, where: str) -> None:
    if stage.start is None:
        raise UserError(f"{where}: measure=true needs start=STAGE, whose weights are measured")
    if stage.budget:
        raise UserError(
            f"{where}: {stage.budget[0]!r}: measure=true trains nothing, so that a budget changes nothing; "
            "leave it out"
        )
    if stage.model:
        raise UserError(
            f"{where}: {stage.model[0]!r}: measure=true measures the model as {stage.start} has trained it; "
            f"give the override to {stage.start}"
        )
    if stage.match is not None:
        raise UserError(f"{where}: measure=true changes no model; leave match={stage.match} out")


def _check_lmbdas(stage: Stage, what: str, there: Iterable[float]) -> None:
    there = tuple(there)
    missing = [lmbda for lmbda in stage.lmbdas if lmbda not in there]
    if missing and len(there) > 1:
        raise UserError(
            f"{what}: has no trial at lmbda {missing[0]:g}, only at {', '.join(f'{v:g}' for v in there)}; a "
            "stage's other one has the same lmbdas, or a single one"
        )
