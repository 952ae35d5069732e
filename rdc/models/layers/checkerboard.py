"""A latent split like a chessboard: anchors, then the positions between them (He et al., CVPR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.models.layers.conv import conv

KERNEL = 5


def anchors(y: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h, w / 2): positions with even row + column, first those of even rows.

    Both sides must be even.
    """
    blocks = _blocks(y)
    return torch.cat([blocks[..., 0, :, 0], blocks[..., 1, :, 1]], -2)


def others(y: Tensor) -> Tensor:
    """As `anchors`, of the positions with odd row + column."""
    blocks = _blocks(y)
    return torch.cat([blocks[..., 0, :, 1], blocks[..., 1, :, 0]], -2)


def board(of_anchors: Tensor, of_others: Tensor) -> Tensor:
    """Inverse of both: (B, C, h, w / 2) twice -> (B, C, h, w)."""
    (even_even, odd_odd), (even_odd, odd_even) = of_anchors.chunk(2, -2), of_others.chunk(2, -2)
    rows = torch.stack([torch.stack([even_even, even_odd], -1), torch.stack([odd_even, odd_odd], -1)], -3)
    return rows.flatten(-4, -3).flatten(-2)


class CheckerboardConv(nn.Module):
    """A 5x5 convolution from anchors to the others, whose kernel sees nothing but anchors.

    Holds the dense kernel, as published; of its taps the 12 with odd row + column count. It is computed on
    the four grids of stride 2 that the chessboard consists of: per position of y 18 products of an input and
    an output channel, where the dense kernel has 50.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        dense = conv(in_channels, out_channels, kernel=KERNEL, stride=1)
        self.weight, self.bias = dense.weight, dense.bias

    def forward(self, of_anchors: Tensor) -> Tensor:
        """Anchors (B, in, h, w / 2) -> at the others (B, out, h, w / 2)."""
        grids = of_anchors.unflatten(-2, (2, -1)).flatten(1, 2)
        assert self.bias is not None, "a bias is the default"
        out = F.conv2d(grids, self._phases(), self.bias.repeat_interleave(2), padding=1)
        return out.unflatten(1, (-1, 2)).flatten(2, 3)

    def dense(self, y: Tensor) -> Tensor:
        """The published form: (B, in, h, w) -> (B, out, h, w), of which the values at the others count."""
        row, column = torch.meshgrid(torch.arange(KERNEL), torch.arange(KERNEL), indexing="ij")
        mask = ((row + column) % 2).to(self.weight)
        return F.conv2d(y, self.weight * mask, self.bias, padding=KERNEL // 2)

    def _phases(self) -> Tensor:
        """(out, in, 5, 5) -> (out * 2, in * 2, 3, 3), for anchors and others of even and of odd rows.

        Output (2a, 2b + 1) meets anchor (2c, 2d) with tap (2 + 2 (c - a), 1 + 2 (d - b)) and anchor
        (2c + 1, 2d + 1) with tap (3 + 2 (c - a), 2 + 2 (d - b)); output (2a + 1, 2b) meets them with taps one
        higher and one to the right, and so on. A border of zeros stands for taps outside of the kernel.
        """
        taps = F.pad(self.weight, (1, 1, 1, 1))
        grids = [
            torch.stack([taps[..., 1:6:2, 0:5:2], taps[..., 2:7:2, 1:6:2]], 2),
            torch.stack([taps[..., 0:5:2, 1:6:2], taps[..., 1:6:2, 2:7:2]], 2),
        ]
        return torch.stack(grids, 1).flatten(2, 3).flatten(0, 1)


def _blocks(y: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h / 2, 2, w / 2, 2)."""
    height, width = y.shape[-2:]
    assert height % 2 == width % 2 == 0, f"a chessboard of {height}x{width} positions needs even sides"
    return y.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
