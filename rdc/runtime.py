"""The only stopwatch: encoding and decoding of one image, networks apart from everything else.

Times are wall time from pixels in memory to the file's bytes and back. `network_ms` is spent inside the
networks (g_a, h_a, h_s, context, g_s), `entropy_ms` on all the rest: entropy coding, its tables, checksums,
the container. Nothing else may run on the machine meanwhile; whoever starts a timing sees to that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rdc.bitstream import decode_image, encode_image
from rdc.checkpoint import load_model, model_hash
from rdc.data import read_rgb
from rdc.errors import UserError
from rdc.files import write_sealed
from rdc.machine import (
    device_name,
    device_slug,
    environment,
    node_hash,
    resolve_device,
    set_threads,
    synchronize,
)
from rdc.models.codec import Codec, build, padded_hw
from rdc.result import architecture_label, set_damaged_aside
from rdc.spec import arch_id, component, parse_model

SCHEMA_VERSION = 1
HEIGHT_PX, WIDTH_PX = 512, 768
REPEATS = 5
MIN_REPEATS = 3
BUDGET_S = 4.0  # no further repeat is begun after this, once there are MIN_REPEATS
PAYLOAD_KEYS = {
    "model", "arch_id", "label", "checkpoint", "image", "device", "threads", "precision",
    "height_px", "width_px", "repeats", "out", "lmbda", "spec_id", "mirrored",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles in milliseconds."""

    median: float
    q25: float
    q75: float


@dataclasses.dataclass(frozen=True)
class DirectionTiming:
    """One direction. parts_ms: medians of the single networks, by their names."""

    network_ms: Spread
    entropy_ms: Spread
    total_ms: Spread
    parts_ms: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Timing:
    encode: DirectionTiming
    decode: DirectionTiming
    repeats: int


def time_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Time one architecture as described by plain JSON, and write the answer to payload["out"].

    checkpoint: trained weights, or None for random ones; image: a photo of at least the wanted size, of any
    size if mirrored is true, or None for a synthetic one; lmbda: what a model of variable rate is set to,
    None for the middle of its range. They change entropy coding a little, and the networks only where these
    have gates: spec_id then says of which trial the timing is.
    """
    if unknown := sorted(set(payload) - PAYLOAD_KEYS):
        raise UserError(f"timing: {unknown[0]} is not a known key; known: {', '.join(sorted(PAYLOAD_KEYS))}")
    height_px, width_px = payload.get("height_px", HEIGHT_PX), payload.get("width_px", WIDTH_PX)
    threads, precision = payload.get("threads", 1), payload.get("precision", "fp32")
    device = resolve_device(payload.get("device", "auto"))
    set_threads(threads)
    codec, weights = _codec(payload)
    codec.set_transform_precision(precision)
    if payload.get("lmbda") is not None:
        codec.set_lmbda(float(payload["lmbda"]))
    path, mirrored = payload.get("image"), bool(payload.get("mirrored", False))
    x = timed_image(path, height_px, width_px, mirrored=mirrored).to(device)
    load_before = os.getloadavg()[0]
    started_at = time.time()
    timing = measure(codec.to(device), x, repeats=payload.get("repeats", REPEATS))
    result = {
        "schema_version": SCHEMA_VERSION,
        "arch_id": arch_id(codec.spec),
        **({"spec_id": payload["spec_id"]} if payload.get("spec_id") else {}),
        "label": payload.get("label", architecture_label(codec.spec)),
        "family": codec.spec.family,
        "device": device_name(device),
        "device_slug": device_slug(device),
        "threads": threads,
        "precision": precision,
        "image_px": [height_px, width_px],
        "image": _image_text(path, height_px, width_px),
        "node": node_hash(),
        "alone": True,
        "load_average_before": load_before,
        "started_at": started_at,
        "ended_at": time.time(),
        "weights": weights,
        **dataclasses.asdict(timing),
        "environment": environment(device),
    }
    return write_sealed(payload["out"], result)


class Latents(NamedTuple):
    """What a decoder's networks start from."""

    y_hat: Tensor
    z_hat: Tensor


