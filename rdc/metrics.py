"""Quality of a reconstruction, always on the pixels that a user would save: clipped and rounded to 8 bits."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

# Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", 2003.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility
# to structural similarity", 2004.
SSIM_WINDOW_PX = 11
SSIM_WINDOW_SIGMA_PX = 1.5
SSIM_K = (0.01, 0.03)
# The coarsest scale must still hold one window: ceil(side / 16) >= 11.
MS_SSIM_MIN_SIDE_PX = (SSIM_WINDOW_PX - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1


def to_8bit(x: Tensor) -> Tensor:
    """Any float image -> the same shape on the [0, 1] scale, clipped and rounded to multiples of 1/255."""
    return (x.float().clamp(0.0, 1.0) * 255.0).round() / 255.0


def mse(x: Tensor, x_hat: Tensor) -> float:
    """Mean squared error on the [0, 1] scale, over all entries."""
    return float((x.double() - x_hat.double()).square().mean())


def psnr_db(mse_value: float) -> float:
    """PSNR in dB of an mse on the [0, 1] scale; identical images give +inf."""
    return math.inf if mse_value == 0.0 else -10.0 * math.log10(mse_value)


def ms_ssim_db(value: float) -> float:
    """-10 log10(1 - MS-SSIM), the field's scale for values near 1; identical images give +inf."""
    return math.inf if value >= 1.0 else -10.0 * math.log10(1.0 - value)


def finite_or_none(value: float | None) -> float | None:
    """What JSON can hold: an infinite PSNR (no error at all) and an undefined value become None."""
    return value if value is not None and math.isfinite(value) else None


def ms_ssim(x: Tensor, x_hat: Tensor) -> float | None:
    """MS-SSIM of one image: 5 scales on each of R, G, B, then their mean. None if a side is below 161 pixels.

    x, x_hat: (3, H, W) in [0, 1]. Scales are halved by 2x2 means; an odd side is first extended by its last
    row or column. A negative contrast term counts as 0, as is usual.
    """
    if min(x.shape[-2:]) < MS_SSIM_MIN_SIDE_PX:
        return None
    # Plane by plane: the maps of one plane stay in the cache, those of three do not.
    planes = [_ms_ssim_plane(torch.stack(pair)) for pair in zip(x.float(), x_hat.float(), strict=True)]
    return sum(planes) / len(planes)


def _ms_ssim_plane(pair: Tensor) -> float:
    """pair: (2, H, W), one colour plane of x and of x_hat."""
    product = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS, start=1):
        luminance, contrast = _ssim_terms(pair[0], pair[1])
        term = luminance * contrast if scale == len(MS_SSIM_WEIGHTS) else contrast
        product *= max(0.0, float(term.mean())) ** weight
        pair = _halve(pair)
    return product


def _ssim_terms(x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, (H - 10, W - 10) each: only windows inside the image."""
    c1, c2 = (k**2 for k in SSIM_K)
    mean_x, mean_x_hat = _blur(x), _blur(x_hat)
    # Only the sum of both variances enters, so four blurred maps are enough.
    mean_squares, mean_product = _blur(x * x + x_hat * x_hat), _blur(x * x_hat)
    square_of_means = mean_x * mean_x + mean_x_hat * mean_x_hat
    product_of_means = mean_x * mean_x_hat
    luminance = (2 * product_of_means + c1) / (square_of_means + c1)
    contrast = (2 * (mean_product - product_of_means) + c2) / (mean_squares - square_of_means + c2)
    return luminance, contrast


def _blur(plane: Tensor) -> Tensor:
    """Separable Gaussian window, (H, W) -> (H - 10, W - 10); shifted sums are 4 times faster than conv2d."""
    for axis in (0, 1):
        length = plane.shape[axis] - SSIM_WINDOW_PX + 1
        taps = _window()
        blurred = plane.narrow(axis, 0, length) * taps[0]
        for offset in range(1, SSIM_WINDOW_PX):
            blurred.add_(plane.narrow(axis, offset, length), alpha=taps[offset])
        plane = blurred
    return plane


def _halve(pair: Tensor) -> Tensor:
    height_px, width_px = pair.shape[-2:]
    if height_px % 2 or width_px % 2:
        pair = functional.pad(pair, (0, width_px % 2, 0, height_px % 2), mode="replicate")
    return functional.avg_pool2d(pair, 2)


@functools.cache
def _window() -> tuple[float, ...]:
    offsets = range(-(SSIM_WINDOW_PX // 2), SSIM_WINDOW_PX // 2 + 1)
    taps = [math.exp(-(offset**2) / (2 * SSIM_WINDOW_SIGMA_PX**2)) for offset in offsets]
    return tuple(tap / sum(taps) for tap in taps)
