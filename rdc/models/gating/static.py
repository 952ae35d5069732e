"""Channels closed once and for all: what a gate per image has to beat at the same cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rdc.errors import UserError
from rdc.models.layers.gate import FixedGate, gate_convolutions, gated_layers
from rdc.models.layers.gated_parts import GatedPart, check_parts
from rdc.spec import require_number


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Each layer keeps the channels that carry most energy in training images when a training begins.

    keep: share of each layer's input channels. channels: how many each gated layer keeps instead, in the
    order of the network: g_a, h_a, g_s, whatever the order of parts; null: by keep. parts: the networks that
    are gated.
    """

    name: Literal["static"] = "static"
    keep: float = 0.5
    channels: tuple[int, ...] | None = None
    parts: tuple[GatedPart, ...] = ("g_a", "g_s", "h_a")

    def check(self, model: Any) -> None:
        """Needs parts made of convolutions."""
        require_number("gating.keep", self.keep, above=0)
        if self.keep > 1:
            raise UserError(f"gating.keep={self.keep:g}: it is a share, at most 1")
        if self.channels is not None and min(self.channels, default=0) < 1:
            raise UserError(f"gating.channels={list(self.channels)}: every layer must keep a channel")
        check_parts("static", self.parts, model)


def install(params: Params, parts: Any) -> None:
    """Gate the networks of a codec, `Codec.parts()`; all channels stay open until `choose` closes some.

    UserError where the numbers of channels are not those of the layers.
    """
    for name in params.parts:
        gate_convolutions(parts[name], FixedGate)
    if params.channels is not None:
        widths = {
            f"{part}.{name}": layer.in_channels
            for part, network in parts.items()
            for name, layer in gated_layers(network).items()
        }
        _check_channels(params.channels, widths)


def _check_channels(channels: Sequence[int], widths: Mapping[str, int]) -> None:
    """widths: input channels of every gated layer, in the order of the network."""
    layers = ", ".join(f"{name} of {width}" for name, width in widths.items())
    if len(channels) != len(widths):
        raise UserError(
            f"gating.channels has {len(channels)} entries; the model has {len(widths)} gated layers: {layers}"
        )
    for count, (name, width) in zip(channels, widths.items(), strict=True):
        if count > width:
            raise UserError(f"gating.channels: {count} for {name}, which has {width} channels ({layers})")
