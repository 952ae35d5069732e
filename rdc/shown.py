"""Crops of a few images and their reconstructions, kept beside a result for people to look at."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rdc.files import atomic_write_bytes

SHOWN_FOLDER = "shown"
SHOWN_SIDE_PX = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """One image. crop: top, left, height and width in pixels of the image; files: relative to the trial."""

    name: str
    crop: tuple[int, int, int, int]
    file: str
    original: str

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "crop": list(self.crop)}


def write_shown(folder: Path, panels: Sequence[tuple[str, Tensor, Tensor]]) -> tuple[Shown, ...]:
    """Write the middles, at most SHOWN_SIDE_PX a side, of images and reconstructions as lossless PNG.

    folder: the trial's. panels: name, x and x_hat, (1, 3, H, W) on the 8-bit grid of [0, 1].
    """
    shown = []
    for (name, x, x_hat), stem in zip(panels, _stems([name for name, *_ in panels]), strict=True):
        file, original = f"{SHOWN_FOLDER}/{stem}.png", f"{SHOWN_FOLDER}/{stem}.original.png"
        for path, pixels in ((original, to_uint8(x)), (file, to_uint8(x_hat))):
            atomic_write_bytes(folder / path, _png(middle(pixels, SHOWN_SIDE_PX)))
        crop = middle_crop(x.shape[-2], x.shape[-1], SHOWN_SIDE_PX)
        shown.append(Shown(name=name, crop=crop, file=file, original=original))
    return tuple(shown)


def middle_crop(height_px: int, width_px: int, side_px: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the middle, at most side_px a side."""
    top, left = (max(0, (length - side_px) // 2) for length in (height_px, width_px))
    return top, left, min(side_px, height_px), min(side_px, width_px)


def middle(pixels: np.ndarray, side_px: int) -> np.ndarray:
    """(H, W, 3) -> its middle, at most side_px a side."""
    top, left, height, width = middle_crop(pixels.shape[0], pixels.shape[1], side_px)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def to_uint8(x: Tensor) -> np.ndarray:
    """(1, 3, H, W) on the 8-bit grid of [0, 1] -> (H, W, 3) uint8."""
    return np.ascontiguousarray((x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def _stems(names: Sequence[str]) -> list[str]:
    """A file name for each image: its own without the ending, of letters that every file system takes."""
    stems = [re.sub(r"[^A-Za-z0-9_-]", "_", Path(name).stem)[:60] for name in names]
    alike = len(set(map(str.lower, stems))) < len(stems)
    return [f"{number}_{stem}" for number, stem in enumerate(stems)] if alike else stems


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
