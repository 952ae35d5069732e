"""Generalized divisive normalisation, in CompressAI's parametrisation so that its weights load unchanged."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rdc.models.layers.pointwise import conv1x1

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


class Normalise(torch.autograd.Function):
    """GDN in training: what autograd gives, in a third of the passes over memory that are its cost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, power: int, inverse: bool) -> Tensor:
        pooled = x.abs() if power == 1 else x * x
        kernel = gamma[:, :, None, None]
        norm = F.conv2d(pooled, kernel, beta)
        if power == 2:
            norm.sqrt_()
        out = x * norm if inverse else x / norm
        ctx.save_for_backward(x, pooled, norm, kernel, x if inverse else out)
        ctx.power, ctx.inverse = power, inverse
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, pooled, norm, kernel, factor = ctx.saved_tensors
        (grad,) = grad_outputs
        # direct reaches x past the norm; direct times factor reaches the norm, up to a sign.
        if ctx.inverse:
            direct, through_norm, sign = grad * norm, grad * factor, 1.0
        else:
            direct = grad / norm
            through_norm, sign = direct * factor, -1.0
        if ctx.power == 2:
            through_norm /= norm  # norm is the square root s of the sum: d/ds = 2 s d/d(s^2)
            sign /= 2
        to_pooled, to_kernel, to_beta = torch.ops.aten.convolution_backward(
            through_norm, pooled, kernel, [len(kernel)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True] * 3
        )
        inner = x if ctx.power == 2 else x.sign()
        direct.addcmul_(inner, to_pooled, value=sign * ctx.power)
        return direct, to_kernel[:, :, 0, 0] * sign, to_beta * sign, None, None


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
        if self.training and torch.is_grad_enabled():
            dtype = _compute_dtype(x)
            trained: Tensor = Normalise.apply(
                x.to(dtype), gamma.to(dtype), beta.to(dtype), self.power, self.inverse
            )
            return trained
        pooled = x.abs() if self.power == 1 else x * x
        norm = conv1x1(pooled, gamma[:, :, None, None], beta)
        if self.power == 2:
            norm = norm.sqrt()
        return x * norm if self.inverse else x / norm

    def extra_repr(self) -> str:
        return f"{self.beta.numel()}, power={self.power}, inverse={self.inverse}"


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What a convolution of x would compute in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
