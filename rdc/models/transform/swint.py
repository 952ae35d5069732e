"""Transformer blocks with shifted windows (Zhu et al., "Transformer-based transform coding", ICLR 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

from rdc.models.layers.stages import check_stages
from rdc.models.layers.swin import Merge, Split, SwinBlock, check_swin, patch_conv, swin_stage
from rdc.models.layers.swin_start import ANCHORS, Anchored
from rdc.spec import Depth
from rdc.width import scaled_width

STRIDE = 16  # pixels of x per position of y, in each direction
STAGES = 4  # the last one at the resolution and width of y
EXAMPLE_DEPTH = {"channels": [32, 32, 64], "latent_channels": 160, "layers": [2, 1, 1, 2]}
RESERVED_CHANNELS = ANCHORS  # of every stage, which a wavelet start leaves without a band


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """window: tokens per side within which attention is computed. head_dim: channels per attention head.

    depth.layers: Swin blocks per stage; the fourth entry is the stage at y.
    """

    name: Literal["swint"] = "swint"
    window: int = 8
    head_dim: int = 32

    def check(self, model: Any) -> None:
        """Needs three widths and four block counts; every width is a multiple of head_dim."""
        depth = model.depth
        check_stages(depth, transform="swint", channels=STAGES - 1, layers=STAGES)
        widths = {f"depth.channels[{i}]": width for i, width in enumerate(depth.channels)}
        widths["depth.latent_channels"] = depth.latent_channels
        check_swin("transform", widths=widths, window=self.window, head_dim=self.head_dim)

    def scaled_depth(self, factor: float, depth: Depth, latent_multiple: int) -> Depth:
        """As many heads as before, of scaled width (rdc.width)."""
        head_dim = scaled_width(self.head_dim, factor)
        return dataclasses.replace(
            depth,
            channels=tuple(width // self.head_dim * head_dim for width in depth.channels),
            latent_channels=depth.latent_channels // self.head_dim * head_dim,
        )

    def scaled(self, factor: float, depth: Depth) -> Params:
        """The head width that belongs to `scaled_depth`."""
        return dataclasses.replace(self, head_dim=scaled_width(self.head_dim, factor))


def build_analysis(params: Params, depth: Depth) -> nn.Sequential:
    """g_a: (B, 3, H, W) -> (B, latent_channels, H/16, W/16)."""
    widths = (*depth.channels, depth.latent_channels)
    layers: list[nn.Module] = [patch_conv(3, widths[0])]
    for stage in range(STAGES):
        layers += [Merge(widths[stage - 1], widths[stage])] if stage else []
        layers += _blocks(params, widths[stage], depth.layers[stage])
    return nn.Sequential(*layers)


def build_synthesis(params: Params, depth: Depth) -> nn.Sequential:
    """g_s: (B, latent_channels, h, w) -> (B, 3, 16 h, 16 w); the mirror image of g_a."""
    widths = (3, *depth.channels, depth.latent_channels)
    layers: list[nn.Module] = []
    for stage in reversed(range(STAGES)):
        layers += _blocks(params, widths[stage + 1], depth.layers[stage])
        layers += [Split(widths[stage + 1], widths[stage])]
    last = layers[-1]
    assert isinstance(last, Split), f"g_s ends in a Split, not in {last}"
    with torch.no_grad():
        last.linear.weight.mul_(0.1)
    last.start_at(torch.full((3,), 0.5, device=last.linear.weight.device))  # mid-grey
    return nn.Sequential(*layers)


def strided_layers(g_a: nn.Module, g_s: nn.Module) -> tuple[list[nn.Conv2d | Anchored], list[Anchored]]:
    """What changes the resolution, in encoder order: what a wavelet start overwrites."""
    patches = [m for m in g_a.children() if isinstance(m, nn.Conv2d)]
    return [*patches, *_anchored(g_a)], _anchored(g_s)[::-1]


def lack_of_layers(depth: Depth) -> str:
    """What a wavelet start misses; empty if nothing."""
    if all(depth.layers):
        return ""
    return f"depth.layers={list(depth.layers)} leaves a stage of transform=swint without a block"


def _anchored(part: nn.Module) -> list[Anchored]:
    """Every Merge and Split together with the first block of the stage before it."""
    found: list[Anchored] = []
    first: SwinBlock | None = None
    for layer in part.children():
        if isinstance(layer, SwinBlock):
            first = first or layer
        elif isinstance(layer, (Merge, Split)):
            assert first is not None, "a start without blocks is refused before"
            found.append(Anchored(layer, first))
            first = None
    return found


def _blocks(params: Params, channels: int, count: int) -> list[SwinBlock]:
    return swin_stage(channels, count, window=params.window, head_dim=params.head_dim)
