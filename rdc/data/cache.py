"""Decoded pixels in one memory-mapped file per image set and node, and the crops that training draws from it."""

from __future__ import annotations

import collections
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdc.data.images import pixel_sha256, read_rgb
from rdc.data.index import DECODERS, Progress
from rdc.data.roots import cache_root
from rdc.data.sets import ImageFile, ImageSet
from rdc.errors import UserError
from rdc.files import locked

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

LAYOUT_VERSION = 1
DECODED_BYTES = 256 * 2**20  # of images outside the file, per process; the least recently used go first
FREE_BYTES = 2**30  # left on the disk for others
UNUSED_S = 30 * 86400.0  # a pixel file that nobody opened for so long makes room for a new one


class PixelCache:
    """The decoded images of one set.

    As many images as fit into cache_gb (in the order of their hashes) lie in <cache>/pixels/<hash>-<count>.u8, flat
    (H, W, 3) uint8, which the first process on a node writes under a lock and all others map. The remaining ones
    are decoded when they are needed and kept for a while.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        cache_gb: float = 4.0,
        root: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        if not cache_gb >= 0:
            raise UserError(f"data.cache_gb={cache_gb}: must be 0 or more")
        self.images = images
        # Crops must depend on what the images show, not on how their files are called: hence the order by hash.
        self._by_hash = sorted(images.images, key=lambda image: image.sha256)
        folder = (root or cache_root()) / "pixels"
        held = self._by_hash[: _count_that_fits(self._by_hash, cache_gb, folder)]
        self._offsets = _offsets(held)
        self._pixels = _open_or_build(folder, images.content_hash, held, progress) if held else None
        self._decoded = _Decoded(DECODED_BYTES)
        self._usable: dict[int, list[ImageFile]] = {}
        self._orders: dict[tuple[int, int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.images)

    @property
    def held(self) -> int:
        """How many images are in the mapped file; the others are decoded on demand."""
        return len(self._offsets)

    def image(self, index: int) -> np.ndarray:
        """Pixels of image `index` of the set, (H, W, 3) uint8, read-only."""
        return self._read(self.images.images[index])

    def tensor(self, index: int) -> torch.Tensor:
        """Image `index` of the set as (1, 3, H, W) float32 in [0, 1]."""
        import torch

        pixels = torch.from_numpy(np.array(self.image(index)))
        return pixels.permute(2, 0, 1)[None].float().div_(255)

    def excluded(self, crop_px: int) -> int:
        """How many images are too small for crops of this size and take no part in training."""
        return len(self) - len(self._large_enough(crop_px))

    def crops(self, step: int, batch_size: int, crop_px: int, seed: int) -> torch.Tensor:
        """(B, 3, crop_px, crop_px) float32 in [0, 1], channels_last; a function of the arguments alone."""
        return self.crops_uint8(step, batch_size, crop_px, seed).float().div_(255)

    def crops_uint8(self, step: int, batch_size: int, crop_px: int, seed: int) -> torch.Tensor:
        """The same crops as uint8, a quarter of the bytes on the way to a GPU.

        Every image large enough is drawn once per pass over the set, in an order of its own for each pass; position
        and horizontal flip are uniform. UserError if no image is large enough.
        """
        import torch

        usable = self._large_enough(crop_px)
        out = np.empty((batch_size, crop_px, crop_px, 3), np.uint8)
        draws = np.random.default_rng([seed, step, 1]).random((batch_size, 3))
        for slot in range(batch_size):
            pass_, place = divmod(step * batch_size + slot, len(usable))
            image = usable[self._order(seed, pass_, len(usable))[place]]
            top = int(draws[slot, 0] * (image.height_px - crop_px + 1))
            left = int(draws[slot, 1] * (image.width_px - crop_px + 1))
            crop = self._read(image)[top : top + crop_px, left : left + crop_px]
            out[slot] = crop[:, ::-1] if draws[slot, 2] < 0.5 else crop
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _large_enough(self, crop_px: int) -> list[ImageFile]:
        if crop_px not in self._usable:
            self._usable[crop_px] = [i for i in self._by_hash if min(i.width_px, i.height_px) >= crop_px]
        if not self._usable[crop_px]:
            largest = max(min(i.width_px, i.height_px) for i in self._by_hash)
            raise UserError(
                f"budget.crop_px={crop_px}: no image of {self.images.name} is that large; the shorter side of the "
                f"largest has {largest} pixels. Choose smaller crops or larger images"
            )
        return self._usable[crop_px]

    def _order(self, seed: int, pass_: int, count: int) -> np.ndarray:
        key = (seed, pass_, count)
        if key not in self._orders:
            if len(self._orders) > 3:
                self._orders.clear()
            self._orders[key] = np.random.default_rng([seed, pass_, 0]).permutation(count)
        return self._orders[key]

    def _read(self, image: ImageFile) -> np.ndarray:
        offset = self._offsets.get(image.sha256)
        if offset is None or self._pixels is None:
            return self._decoded.read(image)
        flat = self._pixels[offset : offset + 3 * image.pixels]
        return flat.reshape(image.height_px, image.width_px, 3)


class _Decoded:
    """Images decoded on demand, the most recently used kept up to a number of bytes; safe between threads."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._kept: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, image: ImageFile) -> np.ndarray:
        with self._lock:
            if image.sha256 in self._kept:
                self._kept.move_to_end(image.sha256)
                return self._kept[image.sha256]
        pixels = read_checked(image)
        with self._lock:
            self._kept[image.sha256] = pixels
            while sum(p.nbytes for p in self._kept.values()) > self._capacity and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return pixels


def read_checked(image: ImageFile) -> np.ndarray:
    """Decode an image of a set; UserError if its file no longer shows what the set was made from."""
    pixels = read_rgb(image.path)
    if pixel_sha256(pixels) != image.sha256:
        raise UserError(f"{image.path}: has changed since the list of images was made; start the sweep anew")
    pixels.setflags(write=False)
    return pixels


def _count_that_fits(images: list[ImageFile], cache_gb: float, folder: Path) -> int:
    room = cache_gb * 1e9
    count = 0
    for image in images:
        room -= 3 * image.pixels
        if room < 0:
            break
        count += 1
    return count


def _offsets(images: list[ImageFile]) -> dict[str, int]:
    offsets = {}
    end = 0
    for image in images:
        offsets[image.sha256] = end
        end += 3 * image.pixels
    return offsets


def _open_or_build(
    folder: Path, content_hash: str, held: list[ImageFile], progress: Progress | None
) -> np.ndarray:
    file = folder / f"{content_hash}-{len(held)}.u8"
    with locked(file.with_suffix(".lock")):
        if not file.exists():
            _build(file, held, progress)
    return np.memmap(file, np.uint8, mode="r")


def _build(file: Path, held: list[ImageFile], progress: Progress | None) -> None:
    temporary = file.with_suffix(".tmp")
    with open(temporary, "wb") as out, ThreadPoolExecutor(DECODERS) as pool:
        for done, pixels in enumerate(pool.map(read_checked, held), start=1):
            out.write(pixels.data)
            if progress is not None:
                progress(done, len(held), "decoding images")
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)
