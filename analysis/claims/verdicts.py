"""From quantities to a verdict: what must hold, with how much room for chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from analysis.claims.statistics import LEVEL, Quantity

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
UNDECIDED = "undecided"
NOT_ENOUGH = "not enough data"
# Of published numbers, whose noise nobody knows.
HOLDS = "holds"
FAILS = "fails"

NO_NOISE = "an interval: it needs per-image scores (the sweep's folder, not its table) or several seeds each"


@dataclasses.dataclass(frozen=True, eq=False)
class Condition:
    """quantity > bound, or quantity < bound if `below`."""

    quantity: Quantity
    bound: float = 0.0
    below: bool = False

    @property
    def holds(self) -> bool:
        return (self.quantity.estimate < self.bound) if self.below else (self.quantity.estimate > self.bound)

    def p_for(self) -> float:
        return self.quantity.p_below(self.bound) if self.below else self.quantity.p_above(self.bound)

    def p_against(self) -> float:
        return self.quantity.p_above(self.bound) if self.below else self.quantity.p_below(self.bound)


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """What testing one statement gave.

    conditions: what the verdict rests on. others: quantities shown beside them. n: how many of what. covers:
    which noise the intervals hold. p: two-sided, of the verdict's direction; None where nothing was tested.
    missing: what there would have to be. rows: the single comparisons, for the machine-readable file.
    """

    verdict: str
    conditions: tuple[Condition, ...] = ()
    others: tuple[Quantity, ...] = ()
    n: str = ""
    covers: str = ""
    p: float | None = None
    missing: str = ""
    notes: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        return (*(condition.quantity for condition in self.conditions), *self.others)


def not_enough(missing: str, **shown: Any) -> Finding:
    return Finding(NOT_ENOUGH, missing=missing, **shown)


def all_hold(conditions: Sequence[Condition], *, is_published: bool, **shown: Any) -> Finding:
    """Supported if every condition holds beyond its noise, contradicted if one fails beyond it.

    Each condition is tested at the level of its interval, one-sided. That all hold needs no adjustment (an
    intersection-union test); that one of k fails is tested at 1/k of the level (Bonferroni).
    """
    conditions = tuple(conditions)
    if is_published:
        return _without_noise(all(condition.holds for condition in conditions), conditions, **shown)
    if not all(condition.quantity.has_interval for condition in conditions):
        return not_enough(NO_NOISE, conditions=conditions, **shown)
    return _decided(
        conditions,
        max(condition.p_for() for condition in conditions),
        min(1.0, len(conditions) * min(condition.p_against() for condition in conditions)),
        **shown,
    )


def signs_differ(low: Condition, high: Condition, *, is_published: bool, **shown: Any) -> Finding:
    """Supported if both quantities differ from 0 with opposite signs, contradicted if with the same sign."""
    conditions = (low, high)
    if is_published:
        return _without_noise(low.quantity.estimate * high.quantity.estimate < 0, conditions, **shown)
    if not all(condition.quantity.has_interval for condition in conditions):
        return not_enough(NO_NOISE, conditions=conditions, **shown)
    low_up, low_down = low.quantity.p_above(0), low.quantity.p_below(0)
    high_up, high_down = high.quantity.p_above(0), high.quantity.p_below(0)
    flips = min(max(low_up, high_down), max(low_down, high_up))
    keeps = min(max(low_up, high_up), max(low_down, high_down))
    return _decided(conditions, flips, keeps, **shown)


def some_share(condition: Condition, tolerated: float, *, is_published: bool, **shown: Any) -> Finding:
    """Supported if a share is above 0 beyond noise; contradicted if 0 and `tolerated` can be excluded."""
    share = condition.quantity
    if is_published:
        return _without_noise(share.estimate > 0, (condition,), **shown)
    p_against = share.p_below(tolerated) if share.estimate == 0 else 1.0
    return _decided((condition,), share.p_above(0), p_against, **shown)


def _decided(conditions: tuple[Condition, ...], p_for: float, p_against: float, **shown: Any) -> Finding:
    tail = (1 - LEVEL) / 2
    verdict = SUPPORTED if p_for < tail else CONTRADICTED if p_against < tail else UNDECIDED
    return Finding(verdict, conditions, p=min(1.0, 2 * min(p_for, p_against)), **shown)


def _without_noise(holds: bool, conditions: tuple[Condition, ...], **shown: Any) -> Finding:
    """Whether the bare estimates agree. Resampling a few published rows would only look like knowledge."""
    bare = tuple(
        dataclasses.replace(condition, quantity=dataclasses.replace(condition.quantity, draws=None))
        for condition in conditions
    )
    others = tuple(dataclasses.replace(quantity, draws=None) for quantity in shown.pop("others", ()))
    return Finding(HOLDS if holds else FAILS, bare, others=others, **{**shown, "covers": "nothing"})
