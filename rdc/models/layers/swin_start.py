"""Filters that a wavelet start can write into a Merge or Split, although each begins with a LayerNorm.

A norm forgets how large a token is, and a linear filter bank must not. Two channels that no band uses start
as plus and minus one constant, the anchor, much larger than the signal: they fix the norm, so that it scales
every token alike, and their sum tells by how much it moved the mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rdc.models.layers.swin import Merge, Split, SwinBlock

ANCHORS = 2  # the last channels of every stage: plus and minus the anchor
# Anchor over the expected size of a token's signal: one of three times that size is scaled 2 % less. Smaller
# bends the signal more; larger makes a step of Adam on the weights move it more. After 120 steps (one small
# model and seed) rd_loss was 6.4 with 10, 6.5 with 4 and 7.8 with 25; from random weights 21.
ANCHOR = 10.0


class Anchored:
    """A Merge or Split, and the block whose bias makes its anchors."""

    def __init__(self, layer: Merge | Split, block: SwinBlock) -> None:
        self.layer = layer
        self.out_channels = layer.out_channels
        self._block = block
        self._norm_scale = 1.0
        self._anchor = 1.0

    @torch.no_grad()
    def write_filters(self, taps: Tensor, *, spread: float, spare: float) -> None:
        """taps: (bands, sources, 2, 2), of a Merge from sources to bands, of a Split from bands to sources.

        spread: expected Euclidean norm of a token before the layer. spare: factor on the weights of channels
        without a band.
        """
        width = self.layer.in_channels
        self._anchor = ANCHOR * spread
        self._norm_scale = math.sqrt((2 * self._anchor**2 + spread**2) / width)
        self._block.attention.proj.bias[-ANCHORS:] = torch.tensor([self._anchor, -self._anchor])
        self.layer.norm.bias.zero_()
        weight = self._weight().mul_(spare)
        bands = len(taps)
        filters = taps * self._norm_scale
        if isinstance(self.layer, Merge):
            filters = filters.permute(2, 3, 0, 1)  # (2, 2, bands, sources)
            weight[:, :, :bands] = 0
        else:
            filters = filters.permute(2, 3, 1, 0)  # (2, 2, sources, bands)
            weight[..., :bands] = 0
        outputs, inputs = filters.shape[2:]
        weight[..., -ANCHORS:] = 0
        weight[:, :, max(outputs, weight.shape[2] - ANCHORS) :] = 0
        weight[:, :, :outputs, :inputs] = filters
        # Both anchors lost the mean that every channel lost, so their sum puts it back.
        weight[:, :, :outputs, -ANCHORS:] = -filters.sum(-1, keepdim=True) / ANCHORS

    @torch.no_grad()
    def offset(self, values: Tensor) -> None:
        """Add values to the first outputs of a Split, by the anchors' difference, which is constant."""
        assert isinstance(self.layer, Split), "only what a Split makes is shifted"
        share = values * self._norm_scale / (2 * self._anchor)
        weight = self._weight()[:, :, : len(values)]
        weight[..., -2] += share
        weight[..., -1] -= share

    @torch.no_grad()
    def amplify(self, factor: float) -> None:
        """Multiply what the layer makes."""
        self.layer.linear.weight.mul_(factor)

    @torch.no_grad()
    def attenuate(self, factor: float) -> None:
        """Divide what the layer makes."""
        self.layer.linear.weight.div_(factor)

    def _weight(self) -> Tensor:
        """The linear layer as (2, 2, outputs, inputs); first the position in a 2x2 block."""
        weight = self.layer.linear.weight
        if isinstance(self.layer, Merge):
            return weight.view(-1, 2, 2, self.layer.in_channels).permute(1, 2, 0, 3)
        return weight.view(2, 2, self.layer.out_channels, self.layer.in_channels)
