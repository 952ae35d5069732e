"""Four strided 5x5 convolutions with divisive normalisation between them (Balle et al., ICLR 2018)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

from rdc.models.layers.conv import ImageDeconv, ResidualConv, conv, convolutions_of, deconv
from rdc.models.layers.gdn import GDN
from rdc.models.layers.stages import check_stages
from rdc.spec import Depth

STRIDE = 16  # pixels of x per position of y, in each direction
STAGES = 3  # normalised stages; a fourth convolution makes y
strided_layers = convolutions_of  # what a wavelet start overwrites


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """norm: gdn1 (absolute value, no square root) or gdn (square and square root, CompressAI's)."""

    name: Literal["conv"] = "conv"
    norm: Literal["gdn1", "gdn"] = "gdn1"

    def check(self, model: Any) -> None:
        """Needs exactly three widths and three layer counts."""
        check_stages(model.depth, transform="conv", channels=STAGES, layers=STAGES)


def build_analysis(params: Params, depth: Depth) -> nn.Sequential:
    """g_a: (B, 3, H, W) -> (B, latent_channels, H/16, W/16).

    Per stage: 5x5 stride 2, GDN, then the stage's extra layers (each one residual 3x3 convolution).
    """
    layers: list[nn.Module] = []
    width = 3
    for channels, extra in zip(depth.channels, depth.layers, strict=True):
        layers += [conv(width, channels), _norm(params, channels)]
        layers += [ResidualConv(channels) for _ in range(extra)]
        width = channels
    return nn.Sequential(*layers, conv(width, depth.latent_channels))


def build_synthesis(params: Params, depth: Depth) -> nn.Sequential:
    """g_s: (B, latent_channels, h, w) -> (B, 3, 16 h, 16 w); the mirror image of g_a."""
    layers: list[nn.Module] = []
    width = depth.latent_channels
    for channels, extra in zip(reversed(depth.channels), reversed(depth.layers), strict=True):
        layers += [deconv(width, channels)]
        layers += [ResidualConv(channels) for _ in range(extra)]
        layers += [_norm(params, channels, inverse=True)]
        width = channels
    return nn.Sequential(*layers, image_deconv(width))


def image_deconv(in_channels: int) -> ImageDeconv:
    """The layer that makes the image. It starts at mid-grey, which no image is far from, at low contrast."""
    last = ImageDeconv(in_channels)
    nn.init.constant_(last.bias, 0.5)  # type: ignore[arg-type]
    with torch.no_grad():
        last.weight.mul_(0.1)
    return last


def _norm(params: Params, channels: int, *, inverse: bool = False) -> GDN:
    return GDN(channels, power=1 if params.norm == "gdn1" else 2, inverse=inverse)
