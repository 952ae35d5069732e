"""A start for strided transforms: a truncated Haar pyramid in opponent colours instead of noise.

A short training otherwise spends most of its steps on learning that neighbouring pixels are alike. From
here it starts as a plain wavelet codec that keeps the bands of highest expected variance, and improves on
it. Everything stays trainable; nothing is taken from data.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.codec import Codec
from rdc.models.layers.gdn import GDN, PEDESTAL
from rdc.spec import component

# First-order model of photographs on [0, 1]: variance of luma and of the two chroma differences, and the
# correlation of neighbours in a low-pass band and in any other band. Only the order of bands and the first
# guess of the latent's scales depend on them.
PIXEL_VARIANCE = (0.06, 0.0036, 0.0036)
LOW_PASS_CORRELATION = 0.95
DETAIL_CORRELATION = 0.3
# Bands have heavier tails than a Gaussian: in a narrow one each outlier costs up to 30 bits.
MIN_SCALE = 0.3

# Latent units per pixel unit. Training finds the spread that its lmbda wants; 1.5 to 3 end within 2 % of each
# other after 500 steps.
GAIN = 3.0
SPARE_WEIGHT = 0.2  # of the usual random weights, for channels that no band needs
GDN_GAMMA = 0.01  # nearly the identity, so that the pyramid survives the normalisation

# Signs of the orthonormal 2 x 2 Haar transform: low-pass, vertical, horizontal and diagonal detail.
HAAR = 0.5 * torch.tensor([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]])
# Orthonormal opponent colours: brightness, red-blue and green-magenta differences.
COLOURS = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])


class Band(NamedTuple):
    """A channel of the pyramid: expected variance, correlation of neighbours, and how it is made."""

    variance: float
    correlation: float
    source: int = 0
    filter: int = 0


@torch.no_grad()
def start_as_wavelet(codec: Codec) -> None:
    """Overwrite the random weights of g_a and g_s, and the scales that the entropy model starts from."""
    name = codec.spec.transform.name
    transform = component("transform", name)
    if not hasattr(transform, "strided_layers"):
        raise UserError(
            f"budget.initialisation=wavelet: transform={name} has no strided 5x5 layers to start from; "
            "use budget.initialisation=random"
        )
    for part in (codec.g_a, codec.g_s):
        for layer in part.modules():
            if isinstance(layer, GDN):
                layer.gamma.copy_((GDN_GAMMA * torch.eye(len(layer.gamma)) + PEDESTAL).sqrt())
    bands = _write_pyramid(*transform.strided_layers(codec.g_a, codec.g_s))
    scales = torch.tensor([band.variance for band in bands]).sqrt() * GAIN
    codec.entropy_model.start_scales(scales.clamp_min(MIN_SCALE))


def _write_pyramid(convs: list[nn.Conv2d], deconvs: list[nn.ConvTranspose2d]) -> list[Band]:
    """Both lists in encoder order. Returns the bands of y, one per channel, the strongest first."""
    bands = [Band(variance, LOW_PASS_CORRELATION) for variance in PIXEL_VARIANCE]
    for level, (down, up) in enumerate(zip(convs, deconvs, strict=True)):
        bands = _split(bands)[: down.out_channels]
        for layer in (down, up):
            layer.weight.mul_(SPARE_WEIGHT)
        mixing = COLOURS / COLOURS.norm(dim=1, keepdim=True) if level == 0 else torch.eye(down.in_channels)
        for channel, band in enumerate(bands):
            taps = mixing[band.source][:, None, None] * HAAR[band.filter]
            _write(down.weight[channel], taps)
            _write(up.weight[channel], taps)
        if level == 0:
            # Around mid-grey, so that zero latents are a grey image and not a black one.
            _bias(down)[: len(bands)] = -0.5 * down.weight[: len(bands)].sum(dim=(1, 2, 3))
            _bias(up).fill_(0.5)
    convs[-1].weight.mul_(GAIN)
    _bias(convs[-1]).mul_(GAIN)
    deconvs[-1].weight.div_(GAIN)
    return _padded(bands, convs[-1].out_channels)


def _split(bands: list[Band]) -> list[Band]:
    """The four children of every band, by falling variance; those of a first-order autoregressive model."""
    children = []
    for source, (variance, rho, *_) in enumerate(bands):
        for index, (share, correlation) in enumerate(
            [
                ((1 + rho) ** 2, rho),
                (1 - rho**2, DETAIL_CORRELATION),
                (1 - rho**2, DETAIL_CORRELATION),
                ((1 - rho) ** 2, DETAIL_CORRELATION),
            ]
        ):
            children.append(Band(variance * share, correlation, source, index))
    return sorted(children, key=lambda band: -band.variance)


def _write(kernels: Tensor, taps: Tensor) -> None:
    """taps: (channels, 2, 2) into 5x5 kernels, where a stride of 2 meets the pixels (2i, 2i + 1)."""
    kernels.zero_()
    kernels[: len(taps), 2:4, 2:4] = taps


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None, "strided layers have a bias"
    return layer.bias


def _padded(bands: list[Band], channels: int) -> list[Band]:
    return bands + [Band(0.0, 0.0)] * (channels - len(bands))
