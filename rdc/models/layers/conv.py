"""Strided convolutions padded as this field does, initialised to keep the variance of what flows through."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from rdc.models.layers.graph import is_reference
from rdc.models.layers.pointwise import PointwiseConv


def conv(
    in_channels: int, out_channels: int, *, kernel: int = 5, stride: int = 2, bias: bool = True
) -> nn.Conv2d:
    """(B, in, H, W) -> (B, out, ceil(H / stride), ceil(W / stride))."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
    _init(layer.weight, layer.bias, fan_in=in_channels * kernel**2)
    return layer


def pointwise(in_channels: int, out_channels: int) -> PointwiseConv:
    """(B, in, H, W) -> (B, out, H, W), for networks whose rounding no decoder must repeat."""
    layer = PointwiseConv(in_channels, out_channels)
    _init(layer.weight, layer.bias, fan_in=in_channels)
    return layer


def deconv(in_channels: int, out_channels: int, *, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """(B, in, H, W) -> (B, out, H * stride, W * stride), exactly.

    Left to the library: its equal rewrites take longer on a CPU (benchmarks/deconv.py). Four convolutions of
    stride 1, one per position of an output pixel in its 2x2 block, took 1.0 to 1.4 times, a 3x3 convolution
    and a pixel shuffle, as in ImageDeconv, 1.2 to 1.9 times as long for 128 and 192 output channels.
    """
    layer = nn.ConvTranspose2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, output_padding=stride - 1
    )
    # Only every stride-th tap of a row meets a value: an output sums fewer terms than the kernel holds.
    _init(layer.weight, layer.bias, fan_in=in_channels * kernel**2 / stride**2)
    return layer


class ImageDeconv(nn.ConvTranspose2d):
    """`deconv` with 5x5 kernels, computed as a 3x3 convolution to 4 x 3 channels that are then interleaved.

    Equal up to rounding (5e-6), with the same weights, for 1.44 times the multiply-accumulates. With three
    output channels it is faster nevertheless: 0.4 to 0.5 of the library's time forward, 0.8 to 1.0 in
    training (benchmarks/deconv.py, one CPU core, fp32 and bf16).
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 3, 5, stride=2, padding=2, output_padding=1)
        assert self.bias is not None, "a bias is the default"
        _init(self.weight, self.bias, fan_in=in_channels * 25 / 4)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, in, H, W) -> (B, 3, 2 H, 2 W)."""
        if is_reference() or output_size is not None:
            return super().forward(x, output_size)
        return self.computed(x, self.weight)

    def computed(self, x: Tensor, weight: Tensor) -> Tensor:
        """The rewrite, for x and the weights of as many input channels as it has."""
        assert self.bias is not None, "a bias is the default"
        out = F.conv2d(x, self._phases(weight), self.bias.repeat(4), padding=1)
        batch, _, height, width = out.shape
        # (row, column, colour) of a block: two pixels of an output row lie together in channels_last memory.
        # A library's pixel shuffle, of (colour, row, column), moves single values.
        rows = out.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 6).transpose(2, 3)
        return rows.reshape(batch, 2 * height, 2 * width, 3).permute(0, 3, 1, 2)

    @staticmethod
    def _phases(weight: Tensor) -> Tensor:
        """(in, 3, 5, 5) -> (4 * 3, in, 3, 3): one kernel per position of an output pixel in its 2x2 block.

        Output 2a + r sums input a + d times tap r + 2 - 2d for d = -1, 0, 1; a sixth tap of zero stands for
        r = 1, d = -1.
        """
        taps = F.pad(weight, (0, 1, 0, 1)).view(-1, 3, 3, 2, 3, 2).flip(2, 4)
        return taps.permute(3, 5, 1, 0, 2, 4).reshape(12, -1, 3, 3)


def convolutions_of(g_a: nn.Module, g_s: nn.Module) -> tuple[list[nn.Conv2d], list[nn.ConvTranspose2d]]:
    """The layers of stride 2 of two transforms that are plain sequences of such and of others.

    Both in encoder order.
    """
    convs = [m for m in g_a.children() if isinstance(m, nn.Conv2d)]
    deconvs = [m for m in g_s.children() if isinstance(m, nn.ConvTranspose2d)]
    return convs, deconvs[::-1]


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
