"""Convolutions of 1x1 without a stride, computed by the faster of two libraries on CPUs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_IMAGES = 16  # from so many on, torch gives every 1x1 convolution to oneDNN


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, in, H, W) with weight (out, in, 1, 1) -> (B, out, H, W): F.conv2d up to rounding.

    A single thread gets the BLAS library's matrix product from torch for fewer than 16 images. On an AMD CPU
    that took twice as long as oneDNN's convolution (benchmarks/gating.py), so pixels that lie one after the
    other in memory are shown to torch as 16 images. Where they do not, this is F.conv2d.
    """
    batch, _, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1)
    if x.device.type != "cpu" or batch >= _IMAGES or x.numel() == 0:
        return F.conv2d(x, weight, bias)
    if not pixels.is_contiguous() or batch * height * width % _IMAGES:
        return F.conv2d(x, weight, bias)
    images = pixels.reshape(_IMAGES, -1, 1, x.shape[1]).permute(0, 3, 1, 2)
    out = F.conv2d(images, weight, bias).permute(0, 2, 3, 1)
    return out.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class PointwiseConv(nn.Conv2d):
    """nn.Conv2d of 1x1 without a stride, computed by `conv1x1`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return conv1x1(x, self.weight, self.bias)
