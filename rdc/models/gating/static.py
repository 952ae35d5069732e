"""Channels closed once and for all: what a gate per image has to beat at the same cost."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from rdc.errors import UserError
from rdc.models.layers.gate import FixedGate, gate_convolutions
from rdc.models.layers.gated_parts import GatedPart, check_parts
from rdc.spec import require_number


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Each layer keeps the channels that carry most energy in training images when a training begins.

    keep: share of each layer's input channels. channels: how many each gated layer keeps instead, in the
    order of parts; null: by keep. parts: the networks that are gated.
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
    """Gate the networks of a codec, `Codec.parts()`; all channels stay open until `choose` closes some."""
    for name in params.parts:
        gate_convolutions(parts[name], FixedGate)
