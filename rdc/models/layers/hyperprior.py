"""What all entropy models share: z under a learned prior, y Gaussian given z and what is known of y itself.

A model says in which steps it goes through y, by one method, `walk`. Estimate, encoder, decoder and the count
of operations all take the same walk and differ in what they do at each step.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.layers import coding, scale_rows
from rdc.models.layers.gaussian import gaussian_likelihood
from rdc.spec import ModelSpec, component

Quantiser = Literal["mixed", "noise"]
Indexing = Literal["nearest", "ceil"]

# (B, latent_channels, h, w) -> the values of one step, in any shape that starts with B.
Pick = Callable[[Tensor], Tensor]
# (pick, mean, scale) of one step -> its decoded values. The scale has their shape; the mean may broadcast.
Visit = Callable[[Pick, Tensor, Tensor], Tensor]


class Output(NamedTuple):
    """y_hat: what the synthesis transform sees. likelihoods: of y and z, each (B, channels, h, w)."""

    y_hat: Tensor
    likelihoods: dict[str, Tensor]


class Walked(NamedTuple):
    """Of the whole latent: y_hat as the synthesis transform sees it, and the Gaussians of its symbols."""

    y_hat: Tensor
    mean: Tensor
    scale: Tensor


def dry(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
    """A visit that codes nothing, for counting and timing what the networks do."""
    return mean.expand(scale.shape)


class Hyperprior(nn.Module, abc.ABC):
    """h_a, h_s, the factorised prior of z and the Gaussians of y; subclasses say how they walk through y.

    latent_channels: of y. z_channels: of h_a's output.
    quantiser, in training only. noise: uniform noise stands for rounding everywhere (Balle et al., 2018).
      mixed: the rate still comes from noisy values, but all networks see rounded ones with a straight-through
      gradient (Minnen & Singh, ICIP 2020).
    indexing: how the coder picks one of its 64 scales. nearest: in log scale; ceil: the next larger one,
      CompressAI's.
    """

    num_streams = 2  # y, z

    def __init__(
        self,
        h_a: nn.Module,
        h_s: nn.Module,
        z_channels: int,
        *,
        latent_channels: int,
        quantiser: Quantiser,
        indexing: Indexing,
        prior_filters: Sequence[int],
    ) -> None:
        super().__init__()
        # Imported here because it takes seconds, which checking a configuration need not pay.
        from compressai.entropy_models import EntropyBottleneck, GaussianConditional

        self.latent_channels = latent_channels
        self.quantiser = quantiser
        self.indexing = indexing
        self.h_a = h_a
        self.h_s = h_s
        self.entropy_bottleneck: Any = EntropyBottleneck(
            z_channels, filters=tuple(prior_filters), likelihood_bound=coding.LIKELIHOOD_FLOOR
        )
        self.gaussian_conditional: Any = GaussianConditional(
            None, scale_bound=coding.SCALE_MIN, likelihood_bound=coding.LIKELIHOOD_FLOOR
        )

    @abc.abstractmethod
    def walk(self, side: Tensor, visit: Visit) -> Walked:
        """Go through y in coding order, calling `visit` once per step; what it returns is known from then on.

        side: h_s's output. The networks of a step may use nothing but it and the values of earlier steps.
        In evaluation and coding the batch is one image.
        """

    @abc.abstractmethod
    def start_scales(self, scales: Tensor) -> None:
        """Let training start from these scales, one per channel of y.

        At zero, where a fresh network has them, their gradient is dead.
        """

    def hyper_input(self, y: Tensor) -> Tensor:
        """What h_a sees of y."""
        return y

    def side(self, z_hat: Tensor) -> Tensor:
        """h_s's output, in one memory format: another one may add in another order."""
        with coding.exact():
            side: Tensor = self.h_s(z_hat.contiguous())
        return side.contiguous()

    def serial_steps(self, height: int, width: int) -> int:
        """Steps that must wait for each other while y, of this many positions, is decoded."""
        return 1

    def estimate_y(self, y: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """(y_hat, likelihoods of y's symbols): noise in training mode, rounding in evaluation mode."""
        noisy = _with_noise(y) if self.training else y
        noise_is_seen = self.training and self.quantiser == "noise"

        def visit(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
            return pick(noisy) if noise_is_seen else self._rounded(pick(y), mean)

        y_hat, mean, scale = self.walk(side, visit)
        rated = noisy if self.training else self._rounded(y, mean)
        return y_hat, self._likelihood_y(rated, mean, scale)

    def forward(self, y: Tensor) -> Output:
        """y: (B, latent_channels, h, w), fp32. Noise in training mode, rounding in evaluation mode."""
        z_seen, z_rated = self._quantise(self.h_a(self.hyper_input(y)), self._medians())
        likelihood_z = self._likelihood_z(z_rated)
        if self.training:
            y_hat, likelihood_y = self.estimate_y(y, self.side(z_seen))
            return Output(y_hat, {"y": likelihood_y, "z": likelihood_z})
        # One image at a time: another batch size may add in another order.
        with coding.reproducible():
            images = [
                self.estimate_y(one, self.side(z)) for one, z in zip(y.split(1), z_seen.split(1), strict=True)
            ]
        y_hat, likelihood_y = (torch.cat(parts) for parts in zip(*images, strict=True))
        return Output(y_hat, {"y": likelihood_y, "z": likelihood_z})

    @torch.no_grad()
    def compress(self, y: Tensor) -> dict[str, Any]:
        """y: (B, latent_channels, h, w) -> strings of y and of z, z's size, and a checksum per image."""
        medians = self._medians()
        rounded = torch.round(self.h_a(self.hyper_input(y)) - medians)
        z_symbols, z_rows = coding.to_symbols(rounded), self._z_rows(rounded.shape[1:])
        images = [self._symbols(*one) for one in zip(y.split(1), (rounded + medians).split(1), strict=True)]
        y_tables, z_tables = self._tables()
        return {
            "strings": [
                [coding.encode(symbols, rows, y_tables) for symbols, rows in images],
                [coding.encode(symbols, z_rows, z_tables) for symbols in z_symbols],
            ],
            "shape": tuple(rounded.shape[-2:]),
            "symbols_crc32": [
                coding.checksum(z, rows, symbols)
                for z, (symbols, rows) in zip(z_symbols, images, strict=True)
            ],
        }

    @torch.no_grad()
    def decompress(
        self,
        strings: Sequence[Sequence[bytes]],
        shape: Sequence[int],
        symbols_crc32: Sequence[int] | None = None,
    ) -> Tensor:
        """Inverse of `compress`: y_hat. UserError where the decoded symbols miss the encoder's checksum."""
        z_tables = self._tables()[1]
        z_rows = self._z_rows((self.entropy_bottleneck.channels, *shape))
        medians = self._medians()
        images = []
        for i, (y_string, z_string) in enumerate(zip(*strings, strict=True)):
            z_symbols = coding.decode(z_string, z_rows, z_tables)
            y_hat, *coded = self._decoded(y_string, self._values(z_symbols[None], medians))
            images.append(y_hat)
            if symbols_crc32 is not None and coding.checksum(z_symbols, *coded) != symbols_crc32[i]:
                raise UserError(
                    f"image {i}: the decoded symbols differ from the encoder's: the network computes other "
                    "scales here; decode on the device and with the torch version that encoded it"
                )
        return torch.cat(images)

    def encoder_networks(self, y: Tensor) -> Tensor:
        """What `compress` computes besides coding: z."""
        z: Tensor = self.h_a(self.hyper_input(y))
        self.decoder_networks(z)
        return z

    def decoder_networks(self, z_hat: Tensor) -> None:
        """What `decompress` computes besides decoding."""
        with coding.reproducible():
            for z in z_hat.split(1):
                self.walk(self.side(z), dry)

    def parts(self) -> dict[str, nn.Module]:
        """The named networks in the order in which an encoder runs them."""
        return {"h_a": self.h_a, "prior": self.entropy_bottleneck, "h_s": self.h_s}

    def rows(self, scale: Tensor) -> np.ndarray:
        """Scales -> rows of the Gaussian tables, int32 in the shape of scale."""
        return scale_rows.rows(scale.detach().cpu().contiguous().numpy(), self.indexing)

    def update(self, *, force: bool = False, update_quantiles: bool = False) -> bool:
        """Build the coding tables; update_quantiles first fits z's quantiles exactly. True if it did."""
        stale = force or self.entropy_bottleneck._offset.numel() == 0
        if stale and update_quantiles:
            coding.fit_quantiles(self.entropy_bottleneck)
        updated: bool = self.entropy_bottleneck.update(force=force)
        return coding.update_gaussian(self.gaussian_conditional, force=force) | updated

    def aux_loss(self) -> Tensor:
        """Distance of z's quantiles from where the prior has them; touches no other parameter."""
        loss: Tensor = self.entropy_bottleneck.loss()
        return loss

    def _symbols(self, y: Tensor, z_hat: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(symbols, rows) of one image, flat and in coding order."""
        symbols, rows = [], []

        def visit(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
            rounded = torch.round(pick(y) - mean)
            symbols.append(coding.to_symbols(rounded).ravel())
            rows.append(self.rows(scale).ravel())
            return rounded + mean

        with coding.reproducible():
            self.walk(self.side(z_hat), visit)
        return np.concatenate(symbols), np.concatenate(rows)

    def _decoded(self, data: bytes, z_hat: Tensor) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """(y_hat, rows, symbols) of one image, the latter two flat and in coding order."""
        symbols, rows = [], []
        with coding.reproducible():
            side = self.side(z_hat)
            count = self.latent_channels * side.shape[-2] * side.shape[-1]
            decoder = coding.StreamDecoder(data, count, self._tables()[0])

            def visit(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
                rows.append(self.rows(scale))
                symbols.append(decoder.read(rows[-1]))
                return self._values(symbols[-1], mean)

            y_hat = self.walk(side, visit).y_hat
        return y_hat, *(np.concatenate([step.ravel() for step in steps]) for steps in (rows, symbols))

    def _quantise(self, values: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """(what the networks see, what is rated)."""
        if not self.training:
            rounded = self._rounded(values, mean)
            return rounded, rounded
        noisy = _with_noise(values)
        return (noisy if self.quantiser == "noise" else self._rounded(values, mean)), noisy

    def _rounded(self, values: Tensor, mean: Tensor) -> Tensor:
        """Rounded around the mean; in training with a straight-through gradient."""
        residual = values - mean
        if not self.training:
            return torch.round(residual) + mean
        return residual + (torch.round(residual) - residual).detach() + mean

    def _values(self, symbols: np.ndarray, mean: Tensor) -> Tensor:
        return torch.from_numpy(symbols).to(mean.device, torch.float32) + mean

    def _medians(self) -> Tensor:
        medians: Tensor = self.entropy_bottleneck.quantiles[:, 0, 1].detach()
        return medians[:, None, None]

    def _likelihood_y(self, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return gaussian_likelihood(y, mean, scale, scale_min=coding.SCALE_MIN, floor=coding.LIKELIHOOD_FLOOR)

    def _likelihood_z(self, z: Tensor) -> Tensor:
        model = self.entropy_bottleneck
        by_channel = z.transpose(0, 1)
        likelihood, _, _ = model._likelihood(by_channel.reshape(z.shape[1], 1, -1))
        bounded: Tensor = model.likelihood_lower_bound(likelihood)
        return bounded.reshape(by_channel.shape).transpose(0, 1)

    def _tables(self) -> tuple[coding.Tables, coding.Tables]:
        return coding.tables_of(self.gaussian_conditional), coding.tables_of(self.entropy_bottleneck)

    def _z_rows(self, shape: Sequence[int]) -> np.ndarray:
        channels = np.arange(shape[0], dtype=np.int32)[:, None, None]
        return np.broadcast_to(channels, tuple(shape))


class OneStep(Hyperprior):
    """Every symbol of y at once: h_s's output is all that their Gaussians depend on."""

    @abc.abstractmethod
    def split(self, side: Tensor) -> tuple[Tensor, Tensor]:
        """h_s's output -> (mean, scale), the scale in the shape of y, the mean broadcastable to it."""

    def walk(self, side: Tensor, visit: Visit) -> Walked:
        """One step."""
        mean, scale = self.split(side)
        return Walked(visit(_whole, mean, scale), mean, scale)

    def start_scales(self, scales: Tensor) -> None:
        """h_s gives scales in its first channels."""
        start_bias(self.h_s, scales)


@torch.no_grad()
def start_bias(net: nn.Module, values: Tensor) -> None:
    """Let the first output channels of a network start from these values, by its last layer.

    That is a convolution with a bias, or a layer with a method `start_at(values)`.
    """
    *_, last = net.children()
    if not isinstance(last, nn.Conv2d):
        last.start_at(values)  # type: ignore[operator]
        return
    assert last.bias is not None, "the network must end with a bias"
    last.bias[: len(values)] = values


def arguments(spec: ModelSpec, side_channels: int, *, one_per_symbol: bool = False) -> dict[str, Any]:
    """What `Hyperprior` takes from a spec; side_channels, one_per_symbol: see `synthesis`."""
    params, depth, hyper_params = spec.entropy_model, spec.depth, spec.hyper_transform
    hyper = component("hyper_transform", hyper_params.name)
    return {
        "h_a": hyper.build_analysis(hyper_params, depth),
        "h_s": synthesis(spec, side_channels, one_per_symbol=one_per_symbol),
        "z_channels": hyper.analysis_channels(hyper_params, depth)[-1],
        "latent_channels": depth.latent_channels,
        "quantiser": params.quantiser,
        "indexing": params.indexing,
        "prior_filters": params.prior_filters,
    }


def synthesis(spec: ModelSpec, side_channels: int, *, one_per_symbol: bool = False) -> nn.Module:
    """A fresh h_s with this many outputs.

    one_per_symbol: they are the scale, or the mean, of each symbol of y and nothing else, which may decide
    widths that the spec leaves open.
    """
    hyper = component("hyper_transform", spec.hyper_transform.name)
    h_s: nn.Module = hyper.build_synthesis(
        spec.hyper_transform, spec.depth, side_channels, one_per_symbol=one_per_symbol
    )
    return h_s


def channels_of(first: int, last: int) -> Pick:
    """Picks the channels first to last - 1."""
    return lambda y: y[:, first:last]


def check_prior_filters(filters: Sequence[int]) -> None:
    """UserError for widths that no cumulative distribution can have."""
    if not filters:
        raise UserError("entropy_model.prior_filters=[]: needs at least one width, e.g. [3,3]")
    if min(filters) < 1:
        raise UserError(f"entropy_model.prior_filters={list(filters)}: every entry must be at least 1")


def _whole(y: Tensor) -> Tensor:
    return y


def _with_noise(values: Tensor) -> Tensor:
    return values + torch.empty_like(values).uniform_(-0.5, 0.5)
