"""Five 3x3 convolutions down to the hyper-latent z and five up again (Cheng et al., CVPR 2020).

The form of CompressAI's cheng2020 models, here for their checkpoints.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from torch import nn

from rdc.errors import UserError
from rdc.models.layers.conv import conv
from rdc.models.transform.cheng2020 import subpixel
from rdc.spec import Depth

STRIDE = 4  # positions of y per position of z, in each direction


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """No parameters: every width follows from the latent's."""

    name: Literal["cheng2020"] = "cheng2020"

    def check(self, model: Any) -> None:
        """Comes with its transform only."""
        if model.transform.name != "cheng2020":
            raise UserError(
                f"transform={model.transform.name}: hyper_transform=cheng2020 needs transform=cheng2020"
            )


def analysis_channels(params: Params, depth: Depth) -> tuple[int, ...]:
    """Widths of h_a's layers; the last one is the number of channels of z."""
    return (depth.latent_channels,) * 5


def build_analysis(params: Params, depth: Depth) -> nn.Sequential:
    """h_a: (B, latent_channels, 4 h, 4 w) -> (B, z channels, h, w)."""
    channels = depth.latent_channels
    return _activated(*(conv(channels, channels, kernel=3, stride=stride) for stride in (1, 1, 2, 1, 2)))


def build_synthesis(
    params: Params, depth: Depth, out_channels: int, *, one_per_symbol: bool = False
) -> nn.Sequential:
    """h_s: (B, z channels, h, w) -> (B, out_channels, 4 h, 4 w).

    one_per_symbol: changes nothing here, where every width follows from the latent's.
    """
    channels, wide = depth.latent_channels, depth.latent_channels * 3 // 2
    return _activated(
        conv(channels, channels, kernel=3, stride=1),
        subpixel(channels, channels),
        conv(channels, wide, kernel=3, stride=1),
        subpixel(wide, wide),
        conv(wide, out_channels, kernel=3, stride=1),
    )


def _activated(*layers: nn.Module) -> nn.Sequential:
    """A leaky ReLU after every layer but the last."""
    first, *others = layers
    between = [module for layer in others for module in (nn.LeakyReLU(inplace=True), layer)]
    return nn.Sequential(first, *between)
