"""Strided 5x5 convolutions with residual bottlenecks and attention between them (He et al., CVPR 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from torch import nn

from rdc.errors import UserError
from rdc.models.layers.conv import conv, convolutions_of, deconv
from rdc.models.layers.residual import Attention, ResidualUnit
from rdc.models.layers.stages import check_stages
from rdc.models.transform.conv import image_deconv
from rdc.spec import Depth

STRIDE = 16  # pixels of x per position of y, in each direction
STAGES = 3  # a fourth convolution makes y
strided_layers = convolutions_of  # what a wavelet start overwrites


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """attention_relu: whether the attention's residual units end in a ReLU, as CompressAI's weights need.

    depth.layers: residual bottlenecks per stage. Attention stands after the second stage and at y.
    """

    name: Literal["elic"] = "elic"
    attention_relu: bool = False

    def check(self, model: Any) -> None:
        """Needs three widths and three layer counts; a bottleneck needs two channels."""
        check_stages(model.depth, transform="elic", channels=STAGES, layers=STAGES)
        widths = (*model.depth.channels, model.depth.latent_channels)
        if min(widths) < 2:
            raise UserError(
                f"depth.channels={list(model.depth.channels)}, "
                f"depth.latent_channels={model.depth.latent_channels}: transform=elic needs at least 2 "
                "channels everywhere, because its residual units halve them"
            )


def build_analysis(params: Params, depth: Depth) -> nn.Sequential:
    """g_a: (B, 3, H, W) -> (B, latent_channels, H/16, W/16)."""
    layers: list[nn.Module] = []
    width = 3
    for stage, (channels, units) in enumerate(zip(depth.channels, depth.layers, strict=True)):
        layers += [conv(width, channels)]
        layers += [ResidualUnit(channels) for _ in range(units)]
        layers += [_attention(params, channels)] if stage == 1 else []
        width = channels
    return nn.Sequential(
        *layers, conv(width, depth.latent_channels), _attention(params, depth.latent_channels)
    )


def build_synthesis(params: Params, depth: Depth) -> nn.Sequential:
    """g_s: (B, latent_channels, h, w) -> (B, 3, 16 h, 16 w); the mirror image of g_a."""
    width = depth.latent_channels
    layers: list[nn.Module] = [_attention(params, width)]
    for stage in reversed(range(STAGES)):
        channels = depth.channels[stage]
        layers += [deconv(width, channels)]
        layers += [_attention(params, channels)] if stage == 1 else []
        layers += [ResidualUnit(channels) for _ in range(depth.layers[stage])]
        width = channels
    return nn.Sequential(*layers, image_deconv(width))


def _attention(params: Params, channels: int) -> Attention:
    return Attention(channels, relu=params.attention_relu)
