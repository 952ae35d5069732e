"""Residual blocks of small convolutions and sub-pixel upsampling (Cheng et al., CVPR 2020).

The form of CompressAI's cheng2020-anchor and cheng2020-attn, here for their checkpoints.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.layers.conv import conv
from rdc.models.layers.gdn import GDN
from rdc.models.layers.residual import Attention
from rdc.spec import Depth

STRIDE = 16  # pixels of x per position of y, in each direction
STAGES = 3
EXAMPLE_DEPTH = {"channels": [12, 12, 12], "latent_channels": 12, "layers": [0, 0, 0]}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """attention: with a gated block after the second stage and at y (cheng2020-attn)."""

    name: Literal["cheng2020"] = "cheng2020"
    attention: bool = False

    def check(self, model: Any) -> None:
        """One width everywhere, no extra layers, and the parts with which its checkpoints come."""
        depth = model.depth
        if depth.channels != (depth.latent_channels,) * STAGES or any(depth.layers):
            raise UserError(
                f"depth.channels={list(depth.channels)}, depth.latent_channels={depth.latent_channels}, "
                f"depth.layers={list(depth.layers)}: transform=cheng2020 needs {STAGES} widths, all as the "
                "latent's, and no extra layers"
            )
        for group, needed in (("hyper_transform", "cheng2020"), ("entropy_model", "joint_autoregressive")):
            name = getattr(model, group).name
            if name != needed:
                raise UserError(f"{group}={name}: transform=cheng2020 comes with {group}={needed} only")


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions, each with a leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(channels, channels, kernel=3, stride=1),
            nn.LeakyReLU(inplace=True),
            conv(channels, channels, kernel=3, stride=1),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        out: Tensor = x + self.conv(x)
        return out


class Down(nn.Module):
    """3x3 stride 2, leaky ReLU, 3x3, GDN; plus a 1x1 stride 2 of the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(in_channels, out_channels, kernel=3),
            nn.LeakyReLU(inplace=True),
            conv(out_channels, out_channels, kernel=3, stride=1),
        )
        self.gdn = GDN(out_channels, power=2)
        self.skip = conv(in_channels, out_channels, kernel=1, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H/2, W/2)."""
        # Not by a stride of 2: on CPUs the gradient of that one corrupts memory where three channels come in
        # channels_last (torch 2.15).
        out: Tensor = self.gdn(self.conv(x)) + self.skip(x[..., ::2, ::2])
        return out


class Up(nn.Module):
    """Sub-pixel convolution, leaky ReLU, 3x3, inverse GDN; plus a sub-pixel convolution of the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.subpel_conv = subpixel(channels, channels)
        self.conv = conv(channels, channels, kernel=3, stride=1)
        self.igdn = GDN(channels, power=2, inverse=True)
        self.upsample = subpixel(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, 2 H, 2 W)."""
        out = F.leaky_relu(self.subpel_conv(x))
        upsampled: Tensor = self.igdn(self.conv(out)) + self.upsample(x)
        return upsampled


def subpixel(in_channels: int, out_channels: int) -> nn.Sequential:
    """(B, in, H, W) -> (B, out, 2 H, 2 W): 3x3 to four times the channels, and a pixel shuffle."""
    return nn.Sequential(conv(in_channels, 4 * out_channels, kernel=3, stride=1), nn.PixelShuffle(2))


def build_analysis(params: Params, depth: Depth) -> nn.Sequential:
    """g_a: (B, 3, H, W) -> (B, latent_channels, H/16, W/16)."""
    channels = depth.latent_channels
    layers: list[nn.Module] = []
    for stage in range(STAGES):
        layers += [Down(3 if stage == 0 else channels, channels)]
        layers += _attention(params, channels) if stage == 1 else []
        layers += [ResidualBlock(channels)]
    return nn.Sequential(*layers, conv(channels, channels, kernel=3), *_attention(params, channels))


def build_synthesis(params: Params, depth: Depth) -> nn.Sequential:
    """g_s: (B, latent_channels, h, w) -> (B, 3, 16 h, 16 w)."""
    channels = depth.latent_channels
    layers: list[nn.Module] = _attention(params, channels)
    for stage in range(STAGES):
        layers += [ResidualBlock(channels), Up(channels)]
        layers += _attention(params, channels) if stage == 1 else []
    last = subpixel(channels, 3)
    # Training starts from mid-grey, which no image is far from, instead of from noise of full contrast.
    to_image = last[0]
    assert isinstance(to_image, nn.Conv2d), "a sub-pixel convolution starts with its convolution"
    nn.init.constant_(to_image.bias, 0.5)  # type: ignore[arg-type]
    with torch.no_grad():
        to_image.weight.mul_(0.1)
    return nn.Sequential(*layers, ResidualBlock(channels), last)


def _attention(params: Params, channels: int) -> list[nn.Module]:
    return [Attention(channels, relu=True)] if params.attention else []
