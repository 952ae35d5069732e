"""Channel-wise autoregressive model: slices of y, each predicted from z and earlier slices.

Minnen & Singh, "Channel-wise Autoregressive Entropy Models for Learned Image Compression", ICIP 2020, and the
changes of Minnen & Johnston, "Advancing the Rate-Distortion-Computation Frontier", ICIP 2023.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.layers import coding
from rdc.models.layers.conv import conv
from rdc.models.layers.hyperprior import (
    arguments,
    channels_of,
    check_prior_filters,
    start_bias,
    synthesis,
)
from rdc.models.layers.stepwise import Context, State, Step, Stepwise
from rdc.spec import Depth, ModelSpec
from rdc.width import scaled_widths

Lrp = Literal["none", "add", "conv"]
Side = Literal["whole", "sliced", "projected"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The defaults are the study's (ICIP 2023).

    slices: equal parts of the latent channels. support: how many of the first slices the later ones see; 0:
      each slice sees all before it.
    widths, kernels: of the three layers of each slice network, which ends in the slice's own channels. widths
      null: two thirds and one third of the sum of a network's input and output, as in SwinT-ChARM (Zhu et
      al., ICLR 2022).
    hyper: shared: one h_s gives 2M channels, a half for the scales and a half for the means. separate: two
      networks of M channels, each ending in a ReLU (2020).
    side: what a slice network sees of its half. whole: all of it (2020); sliced: its own M / slices channels
      (Zhu et al.); projected: its own 1x1 projection of all 2M channels, the study's split tensors.
    lrp: prediction r of what rounding lost of a slice, at most a half. add: y_hat = q + r (2020); conv: a
      5x5 convolution of q and r (the study); none.
    quantiser, indexing: see Hyperprior. prior_filters: hidden widths of z's cumulative distribution.
    """

    name: Literal["charm"] = "charm"
    slices: int = 10
    support: int = 5
    widths: tuple[int, int] | None = (224, 128)
    kernels: tuple[int, int, int] = (3, 3, 3)
    hyper: Literal["shared", "separate"] = "shared"
    side: Side = "projected"
    lrp: Lrp = "conv"
    quantiser: Literal["mixed", "noise"] = "mixed"
    indexing: Literal["nearest", "ceil"] = "nearest"
    prior_filters: tuple[int, ...] = (3, 3)

    @property
    def latent_multiple(self) -> int:
        """The latent channels must divide into this many parts."""
        return self.slices

    def check(self, model: Any) -> None:
        """Needs latent channels that divide into the slices."""
        if self.slices < 1 or model.depth.latent_channels % self.slices:
            raise UserError(
                f"entropy_model.slices={self.slices}: depth.latent_channels={model.depth.latent_channels} "
                "does not divide into so many"
            )
        if self.support < 0:
            raise UserError(f"entropy_model.support={self.support}: must be at least 0 (all earlier slices)")
        if self.widths is not None and min(self.widths) < 1:
            raise UserError(f"entropy_model.widths={list(self.widths)}: every entry must be at least 1")
        if any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernels):
            raise UserError(f"entropy_model.kernels={list(self.kernels)}: every entry must be odd")
        check_prior_filters(self.prior_filters)

    def scaled(self, factor: float, depth: Depth) -> Params:
        """Widths times factor (rdc.width); those that follow a network's input stay null."""
        if self.widths is None:
            return self
        first, second = scaled_widths(self.widths, factor)
        return dataclasses.replace(self, widths=(first, second))


class Slice(nn.Module):
    """Networks of one slice. All take their half of the side information first, then the context."""

    def __init__(
        self, params: Params, channels: int, side_channels: int, context: int, *, first: bool
    ) -> None:
        super().__init__()
        width = side_channels + context
        # Where widths follow the input, the first slice has those of the second (Zhu et al.'s model).
        widths = params.widths or _interpolated(width + channels * first, channels)
        self.mean = _network(params, width, widths, channels)
        self.scale = _network(params, width, widths, channels)
        if params.lrp != "none":
            self.lrp = _network(params, width + channels, widths, channels)
        if params.lrp == "conv":
            self.merge = conv(2 * channels, channels, kernel=5, stride=1)
            with torch.no_grad():
                # q as it is and next to nothing of r; with nothing, its network would wait a step to learn.
                self.merge.weight.mul_(0.01)
                nn.init.dirac_(self.merge.weight[:, :channels])

    def refined(self, mean_input: Tensor, q: Tensor) -> Tensor:
        """q, the decoded values of this slice -> y_hat of this slice."""
        if not hasattr(self, "lrp"):
            return q
        residual = 0.5 * torch.tanh(self.lrp(torch.cat([mean_input, q], 1)))
        if not hasattr(self, "merge"):
            return q + residual
        merged: Tensor = self.merge(torch.cat([q, residual], 1))
        return merged


