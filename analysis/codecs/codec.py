"""What a codec is to the runner: a name, its quality parameter, how it was built, and one function."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from analysis.errors import AnalysisError


class CodecError(AnalysisError):
    """One image could not be coded at one setting; the others can."""


class UnavailableError(AnalysisError):
    """The codec's program or package is not here; the text says how to get it."""


@dataclasses.dataclass(frozen=True)
class Coded:
    """size_bytes: of the whole file, container and headers included. pixels: decoded, (H, W, 3) uint8."""

    size_bytes: int
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Codec:
    """A codec with everything fixed but the parameter that trades rate for quality.

    encoder: the fixed options. version: of every program or library that has a hand in bits or pixels.
    colour: what is coded. values: the grid of `parameter`; low, high: what the encoder takes; whole: of
    that only whole numbers.
    code: (pixels (H, W, 3) uint8, value) -> Coded; raises CodecError. It is called from several threads.
    """

    name: str
    title: str
    encoder: str
    version: str
    colour: str
    parameter: str
    values: tuple[float, ...]
    low: float
    high: float
    whole: bool
    code: Callable[[np.ndarray, float], Coded]

    def setting(self, value: float) -> str:
        """How the point is called in tables: q=37."""
        return f"{self.parameter}={value:g}"

    def with_values(self, values: tuple[float, ...]) -> Codec:
        """Another grid; AnalysisError if the encoder would not take a value, or one stands there twice."""
        kind = "whole numbers" if self.whole else "numbers"
        for value in values:
            if not self.low <= value <= self.high or (self.whole and value != int(value)):
                raise AnalysisError(
                    f"--settings {self.name}={value:g}: {self.parameter} takes {kind} "
                    f"from {self.low:g} to {self.high:g}"
                )
        if len(set(values)) < len(values):
            raise AnalysisError(f"--settings {self.name}: has a value twice; give each once")
        return dataclasses.replace(self, values=values)


def mean_squared_error(source: np.ndarray, decoded: np.ndarray) -> float:
    """Over all samples of two (H, W, 3) uint8 images, on the scale 0 to 255; exact."""
    difference = source.astype(np.int32) - decoded
    return int(np.vdot(difference, difference)) / difference.size if difference.size else math.nan


def psnr_db(mse: float) -> float:
    """10 log10(255² / mse); inf where nothing was lost."""
    return 10.0 * math.log10(255.0**2 / mse) if mse > 0 else math.inf
