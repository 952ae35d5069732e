"""Transformer blocks with shifted windows, and what halves and doubles the resolution between them.

Liu et al., ICCV 2021, and for codecs Zhu et al., ICLR 2022. Every module takes and gives (B, channels, H, W);
in channels_last memory no copy is made for it.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.layers.residual import BRANCH_START

MLP_RATIO = 4  # hidden width of a block's MLP over its width


def check_swin(group: str, *, widths: dict[str, int], window: int, head_dim: int) -> None:
    """UserError, naming the key, where blocks of these widths cannot be built. widths: key -> width."""
    for key, value in (("window", window), ("head_dim", head_dim)):
        if value < 1:
            raise UserError(f"{group}.{key}={value}: must be at least 1")
    for key, width in widths.items():
        if width < 1 or width % head_dim:
            raise UserError(f"{key}={width}: must be a multiple of {group}.head_dim={head_dim}")


class WindowAttention(nn.Module):
    """Self-attention among the tokens of a window, with a learned bias per relative position and head.

    Window borders lie at multiples of `window`, or window // 2 past them when shifted; along an axis that is
    no longer than the window there is no shift. Windows at the ends of a shifted grid are partial, and so are
    the last ones where the grid is no multiple of the window: missing tokens influence nothing.
    """

    bias_index: Tensor

    def __init__(self, channels: int, *, window: int, head_dim: int, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.heads = channels // head_dim
        self.shifted = shifted
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, self.heads))
        # Not saved: it follows from the window.
        self.register_buffer("bias_index", _bias_index(window), persistent=False)
        _init(self.qkv)
        _init(self.proj)
        nn.init.normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, channels) -> the same shape."""
        batch, height, width, channels = map(int, x.shape)  # a tracer's sizes are tensors
        side, heads, dim = self.window, self.heads, channels // self.heads
        shifts = (self._shift(height), self._shift(width))
        if height % side or width % side:
            x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        if any(shifts):  # partial windows of opposite ends share one
            x = x.roll((-shifts[0], -shifts[1]), (1, 2))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        qkv = self.qkv(x).view(batch, rows, side, columns, side, 3, heads, dim)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, batch, rows, columns, heads, side**2, dim)
        q, k, v = qkv.unbind()
        scores = q @ k.transpose(-2, -1)
        # The bias plus the scaled scores, in one pass over them.
        scores = torch.add(self._bias().to(scores.dtype), scores, alpha=dim**-0.5)
        with torch.no_grad():  # constants, added in place: no gradient passes them
            grid = scores.view(batch, rows, columns, heads, side, side, side, side)
            for axis, (size, shift) in enumerate(zip((height, width), shifts, strict=True), start=1):
                mask = _mask(size, side, shift, x.device)
                if mask is not None:
                    mixed = grid.narrow(axis, grid.shape[axis] - len(mask), len(mask))
                    mixed.add_(
                        mask[:, None, None, :, None, :, None] if axis == 1 else mask[:, None, None, :, None]
                    )
        out = scores.softmax(-1) @ v
        out = out.view(batch, rows, columns, heads, side, side, dim).permute(0, 1, 4, 2, 5, 3, 6)
        out = out.reshape(batch, rows * side, columns * side, channels)
        if any(shifts):
            out = out.roll(shifts, (1, 2))
        projected: Tensor = self.proj(out[:, :height, :width])
        return projected

    def extra_repr(self) -> str:
        return f"window={self.window}, heads={self.heads}, shifted={self.shifted}"

    def _shift(self, size: int) -> int:
        return self.window // 2 if self.shifted and size > self.window else 0

    def _bias(self) -> Tensor:
        """(heads, window^2, window^2): queries in rows, keys in columns."""
        tokens = self.window**2
        table = self.bias_table[self.bias_index.flatten()].view(tokens, tokens, -1)
        return table.permute(2, 0, 1).contiguous()


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then + MLP(norm(x))."""

    def __init__(self, channels: int, *, window: int, head_dim: int, shifted: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, window=window, head_dim=head_dim, shifted=shifted)
        self.mlp_norm = nn.LayerNorm(channels)
        hidden = MLP_RATIO * channels
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        for layer in (self.mlp[0], self.mlp[2]):
            _init(layer)
        with torch.no_grad():
            for layer in self._branch_ends():
                layer.weight.mul_(BRANCH_START)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        tokens = _tokens(x)
        tokens = tokens + self.attention(self.attention_norm(tokens))
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        return _map(tokens)

    @torch.no_grad()
    def start_linear(self) -> float:
        """Become the identity; returns the factor to it, 1."""
        for layer in self._branch_ends():
            layer.weight.zero_()
            layer.bias.zero_()
        return 1.0

    def _branch_ends(self) -> tuple[nn.Linear, nn.Linear]:
        last = self.mlp[2]
        assert isinstance(last, nn.Linear), f"the MLP ends in a linear layer, not in {last}"
        return self.attention.proj, last


def swin_stage(channels: int, blocks: int, *, window: int, head_dim: int) -> list[SwinBlock]:
    """Blocks of one resolution; every second one has shifted windows."""
    return [
        SwinBlock(channels, window=window, head_dim=head_dim, shifted=index % 2 == 1)
        for index in range(blocks)
    ]


def patch_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """2x2 pixels to a token: (B, in, H, W) -> (B, out, H / 2, W / 2)."""
    layer = nn.Conv2d(in_channels, out_channels, 2, stride=2)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(4 * in_channels))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class Merge(nn.Module):
    """2x2 tokens to one: (B, in, H, W) -> (B, out, H / 2, W / 2), H and W even."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.norm = nn.LayerNorm(4 * in_channels)
        self.linear = nn.Linear(4 * in_channels, out_channels, bias=False)
        _init(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        tokens = _tokens(x)
        batch, height, width, channels = tokens.shape
        blocks = tokens.view(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3)
        return _map(self.linear(self.norm(blocks.reshape(batch, height // 2, width // 2, 4 * channels))))


class Split(nn.Module):
    """One token to 2x2: (B, in, H, W) -> (B, out, 2 H, 2 W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.norm = nn.LayerNorm(in_channels)
        self.linear = nn.Linear(in_channels, 4 * out_channels, bias=False)
        _init(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2 H, 2 W)."""
        tokens = self.linear(self.norm(_tokens(x)))
        batch, height, width, _ = tokens.shape
        blocks = tokens.view(batch, height, width, 2, 2, self.out_channels).transpose(2, 3)
        return _map(blocks.reshape(batch, 2 * height, 2 * width, self.out_channels))

    @torch.no_grad()
    def start_at(self, values: Tensor) -> None:
        """The first len(values) channels of the output start around these values.

        There is no bias to set. But a normalised token sums to zero, so that a weight common to all its
        channels sees nothing but the norm's offset.
        """
        self.norm.bias.fill_(1.0)
        self.linear.weight -= self.linear.weight.mean(1, keepdim=True)
        weight = self.linear.weight.view(4, self.out_channels, self.in_channels)
        weight[:, : len(values)] += (values / self.in_channels)[:, None]


@functools.lru_cache(maxsize=256)  # a few kilobytes each; one per axis length, window and shift
def _mask(size: int, window: int, shift: int, device: torch.device) -> Tensor | None:
    """What to add to scores along one axis of `size` tokens that is padded and then rolled by -shift.

    (windows, query, key) for the last windows of the axis, None if all are whole. 0 where both tokens lie in
    one window of the unrolled axis, -inf where they do not; padded tokens see only each other.
    """
    padded = -(-size // window) * window
    position = (np.arange(padded) + shift) % padded
    region = np.where(position < size, (position + window - shift) // window, -1).reshape(-1, window)
    apart = region[:, :, None] != region[:, None, :]
    mixed = apart.any(axis=(1, 2))
    if not mixed.any():
        return None
    mask = np.where(apart[mixed.argmax() :], -np.inf, 0.0).astype(np.float32)
    return torch.from_numpy(mask).to(device)


def _bias_index(window: int) -> Tensor:
    """(window^2, window^2): row of the bias table for every query and key of a window."""
    at = torch.arange(window)
    y, x = (axis.flatten() for axis in torch.meshgrid(at, at, indexing="ij"))
    away = [axis[:, None] - axis[None, :] + window - 1 for axis in (y, x)]
    return away[0] * (2 * window - 1) + away[1]


def _tokens(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _map(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2)


def _init(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear), f"only linear layers start here, not {layer}"
    nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
