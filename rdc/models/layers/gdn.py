"""Generalized divisive normalisation, in CompressAI's parametrisation so that its weights load unchanged."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# CompressAI's constants: beta and gamma are stored as sqrt(value + PEDESTAL), which flattens their gradient
# near zero; BETA_MIN keeps the divisor away from zero.
PEDESTAL = 2.0**-36
BETA_MIN = 1e-6
GAMMA_INIT = 0.1


class LowerBound(torch.autograd.Function):
    """max(x, bound) whose gradient still passes where it would push x back above the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grad_outputs
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def non_negative(stored: Tensor, minimum: float = 0.0) -> Tensor:
    """Stored parameter -> its value, at least `minimum`."""
    bounded: Tensor = LowerBound.apply(stored, (minimum + PEDESTAL) ** 0.5)
    return bounded.square() - PEDESTAL


class GDN(nn.Module):
    """x / norm, or x * norm when inverse; norm_i = (beta_i + sum_j gamma_ij |x_j|^p)^(1/p).

    power=1: Johnston et al., "Computationally efficient neural image compression", 2019; no square root.
    power=2: Balle et al., "Density modeling of images using a generalized normalization
      transformation", 2015.
    Under bf16 autocast the contraction over channels runs in bf16; the parameters stay in fp32.
    """

    def __init__(self, channels: int, *, power: Literal[1, 2], inverse: bool = False) -> None:
        super().__init__()
        self.power = power
        self.inverse = inverse
        self.beta = nn.Parameter(torch.sqrt(torch.ones(channels) + PEDESTAL))
        self.gamma = nn.Parameter(torch.sqrt(GAMMA_INIT * torch.eye(channels) + PEDESTAL))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, channels, H, W) -> the same shape."""
        beta = non_negative(self.beta, BETA_MIN)
        gamma = non_negative(self.gamma)
        pooled = x.abs() if self.power == 1 else x * x
        norm = F.conv2d(pooled, gamma[:, :, None, None], beta)
        if self.power == 2:
            norm = norm.sqrt()
        return x * norm if self.inverse else x / norm

    def extra_repr(self) -> str:
        return f"{self.beta.numel()}, power={self.power}, inverse={self.inverse}"
