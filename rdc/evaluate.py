"""The final numbers of a codec: every image really coded to a file's bytes and decoded from them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from rdc import bitstream
from rdc.checkpoint import model_hash
from rdc.data import ImageFile, PixelCache
from rdc.files import atomic_write_bytes
from rdc.gated_cost import CostMeter
from rdc.loss import rd_loss
from rdc.memory import WAY_OUT, OutOfMemory, first_words, where_memory_ran_out
from rdc.metrics import finite_or_none, ms_ssim, ms_ssim_db, mse, psnr_db, to_8bit
from rdc.models.codec import Codec, pad
from rdc.models.layers import coding
from rdc.shown import Shown, middle, to_uint8, write_shown

# Coded over estimated bits may differ by this much, summed over the set, above and below LOW_RATE_BPP.
RATE_TOLERANCE, LOW_RATE_TOLERANCE, LOW_RATE_BPP = 0.01, 0.02, 0.2
# An entropy coder ends each stream with its state. On thumbnails this alone exceeds the tolerance.
TERMINATION_BITS = 64

GRID_IMAGES = 4
GRID_SIDES_PX = (256, 192, 128, 64)
GRID_MAX_BYTES = 1_500_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageScores:
    """One image. bpp: of the whole coded file; bpp_payload: of the entropy coder's bytes; mse on [0, 1].

    psnr_db is +inf for an exact reconstruction; ms_ssim is None if not asked for or the image is too small.
    """

    name: str
    width_px: int
    height_px: int
    bpp: float
    bpp_payload: float
    bpp_estimated: float
    psnr_db: float
    mse: float
    ms_ssim: float | None
    rd_loss: float

    @property
    def pixels(self) -> int:
        return self.width_px * self.height_px


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All images of a set, in order. files: the coded bytes; pixel_sha256: of the decoded 8-bit pixels.

    lmbda_code: the rate code of a model of variable rate. shown: crops that were kept to look at.
    gating, costs: of a gated model, what it cost (rdc.gated_cost), over the set and for each image.
    """

    images: tuple[ImageScores, ...]
    files: tuple[bytes, ...]
    pixel_sha256: tuple[str, ...]
    padded_px_ratio: float
    precision: str
    wall_s: float
    streams_per_image: int = 2
    shown: tuple[Shown, ...] = ()
    lmbda_code: int | None = None
    gating: dict[str, Any] | None = None
    costs: tuple[dict[str, float], ...] = ()

    @property
    def payload_bits(self) -> float:
        return sum(image.bpp_payload * image.pixels for image in self.images)

    @property
    def estimated_bits(self) -> float:
        return sum(image.bpp_estimated * image.pixels for image in self.images)

    @property
    def rate_gap_pct(self) -> float:
        """Payload over estimate, both summed over the set, in per cent; positive: the files are larger."""
        return 100 * (self.payload_bits / self.estimated_bits - 1)

    @property
    def rate_agrees(self) -> bool:
        """Whether the coded files are as large as the likelihoods promise."""
        pixels = sum(image.pixels for image in self.images)
        high = self.estimated_bits / pixels > LOW_RATE_BPP
        tolerated = (RATE_TOLERANCE if high else LOW_RATE_TOLERANCE) * self.estimated_bits
        terminations = self.streams_per_image * len(self.images) * TERMINATION_BITS
        return abs(self.payload_bits - self.estimated_bits) <= max(tolerated, terminations)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON; means are over images, infinite decibels are null."""
        rows = [dataclasses.asdict(image) for image in self.images]
        costs = self.costs or ({},) * len(rows)
        mean_mse = float(np.mean([image.mse for image in self.images]))
        return {
            **{name: _mean(rows, name) for name in ("bpp", "bpp_payload", "bpp_estimated", "psnr_db")},
            "rate_gap_pct": self.rate_gap_pct,
            "psnr_of_mean_mse_db": finite_or_none(psnr_db(mean_mse)),
            "mse": mean_mse,
            "ms_ssim": _mean(rows, "ms_ssim"),
            # The mean of the decibels, which is not the decibels of the mean.
            "ms_ssim_db": self._mean_ms_ssim_db(),
            "rd_loss": _mean(rows, "rd_loss"),
            "padded_px_ratio": self.padded_px_ratio,
            "precision": self.precision,
            "lmbda_code": self.lmbda_code,
            "wall_s": round(self.wall_s, 3),
            "per_image": [
                {**row, "psnr_db": finite_or_none(row["psnr_db"]), **cost}
                for row, cost in zip(rows, costs, strict=True)
            ],
            **({"gating": self.gating} if self.gating is not None else {}),
            "shown": [shown.to_dict() for shown in self.shown],
        }

    def _mean_ms_ssim_db(self) -> float | None:
        values = [image.ms_ssim for image in self.images]
        if None in values:
            return None
        return finite_or_none(float(np.mean([ms_ssim_db(value) for value in values if value is not None])))


@torch.no_grad()
def evaluate(
    codec: Codec,
    images: PixelCache,
    *,
    lmbda: float,
    with_ms_ssim: bool = True,
    grid: Path | None = None,
    shown_in: Path | None = None,
) -> Evaluation:
    """Code and decode every image; the codec has its tables, and is left at this lmbda.

    grid: where to put a PNG of a few images to look at. shown_in: the folder for their crops (rdc.shown).
    """
    codec.eval()
    codec.set_lmbda(lmbda)
    started_s = time.perf_counter()
    device = next(codec.parameters()).device
    own_hash = model_hash(codec)
    meter = CostMeter(codec)
    scores, files, digests, panels = [], [], [], []
    looked_at = _spread(len(images), GRID_IMAGES)
    padded_pixels = 0
    for index, file in enumerate(images.images.images):
        x = images.tensor(index)
        meter.next_image(file.height_px, file.width_px)
        with _memory_for(file):
            data, estimated_bits, payload_bytes, padded = _encode(codec, x.to(device), own_hash, meter)
            decoded = meter.run(
                "decode", partial(bitstream.decode_image, codec, data, own_hash, name=file.name)
            )
            x_hat = to_8bit(decoded).cpu()
        padded_pixels += padded
        error = mse(x, x_hat)
        bpp = 8 * len(data) / file.pixels
        scores.append(
            ImageScores(
                name=file.name,
                width_px=file.width_px,
                height_px=file.height_px,
                bpp=bpp,
                bpp_payload=8 * payload_bytes / file.pixels,
                bpp_estimated=estimated_bits / file.pixels,
                psnr_db=psnr_db(error),
                mse=error,
                ms_ssim=ms_ssim(x[0], x_hat[0]) if with_ms_ssim else None,
                rd_loss=rd_loss(bpp, error, lmbda),
            )
        )
        files.append(data)
        digests.append(pixel_digest(x_hat))
        if index in looked_at:
            panels.append((x, x_hat, scores[-1]))
    if grid is not None:
        write_grid(grid, panels)
    named = [(score.name, x, x_hat) for x, x_hat, score in panels]
    return Evaluation(
        images=tuple(scores),
        files=tuple(files),
        pixel_sha256=tuple(digests),
        padded_px_ratio=padded_pixels / sum(score.pixels for score in scores),
        precision=codec.transform_precision,
        wall_s=time.perf_counter() - started_s,
        streams_per_image=codec.entropy_model.num_streams,
        shown=write_shown(shown_in, named) if shown_in is not None else (),
        lmbda_code=codec.rate_code,
        gating=meter.to_dict(),
        costs=tuple(meter.per_image()),
    )


@contextlib.contextmanager
def _memory_for(file: ImageFile) -> Iterator[None]:
    """An image is coded whole: where memory is too small for it, there is nothing smaller to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        place = where_memory_ran_out(error)
        if place is None:
            raise
        raise OutOfMemory(
            f"{place} memory ran out while {file.name} of {file.width_px}x{file.height_px} px was "
            f"coded ({first_words(error)}); {WAY_OUT}"
        ) from error


