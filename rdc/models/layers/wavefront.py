"""Coding order for a 5x5 masked context: diagonals of positions that do not depend on each other.

The mask lets a position see two rows above it, two columns to each side there, and two positions to its left.
Of the row above it needs (i - 1, j + 2), so that row must be three columns ahead: positions with equal
j + 3 i can be coded together. A slope of 2 would put (i - 1, j + 2) into the same step.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

REACH = 2  # positions that the mask sees in each direction
SLOPE = REACH + 1
KERNEL = 2 * REACH + 1
TAPS = REACH * KERNEL + REACH  # the first 12 of the kernel's 25, in C order


class Front(NamedTuple):
    """One step: positions (row + k, column - SLOPE k), k < size; the start-th ones in coding order."""

    start: int
    size: int
    row: int
    column: int

    @property
    def span(self) -> slice:
        """Where its positions are in coding order."""
        return slice(self.start, self.start + self.size)


@functools.lru_cache(maxsize=64)
def fronts(height: int, width: int) -> tuple[Front, ...]:
    """All steps for a grid, in order."""
    found = []
    start = 0
    for step in range(width + SLOPE * (height - 1)):
        first = max(0, -((width - 1 - step) // SLOPE))
        size = min(height - 1, step // SLOPE) - first + 1
        if size > 0:  # a grid narrower than SLOPE has empty steps
            found.append(Front(start, size, first, step - SLOPE * first))
            start += size
    return tuple(found)


def num_fronts(height: int, width: int) -> int:
    """len(fronts(height, width)), for grids of any size."""
    return height * min(width, SLOPE) + max(0, width - SLOPE)


@functools.lru_cache(maxsize=64)
def order(height: int, width: int) -> Tensor:
    """(height * width,) int64: the raster position of each position in coding order."""
    i, j = np.divmod(np.arange(height * width), width)
    return torch.from_numpy(np.argsort(j + SLOPE * i, kind="stable"))


@functools.lru_cache(maxsize=64)
def rank(height: int, width: int) -> Tensor:
    """Inverse of `order`: where each raster position is in coding order."""
    return order(height, width).argsort()


class Canvas:
    """The decoded part of one latent, channels last, in a frame of zeros for what lies outside of the grid.

    A front's positions lie at equal distances in memory, so its neighbourhoods are strided views.
    """

    def __init__(self, channels: int, height: int, width: int, like: Tensor) -> None:
        self._size = (height, width)
        self._channels = channels
        self._stride = width + 2 * REACH
        self._values = like.new_zeros((height + REACH) * self._stride, channels)

    def neighbours(self, front: Front) -> Tensor:
        """(size, TAPS * channels): what the mask sees of each position, taps in C order."""
        above = [self._view(front, up, -REACH, KERNEL) for up in range(REACH, 0, -1)]
        return torch.cat([*above, self._view(front, 0, -REACH, REACH)], 1)

    def write(self, front: Front, values: Tensor) -> None:
        """values: (size, channels), decoded."""
        self._view(front, 0, 0, 1).copy_(values)

    def latent(self) -> Tensor:
        """(1, channels, height, width)."""
        height, width = self._size
        framed = self._values.view(1, height + REACH, self._stride, self._channels)
        inside = framed[:, REACH:, REACH : REACH + width]
        return inside.permute(0, 3, 1, 2).contiguous()

    def _view(self, front: Front, up: int, right: int, length: int) -> Tensor:
        """(size, length * channels): `length` positions from the one `up` rows above and `right` of each."""
        offset = (front.row + REACH - up) * self._stride + front.column + REACH + right
        return self._values.as_strided(
            (front.size, length * self._channels),
            ((self._stride - SLOPE) * self._channels, 1),
            offset * self._channels,
        )
