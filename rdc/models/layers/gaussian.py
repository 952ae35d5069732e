"""Probability of a symbol's unit bin under a Gaussian, with a gradient that never dies."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Beyond this many standard deviations the gradient is that of a symbol at this distance. Bins there have
# about a billionth of the probability; a little farther out exp(-x^2 / 2) rounds to zero.
REACH = 6.0


def gaussian_likelihood(y: Tensor, mean: Tensor, scale: Tensor, *, scale_min: float, floor: float) -> Tensor:
    """P(bin of width 1 around y), at least `floor`. mean, scale: broadcast to y; scale is cut at scale_min.

    The values are those of CompressAI's GaussianConditional. Its gradient vanishes where the probability is
    under `floor`, as for a symbol of 2 at the smallest scale, so that training never hears of its worst
    predictions. Here log P keeps the slope that it has REACH standard deviations away.
    """
    likelihood: Tensor = _Likelihood.apply(y, mean, scale, scale_min, floor)
    return likelihood


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, mean: Tensor, scale: Tensor, scale_min: float, floor: float) -> Tensor:
        residual = y - mean
        bounded = scale.clamp_min(scale_min)
        distance = residual.abs()
        upper, lower = (0.5 - distance) / bounded, (-0.5 - distance) / bounded
        likelihood = (_cumulative(upper) - _cumulative(lower)).clamp_min_(floor)
        ctx.save_for_backward(residual, scale, likelihood)
        ctx.scale_min = scale_min
        return likelihood

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        residual, scale, likelihood = ctx.saved_tensors
        bounded = scale.clamp_min(ctx.scale_min)
        near = torch.minimum(residual.abs(), 0.5 + REACH * bounded)
        upper, lower = (0.5 - near) / bounded, (-0.5 - near) / bounded
        at_upper, at_lower = _density(upper), _density(lower)
        # d log P of the bin that is near enough, times this bin's P. At scales so large that both ends of the
        # bin are one number to fp32 its mass is 0: nothing is known of a slope there.
        mass = _cumulative(upper) - _cumulative(lower)
        weight = torch.where(mass > 0, grad * likelihood / (mass * bounded), 0.0)
        to_residual = weight * (at_lower - at_upper) * residual.sign()
        to_scale = weight * (at_lower * lower - at_upper * upper)
        # As LowerBound does: a scale at the bound still hears that it should grow.
        to_scale = torch.where((scale >= ctx.scale_min) | (to_scale < 0), to_scale, 0.0)
        return to_residual, -to_residual, to_scale, None, None


def _cumulative(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-(2**-0.5) * x)


def _density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
