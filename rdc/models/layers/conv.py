"""Strided convolutions padded as this field does, initialised to keep the variance of what flows through."""

from __future__ import annotations

import math

from torch import Tensor, nn


def conv(
    in_channels: int, out_channels: int, *, kernel: int = 5, stride: int = 2, bias: bool = True
) -> nn.Conv2d:
    """(B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
    _init(layer.weight, layer.bias, fan_in=in_channels * kernel**2)
    return layer


def deconv(in_channels: int, out_channels: int, *, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """(B, in, H, W) -> (B, out, H * stride, W * stride), exactly."""
    layer = nn.ConvTranspose2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, output_padding=stride - 1
    )
    # Per direction only every stride-th tap meets a value: an output sums fewer terms than the kernel holds.
    _init(layer.weight, layer.bias, fan_in=in_channels * kernel**2 / stride**2)
    return layer


class ResidualConv(nn.Module):
    """x + conv3x3(ReLU(x)). Starts as the identity, so that extra depth cannot hurt the first steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        return x + self.conv(x.relu())


def _init(weight: Tensor, bias: Tensor | None, *, fan_in: float) -> None:
    nn.init.normal_(weight, std=1 / math.sqrt(fan_in))
    if bias is not None:
        nn.init.zeros_(bias)
