"""What several test files of this folder need."""

from __future__ import annotations

import functools

import torch
from compressai.entropy_models import GaussianConditional
from torch import Tensor

from rdc.models.codec import Codec
from rdc.models.layers import coding
from rdc.models.layers.hyperprior import Hyperprior, Pick


@functools.cache
def gaussian_tables() -> coding.Tables:
    model = GaussianConditional(None)
    coding.update_gaussian(model, force=True)
    return coding.tables_of(model)


def losses_at_a_high_rate(codec: Codec) -> list[float]:
    """The loss of 60 steps on blocks of noise, at thirty times the usual learning rate."""
    optimizer = torch.optim.Adam(codec.parameters(), 3e-3)
    x = torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    losses = []
    for _ in range(60):
        out = codec(x)
        bits = sum(-torch.log2(p).sum() for p in out["likelihoods"].values())
        loss = bits / x.shape[0] / 64**2 + 0.013 * 255**2 * (out["x_hat"] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def coded_and_estimated(model: Hyperprior) -> tuple[bytes, float]:
    """(stream, estimated bits) of a y drawn from the model's own Gaussians. z has 8 channels."""
    z_hat = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(3)).round() + model._medians()
    side = model.h_s(z_hat)
    torch.manual_seed(4)

    def draw(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
        return mean + torch.round(scale.clamp_min(0.11) * torch.randn_like(mean))

    y = model.walk(side, draw).y_hat
    symbols, rows = model._symbols(y, z_hat)
    data = coding.encode(symbols, rows, coding.tables_of(model.gaussian_conditional))
    return data, -float(model.estimate_y(y, side)[1].log2().sum())
