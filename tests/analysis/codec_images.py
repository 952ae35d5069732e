"""Small images with the smooth parts, edges and noise that photos have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photo(width_px: int = 48, height_px: int = 40, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    down, along = np.mgrid[0:height_px, 0:width_px] / 24.0
    waves = [np.sin(down * rng.uniform(0.5, 2) + along * rng.uniform(0.5, 2) + phase) for phase in (0, 1, 2)]
    pixels = 128 + 80 * np.stack(waves, axis=-1) + rng.normal(0, 6, (height_px, width_px, 3))
    pixels[height_px // 3 : height_px // 2, width_px // 4 : width_px // 2] = rng.uniform(0, 255, 3)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def save_photos(
    folder: Path, count: int = 2, sizes: tuple[tuple[int, int], ...] = ((48, 40), (33, 17))
) -> Path:
    """a.png, b.png, ... of the given sizes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        width_px, height_px = sizes[number % len(sizes)]
        Image.fromarray(photo(width_px, height_px, seed=number)).save(folder / f"{chr(97 + number)}.png")
    return folder
