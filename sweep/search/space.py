"""Spaces of architectures: branches that share no axes, each axis a list of values or a range.

A point is the list of overrides that composes one architecture. Its parameters are what a search varies: the
branch, and the axes of that branch alone, so that a conv transform has no window size.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import conf
from rdc.errors import UserError
from rdc.spec import require_number

BRANCH = "branch"
Params = dict[str, Any]
Point = tuple[str, ...]

_MAX_COUNTED = 20_000  # points of a space that are listed to find those not seen yet; beyond, they are drawn


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """An axis of listed values. options: what a search calls each -> the overrides that it stands for."""

    options: Mapping[str, Point]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """An axis of numbers from low to high, both included. step: None for all of them; log: even in ratios."""

    key: str
    low: float
    high: float
    step: float | None
    log: bool

    @property
    def whole(self) -> bool:
        """Whether it is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def count(self) -> int | None:
        """How many values there are; None for a continuum."""
        step = self.step or (1 if self.whole else None)
        return None if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1

    def overrides(self, value: float) -> Point:
        return (f"{self.key}={value:.6g}" if isinstance(value, float) else f"{self.key}={value}",)

    def draw(self, random: np.random.Generator) -> float:
        if self.log:
            value = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
            return max(int(self.low), min(int(self.high), round(value))) if self.whole else value
        if self.count is None:
            return float(random.uniform(self.low, self.high))
        return self.value(int(random.integers(self.count)))

    def value(self, index: int) -> float:
        step = self.step or 1
        return self.low + index * step


