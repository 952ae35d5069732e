"""Small untrained models of variable rate that several test files need."""

from __future__ import annotations

from typing import Any

import torch

from rdc.models.codec import Codec, build
from rdc.spec import parse_model
from tests.rdc.shared import TINY_MODEL

MODULATOR: dict[str, Any] = {"name": "modulator"}


def tiny(seed: int = 0, **groups: dict[str, Any]) -> Codec:
    """The smallest codec with a modulator and tables; other groups as given."""
    torch.manual_seed(seed)
    codec = build(parse_model({**TINY_MODEL, "rate_control": MODULATOR, **groups}))
    codec.update(update_quantiles=True)
    return codec.eval()


def restless(codec: Codec, seed: int = 1) -> Codec:
    """Factors that differ between channels, rates and ends, as training makes them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for network in (codec.rate_control.encoder, codec.rate_control.decoder):
            if network is not None:
                network[-1].weight.copy_(0.05 * torch.randn(network[-1].weight.shape, generator=generator))
    return codec


def louder(codec: Codec, factor: float = 20.0) -> Codec:
    """Latents spread over many symbols, which those of a fresh network are not."""
    with torch.no_grad():
        *_, weight, _bias = codec.g_a.parameters()
        weight.mul_(factor)
    return codec
