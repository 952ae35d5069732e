"""Energy-based channel gating: an image closes the channels that it hardly uses (Yin et al., ICASSP 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from rdc.models.layers.gate import EnergyGate, gate_convolutions
from rdc.models.layers.gated_parts import GatedPart, check_parts
from rdc.spec import require_number


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Gates with a learned threshold (rdc.models.layers.gate.EnergyGate).

    alpha_target: what the factors of the thresholds are drawn to; larger closes more channels, 1 about half.
    gamma: how strongly: the loss grows by gamma * sum over layers of mean over channels (alpha - target)^2.
    alpha_rate_factor: learning rate of the factors, as a multiple of the recipe's. Channels that close early
      leave the network the more steps to do without them.
    neighbours: channels, itself included, with whose weighted mean energy a channel is compared; null: with
      the geometric mean of its layer. parts: the networks that are gated.
    """

    name: Literal["ecg"] = "ecg"
    alpha_target: float = 1.0
    gamma: float = 0.1
    alpha_rate_factor: float = 100.0
    neighbours: Literal[3, 5] | None = None
    parts: tuple[GatedPart, ...] = ("g_a", "g_s", "h_a")

    def check(self, model: Any) -> None:
        """Needs parts made of convolutions."""
        require_number("gating.alpha_target", self.alpha_target, least=0)
        require_number("gating.gamma", self.gamma, least=0)
        require_number("gating.alpha_rate_factor", self.alpha_rate_factor, above=0)
        check_parts("ecg", self.parts, model)


def install(params: Params, parts: Any) -> None:
    """Gate the networks of a codec, `Codec.parts()`; they compute what they did until alpha is trained."""
    for name in params.parts:
        gate_convolutions(parts[name], lambda channels: EnergyGate(channels, neighbours=params.neighbours))