Axis = Choices | Range


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Architectures that vary along the same axes. axes: override key -> axis."""

    name: str
    axes: Mapping[str, Axis]

    @property
    def size(self) -> int | None:
        """How many points it has; None for a continuum."""
        counts = [len(a.options) if isinstance(a, Choices) else a.count for a in self.axes.values()]
        return None if None in counts else math.prod(count for count in counts if count is not None)


@dataclasses.dataclass(frozen=True)
class Space:
    """What a search chooses from."""

    branches: tuple[Branch, ...]

    @property
    def size(self) -> int | None:
        """How many points there are, of which several may be one architecture; None for a continuum."""
        sizes = [branch.size for branch in self.branches]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def is_listed(self) -> bool:
        """Whether `in_random_order` goes through all points."""
        return self.size is not None and self.size <= _MAX_COUNTED

    @functools.cached_property
    def parameters(self) -> dict[str, dict[str, Axis]]:
        """Branch -> name of a search's parameter -> axis. Branches share no axis.

        An axis of one value is none: a search cannot vary it.
        """
        return {
            branch.name: {
                self._parameter(branch, key): axis
                for key, axis in branch.axes.items()
                if not isinstance(axis, Choices) or len(axis.options) > 1
            }
            for branch in self.branches
        }

    def axes_of(self, params: Params) -> dict[str, Axis]:
        """The axes that vary in the branch that the parameters choose."""
        return self.parameters[self._branch(params).name]

    def point(self, params: Params) -> Point:
        """The overrides that the parameters stand for, and those that all of their branch share."""
        branch = self._branch(params)
        varying = self.parameters[branch.name]
        texts: list[str] = []
        for key, axis in branch.axes.items():
            name = self._parameter(branch, key)
            if isinstance(axis, Choices):
                texts += axis.options[params[name] if name in varying else next(iter(axis.options))]
            else:
                texts += axis.overrides(params[name])
        return tuple(texts)

    def draw(self, random: np.random.Generator) -> Params:
        """Parameters of a random point; every branch is as likely."""
        branch = self.branches[int(random.integers(len(self.branches)))]
        params = self._of_branch(branch)
        for name, axis in self.parameters[branch.name].items():
            if isinstance(axis, Choices):
                labels = list(axis.options)
                params[name] = labels[int(random.integers(len(labels)))]
            else:
                params[name] = axis.draw(random)
        return params

    def in_random_order(self, random: np.random.Generator) -> Iterator[Params]:
        """Every point once where they can be counted, else a good number of random ones."""
        if not self.is_listed:
            yield from (self.draw(random) for _ in range(_MAX_COUNTED))
            return
        everything = list(itertools.chain.from_iterable(map(self._all_of, self.branches)))
        for index in random.permutation(len(everything)):
            yield everything[int(index)]

    def samples(self) -> list[Point]:
        """Points that together name every value of every axis: what to check for typing errors."""
        points = []
        for branch in self.branches:
            values = {name: _some_values(axis) for name, axis in self.parameters[branch.name].items()}
            for turn in range(max(map(len, values.values()), default=1)):
                chosen = {name: some[turn % len(some)] for name, some in values.items()}
                points.append(self.point(self._of_branch(branch) | chosen))
        return points

    def to_plain(self) -> list[Any]:
        """The space as JSON types: two spaces that differ for a search differ here."""
        plain: list[Any] = []
        for branch in self.branches:
            axes = {key: _plain_axis(axis) for key, axis in branch.axes.items()}
            plain.append([branch.name, axes])
        return plain

    def _branch(self, params: Params) -> Branch:
        name = params.get(BRANCH, self.branches[0].name)
        return next(branch for branch in self.branches if branch.name == name)

    def _parameter(self, branch: Branch, key: str) -> str:
        """What a search calls an axis."""
        return key if len(self.branches) == 1 else f"{branch.name}/{key}"

    def _of_branch(self, branch: Branch) -> Params:
        return {BRANCH: branch.name} if len(self.branches) > 1 else {}

    def _all_of(self, branch: Branch) -> Iterator[Params]:
        axes = self.parameters[branch.name]
        lists = [
            list(axis.options)
            if isinstance(axis, Choices)
            else [axis.value(i) for i in range(axis.count or 0)]
            for axis in axes.values()
        ]
        for values in itertools.product(*lists):
            yield self._of_branch(branch) | dict(zip(axes, values, strict=True))


def read_branches(axes: Any, points: Sequence[Sequence[str]] | None) -> tuple[Branch, ...]:
    """The branches of `space.axes` (a mapping, or a list of them) and of `space.points`; UserError by key."""
    grids = axes if isinstance(axes, list) else [axes] if axes else []
    branches = []
    for number, grid in enumerate(grids, start=1):
        if not isinstance(grid, Mapping):
            raise UserError(f"space.axes={grid!r}: expected a mapping of override keys to values or ranges")
        read = {str(key): _read_axis(str(key), values) for key, values in grid.items()}
        branches.append(Branch(name=_name(read) or f"branch {number}", axes=read))
    if points:
        options = {" ".join(point): tuple(point) for point in points}
        branches.append(Branch(name="points", axes={"point": Choices(options=options)}))
    names = [branch.name for branch in branches]
    return tuple(
        dataclasses.replace(branch, name=f"{branch.name} {number}")
        if names.count(branch.name) > 1
        else branch
        for number, branch in enumerate(branches, start=1)
    )


def _read_axis(key: str, values: Any) -> Axis:
    where = f"space.axes.{key}"
    if isinstance(values, Mapping):
        return _read_range(key, where, values)
    if not isinstance(values, list):
        raise UserError(
            f"{where}={values!r}: expected a list of values, or a range such as {{low: 8, high: 64, step: 8}}"
        )
    if not values:
        raise UserError(f"{where}: has no values; give at least one, or remove the axis")
    texts = [conf.override_value(value) for value in values]
    return Choices(options={text: (f"{key}={text}",) for text in texts})


def _read_range(key: str, where: str, values: Mapping[Any, Any]) -> Range:
    known = ("low", "high", "step", "log")
    for name in values:
        if name not in known:
            raise UserError(f"{where}.{name}: there is no such key; a range has: {', '.join(known)}")
    for name in ("low", "high"):
        if name not in values:
            raise UserError(
                f"{where}.{name}: is required; a range has low and high, and may have step or log"
            )
    low, high = _read_number(where, "low", values), _read_number(where, "high", values)
    step = _read_number(where, "step", values) if values.get("step") is not None else None
    log = values.get("log") or False
    if log not in (True, False):
        raise UserError(f"{where}.log={log!r}: must be true or false")
    if step is not None and step <= 0:
        raise UserError(f"{where}.step={step}: must be greater than 0")
    if not low < high:
        raise UserError(f"{where}: low={low} must be less than high={high}")
    if log and (step is not None or low <= 0):
        raise UserError(f"{where}: log=true needs low above 0 and no step, got low={low}, step={step}")
    if not all(isinstance(number, int) for number in (low, high, step or 1)):
        low, high, step = float(low), float(high), None if step is None else float(step)
    return Range(key=key, low=low, high=high, step=step, log=log)


def _read_number(where: str, name: str, values: Mapping[Any, Any]) -> float:
    number = values[name]
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{where}.{name}={number!r}: must be a number")
    require_number(f"{where}.{name}", number)
    return number


def _name(axes: Mapping[str, Axis]) -> str:
    """What the axes of one value say: transform: [conv] makes the branch conv."""
    fixed = [next(iter(a.options)) for a in axes.values() if isinstance(a, Choices) and len(a.options) == 1]
    return " ".join(text for text in fixed if text.isidentifier())


def _some_values(axis: Axis) -> list[Any]:
    if isinstance(axis, Choices):
        return list(axis.options)
    return [axis.low, axis.high if axis.count is None else axis.value(axis.count - 1)]


def _plain_axis(axis: Axis) -> Any:
    if isinstance(axis, Choices):
        return {label: list(overrides) for label, overrides in axis.options.items()}
    return [axis.low, axis.high, axis.step, axis.log]
