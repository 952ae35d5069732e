"""From a point of the space to an architecture that can be trained, or why it cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import conf
from rdc.errors import UserError
from rdc.spec import arch_id
from sweep.plan import Candidate, DataSets, PlannedTrial, Precision, candidate_of, trials_of
from sweep.pricing import PriceList
from sweep.search.objectives import Costs, costs_of
from sweep.search.space import Point, Space
from sweep.settings import Settings

_MAX_DRAWN = 200  # points that a dry run looks at for its sample


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One architecture, with a trial per seed."""

    arch_id: str
    label: str
    trials: tuple[PlannedTrial, ...]
    costs: Costs


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """A point that is no model."""

    reason: str


Choose = Callable[[Point], Architecture | Refused]


class Chooser:
    """Composes, checks and counts the architecture of a point; call it once per point."""

    def __init__(
        self,
        overrides: Sequence[str],
        settings: Settings,
        data: DataSets,
        precision: Precision,
        prices: PriceList,
    ) -> None:
        self._compose: Callable[[Sequence[str]], dict[str, Any]] = conf.point_composer(overrides)
        self._settings = settings
        self._data = data
        self._precision = precision
        self._prices = prices

    def __call__(self, point: Point) -> Architecture | Refused:
        try:
            candidate = candidate_of(point, self._compose(point), self._settings.budget.recipe.initialisation)
            if candidate.refusal is not None or candidate.model is None:
                return Refused(candidate.refusal or "no model")
            if candidate.weights is not None:
                return Refused("its weights were trained elsewhere; measure them with search=grid")
            costs = costs_of(self._prices.count(candidate.model))
        except UserError as error:
            return Refused(str(error))
        trials = trials_of(self._settings, candidate, self._data, self._precision)
        return Architecture(
            arch_id=trials[0].arch_id, label=trials[0].label, trials=tuple(trials), costs=costs
        )


def draw_candidates(overrides: Sequence[str], settings: Settings, *, count: int) -> list[Candidate]:
    """Different random architectures that the search may train; UserError if there are none."""
    space, limits = settings.space.space, settings.search.wanted
    compose, prices = conf.point_composer(overrides), PriceList()
    found: dict[str, Candidate] = {}
    reason = "it holds nothing"
    for turn, params in enumerate(space.in_random_order(np.random.default_rng(settings.search.seed))):
        if len(found) == count or turn == _MAX_DRAWN:
            break
        point = space.point(params)
        candidate = candidate_of(point, compose(point), settings.budget.recipe.initialisation)
        if candidate.model is None:
            reason = f"[{', '.join(point)}]: {candidate.refusal}"
        elif beyond := limits.beyond(costs_of(prices.count(candidate.model))):
            reason = f"[{', '.join(point)}]: {beyond}"
        else:
            found.setdefault(arch_id(candidate.model), candidate)
    if not found:
        raise UserError(f"space={settings.space.name}: has no architecture to train; {reason}")
    return list(found.values())


def check_space(space: Space, overrides: Sequence[str]) -> None:
    """UserError for a misspelt key or choice anywhere in the space, before anything is looked for."""
    conf.compose_points(overrides, space.samples())
