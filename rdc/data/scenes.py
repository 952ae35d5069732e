"""Synthetic scenes as files in the cache, made once."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from rdc.data.index import DECODERS, Progress, describe, describe_pixels, remember
from rdc.data.roots import cache_root, writable
from rdc.data.sets import ImageFile
from rdc.data.synthetic import GENERATOR_VERSION, scene
from rdc.files import locked


def synthetic_images(seed: int, count: int, *, progress: Progress | None = None) -> list[ImageFile]:
    """The first `count` scenes of a seed as PNG files; later calls find them in the cache."""
    folder = cache_root() / "synthetic" / f"v{GENERATOR_VERSION}-seed{seed}-{count}"
    with writable(folder.parent), locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            return _make(folder, seed, count, progress)
    images, _ = describe([folder / _name(index) for index in range(count)], progress=progress)
    return images


def _make(folder: Path, seed: int, count: int, progress: Progress | None) -> list[ImageFile]:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)

    def make(index: int) -> ImageFile:
        pixels = scene(seed, index)
        file = unfinished / _name(index)
        Image.fromarray(pixels).save(file, compress_level=1)
        return describe_pixels(file, pixels, known_as=folder / file.name)

    images = []
    with ThreadPoolExecutor(DECODERS) as pool:
        for image in pool.map(make, range(count)):
            images.append(image)
            if progress is not None:
                progress(len(images), count, "drawing synthetic scenes")
    os.replace(unfinished, folder)
    remember(images)
    return images


def _name(index: int) -> str:
    return f"scene{index:03d}.png"
