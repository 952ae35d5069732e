"""Gaussian per symbol of y from side information and a 5x5 masked context (Minnen et al., NeurIPS 2018).

Positions are coded along diagonals (rdc.models.layers.wavefront), with the same probabilities as one after
the other: a 32 x 48 latent takes 141 steps instead of 1536.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Generator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.models.layers import coding, wavefront
from rdc.models.layers.conv import conv
from rdc.models.layers.graph import is_reference
from rdc.models.layers.hyperprior import (
    Hyperprior,
    Visit,
    Walked,
    arguments,
    check_prior_filters,
    dry,
    start_bias,
)
from rdc.models.layers.stepwise import Step
from rdc.spec import ModelSpec

# Gives the steps of a walk one by one, takes the values decoded in each, and ends in the whole latent.
Diagonals = Generator[Step, Tensor | None, Walked]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """quantiser, indexing: see Hyperprior; under mixed the context sees plainly rounded values, since the
    means around which coding rounds are not known before it. prior_filters: hidden widths of z's cumulative
    distribution.
    """

    name: Literal["joint_autoregressive"] = "joint_autoregressive"
    quantiser: Literal["mixed", "noise"] = "noise"
    indexing: Literal["nearest", "ceil"] = "nearest"
    prior_filters: tuple[int, ...] = (3, 3)

    def check(self, model: Any) -> None:
        """Fits every hyper transform; the prior needs at least one hidden layer."""
        check_prior_filters(self.prior_filters)


class MaskedConv(nn.Conv2d):
    """5x5 convolution that sees only what comes before its centre in raster order; same size out.

    Weights of the masked taps are kept, unused, as in published state dicts and parameter counts.
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, wavefront.KERNEL, padding=wavefront.REACH)
        seen = torch.arange(wavefront.KERNEL**2) < wavefront.TAPS
        self.register_buffer("mask", seen.view(wavefront.KERNEL, wavefront.KERNEL), persistent=False)
        nn.init.normal_(self.weight, std=(in_channels * wavefront.TAPS) ** -0.5)
        nn.init.zeros_(_bias(self))
        with torch.no_grad():
            self.weight.copy_(self.masked_weight())

    def masked_weight(self) -> Tensor:
        """(out, in, 5, 5), zero where the mask is."""
        return torch.where(self.mask, self.weight, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h, w)."""
        return F.conv2d(x, self.masked_weight(), self.bias, padding=wavefront.REACH)

    def as_matrix(self) -> Tensor:
        """(TAPS * in, out): the weights for what wavefront.Canvas.neighbours gives."""
        taps = self.weight.flatten(2)[..., : wavefront.TAPS]
        return taps.permute(2, 1, 0).flatten(0, 1)


class MaskedContext(nn.Module):
    """The networks that turn decoded neighbours and h_s's output into scale and mean of each symbol.

    channels: M, those of y. The three 1x1 layers have 10/3 M, 8/3 M and 2 M outputs, scales first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.context_prediction = MaskedConv(channels, 2 * channels)
        first, second = channels * 10 // 3, channels * 8 // 3
        self.entropy_parameters = nn.Sequential(
            conv(4 * channels, first, kernel=1, stride=1),
            nn.LeakyReLU(inplace=True),
            conv(first, second, kernel=1, stride=1),
            nn.LeakyReLU(inplace=True),
            conv(second, 2 * channels, kernel=1, stride=1),
        )

    def forward(self, source: Tensor | Diagonals, values: Tensor | None) -> Walked | Step:
        """One dense pass, or one step of a walk.

        Dense: source is (B, 2 M, h, w), what h_s gives; values are the whole y_hat, (B, M, h, w).
        Step: source is what `diagonals` gave; values are those decoded in the step before, (positions, M),
        none before the first. Gives the next step, or the whole latent after the last one.
        """
        if isinstance(source, Tensor):
            assert values is not None, "a dense pass sees every value"
            parameters = self.entropy_parameters(torch.cat((source, self.context_prediction(values)), 1))
            scale, mean = parameters.chunk(2, 1)
            return Walked(values, mean, scale)
        try:
            return source.send(values)
        except StopIteration as done:
            walked: Walked = done.value
            return walked

    def diagonals(self, side: Tensor) -> Diagonals:
        """A walk through one latent, front after front, as products with the 12 taps left of 25 by the mask.

        side: (1, 2 M, h, w). Nothing is computed before `forward` is called with it.
        """
        _, _, height, width = side.shape
        order = wavefront.order(height, width).to(side.device)
        taps, bias = self.context_prediction.as_matrix(), _bias(self.context_prediction)
        (first, bias_1), (second, bias_2), (third, bias_3) = (
            (layer.weight.flatten(1).t(), _bias(layer))
            for layer in self.entropy_parameters
            if isinstance(layer, nn.Conv2d)
        )
        # The first layer's share of the side information waits for no symbol.
        of_side, of_context = first.split(2 * self.channels)
        prepared = torch.addmm(bias_1, _in_order(side, order), of_side)
        canvas = wavefront.Canvas(self.channels, height, width, side)
        parameters = []
        for front in wavefront.fronts(height, width):
            hidden = torch.addmm(bias, canvas.neighbours(front), taps)
            hidden = F.leaky_relu_(torch.addmm(prepared[front.span], hidden, of_context))
            hidden = F.leaky_relu_(torch.addmm(bias_2, hidden, second))
            parameters.append(torch.addmm(bias_3, hidden, third))
            scale, mean = parameters[-1].chunk(2, 1)
            pick = functools.partial(_in_order, positions=order[front.span])
            values = yield Step(pick, mean, scale)
            assert values is not None, "a front is decoded before the next one"
            canvas.write(front, values)
        whole = torch.cat(parameters).index_select(0, wavefront.rank(height, width).to(side.device))
        scale, mean = whole.t().reshape(1, -1, height, width).chunk(2, 1)
        return Walked(canvas.latent(), mean, scale)


