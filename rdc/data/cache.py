"""The decoded images of one set, and the crops that training draws from them."""

from __future__ import annotations

import collections
import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdc.data.images import pixel_sha256
from rdc.data.index import DECODERS, Progress
from rdc.data.pixelfile import give_up, offsets, open_pixels, pixel_file, read_checked
from rdc.data.roots import cache_root
from rdc.data.sets import ImageFile, ImageSet
from rdc.errors import UserError

if TYPE_CHECKING:
    import torch

DECODED_BYTES = 256 * 2**20  # images outside the mapped file that a process keeps; the least recently used go


class PixelCache:
    """Pixels by image, and crops by step.

    As many images as fit into cache_gb, in the order of their hashes, lie in a file that all processes of a
    node map. The others are decoded when they are needed. Safe to read from several threads.
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
        # Crops depend on what the images show, not on the names of their files: hence the order by hash.
        self._by_hash = sorted(images.images, key=lambda image: image.sha256)
        held = _that_fit(self._by_hash, cache_gb)
        folder = (root or cache_root()) / "pixels"
        self._pixels = open_pixels(folder, images.content_hash, held, progress) if held else None
        self._file = pixel_file(folder, images.content_hash, held)
        self._offsets = offsets(held) if self._pixels is not None else {}
        self._right: set[str] = set()  # hashes of images in the file that this process has compared
        self._decoded = _Decoded(DECODED_BYTES)
        self._usable: dict[int, list[ImageFile]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._ahead: dict[tuple[int, ...], Future[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.images)

    @property
    def held(self) -> int:
        """How many images are in the mapped file."""
        return len(self._offsets)

    def image(self, index: int) -> np.ndarray:
        """Pixels of image `index` of the set, (H, W, 3) uint8, read-only."""
        return self._read(self.images.images[index])

    def tensor(self, index: int) -> torch.Tensor:
        """Image `index` of the set as (1, 3, H, W) float32 in [0, 1]."""
        import torch

        return torch.from_numpy(np.array(self.image(index))).permute(2, 0, 1)[None].float().div_(255)

    def excluded(self, crop_px: int) -> int:
        """How many images are too small for crops of this size and take no part in training."""
        return len(self) - len(self._large_enough(crop_px))

    def crops(self, step: int, batch_size: int, crop_px: int, seed: int) -> torch.Tensor:
        """(B, 3, crop_px, crop_px) float32 in [0, 1], channels_last; a function of the arguments alone."""
        return self.crops_uint8(step, batch_size, crop_px, seed).float().div_(255)

    def crops_uint8(
        self, step: int, batch_size: int, crop_px: int, seed: int, share: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """The same crops as uint8, a quarter of the bytes on the way to a GPU; share: (first, end) of them.

        Every image that is large enough is drawn once in each pass over the set, whatever its area, and each
        pass has its own order; position and horizontal flip are uniform. UserError if none is large enough.
        The following steps are prepared in threads, so that a caller who goes step by step does not wait.
        """
        import torch

        what = (batch_size, crop_px, seed, *(() if share in (None, (0, batch_size)) else share or ()))
        made = self._ahead.pop((step, *what), None)
        out = self._draw(step, *what) if made is None else made.result()
        self._look_ahead(step, *what)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _look_ahead(self, step: int, *what: int) -> None:
        # Copying out of the map needs one thread; only decoding gains from more.
        threads = 1 if self.held == len(self) else DECODERS
        if self._threads is None:
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix="crops")
        coming = [(later, *what) for later in range(step + 1, step + 1 + threads)]
        # Whoever jumps to another step leaves behind what was meant for this one.
        kept = {key: future for key, future in list(self._ahead.items()) if key in coming}
        for key in coming:
            if key not in kept:
                kept[key] = self._threads.submit(self._draw, *key)
        self._ahead = kept

    def _draw(
        self, step: int, batch_size: int, crop_px: int, seed: int, first: int = 0, end: int | None = None
    ) -> np.ndarray:
        """Crops `first` to `end` of the batch, (end - first, crop_px, crop_px, 3) uint8."""
        usable = self._large_enough(crop_px)
        end = batch_size if end is None else end
        out = np.empty((end - first, crop_px, crop_px, 3), np.uint8)
        draws = np.random.default_rng([seed, step, 1]).random((batch_size, 3))
        for slot, (down, along, flip) in enumerate(draws[first:end].tolist(), start=first):
            pass_index, place = divmod(step * batch_size + slot, len(usable))
            image = usable[_order(seed, pass_index, len(usable))[place]]
            top = int(down * (image.height_px - crop_px + 1))
            left = int(along * (image.width_px - crop_px + 1))
            crop = self._read(image)[top : top + crop_px, left : left + crop_px]
            _copy(crop, out[slot - first], mirrored=flip < 0.5)
        return out

    def _large_enough(self, crop_px: int) -> list[ImageFile]:
        if crop_px not in self._usable:
            self._usable[crop_px] = [i for i in self._by_hash if _short_side_px(i) >= crop_px]
        if not self._usable[crop_px]:
            largest_px = max((_short_side_px(i) for i in self._by_hash), default=0)
            raise UserError(
                f"budget.crop_px={crop_px}: no image of {self.images.name} has sides of that length; the "
                f"shorter side of the largest has {largest_px} pixels. Choose smaller crops or larger images"
            )
        return self._usable[crop_px]

    def _read(self, image: ImageFile) -> np.ndarray:
        start = self._offsets.get(image.sha256)
        if start is None or self._pixels is None:
            return self._decoded.read(image)
        flat = self._pixels[start : start + 3 * image.pixels]
        pixels = flat.reshape(image.height_px, image.width_px, 3)
        if image.sha256 in self._right:
            return pixels
        if pixel_sha256(pixels) != image.sha256:  # a disk can change bytes and not the time of change
            self._offsets.pop(image.sha256, None)
            give_up(self._file)
            return self._decoded.read(image)
        self._right.add(image.sha256)
        return pixels


class _Decoded:
    """Images decoded on demand; keeps the most recently used up to a number of bytes."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._kept: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def read(self, image: ImageFile) -> np.ndarray:
        with self._lock:
            if image.sha256 in self._kept:
                self._kept.move_to_end(image.sha256)
                return self._kept[image.sha256]
        pixels = read_checked(image)  # without the lock, so that threads decode side by side
        with self._lock:
            if image.sha256 not in self._kept:
                self._kept[image.sha256] = pixels
                self._kept_bytes += pixels.nbytes
            while self._kept_bytes > self._capacity and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


@functools.lru_cache(maxsize=8)
def _order(seed: int, pass_index: int, count: int) -> np.ndarray:
    """The order in which a pass visits the images."""
    return np.argsort(np.random.default_rng([seed, pass_index, 0]).random(count), kind="stable")


def _copy(crop: np.ndarray, out: np.ndarray, *, mirrored: bool) -> None:
    if not mirrored:
        out[...] = crop
        return
    # Channel by channel: one assignment would loop over 3 bytes at a time, which takes five times as long.
    for channel in range(3):
        out[:, :, channel] = crop[:, ::-1, channel]


def _short_side_px(image: ImageFile) -> int:
    return min(image.width_px, image.height_px)


def _that_fit(images: list[ImageFile], cache_gb: float) -> list[ImageFile]:
    room, held = cache_gb * 1e9, []
    for image in images:
        room -= 3 * image.pixels
        if room < 0:
            break
        held.append(image)
    return held
