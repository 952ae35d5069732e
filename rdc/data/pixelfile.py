"""One flat file of decoded pixels per image set and node, written once and mapped by every process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rdc.data.images import pixel_sha256, read_rgb
from rdc.data.index import DECODERS, Progress
from rdc.data.roots import writable
from rdc.data.sets import ImageFile
from rdc.errors import UserError
from rdc.files import atomic_write_json, locked, remove_leftovers, set_aside

_log = logging.getLogger(__name__)

LAYOUT_VERSION = 1
SPARE_BYTES = 2**30  # left free on the disk for results
UNUSED_S = 30 * 86400.0  # files that nobody opened for so long make room for new ones


def open_pixels(
    folder: Path, content_hash: str, images: Sequence[ImageFile], progress: Progress | None = None
) -> np.ndarray | None:
    """The pixels of `images`, one after the other as (H, W, 3), in a read-only map; uint8.

    The first process writes the file, the others wait for it. A damaged file is set aside under another name
    and written anew. None if the disk has no room.
    """
    file = pixel_file(folder, content_hash, images)
    with writable(folder), locked(file.with_suffix(".lock")):
        if not _is_whole(file, images):
            give_up(file)
            remove_leftovers(folder, f"{file.stem}.json")
            _remove_unused(folder)
            if not _has_room(folder, images):
                return None
            _write(file, images, progress)
        os.utime(file.with_suffix(".json"))  # the time of last use
        return np.memmap(file, np.uint8, mode="r")


def pixel_file(folder: Path, content_hash: str, images: Sequence[ImageFile]) -> Path:
    return folder / f"{content_hash}-{len(images)}.u8"


def give_up(file: Path) -> None:
    """Set a damaged file aside, for the next process to write it anew; who has mapped it keeps the map."""
    with contextlib.suppress(FileNotFoundError):  # another process may have seen it too
        aside = set_aside(file)
        _log.warning("%s is damaged: kept as %s, and decoded anew", file, aside.name)


def read_checked(image: ImageFile) -> np.ndarray:
    """Decode an image of a set; UserError if its file no longer shows what the set was made from."""
    pixels = read_rgb(image.path)
    if pixel_sha256(pixels) != image.sha256:
        raise UserError(
            f"{image.path}: has changed since this sweep looked at it; repeat the command to use it as it is"
        )
    pixels.setflags(write=False)
    return pixels


def offsets(images: Sequence[ImageFile]) -> dict[str, int]:
    """Where each image begins in the file, by its hash."""
    out, end = {}, 0
    for image in images:
        out[image.sha256] = end
        end += 3 * image.pixels
    return out


def total_bytes(images: Sequence[ImageFile]) -> int:
    return sum(3 * image.pixels for image in images)


def _is_whole(file: Path, images: Sequence[ImageFile]) -> bool:
    """Whether the file holds these images; all samples are compared if it was touched since the last time."""
    if not file.exists() or file.stat().st_size != total_bytes(images):
        return False
    if _read_index(file) == _index(file, images):
        return True
    flat = np.memmap(file, np.uint8, mode="r")
    for image, start in zip(images, offsets(images).values(), strict=True):
        pixels = flat[start : start + 3 * image.pixels].reshape(image.height_px, image.width_px, 3)
        if pixel_sha256(pixels) != image.sha256:
            return False
    atomic_write_json(file.with_suffix(".json"), _index(file, images))
    return True


def _write(file: Path, images: Sequence[ImageFile], progress: Progress | None) -> None:
    unfinished = file.with_suffix(".unfinished")
    with open(unfinished, "wb") as out, ThreadPoolExecutor(DECODERS) as pool:
        try:
            # Few at a time: the whole set may be larger than the memory.
            for start in range(0, len(images), 4 * DECODERS):
                for pixels in pool.map(read_checked, images[start : start + 4 * DECODERS]):
                    out.write(pixels.data)
                if progress is not None:
                    progress(min(start + 4 * DECODERS, len(images)), len(images), "decoding images")
        except BaseException:
            unfinished.unlink()
            raise
        out.flush()
        os.fsync(out.fileno())
    os.replace(unfinished, file)
    atomic_write_json(file.with_suffix(".json"), _index(file, images))


def _index(file: Path, images: Sequence[ImageFile]) -> dict[str, Any]:
    """What the file holds, and the stamp by which a later process knows that nobody touched it."""
    status = file.stat()
    entries = [[image.sha256, image.height_px, image.width_px] for image in images]
    return {"layout": LAYOUT_VERSION, "stamp": [status.st_size, status.st_mtime_ns], "images": entries}


def _read_index(file: Path) -> Any:
    try:
        return json.loads(file.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return None


def _remove_unused(folder: Path) -> None:
    for index in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # another process may be at the same
            if time.time() - index.stat().st_mtime > UNUSED_S:
                for old in (*folder.glob(f"{index.stem}.u8*"), index):
                    old.unlink(missing_ok=True)


def _has_room(folder: Path, images: Sequence[ImageFile]) -> bool:
    needed, free = total_bytes(images) + SPARE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        _log.warning(
            "%s: %.1f GB free, %.1f GB needed; images are decoded when they are needed, which is slower",
            folder,
            free / 1e9,
            needed / 1e9,
        )
    return needed <= free