def along_diagonals(context: MaskedContext, side: Tensor, visit: Visit) -> Walked:
    """One front after the other, coded outside of the context's calls: their time is that of networks alone.

    side: (1, 2 M, h, w), what h_s gives. visit: sees each front as (positions, M).
    """
    with torch.no_grad(), coding.one_thread():
        walk = context.diagonals(side)
        found = context(walk, None)
        while isinstance(found, Step):
            found = context(walk, visit(*found))
        walked: Walked = found
        return walked


class JointAutoregressive(Hyperprior):
    """Evaluation rounds around means that themselves come from decoded neighbours, as coding does.

    (CompressAI's evaluation gives its context round(y) instead, and so estimates another rate than it codes.)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.context = MaskedContext(self.latent_channels)

    def walk(self, side: Tensor, visit: Visit) -> Walked:
        """One wavefront after the other; each step is (positions, latent_channels)."""
        if visit is dry and is_reference():
            dense: Walked = self.context(side, side.new_zeros(1, self.latent_channels, *side.shape[2:]))
            return dense
        return along_diagonals(self.context, side, visit)

    def estimate_y(self, y: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """In training one dense pass over noisy or plainly rounded values, instead of a walk."""
        if not self.training:
            return super().estimate_y(y, side)
        seen, rated = self._quantise(y, y.new_zeros(()))
        _, mean, scale = self.context(side, seen)
        y_hat = seen if self.quantiser == "noise" else self._rounded(y, mean)
        return y_hat, self._likelihood_y(rated, mean, scale)

    def serial_steps(self, height: int, width: int) -> int:
        """Wavefronts."""
        return wavefront.num_fronts(height, width)

    def parts(self) -> dict[str, nn.Module]:
        """The named networks; context holds the masked convolution and the 1x1 layers after it."""
        return {**super().parts(), "context": self.context}

    def start_scales(self, scales: Tensor) -> None:
        """Through the last bias of the context's networks."""
        start_bias(self.context.entropy_parameters, scales)


def build(spec: ModelSpec) -> JointAutoregressive:
    """The entropy model of a spec, with its hyper transforms."""
    latent_channels = spec.depth.latent_channels
    model = JointAutoregressive(**arguments(spec, 2 * latent_channels))
    model.start_scales(torch.ones(latent_channels))
    return model


def _in_order(grid: Tensor, positions: Tensor) -> Tensor:
    """(1, channels, h, w) -> (positions, channels)."""
    return grid[0].flatten(1).t().index_select(0, positions)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None, "the context's layers have a bias"
    return layer.bias