def random_latents(codec: Codec, height_px: int, width_px: int) -> Latents:
    """Small whole numbers for an image of this size, on the CPU: no encoder has to run to time a decoder."""
    generator = torch.Generator().manual_seed(0)
    stride = component("transform", codec.spec.transform.name).STRIDE
    padded = padded_hw(height_px, width_px, stride=codec.stride)
    y = torch.randn(1, codec.spec.depth.latent_channels, *(s // stride for s in padded), generator=generator)
    channels = codec.entropy_model.entropy_bottleneck.channels
    z = torch.randn(1, channels, *codec.z_hw(height_px, width_px), generator=generator)
    return Latents((2 * y).round(), (2 * z).round())


@torch.no_grad()
def measure(codec: Codec, x: Tensor, *, repeats: int = REPEATS, budget_s: float = BUDGET_S) -> Timing:
    """Encode and decode x, (1, 3, H, W) in [0, 1], on the codec's device; the first round only warms up."""
    codec.eval()
    own_hash = model_hash(codec)
    rows: dict[str, list[dict[str, float]]] = {"encode": [], "decode": []}
    give_up_at = time.perf_counter() + budget_s
    with watched_networks(codec, x.device) as inside_s:
        for number in range(repeats + 1):
            if number > MIN_REPEATS and time.perf_counter() > give_up_at:
                break
            data, encode_s = timed(partial(encode_image, codec, x, own_hash), inside_s, x.device)
            _, decode_s = timed(partial(decode_image, codec, data, own_hash), inside_s, x.device)
            if number:
                rows["encode"].append(encode_s)
                rows["decode"].append(decode_s)
    return Timing(_summary(rows["encode"]), _summary(rows["decode"]), repeats=len(rows["encode"]))


def timed(
    work: Callable[[], Any], inside_s: dict[str, float], device: torch.device
) -> tuple[Any, dict[str, float]]:
    """(what work returns, {"total": seconds, name of network: seconds inside it})."""
    inside_s.clear()
    synchronize(device)
    started = time.perf_counter()
    answer = work()
    synchronize(device)
    return answer, {"total": time.perf_counter() - started, **inside_s}


@contextlib.contextmanager
def watched_networks(codec: Codec, device: torch.device) -> Iterator[dict[str, float]]:
    """A dictionary that collects the seconds spent inside each network while the block runs."""
    inside_s: dict[str, float] = defaultdict(float)
    networks = codec.parts()
    with contextlib.ExitStack() as hooks:
        for name, network in networks.items():
            hooks.callback(_watch(name, network, inside_s, device))
        yield inside_s


def _watch(
    name: str, network: nn.Module, inside_s: dict[str, float], device: torch.device
) -> Callable[[], None]:
    """Add each call's time to inside_s[name]; returns what ends the watch."""
    started: list[float] = []

    def before(*_: Any) -> None:
        synchronize(device)
        started.append(time.perf_counter())

    def after(*_: Any) -> None:
        synchronize(device)
        inside_s[name] += time.perf_counter() - started.pop()

    handles = (network.register_forward_pre_hook(before), network.register_forward_hook(after))

    def end() -> None:
        for handle in handles:
            handle.remove()

    return end


def _summary(rows: list[dict[str, float]]) -> DirectionTiming:
    totals = [row["total"] for row in rows]
    networks = [sum(value for name, value in row.items() if name != "total") for row in rows]
    entropy = [total - network for total, network in zip(totals, networks, strict=True)]
    names = [name for name in rows[0] if name != "total"]
    return DirectionTiming(
        network_ms=spread(networks),
        entropy_ms=spread(entropy),
        total_ms=spread(totals),
        parts_ms={name: spread([row[name] for row in rows]).median for name in names},
    )


def spread(seconds: list[float]) -> Spread:
    """Of seconds, in milliseconds."""
    q25, median, q75 = (round(float(value), 4) for value in np.percentile(seconds, (25, 50, 75)) * 1000)
    return Spread(median=median, q25=q25, q75=q75)


def _codec(payload: Mapping[str, Any]) -> tuple[Codec, str]:
    """(codec with tables, what its weights are)."""
    spec = parse_model(payload["model"])
    if payload.get("arch_id") not in (None, arch_id(spec)):
        raise UserError(f"timing: arch_id={payload['arch_id']!r} is not that of the model, {arch_id(spec)!r}")
    path = payload.get("checkpoint")
    if path is None:
        torch.manual_seed(0)
        codec = build(spec)
        codec.update(force=True, update_quantiles=True)
        return codec, "random"
    codec, metadata = _trained(Path(path))
    if codec.spec != spec:
        raise UserError(
            f"{path}: holds architecture {arch_id(codec.spec)}, not {arch_id(spec)}; name its own"
        )
    measured = payload.get("spec_id")  # one file may be that of several trials
    return codec, f"trained {measured or metadata['extra'].get('spec_id', 'elsewhere')}"


def _trained(path: Path) -> tuple[Codec, dict[str, Any]]:
    """As `load_model`. Damaged weights of a trial are set aside: the sweep's command then trains it again."""
    try:
        return load_model(path)
    except UserError as error:
        cause = set_damaged_aside(path.parent, every_byte=True)
        if cause is None:
            raise
        raise UserError(f"{path.parent}: {cause}; repeat the command to train it again") from error


def timed_image(path: str | None, height_px: int, width_px: int, *, mirrored: bool = False) -> Tensor:
    """(1, 3, height_px, width_px): the middle of a photo, or smooth noise.

    mirrored: a smaller photo is reflected at its edges until it is large enough. What gates close depends on
    what there is to see, so that noise would tell nothing of their time.
    """
    if path is None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(1, 3, height_px // 16 + 1, width_px // 16 + 1, generator=generator)
        return nn.functional.interpolate(coarse, (height_px, width_px), mode="bilinear", align_corners=False)
    pixels = read_rgb(path)
    if mirrored:
        sizes = zip((height_px, width_px), pixels.shape[:2], strict=True)
        more = [max(0, wanted - size) for wanted, size in sizes]
        pixels = np.pad(pixels, [*((n // 2, n - n // 2) for n in more), (0, 0)], mode="symmetric")
    height, width = pixels.shape[:2]
    if height < height_px or width < width_px:
        raise UserError(
            f"{path}: {width}x{height} px is smaller than the {width_px}x{height_px} px to be timed"
        )
    top, left = (height - height_px) // 2, (width - width_px) // 2
    middle = np.array(pixels[top : top + height_px, left : left + width_px])
    return torch.from_numpy(middle).permute(2, 0, 1)[None].float() / 255


def _image_text(path: str | None, height_px: int, width_px: int) -> str:
    """What `timed_image` took, in words: a file's name, and how much of it."""
    if path is None:
        return "synthetic"
    height, width = read_rgb(path).shape[:2]
    if height < height_px or width < width_px:
        return f"{Path(path).name}, mirrored at its edges"
    return Path(path).name if (height, width) == (height_px, width_px) else f"middle of {Path(path).name}"
