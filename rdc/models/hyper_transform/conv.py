"""Three convolutions down to the hyper-latent z and three up again (Balle et al., ICLR 2018)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from torch import nn

from rdc.errors import UserError
from rdc.models.layers.conv import conv, deconv
from rdc.spec import Depth
from rdc.width import scaled_widths

STRIDE = 4  # positions of y per position of z, in each direction


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Widths of the hyper transforms.

    analysis_channels: widths of h_a's three layers, the last one being z; null: three times the last stage's
      width of the transform (depth.channels).
    synthesis_channels: widths of h_s's first two layers; null: z's width twice where h_s gives one value per
      symbol of y, as in bmshj2018-hyperprior; elsewhere M and 3M/2 (M = depth.latent_channels), as in
      mbt2018-mean.
    activation: between the layers.
    z_bias: whether h_a's last layer has a bias.
    """

    name: Literal["conv"] = "conv"
    analysis_channels: tuple[int, int, int] | None = None
    synthesis_channels: tuple[int, int] | None = None
    activation: Literal["relu", "leaky_relu"] = "relu"
    z_bias: bool = True

    def check(self, model: Any) -> None:
        """Fits every model whose widths are positive."""
        for field in ("analysis_channels", "synthesis_channels"):
            values = getattr(self, field)
            if values is not None and min(values) < 1:
                raise UserError(f"hyper_transform.{field}={list(values)}: every entry must be at least 1")

    def scaled(self, factor: float, depth: Depth) -> Params:
        """Widths times factor (rdc.width); those that follow the transform's stay null."""

        def scale(widths: tuple[int, ...] | None) -> Any:
            return None if widths is None else scaled_widths(widths, factor)

        return dataclasses.replace(
            self,
            analysis_channels=scale(self.analysis_channels),
            synthesis_channels=scale(self.synthesis_channels),
        )


def analysis_channels(params: Params, depth: Depth) -> tuple[int, int, int]:
    """Widths of h_a's layers; the last one is the number of channels of z."""
    return params.analysis_channels or (depth.channels[-1],) * 3


def build_analysis(params: Params, depth: Depth) -> nn.Sequential:
    """h_a: (B, latent_channels, 4 h, 4 w) -> (B, z channels, h, w)."""
    first, second, z = analysis_channels(params, depth)
    return nn.Sequential(
        conv(depth.latent_channels, first, kernel=3, stride=1),
        _activation(params),
        conv(first, second),
        _activation(params),
        conv(second, z, bias=params.z_bias),
    )


def build_synthesis(
    params: Params, depth: Depth, out_channels: int, *, one_per_symbol: bool = False
) -> nn.Sequential:
    """h_s: (B, z channels, h, w) -> (B, out_channels, 4 h, 4 w).

    one_per_symbol: these are the scale, or the mean, of each symbol of y and nothing else.
    """
    z = analysis_channels(params, depth)[-1]
    first, second = params.synthesis_channels or _default_synthesis(z, depth, one_per_symbol=one_per_symbol)
    return nn.Sequential(
        deconv(z, first),
        _activation(params),
        deconv(first, second),
        _activation(params),
        conv(second, out_channels, kernel=3, stride=1),
    )


def _default_synthesis(z: int, depth: Depth, *, one_per_symbol: bool) -> tuple[int, int]:
    if one_per_symbol:
        return z, z
    return depth.latent_channels, depth.latent_channels * 3 // 2


def _activation(params: Params) -> nn.Module:
    return nn.ReLU(inplace=True) if params.activation == "relu" else nn.LeakyReLU(inplace=True)