class SliceContext(Context):
    """All slice networks. Slices that see the same context do not wait for each other: they share a step."""

    def __init__(self, params: Params, latent_channels: int) -> None:
        super().__init__()
        channels = latent_channels // params.slices
        self.channels, self.side = channels, params.side
        # Sums of 1x1 layers depend on the number of threads; the other kernels' do not (coding.exact).
        self.exactly = coding.exact if 1 in params.kernels else contextlib.nullcontext
        self.support = params.support or params.slices
        last = min(self.support, params.slices - 1)
        self.steps = [*((i, i + 1) for i in range(last)), (last, params.slices)]
        if params.side == "projected":
            # 2M channels to a slice of means or scales, twice per slice: together a square matrix.
            self.project = conv(2 * latent_channels, 2 * latent_channels, kernel=1, stride=1)
        side_channels = latent_channels if params.side == "whole" else channels
        self.slices = nn.ModuleList(
            Slice(params, channels, side_channels, channels * min(i, self.support), first=i == 0)
            for i in range(params.slices)
        )

    def forward(self, state: State, q: Tensor | None) -> Step | None:
        """state.side: (B, 2M, h, w), for the scales first. q: (B, channels of the step, h, w)."""
        with self.exactly():
            return self._next(state, q)

    def _next(self, state: State, q: Tensor | None) -> Step | None:
        if q is None:
            with coding.exact():
                state.side = self.project(state.side) if self.side == "projected" else state.side
        else:
            first, last = self.steps[state.step - 1]
            parts = zip(self._nets()[first:last], state.pending, q.split(self.channels, 1), strict=True)
            state.y_hat += [net.refined(mean_input, part) for net, mean_input, part in parts]
        if state.step == len(self.steps):
            return None
        first, last = self.steps[state.step]
        state.step += 1
        for_scales, for_means = (self._inputs(state, half, first, last) for half in state.side.chunk(2, 1))
        nets = self._nets()[first:last]
        state.pending = for_means
        state.mean.append(torch.cat([net.mean(x) for net, x in zip(nets, for_means, strict=True)], 1))
        state.scale.append(torch.cat([net.scale(x) for net, x in zip(nets, for_scales, strict=True)], 1))
        pick = channels_of(first * self.channels, last * self.channels)
        return Step(pick, state.mean[-1], state.scale[-1])

    def serial_steps(self) -> int:
        return len(self.steps)

    def start_scales(self, scales: Tensor) -> None:
        """By the networks that give them."""
        for net, part in zip(self._nets(), scales.split(self.channels), strict=True):
            start_bias(net.scale, part)

    def _nets(self) -> list[Slice]:
        return list(self.slices)  # type: ignore[arg-type]

    def _inputs(self, state: State, half: Tensor, first: int, last: int) -> list[Tensor]:
        """What the networks of these slices see, of the half of the side information that is for them."""
        seen = [half] * (last - first)
        if self.side != "whole":
            seen = list(half[:, first * self.channels : last * self.channels].split(self.channels, 1))
        return [torch.cat([part, *state.y_hat[: self.support]], 1) for part in seen]


class SeparateSyntheses(nn.Module):
    """Two hyper-syntheses on the same z, each ending in a ReLU: (B, 2M, h, w), for the scales first."""

    def __init__(self, for_scales: nn.Module, for_means: nn.Module) -> None:
        super().__init__()
        self.for_scales = for_scales
        self.for_means = for_means

    def forward(self, z_hat: Tensor) -> Tensor:
        """(B, z channels, h, w) -> (B, 2M, 4 h, 4 w)."""
        return torch.cat([self.for_scales(z_hat), self.for_means(z_hat)], 1).relu()


def build(spec: ModelSpec) -> Stepwise:
    """The entropy model of a spec, with its hyper transforms and slice networks."""
    params: Params = spec.entropy_model
    latent_channels = spec.depth.latent_channels
    if params.hyper == "shared":
        options = arguments(spec, 2 * latent_channels)
    else:
        options = arguments(spec, latent_channels, one_per_symbol=True)
        for_means = synthesis(spec, latent_channels, one_per_symbol=True)
        options["h_s"] = SeparateSyntheses(options["h_s"], for_means)
    model = Stepwise(SliceContext(params, latent_channels), **options)
    model.start_scales(torch.ones(latent_channels))
    return model


def _network(params: Params, in_channels: int, widths: tuple[int, int], out_channels: int) -> nn.Sequential:
    first, second = widths
    shapes = zip((in_channels, first, second), (first, second, out_channels), params.kernels, strict=True)
    one, two, three = (conv(*io, kernel=kernel, stride=1) for *io, kernel in shapes)
    # Training starts from nearly constant predictions: a random guess costs more bits than none.
    with torch.no_grad():
        three.weight.mul_(0.1)
    return nn.Sequential(one, nn.ReLU(inplace=True), two, nn.ReLU(inplace=True), three)


def _interpolated(in_channels: int, out_channels: int) -> tuple[int, int]:
    """Two thirds and one third of the sum, rounded down."""
    total = in_channels + out_channels
    return 2 * total // 3, total // 3
