"""What a gated model costs: another count for every image, taken while the image is really coded.

Two counts that must agree. Operators: multiply-accumulates of what `compress` and `decompress` run, on the
gathered path, counted as they are dispatched. Masks: the dense count without the closed channels, from what
the gates decided. Per source pixel; the whole model, and the convolutions of its transforms alone, without
divisive normalisation and context networks, which is what is gated.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from rdc.complexity import Complexity, count, measure, on_meta
from rdc.models.codec import Codec
from rdc.models.layers.gate import Decision, decisions, gated_layers
from rdc.spec import ModelSpec

T = TypeVar("T")
Direction = Literal["encode", "decode"]
DIRECTIONS: tuple[Direction, ...] = ("encode", "decode")
TRANSFORMS = ("g_a", "h_a", "h_s", "g_s")


@dataclasses.dataclass(slots=True)
class ImageCost:
    """One image. counted: multiply-accumulates of the operators that ran. decided: what the gates said."""

    height_px: int
    width_px: int
    counted: dict[Direction, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(DIRECTIONS, 0))
    decided: dict[Direction, list[Decision]] = dataclasses.field(
        default_factory=lambda: {direction: [] for direction in DIRECTIONS}
    )

    def closed_macs(self, direction: Direction) -> int:
        """What the closed channels would have taken."""
        return sum(int((~d.opened).sum()) * d.macs_per_channel for d in self.decided[direction])

    def kmac_per_px(self, direction: Direction) -> float:
        return self.counted[direction] / (1000 * self.height_px * self.width_px)


class CostMeter:
    """Counts what a codec runs while images are coded; runs it uncounted if nothing in it is gated."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._layers = gated_layers(codec)
        self.images: list[ImageCost] = []

    def next_image(self, height_px: int, width_px: int) -> None:
        """What is run from now on is for an image of this size."""
        self.images.append(ImageCost(height_px, width_px))

    def run(self, direction: Direction, networks: Callable[[], T]) -> T:
        """networks(), counted for the current image."""
        if not self._layers:
            return networks()
        image, found = self.images[-1], []
        with decisions() as log:
            counted = count(lambda: found.append(networks()), self._codec.parts())
        image.counted[direction] += sum(counted.flop.values()) // 2
        image.decided[direction] += log
        return found[0]

    def per_image(self) -> list[dict[str, float]]:
        """encode_kmac_per_px and decode_kmac_per_px of each image; empty dicts without gates."""
        if not self._layers:
            return [{} for _ in self.images]
        return [{f"{d}_kmac_per_px": image.kmac_per_px(d) for d in DIRECTIONS} for image in self.images]

    def to_dict(self) -> dict[str, Any] | None:
        """The section `gating` of a result; None without gates."""
        if not self._layers:
            return None
        rates = {d: _Rates.of(self._codec.spec, self.images, d) for d in DIRECTIONS}
        return {
            "images": len(self.images),
            **{f"{d}_kmac_per_px": _spread(rates[d].counted) for d in DIRECTIONS},
            **{f"{d}_kmac_per_px_by_masks": _spread(rates[d].by_masks) for d in DIRECTIONS},
            **{f"dense_{d}_kmac_per_px": float(np.mean(rates[d].dense)) for d in DIRECTIONS},
            **{f"conv_{d}_kmac_per_px": float(np.mean(rates[d].conv)) for d in DIRECTIONS},
            **{f"dense_conv_{d}_kmac_per_px": float(np.mean(rates[d].dense_conv)) for d in DIRECTIONS},
            **_shares([d for image in self.images for d in _all_decisions(image)]),
            "layers": self._by_layer(),
        }

    def _by_layer(self) -> list[dict[str, Any]]:
        names = {id(layer.channel_gate): name for name, layer in self._layers.items()}
        decided: dict[str, list[Decision]] = {name: [] for name in self._layers}
        for image in self.images:
            for decision in _all_decisions(image):
                decided[names[id(decision.gate)]].append(decision)
        total = sum(d.macs_per_channel * d.opened.numel() for found in decided.values() for d in found)
        rows = []
        for name, found in decided.items():
            opened = [int(d.opened.sum()) for d in found]
            macs = sum(d.macs_per_channel * d.opened.numel() for d in found)
            rows.append(
                {
                    "name": name,
                    "in_channels": found[0].opened.numel(),
                    "open": float(np.mean(opened)),
                    "open_std": float(np.std(opened)),
                    "natural_zero": _shares(found)["natural_sparsity"],
                    "macs_share": macs / total,
                }
            )
        return rows


@dataclasses.dataclass(frozen=True, slots=True)
class _Rates:
    """kMAC per source pixel of each image, in one direction."""

    counted: list[float]
    by_masks: list[float]
    dense: list[float]
    conv: list[float]
    dense_conv: list[float]

    @classmethod
    def of(cls, spec: ModelSpec, images: Sequence[ImageCost], direction: Direction) -> _Rates:
        columns: list[list[float]] = [[], [], [], [], []]
        for image in images:
            size = (image.height_px, image.width_px)
            dense = sum(dense_cost(spec, *size).operations[direction]["executed"].values()) // 2
            conv, closed = conv_macs(spec, *size)[direction], image.closed_macs(direction)
            macs = (image.counted[direction], dense - closed, dense, conv - closed, conv)
            for column, value in zip(columns, macs, strict=True):
                column.append(value / (1000 * image.height_px * image.width_px))
        return cls(*columns)


@functools.lru_cache(maxsize=64)
def dense_cost(spec: ModelSpec, height_px: int, width_px: int) -> Complexity:
    """With every channel open."""
    return measure(spec, height_px, width_px)


@functools.lru_cache(maxsize=64)
def conv_macs(spec: ModelSpec, height_px: int, width_px: int) -> Mapping[Direction, int]:
    """Of the convolutions in the four transforms alone, with every channel open."""
    codec = on_meta(spec)
    layers = {
        f"{part}.{name}": layer
        for part in TRANSFORMS
        for name, layer in codec.parts()[part].named_modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    }
    x = torch.empty(1, 3, height_px, width_px, device="meta")
    with torch.no_grad():
        y, z = codec.encoder_networks(x)
        passes = {
            "encode": count(lambda: codec.encoder_networks(x), layers, rest="rest"),
            "decode": count(lambda: codec.decoder_networks(y, z), layers, rest="rest"),
        }
    return {d: sum(passes[d].flop[name] for name in layers) // 2 for d in DIRECTIONS}


def _all_decisions(image: ImageCost) -> list[Decision]:
    return [decision for direction in DIRECTIONS for decision in image.decided[direction]]


def _shares(found: Sequence[Decision]) -> dict[str, float | None]:
    """Shares of the multiply-accumulates of the gated convolutions.

    sparsity: closed. natural_sparsity: of channels that are zero everywhere, whose products change nothing;
    learned_sparsity: closed though they carry something. The latter two are None where no energy was needed.
    """
    total = closed = natural = learned = 0
    for d in found:
        total += d.macs_per_channel * d.opened.numel()
        closed += d.macs_per_channel * int((~d.opened).sum())
        if d.energies is not None:
            natural += d.macs_per_channel * int((d.energies == 0).sum())
            learned += d.macs_per_channel * int((~d.opened & (d.energies > 0)).sum())
    known = all(d.energies is not None for d in found)
    return {
        "sparsity": closed / total,
        "natural_sparsity": natural / total if known else None,
        "learned_sparsity": learned / total if known else None,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }
