"""What a search wants: objectives by their names in the results table, and limits on costs.

A cost is counted on the built model, so it is known exactly before anything is trained.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.schema import COLUMNS, read_path
from rdc.errors import UserError

Costs = dict[str, float]

# Where the costs stand in rdc.complexity's dict, and what one unit of them is there.
_COSTS = {
    column.name: (column.path.removeprefix("complexity."), column.divisor)
    for column in COLUMNS
    if column.path.startswith("complexity.")
} | {"activation_mb_dec": ("activation_bytes.decode.peak", 2.0**20)}
_MEASURED = ("rd_loss", "rate_saving_vs_bpg_pct", "rate_saving_vs_vtm_pct")
_TIMED = tuple(column.name for column in COLUMNS if column.origin == "timing" and column.unit == "ms")
_HIGH_IS_BETTER = {column.name for column in COLUMNS if column.better == "high"}

OBJECTIVES = (*_MEASURED, *_COSTS, *_TIMED)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Objectives:
    """Names in the order in which a study has them. limits: greatest allowed value per cost."""

    names: tuple[str, ...]
    limits: Mapping[str, float]

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple("maximize" if name in _HIGH_IS_BETTER else "minimize" for name in self.names)

    @property
    def text(self) -> str:
        pairs = zip(self.names, self.directions, strict=True)
        return ", ".join(f"{name} ({direction})" for name, direction in pairs)

    @property
    def cost(self) -> str | None:
        """The objective that is known before training, operations for a time; None if nothing costs."""
        known = next((name for name in self.names if name in _COSTS), None)
        return known or ("kmac_per_px_dec" if self.timed else None)

    @property
    def timed(self) -> tuple[str, ...]:
        """Those that are measured on a machine, once a trial of the architecture has its weights."""
        return tuple(name for name in self.names if name in _TIMED)

    def violations(self, costs: Costs) -> dict[str, float]:
        """Per limit, how far the architecture is above it; 0 or less is allowed."""
        return {name: costs[name] - limit for name, limit in self.limits.items()}

    def beyond(self, costs: Costs) -> str:
        """Which limits the architecture is above, in words; empty if none."""
        over = [f"{name} {costs[name]:.4g} of at most {limit:g}" for name, limit in self.limits.items()]
        above = [text for text, value in zip(over, self.violations(costs).values(), strict=True) if value > 0]
        return f"above its limit: {', '.join(above)}" if above else ""

    def values(self, known: Mapping[str, float], results: Sequence[Mapping[str, Any]]) -> list[float]:
        """Means over the results of all seeds; NaN for what has no value.

        known: the architecture's costs and times. results: of result.json.
        """
        return [self._value(name, known, results) for name in self.names]

    def _value(self, name: str, known: Mapping[str, float], results: Sequence[Mapping[str, Any]]) -> float:
        if name in known:
            return known[name]
        if name in _TIMED:
            return math.nan
        values = [_measured(name, result["evaluation"]) for result in results]
        return math.nan if None in values else sum(float(v) for v in values if v is not None) / len(values)


def costs_of(complexity: Mapping[str, Any]) -> Costs:
    """Every cost of an architecture, from what rdc.complexity counted."""
    return {name: float(read_path(complexity, path)) / divisor for name, (path, divisor) in _COSTS.items()}


def check_objectives(names: Sequence[str], limits: Mapping[str, float | None]) -> Objectives:
    """UserError for a name that a search cannot use, and why."""
    if not names:
        raise UserError(f"search.objectives=[]: give at least one of: {', '.join(OBJECTIVES)}")
    for name in names:
        if name not in OBJECTIVES:
            raise UserError(f"search.objectives: there is no {name!r}; known: {', '.join(OBJECTIVES)}")
        if list(names).count(name) > 1:
            raise UserError(f"search.objectives: {name} is there twice; name it once")
    if not set(names) & set(_MEASURED):
        raise UserError(
            f"search.objectives={list(names)}: all of them are costs; add one of: {', '.join(_MEASURED)}"
        )
    for name, limit in limits.items():
        if name not in _COSTS:
            raise UserError(
                f"search.constraints.{name}: is not known before training; limits are on: {', '.join(_COSTS)}"
            )
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise UserError(f"search.constraints.{name}={limit}: must be a finite number greater than 0")
    kept = {name: float(limit) for name, limit in limits.items() if limit is not None}
    return Objectives(names=tuple(names), limits=kept)


def _measured(name: str, evaluation: Mapping[str, Any]) -> float | None:
    if name == "rd_loss":
        return evaluation.get("rd_loss")
    from analysis.rows import rate_savings  # imports pandas

    row = {**evaluation, "eval_images": evaluation.get("images")}
    saved = rate_savings(row).get(name)
    return None if saved is None or math.isnan(saved) else float(saved)
