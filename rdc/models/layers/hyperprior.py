"""The entropy model that both hyperpriors share: z under a learned prior, y Gaussian given z."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.layers import coding
from rdc.models.layers.gaussian import gaussian_likelihood

Quantiser = Literal["mixed", "noise"]
Indexing = Literal["nearest", "ceil"]


class Output(NamedTuple):
    """y_hat: what the synthesis transform sees. likelihoods: of y and z, each (B, channels, h, w)."""

    y_hat: Tensor
    likelihoods: dict[str, Tensor]


class Hyperprior(nn.Module, abc.ABC):
    """h_a, h_s, the factorised prior of z and the Gaussian of y; subclasses say what h_s's output means.

    quantiser, in training only. noise: uniform noise stands for rounding everywhere (Balle et al., 2018).
      mixed: the rate still comes from noisy values, but h_s and the synthesis transform see rounded ones with
      a straight-through gradient (Minnen & Singh, ICIP 2020).
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
        quantiser: Quantiser,
        indexing: Indexing,
        prior_filters: Sequence[int],
    ) -> None:
        super().__init__()
        # Imported here because it takes seconds, which checking a configuration need not pay.
        from compressai.entropy_models import EntropyBottleneck, GaussianConditional

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

    def hyper_input(self, y: Tensor) -> Tensor:
        """What h_a sees of y."""
        return y

    @abc.abstractmethod
    def split(self, side: Tensor) -> tuple[Tensor, Tensor]:
        """h_s's output -> (mean, scale), each broadcastable to y."""

    def mean_scale(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of y's Gaussians; estimate, encoder and decoder all get them here."""
        if self.training:
            return self.split(self.h_s(z_hat))
        # One image at a time in evaluation: another batch size may add in another order.
        with coding.reproducible():
            return self.split(torch.cat([self.h_s(z.contiguous()) for z in z_hat.split(1)]))

    def forward(self, y: Tensor) -> Output:
        """y: (B, latent_channels, h, w), fp32. Noise in training mode, rounding in evaluation mode."""
        z = self.h_a(self.hyper_input(y))
        z_seen, z_rated = self._quantise(z, self._medians())
        mean, scale = self.mean_scale(z_seen)
        y_seen, y_rated = self._quantise(y, mean)
        likelihoods = {"y": self._likelihood_y(y_rated, mean, scale), "z": self._likelihood_z(z_rated)}
        return Output(y_seen, likelihoods)

    @torch.no_grad()
    def compress(self, y: Tensor) -> dict[str, Any]:
        """y: (B, latent_channels, h, w) -> strings of y and of z, z's size, and a checksum per image."""
        z_symbols, z_hat = self._symbols(self.h_a(self.hyper_input(y)), self._medians())
        mean, scale = self.mean_scale(z_hat)
        y_symbols, _ = self._symbols(y, mean)
        y_rows, z_rows = self.rows(scale.expand_as(y)), self._z_rows(z_symbols.shape[1:])
        y_tables, z_tables = self._tables()
        return {
            "strings": [
                [coding.encode(s, r, y_tables) for s, r in zip(y_symbols, y_rows, strict=True)],
                [coding.encode(s, z_rows, z_tables) for s in z_symbols],
            ],
            "shape": tuple(z_hat.shape[-2:]),
            "symbols_crc32": [
                coding.checksum(*image) for image in zip(z_symbols, y_rows, y_symbols, strict=True)
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
        y_strings, z_strings = strings
        y_tables, z_tables = self._tables()
        z_rows = self._z_rows((self.entropy_bottleneck.channels, *shape))
        z_symbols = np.stack([coding.decode(s, z_rows, z_tables) for s in z_strings])
        mean, scale = self.mean_scale(self._values(z_symbols, self._medians()))
        y_rows = self.rows(scale)
        y_symbols = np.stack([coding.decode(s, r, y_tables) for s, r in zip(y_strings, y_rows, strict=True)])
        for i, expected in enumerate(symbols_crc32 or ()):
            if coding.checksum(z_symbols[i], y_rows[i], y_symbols[i]) != expected:
                raise UserError(
                    f"image {i}: the decoded symbols differ from the encoder's: the network computes other "
                    "scales here; decode on the device and with the torch version that encoded it"
                )
        return self._values(y_symbols, mean)

    def encoder_networks(self, y: Tensor) -> Tensor:
        """What `compress` computes besides coding: z."""
        z: Tensor = self.h_a(self.hyper_input(y))
        self.mean_scale(z)
        return z

    def decoder_networks(self, z_hat: Tensor) -> None:
        """What `decompress` computes besides decoding."""
        self.mean_scale(z_hat)

    def parts(self) -> dict[str, nn.Module]:
        """The named networks in the order in which an encoder runs them."""
        return {"h_a": self.h_a, "prior": self.entropy_bottleneck, "h_s": self.h_s}

    def rows(self, scale: Tensor) -> np.ndarray:
        """Scales -> rows of the Gaussian tables, int32 in the shape of scale."""
        levels = torch.tensor(coding.scale_levels(), dtype=torch.float64)
        bounds = levels[:-1] if self.indexing == "ceil" else (levels[:-1] * levels[1:]).sqrt()
        # bucketize counts the bounds below the value, so a scale equal to a level gets that level.
        rows = torch.bucketize(
            scale.detach().cpu().clamp_min(coding.SCALE_MIN), bounds.float(), out_int32=True
        )
        return rows.contiguous().numpy()

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

    @torch.no_grad()
    def start_scales(self, scales: Tensor) -> None:
        """Start training from these scales, one per channel of y, through the last bias of h_s.

        h_s gives scales in its first channels. At zero, where it would start, their gradient is dead.
        """
        *_, last = self.h_s.children()
        assert isinstance(last, nn.Conv2d), f"h_s must end in a convolution, got {last}"
        assert last.bias is not None, "h_s must end with a bias"
        last.bias[: len(scales)] = scales

    def _quantise(self, values: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """(what the networks see, what is rated)."""
        if not self.training:
            rounded = torch.round(values - mean) + mean
            return rounded, rounded
        noisy = values + torch.empty_like(values).uniform_(-0.5, 0.5)
        if self.quantiser == "noise":
            return noisy, noisy
        residual = values - mean
        return residual + (torch.round(residual) - residual).detach() + mean, noisy

    def _symbols(self, values: Tensor, mean: Tensor) -> tuple[np.ndarray, Tensor]:
        rounded = torch.round(values - mean)
        return coding.to_symbols(rounded), rounded + mean

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


def check_prior_filters(filters: Sequence[int]) -> None:
    """UserError for widths that no cumulative distribution can have."""
    if not filters:
        raise UserError("entropy_model.prior_filters=[]: needs at least one width, e.g. [3,3]")
    if min(filters) < 1:
        raise UserError(f"entropy_model.prior_filters={list(filters)}: every entry must be at least 1")
