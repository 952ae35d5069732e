"""The rate-distortion loss, in the one convention used everywhere: bpp + lmbda * 255^2 * mse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

Number = TypeVar("Number", float, Tensor)

PIXEL_PEAK = 255.0


class RateDistortion(NamedTuple):
    """Scalars on the device of the model. bpp: bits per source pixel; mse: on the [0, 1] pixel scale.

    distortion: what the mse adds to the loss, lmbda and all.
    """

    loss: Tensor
    bpp: Tensor
    mse: Tensor
    distortion: Tensor


def rd_loss(bpp: Number, mse: Number, lmbda: float, *, rate_weight: float = 1.0) -> Number:
    """bpp in bits per source pixel, mse on the [0, 1] scale; lmbda in CompressAI's convention."""
    return rate_weight * bpp + distortion(mse, lmbda)


def distortion(mse: Number, lmbda: float) -> Number:
    """What an error adds to the loss."""
    return lmbda * PIXEL_PEAK**2 * mse


def bits(likelihoods: Mapping[str, Tensor]) -> Tensor:
    """Estimated bits of a batch: scalar, summed over all symbols of all latents."""
    totals = [likelihood.float().log2().sum() for likelihood in likelihoods.values()]
    return -torch.stack(totals).sum()


def training_loss(
    output: Mapping[str, Any], x: Tensor, lmbda: float | Sequence[float], *, rate_weight: float = 1.0
) -> RateDistortion:
    """Mean over the batch. output: what the codec returns for x; x: (B, 3, H, W) in [0, 1].

    lmbda: one for all images, or one for each.
    """
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    bpp = bits(output["likelihoods"]) / pixels
    x_hat = output["x_hat"].float()
    mse = functional.mse_loss(x_hat, x)
    if isinstance(lmbda, Sequence):
        errors = (x_hat - x).square().mean((1, 2, 3))
        terms = [distortion(error, own) for error, own in zip(errors, lmbda, strict=True)]
        distorted = torch.stack(terms).mean()
    else:
        distorted = distortion(mse, lmbda)
    return RateDistortion(rate_weight * bpp + distorted, bpp, mse, distorted)


def rate_weight(step: int, ramp_steps: int) -> float:
    """Weight of the rate at `step` (counted from 0): grows linearly to 1 over ramp_steps.

    A codec that pays for bits from the first step learns to send nothing, and must then find its way back.
    """
    return 1.0 if ramp_steps == 0 else min(1.0, (step + 1) / ramp_steps)
