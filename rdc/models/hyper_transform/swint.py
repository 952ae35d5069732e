"""Swin blocks at half and a quarter of y's resolution (Zhu et al., ICLR 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

from rdc.errors import UserError
from rdc.models.layers.swin import Merge, Split, SwinBlock, check_swin, patch_conv, swin_stage
from rdc.spec import Depth
from rdc.width import scaled_width

STRIDE = 4  # positions of y per position of z, in each direction


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """channels: widths at 1/2 and 1/4 of y's resolution, the last one being z. layers: Swin blocks at each.

    window: tokens per side within which attention is computed. head_dim: channels per attention head.
    """

    name: Literal["swint"] = "swint"
    channels: tuple[int, int] = (128, 192)
    layers: tuple[int, int] = (5, 1)
    window: int = 4
    head_dim: int = 32

    def check(self, model: Any) -> None:
        """Both widths are multiples of head_dim."""
        widths = {f"hyper_transform.channels[{i}]": width for i, width in enumerate(self.channels)}
        check_swin("hyper_transform", widths=widths, window=self.window, head_dim=self.head_dim)
        if min(self.layers) < 0:
            raise UserError(f"hyper_transform.layers={list(self.layers)}: every entry must be at least 0")

    def scaled(self, factor: float, depth: Depth) -> Params:
        """As many heads as before, of scaled width (rdc.width)."""
        head_dim = scaled_width(self.head_dim, factor)
        first, second = (width // self.head_dim * head_dim for width in self.channels)
        return dataclasses.replace(self, channels=(first, second), head_dim=head_dim)


def analysis_channels(params: Params, depth: Depth) -> tuple[int, int]:
    """Widths of h_a's stages; the last one is the number of channels of z."""
    return params.channels


def build_analysis(params: Params, depth: Depth) -> nn.Sequential:
    """h_a: (B, latent_channels, 4 h, 4 w) -> (B, z channels, h, w)."""
    first, second = params.channels
    return nn.Sequential(
        patch_conv(depth.latent_channels, first),
        *_blocks(params, 0),
        Merge(first, second),
        *_blocks(params, 1),
    )


def build_synthesis(
    params: Params, depth: Depth, out_channels: int, *, one_per_symbol: bool = False
) -> nn.Sequential:
    """h_s: (B, z channels, h, w) -> (B, out_channels, 4 h, 4 w); the mirror image of h_a.

    one_per_symbol: changes nothing here, where no width is left open.
    """
    first, second = params.channels
    last = Split(first, out_channels)
    with torch.no_grad():  # a norm before it would let the first predictions vary by 1 whatever z is
        last.linear.weight.mul_(0.1)
    return nn.Sequential(*_blocks(params, 1), Split(second, first), *_blocks(params, 0), last)


def _blocks(params: Params, stage: int) -> list[SwinBlock]:
    return swin_stage(
        params.channels[stage], params.layers[stage], window=params.window, head_dim=params.head_dim
    )
