"""One model for a range of rates: the latent's channels are scaled by what a small network makes of lmbda.

The bit-rate modulator of Yin et al., "Universal Efficient Variable-rate Neural Image Compression", ICASSP
2022: two fully connected layers map lmbda to a vector by which y is multiplied before the entropy model,
whose networks see nothing else of lmbda. Only its poster was at hand. What that leaves open is decided here:
the network's input is the logarithm of lmbda, its output goes through an exponential, and the decoder undoes
the scaling with a network of its own, as in the modulated autoencoder (Yang et al., IEEE Signal Processing
Letters 2020).

A rate travels as a code, a whole number from 0 to MAX_RATE_CODE. Both ends derive everything from it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rdc.bitstream import MAX_RATE_CODE, require_rate_code
from rdc.errors import UserError
from rdc.spec import require_number

# Factors lie between e^-8 and e^8, a range of 10^7: finite and positive whatever the weights.
MAX_LOG_FACTOR = 8.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The defaults are the lmbdas of CompressAI's eight qualities.

    lmbdas: what the images of a batch are trained for, in rising order; the model then takes every value
      from the first to the last. hidden: width of the networks between their two layers.
    inverse: what the decoder multiplies by. learned: factors of a network of its own; reciprocal: one over
      the encoder's. per: a factor for each channel of the latent, or a single one (scalar) for all of them.
    """

    name: Literal["modulator"] = "modulator"
    lmbdas: tuple[float, ...] = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)
    hidden: int = 128
    inverse: Literal["learned", "reciprocal"] = "learned"
    per: Literal["channel", "scalar"] = "channel"

    def check(self, model: Any) -> None:
        """Fits every model, with lmbdas that span a range."""
        for lmbda in self.lmbdas:
            require_number("rate_control.lmbdas", lmbda, above=0)
        rising = all(low < high for low, high in zip(self.lmbdas, self.lmbdas[1:], strict=False))
        if len(self.lmbdas) < 2 or not rising:
            raise UserError(
                f"rate_control.lmbdas={list(self.lmbdas)}: needs at least two, in rising order and each "
                "once; for a single one use rate_control=none"
            )
        require_number("rate_control.hidden", self.hidden, least=1)

    def check_lmbda(self, lmbda: float) -> None:
        """UserError for a rate that the model is not trained for."""
        lowest, highest = self.lmbdas[0], self.lmbdas[-1]
        if not lowest <= lmbda <= highest:
            raise UserError(
                f"lmbda={lmbda:g}: lies outside of the range that the model is trained for, {lowest:g} to "
                f"{highest:g}; choose one inside, or train with other rate_control.lmbdas"
            )

    def code_of(self, lmbda: float) -> int:
        """The code whose lmbda is nearest in logarithm; UserError outside of the trained range."""
        self.check_lmbda(lmbda)
        lowest, highest = self.lmbdas[0], self.lmbdas[-1]
        share = math.log(lmbda / lowest) / math.log(highest / lowest)
        return min(MAX_RATE_CODE, max(0, round(share * MAX_RATE_CODE)))

    def lmbda_of(self, code: int) -> float:
        """Evenly in logarithm over the range, both ends exactly."""
        require_rate_code(code)
        lowest, highest = self.lmbdas[0], self.lmbdas[-1]
        if code in (0, MAX_RATE_CODE):
            return highest if code else lowest
        return lowest * (highest / lowest) ** (code / MAX_RATE_CODE)

    def lmbdas_of_images(self, first: int, count: int, *, seed: int, step: int) -> list[float]:
        """What the images from place `first` of a training batch are trained for.

        As many images in a row as there are lmbdas have each of them once, in an order drawn from the seed,
        the step and the row's number: an image's lmbda depends on its place alone, not on who computes it.
        """
        places = range(first, first + count)
        size = len(self.lmbdas)
        orders = {row: _order(size, seed, step, row) for row in {place // size for place in places}}
        return [self.lmbdas[orders[place // size][place % size]] for place in places]


def _order(size: int, seed: int, step: int, row: int) -> list[int]:
    # A spawn key keeps these numbers apart from those that choose the step's crops.
    sequence = np.random.SeedSequence(seed, spawn_key=(step, row))
    return [int(i) for i in np.random.default_rng(sequence).permutation(size)]


class Modulator(nn.Module):
    """Factors of the latent on both sides of the entropy model; all are 1 until it is trained.

    Kept in fp32 whatever the precision of the transforms.
    """

    def __init__(self, params: Params, latent_channels: int) -> None:
        super().__init__()
        outputs = latent_channels if params.per == "channel" else 1
        self.encoder = _network(params.hidden, outputs)
        self.decoder = _network(params.hidden, outputs) if params.inverse == "learned" else None

    def forward(self, latent: Tensor, codes: Sequence[int], *, undo: bool = False) -> Tensor:
        """latent: (B, latent_channels, h, w), codes: one per image -> latent times its factors.

        undo: as the decoder does it, of the entropy model's y_hat.
        """
        factors = self.factors(codes, undo=undo)
        return (latent * factors[:, :, None, None]).contiguous()

    def factors(self, codes: Sequence[int], *, undo: bool = False) -> Tensor:
        """(len(codes), latent_channels or 1), fp32, positive."""
        device = next(self.parameters()).device
        inputs = torch.tensor([[2 * code / MAX_RATE_CODE - 1] for code in codes], device=device)
        network = self.decoder if undo and self.decoder is not None else self.encoder
        factors: Tensor = network(inputs).clamp(-MAX_LOG_FACTOR, MAX_LOG_FACTOR).exp()
        return factors.reciprocal() if undo and self.decoder is None else factors


def build(params: Params, latent_channels: int) -> Modulator:
    """With weights from torch's global generator, which goes on as if none had been drawn.

    The same seed then gives all other networks the weights, and a training the noise, that they have without.
    """
    with torch.random.fork_rng(devices=[]):
        return Modulator(params, latent_channels)


def _network(hidden: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), last)
