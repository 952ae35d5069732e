"""How a training stands, on images that it is not given: estimated rate, and distortion of 8-bit pixels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdc.data import PixelCache
from rdc.loss import bits, rd_loss
from rdc.metrics import finite_or_none, mse, psnr_db, to_8bit
from rdc.models.codec import Codec
from rdc.resume import MetricsLog

VALIDATION_SIDE_PX = 256
VALIDATION_IMAGES = 32
SLOPE_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Validation:
    """Means over the validation images; bpp is estimated from likelihoods."""

    rd_loss: float
    bpp: float
    psnr_db: float
    images: int


@torch.no_grad()
def validate(codec: Codec, images: PixelCache, lmbda: float) -> Validation:
    """Estimated rate and 8-bit rounded pixels, on the centres of at most VALIDATION_IMAGES images.

    The codec is left at this lmbda.
    """
    device = next(codec.parameters()).device
    was_training = codec.training
    codec.eval()
    codec.set_lmbda(lmbda)
    rates, errors = [], []
    for index in range(min(len(images), VALIDATION_IMAGES)):
        x = _centre(images.tensor(index)).to(device)
        output = codec(x)
        rates.append(float(bits(output["likelihoods"])) / (x.shape[-2] * x.shape[-1]))
        errors.append(mse(to_8bit(x), to_8bit(output["x_hat"])))
    codec.train(was_training)
    losses = [rd_loss(bpp, error, lmbda) for bpp, error in zip(rates, errors, strict=True)]
    return Validation(
        rd_loss=float(np.mean(losses)),
        bpp=float(np.mean(rates)),
        psnr_db=float(np.mean([psnr_db(error) for error in errors])),
        images=len(losses),
    )


def write_validation(metrics: MetricsLog, step: int, result: Validation) -> None:
    values = {"rd_loss": result.rd_loss, "bpp": result.bpp, "psnr_db": result.psnr_db}
    metrics.points(step, **{f"val/{name}": finite_or_none(value) for name, value in values.items()})


def slope_start(steps: int) -> int:
    """The step whose validation the final one is compared with, to see how fast the loss still falls."""
    return round((1 - SLOPE_SHARE) * steps)


def rd_loss_slope(rows: list[dict[str, Any]], steps: int) -> float | None:
    """Change of the validation rd_loss over the last fifth of the steps, per 1,000 steps.

    Negative: still improving. From the metrics of a finished training; None if either end was not validated.
    Training losses would not do: each step draws other crops, and the trend drowns in that.
    """
    at = {row["step"]: row["val/rd_loss"] for row in rows if row.get("val/rd_loss") is not None}
    start = slope_start(steps)
    if start == steps or start not in at or steps not in at:
        return None
    return float(at[steps] - at[start]) / (steps - start) * 1000


def _centre(x: Tensor) -> Tensor:
    """The middle of an image, at most VALIDATION_SIDE_PX on each side."""
    height, width = (min(side, VALIDATION_SIDE_PX) for side in x.shape[-2:])
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]
