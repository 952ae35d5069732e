"""Window attention against a loop over windows, and what masks, shifts and anchors promise."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rdc.complexity import count, fvcore_macs
from rdc.models.layers import swin
from rdc.models.layers.swin import Merge, Split, SwinBlock, WindowAttention, swin_stage
from rdc.models.layers.swin_start import Anchored


def attention(window: int, *, heads: int = 2, dim: int = 3, shifted: bool = True) -> WindowAttention:
    """Loud weights, biases included, so that a token which should be masked would be heard."""
    layer = WindowAttention(heads * dim, window=window, head_dim=dim, shifted=shifted)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def by_loop(layer: WindowAttention, x: Tensor) -> Tensor:
    """Each window by itself, each pair of its tokens by itself."""
    window, heads = layer.window, layer.heads
    batch, height, width, channels = x.shape
    q, k, v = layer.qkv(x).view(batch, height, width, 3, heads, channels // heads).unbind(3)
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i in range(height):
        for j in range(width):
            shifts = [window // 2 if layer.shifted and size > window else 0 for size in (height, width)]
            key = ((i + window - shifts[0]) // window, (j + window - shifts[1]) // window)
            groups.setdefault(key, []).append((i, j))
    out = torch.zeros(batch, height, width, heads, channels // heads)
    for tokens in groups.values():
        for i, j in tokens:
            scores = []
            for a, b in tokens:
                bias = layer.bias_table[(i - a + window - 1) * (2 * window - 1) + j - b + window - 1]
                product = (q[:, i, j] * k[:, a, b]).sum(-1) / math.sqrt(channels // heads)
                scores.append(product + bias)
            weights = torch.stack(scores).softmax(0)
            values = torch.stack([v[:, a, b] for a, b in tokens])
            out[:, i, j] = (weights[..., None] * values).sum(0)
    projected: Tensor = layer.proj(out.view(batch, height, width, channels))
    return projected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 11), st.integers(1, 11), st.integers(1, 4), st.booleans(), st.integers(1, 3))
def test_attention_equals_a_loop_over_windows(
    height: int, width: int, window: int, shifted: bool, heads: int
) -> None:
    torch.manual_seed(height * 100 + width)
    layer = attention(window, heads=heads, shifted=shifted)
    x = torch.randn(2, height, width, layer.qkv.in_features)
    with torch.no_grad():
        assert torch.allclose(layer(x), by_loop(layer, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(5, 6), (8, 8), (9, 4), (2, 3)])
def test_gradients_equal_those_of_the_loop(height: int, width: int) -> None:
    torch.manual_seed(0)
    layer = attention(4)
    x = torch.randn(1, height, width, 6, requires_grad=True)
    weights = torch.randn(1, height, width, 6)
    got = torch.autograd.grad((layer(x) * weights).sum(), [x, *layer.parameters()])
    expected = torch.autograd.grad((by_loop(layer, x) * weights).sum(), [x, *layer.parameters()])
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_token_hears_its_own_window_only() -> None:
    torch.manual_seed(0)
    layer = attention(4)
    x = torch.randn(1, 10, 10, 6)
    moved = x.clone()
    moved[0, 3, 3] += 1  # windows end before 2, 6 and 10 along both axes
    changed = (layer(moved) != layer(x)).any(-1)[0]
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert torch.equal(changed, expected)


def test_padded_tokens_are_not_heard() -> None:
    """A 3x3 grid in a 4x4 window: seven tokens are added, whose keys and values are the loud biases."""
    torch.manual_seed(0)
    layer = attention(4, shifted=False)
    x = torch.randn(1, 3, 3, 6)
    with torch.no_grad():
        before = layer(x)
        layer.qkv.bias[6:] += 100 * torch.randn(12)  # of keys and values
        heard = by_loop(layer, x)
        assert not torch.allclose(before, heard)
        assert torch.allclose(layer(x), heard, rtol=1e-4, atol=1e-3)


def test_masks_are_made_once_per_grid() -> None:
    layer = attention(4)
    x = torch.randn(1, 9, 13, 6)
    layer(x)
    before = swin._mask.cache_info()
    layer(x)
    after = swin._mask.cache_info()
    assert after.misses == before.misses
    assert after.hits == before.hits + 2
    assert after.maxsize is not None, "an image of every size must not fill the memory"


@pytest.mark.parametrize("size", [(16, 24), (5, 9)])
def test_bf16_and_memory_layout_change_no_count(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    stage = torch.nn.Sequential(*swin_stage(8, 2, window=4, head_dim=4), Merge(8, 12), Split(12, 8)).eval()
    x = torch.randn(1, 8, *[-(-side // 2) * 2 for side in size])
    height, width = x.shape[-2:]
    padded = [-(-side // 4) * 4 for side in (height, width)]
    # By hand: qkv on padded tokens, products of 16 tokens per window, proj and MLP, for two blocks of 8
    # channels; then 32 x 12 at a quarter of the tokens, twice.
    tokens, all_tokens = height * width, padded[0] * padded[1]
    block = all_tokens * (3 * 64 + 2 * 16 * 8) + tokens * (64 + 2 * 4 * 64)
    expected = 2 * block + 2 * (tokens // 4) * 32 * 12
    with torch.no_grad():
        for layout in (torch.contiguous_format, torch.channels_last):
            image = x.contiguous(memory_format=layout)
            assert count(partial(stage, image), {}).flop["prior"] == 2 * expected
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert count(partial(stage, image), {}).flop["prior"] == 2 * expected
        assert fvcore_macs(stage, x) == expected


def test_merge_and_split_order_their_blocks_alike() -> None:
    """With identity weights, a split undoes a merge up to the norms."""
    merge, split = Merge(3, 12), Split(12, 3)
    with torch.no_grad():
        merge.linear.weight.copy_(torch.eye(12))
        split.linear.weight.copy_(torch.eye(12))
        x = torch.randn(1, 3, 4, 6)
        out = split(merge(x))
    for top in range(0, 4, 2):
        for left in range(0, 6, 2):
            block = x[..., top : top + 2, left : left + 2]
            expected = (block - block.mean()) / block.std(unbiased=False)
            assert torch.allclose(out[..., top : top + 2, left : left + 2], expected, atol=1e-3)


def test_blocks_start_near_the_identity_and_become_it() -> None:
    torch.manual_seed(0)
    block = SwinBlock(32, window=4, head_dim=16, shifted=True)
    x = torch.randn(1, 32, 9, 8)
    assert (block(x) - x).std() < 0.25
    assert block.start_linear() == 1.0
    assert torch.equal(block(x), x)


def test_a_split_starts_where_it_is_told() -> None:
    torch.manual_seed(0)
    split = Split(64, 5)
    for values in (torch.tensor([7.0, 7.0]), torch.tensor([2.0, -3.0, 0.5])):
        split.start_at(values)  # a second call replaces the first
        mean = split(torch.randn(4, 64, 16, 16)).mean((0, 2, 3))
        assert torch.allclose(mean[: len(values)], values, atol=0.1)
        assert mean[len(values) :].abs().max() < 0.1


@pytest.mark.parametrize("kind", [Merge, Split])
def test_anchors_make_a_norm_linear(kind: type[Merge | Split]) -> None:
    """Filters of four sources to nine bands act as written, whatever the mean of a token is."""
    torch.manual_seed(0)
    bands, sources, wide = 9, 4, 16
    taps = torch.randn(bands, sources, 2, 2)
    into, out_of = (sources, bands) if kind is Merge else (bands, sources)
    block = SwinBlock(wide, window=4, head_dim=8, shifted=False)
    block.start_linear()
    layer = kind(wide, wide)
    x = torch.zeros(1, wide, 6, 8)
    x[:, :into] = torch.randn(1, into, 6, 8) + 1
    Anchored(layer, block).write_filters(taps, spread=x.norm(dim=1).mean().item(), spare=0.0)
    with torch.no_grad():
        out = layer(block(x))
        if kind is Merge:
            expected = torch.nn.functional.conv2d(x[:, :into], taps, stride=2)
        else:
            expected = torch.nn.functional.conv_transpose2d(x[:, :into], taps, stride=2)
    assert (out[:, :out_of] - expected).norm() < 0.02 * expected.norm()
    assert not out[:, out_of:].any()