def pixel_digest(x_hat: Tensor) -> str:
    """SHA-256 of the 8-bit pixels of a reconstruction, (1, 3, H, W) in [0, 1], row by row as R, G, B."""
    return hashlib.sha256(to_uint8(x_hat).tobytes()).hexdigest()


def _encode(codec: Codec, x: Tensor, own_hash: bytes, meter: CostMeter) -> tuple[bytes, float, int, int]:
    """(file, estimated bits, payload bytes, coded pixels); g_a runs once, for estimate and file."""
    padded, size = pad(x, codec.stride)
    y = meter.run("encode", lambda: codec.analysis(padded))
    estimated_bits = coding.estimated_bits(codec.entropy_model(codec.modulated(y)).likelihoods)
    coded = meter.run("encode", lambda: codec.compress_latent(y))
    stream = bitstream.stream_of(coded, size, own_hash)
    data = bitstream.to_bytes(stream)
    return data, estimated_bits, stream.payload_bytes, padded.shape[-2] * padded.shape[-1]


def write_grid(path: Path, panels: list[tuple[Tensor, Tensor, ImageScores]]) -> None:
    """Middles of a few images beside their reconstructions, as one PNG of at most GRID_MAX_BYTES."""
    for side_px in GRID_SIDES_PX:
        data = _grid_png(panels, side_px)
        if len(data) <= GRID_MAX_BYTES:
            break
    atomic_write_bytes(path, data)


def _grid_png(panels: list[tuple[Tensor, Tensor, ImageScores]], side_px: int) -> bytes:
    gap_px, caption_px = 4, 14
    row_px = side_px + caption_px + gap_px
    canvas = Image.new("RGB", (2 * side_px + gap_px, row_px * len(panels)), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (x, x_hat, score) in enumerate(panels):
        caption = f"{score.name[:24]}   {score.bpp:.3f} bpp   {score.psnr_db:.2f} dB"
        pen.text((2, row * row_px), caption, fill="black")
        for column, image in enumerate((x, x_hat)):
            corner = (column * (side_px + gap_px), row * row_px + caption_px)
            canvas.paste(Image.fromarray(middle(to_uint8(image), side_px)), corner)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _mean(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows]
    return None if None in values else finite_or_none(float(np.mean(values)))


def _spread(count: int, wanted: int) -> set[int]:
    """At most `wanted` indices, evenly over range(count)."""
    return {int(i) for i in np.linspace(0, count - 1, min(wanted, count)).round()}
