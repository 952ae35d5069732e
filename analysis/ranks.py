"""The order of models by time in one setting against their order in another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Inversions:
    """Pairs of n models that two orders put the other way round, ties left out.

    pairs: n (n - 1) / 2. found: (i, j) with i before j in the first order. clear: those of them that are
    apart in both orders by more than the spread of their values.
    """

    pairs: int
    found: tuple[tuple[int, int], ...]
    clear: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Measured:
    """Values with what they spread over: low <= value <= high, arrays of one length."""

    value: Array
    low: Array
    high: Array

    @classmethod
    def exact(cls, values: Iterable[float]) -> Measured:
        """Values without spread."""
        array = np.asarray(list(values), dtype=np.float64)
        return cls(array, array, array)

    def order(self) -> npt.NDArray[np.int8]:
        """(n, n): -1 where the row's value is below the column's, 1 above, 0 equal."""
        return np.sign(self.value[:, None] - self.value).astype(np.int8)

    def is_apart(self) -> npt.NDArray[np.bool_]:
        """(n, n): whether the spreads of row and column do not meet."""
        return (self.high[:, None] < self.low) | (self.low[:, None] > self.high)


def inversions(x: Measured, y: Measured) -> Inversions:
    """x, y: of the same models."""
    n = len(x.value)
    opposite = (x.order() < 0) & (y.order() > 0)
    clear = opposite & x.is_apart() & y.is_apart()
    return Inversions(n * (n - 1) // 2, _places(opposite), _places(clear))


def _places(where: npt.NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    return tuple((int(i), int(j)) for i, j in np.argwhere(where))
