"""Residual bottlenecks and the gated block made of them that ELIC calls attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rdc.models.layers.conv import conv, pointwise

# A branch starts at a tenth of its usual size, so that depth does not hurt the first steps of a training.
BRANCH_START = 0.1
UNITS = 3  # residual units in the trunk and in the gate of an attention block
# sigmoid(-4) = 0.018: a gate that is closed enough for what it lets through not to matter.
CLOSED = -4.0


class ResidualUnit(nn.Module):
    """x + conv1x1(ReLU(conv3x3(ReLU(conv1x1(x))))), at half the width inside (He et al., CVPR 2016).

    relu: one more ReLU, after the addition.
    """

    def __init__(self, channels: int, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.conv = nn.Sequential(
            pointwise(channels, channels // 2),
            nn.ReLU(inplace=True),
            conv(channels // 2, channels // 2, kernel=3, stride=1),
            nn.ReLU(inplace=True),
            pointwise(channels // 2, channels),
        )
        with torch.no_grad():
            self._last.weight.mul_(BRANCH_START)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        out = x + self.conv(x)
        return out.relu_() if self.relu else out

    @torch.no_grad()
    def start_linear(self) -> float:
        """Become the identity (its ReLU aside); returns the factor to it, 1."""
        _silence(self._last)
        return 1.0

    @property
    def _last(self) -> nn.Conv2d:
        *_, last = self.conv.children()
        assert isinstance(last, nn.Conv2d), f"a residual unit ends in a convolution, not in {last}"
        return last


class Attention(nn.Module):
    """x + trunk(x) * sigmoid(gate(x)), both of residual units (Cheng et al., CVPR 2020, simplified).

    relu: the units end in a ReLU, as in CompressAI's AttentionBlock.
    """

    def __init__(self, channels: int, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.trunk = nn.Sequential(*[ResidualUnit(channels, relu=relu) for _ in range(UNITS)])
        self.gate = nn.Sequential(
            *[ResidualUnit(channels, relu=relu) for _ in range(UNITS)],
            pointwise(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        return x + self.trunk(x) * self.gate(x).sigmoid()

    @torch.no_grad()
    def start_linear(self) -> float:
        """Become a multiple of the identity once the units are the identity; returns the factor to it.

        Half open where the trunk is linear; nearly closed where ReLUs in it would bend the signal.
        """
        _silence(self._gate_end)
        if not self.relu:
            return 1.5
        assert self._gate_end.bias is not None, "the gate ends with a bias"
        self._gate_end.bias.fill_(CLOSED)
        # What is positive passes the trunk, what is negative does not: half of it on average.
        return 1.0 + 0.5 / (1.0 + math.exp(-CLOSED))

    @property
    def _gate_end(self) -> nn.Conv2d:
        *_, last = self.gate.children()
        assert isinstance(last, nn.Conv2d), f"the gate ends in a convolution, not in {last}"
        return last


def _silence(layer: nn.Conv2d) -> None:
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
