"""A start for strided transforms: a truncated Haar pyramid in opponent colours instead of noise.

A short training otherwise spends most of its steps on learning that neighbouring pixels are alike. From
here it starts as a plain wavelet codec that keeps the bands of highest expected variance, and improves on
it. Everything stays trainable; nothing is taken from data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.codec import Codec
from rdc.models.layers.gdn import GDN, PEDESTAL
from rdc.spec import ModelSpec, component

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


class Resampler(Protocol):
    """A layer of stride 2, or up by 2, that a level of the pyramid can be written to."""

    @property
    def out_channels(self) -> int: ...

    def write_filters(self, taps: Tensor, *, spread: float, spare: float) -> None:
        """taps: (bands, sources, 2, 2), from sources to bands on the way down, from bands to sources up.

        spread: expected Euclidean norm over the channels of what comes in. spare: factor on the random
        weights of channels without a band.
        """

    def offset(self, values: Tensor) -> None:
        """Add values to the first channels of what the layer makes."""

    def amplify(self, factor: float) -> None:
        """Multiply what the layer makes."""

    def attenuate(self, factor: float) -> None:
        """Divide what the layer makes."""


def check_wavelet(model: ModelSpec) -> None:
    """UserError if the model has no layers that can start as a wavelet codec."""
    name = model.transform.name
    transform = component("transform", name)
    lack = ""
    if not hasattr(transform, "strided_layers"):
        lack = f"transform={name} has no strided layers"
    elif hasattr(transform, "lack_of_layers"):
        lack = transform.lack_of_layers(model.depth)
    if lack:
        raise UserError(
            f"budget.initialisation=wavelet: {lack} to start from; use budget.initialisation=random"
        )


@torch.no_grad()
def start_as_wavelet(codec: Codec) -> None:
    """Overwrite the random weights of g_a and g_s, and the scales that the entropy model starts from.

    What lies between the strided layers of a transform starts as a multiple of the identity: layers with a
    method `start_linear`, which returns the factor, and GDN.
    """
    check_wavelet(codec.spec)
    transform = component("transform", codec.spec.transform.name)
    reserved = getattr(transform, "RESERVED_CHANNELS", 0)
    downs, ups = (
        [_Strided(layer, reserved) if isinstance(layer, nn.Module) else layer for layer in layers]
        for layers in transform.strided_layers(codec.g_a, codec.g_s)
    )
    factors = [_start_linear(part) for part in (codec.g_a, codec.g_s)]
    bands = _write_pyramid(downs, ups, reserved=reserved)
    downs[-1].amplify(GAIN / factors[0])
    ups[-1].attenuate(GAIN * factors[1])
    ups[0].offset(torch.full((3,), 0.5))  # zero latents are a grey image and not a black one
    scales = torch.tensor([band.variance for band in bands]).sqrt() * GAIN
    codec.entropy_model.start_scales(scales.clamp_min(MIN_SCALE))


def _start_linear(part: nn.Module) -> float:
    """Make everything between the strided layers a multiple of the identity; returns the factor of all."""
    factor = 1.0
    for layer in part.modules():
        start: Callable[[], float] | None = getattr(layer, "start_linear", None)
        if isinstance(layer, GDN):
            layer.gamma.copy_((GDN_GAMMA * torch.eye(len(layer.gamma)) + PEDESTAL).sqrt())
        elif start is not None:
            factor *= start()
    return factor


def _write_pyramid(downs: Sequence[Resampler], ups: Sequence[Resampler], *, reserved: int) -> list[Band]:
    """Both in encoder order. Returns the bands of y, one per channel, the strongest first."""
    bands = [Band(variance, LOW_PASS_CORRELATION) for variance in PIXEL_VARIANCE]
    for level, (down, up) in enumerate(zip(downs, ups, strict=True)):
        sources, bands = bands, _split(bands)[: down.out_channels - reserved]
        mixing = torch.eye(len(sources)) if level else COLOURS / COLOURS.norm(dim=1, keepdim=True)
        taps = torch.stack([mixing[b.source][:, None, None] * HAAR[b.filter] for b in bands])
        down.write_filters(taps, spread=_spread(sources), spare=SPARE_WEIGHT)
        last = level == len(downs) - 1
        up.write_filters(taps, spread=_spread(bands) * (GAIN if last else 1.0), spare=SPARE_WEIGHT)
        if level == 0:
            down.offset(-0.5 * taps.sum(dim=(1, 2, 3)))  # bands of the difference to mid-grey
    return _padded(bands, downs[-1].out_channels)


class _Strided:
    """A convolution of stride 2 or its transpose, with kernels of 5x5 or 2x2."""

    def __init__(self, layer: nn.Module, reserved: int) -> None:
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)), f"{layer} has no kernels to write"
        assert layer.bias is not None, "strided layers have a bias"
        self._weight, self._bias, self._reserved = layer.weight, layer.bias, reserved
        self.out_channels = layer.out_channels

    def write_filters(self, taps: Tensor, *, spread: float, spare: float) -> None:
        kernels = self._weight.mul_(spare)
        kernels[: len(taps)] = 0
        # Where a stride of 2 meets the pixels (2i, 2i + 1): the middle of 5x5, all of 2x2.
        at = slice((kernels.shape[-1] - 1) // 2, (kernels.shape[-1] - 1) // 2 + 2)
        kernels[: len(taps), : taps.shape[1], at, at] = taps
        kernels[len(kernels) - self._reserved :] = 0

    def offset(self, values: Tensor) -> None:
        self._bias[: len(values)] = values

    def amplify(self, factor: float) -> None:
        self._weight.mul_(factor)
        self._bias.mul_(factor)

    def attenuate(self, factor: float) -> None:
        self._weight.div_(factor)
        self._bias.div_(factor)


def _spread(bands: list[Band]) -> float:
    return math.sqrt(sum(band.variance for band in bands))


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


def _padded(bands: list[Band], channels: int) -> list[Band]:
    return bands + [Band(0.0, 0.0)] * (channels - len(bands))
