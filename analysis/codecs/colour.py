"""8-bit RGB to 8-bit full-range YCbCr 4:4:4 with BT.709 weights, and back, for encoders that take raw YUV.

ITU-R BT.709-6, items 3.2 and 3.3, with the full-range integers of ITU-T H.273, 8.3: Y = Round(255 E'Y),
C = Round(255 E'C) + 128. Samples are rounded to the nearest, halves up. On Kodak that alone is 53.2 dB; with
truncation instead it is 46.4 dB, which no codec can make good.
"""

from __future__ import annotations

import numpy as np

from analysis.errors import AnalysisError

COLOUR = "YCbCr 4:4:4, BT.709, full range, 8 bit, rounded"

# In ten-thousandths. Whole numbers throughout: halves are rounded alike on every machine.
_RED, _GREEN, _BLUE, _ONE = 2126, 7152, 722, 10_000
_CB, _CR = 2 * (_ONE - _BLUE), 2 * (_ONE - _RED)
_CENTRE = 128
# No 8-bit colour comes back further off than this, by exhaustion over all 2^24, saturated ones included.
WORST_ERROR = 1


def to_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (3, H, W) uint8 planes Y, Cb, Cr."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    luma = _RED * red + _GREEN * green + _BLUE * blue
    cb = _divide(_ONE * blue - luma, _CB) + _CENTRE
    cr = _divide(_ONE * red - luma, _CR) + _CENTRE
    return _to_8_bits(np.stack((_divide(luma, _ONE), cb, cr)))


def to_rgb(planes: np.ndarray) -> np.ndarray:
    """(3, H, W) uint8 planes Y, Cb, Cr -> (H, W, 3) uint8 RGB."""
    luma, cb, cr = planes.astype(np.int64)
    from_cb, from_cr = _CB * (cb - _CENTRE), _CR * (cr - _CENTRE)
    red, blue = luma + _divide(from_cr, _ONE), luma + _divide(from_cb, _ONE)
    green = luma + _divide(-_RED * from_cr - _BLUE * from_cb, _ONE * _GREEN)
    return _to_8_bits(np.stack((red, green, blue), axis=-1))


def self_test() -> None:
    """Raises AnalysisError if this machine's conversion truncates, shifts grey or loses colours."""
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    if not np.array_equal(to_rgb(to_ycbcr(grey)), grey):
        raise AnalysisError(f"{_FAILED}: grey does not come back as it was")
    steps = np.array([0, 1, 2, 63, 127, 128, 129, 200, 253, 254, 255], np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(11, 121, 3)
    error = int(np.abs(to_rgb(to_ycbcr(cube)).astype(int) - cube).max())
    if error > WORST_ERROR:
        raise AnalysisError(f"{_FAILED}: colours come back {error} levels off, at most {WORST_ERROR}")
    # Luma of (0, 1, 0) is 0.7152: rounded 1, truncated 0.
    if to_ycbcr(np.array([[[0, 1, 0]]], np.uint8))[0, 0, 0] != 1:
        raise AnalysisError(f"{_FAILED}: it truncates instead of rounding")


_FAILED = "the conversion between RGB and YCbCr fails its self-test on this machine; nothing was measured"


def _divide(number: np.ndarray, by: int) -> np.ndarray:
    """To the nearest whole number, halves up."""
    return (2 * number + by) // (2 * by)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)
