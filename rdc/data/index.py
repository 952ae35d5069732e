"""Sizes and pixel hashes of image files, remembered so that a second start costs no decoding."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from rdc.data.images import READER_VERSION, pixel_sha256, read_rgb
from rdc.data.roots import cache_root, writable
from rdc.data.sets import ImageFile
from rdc.errors import UserError
from rdc.files import is_intact, locked, remove_leftovers, set_aside, write_sealed

_log = logging.getLogger(__name__)

# progress(done, total, what): called now and then from one thread while something takes its time.
Progress = Callable[[int, int, str], None]

DECODERS = 2  # PIL decodes outside the interpreter lock

_WHAT = "reading images"


def describe(
    paths: Sequence[Path], *, progress: Progress | None = None, skip_unusable: bool = False
) -> tuple[list[ImageFile], list[str]]:
    """Image files in the order of `paths`, and the refusals of those that were skipped.

    Only files whose path, size or time of change is new are decoded. With unusable files and without
    skip_unusable: one UserError that names the first and says how many there are.
    """
    remembered = _load()
    found: dict[Path, ImageFile] = {}
    for path in paths:
        if (image := _recall(remembered, path)) is not None:
            found[path] = image
    fresh = [path for path in paths if path not in found]
    refusals = []
    with ThreadPoolExecutor(DECODERS) as pool:
        for done, outcome in enumerate(pool.map(_read, fresh), start=1):
            if isinstance(outcome, ImageFile):
                found[Path(outcome.path)] = outcome
            else:
                refusals.append(outcome)
            if progress is not None:
                progress(done, len(fresh), _WHAT)
    remember([found[path] for path in fresh if path in found])
    if refusals and not skip_unusable:
        others = f" ({len(refusals) - 1} more like it;" if len(refusals) > 1 else " ("
        raise UserError(f"{refusals[0]}{others} data.skip_unusable=true leaves such files out)")
    return [found[path] for path in paths if path in found], refusals


def describe_pixels(path: Path, pixels: np.ndarray, known_as: Path | None = None) -> ImageFile:
    """The entry of a file whose decoded pixels are at hand; known_as: the name that it is going to have."""
    height_px, width_px, _ = pixels.shape
    return ImageFile(
        path=str(known_as or path),
        width_px=width_px,
        height_px=height_px,
        sha256=pixel_sha256(pixels),
        file_size=path.stat().st_size,
    )


def remember(images: Sequence[ImageFile]) -> None:
    """Add entries to the index; others that run beside us keep theirs."""
    if not images:
        return
    file = _index_file()
    with writable(file.parent), locked(file.with_suffix(".lock")):
        entries = {path: entry for path, entry in _load().items() if os.path.exists(path)}
        entries.update(_entries(images))
        remove_leftovers(file.parent, file.name)
        write_sealed(file, {"reader": _reader(), "images": entries})


def _entries(images: Sequence[ImageFile]) -> Iterator[tuple[str, list[Any]]]:
    for image in images:
        try:
            status = os.stat(image.path)
        except OSError:
            continue  # gone already: nothing to remember
        if status.st_size == image.file_size:
            size = (image.width_px, image.height_px)
            yield image.path, [status.st_size, status.st_mtime_ns, *size, image.sha256]


def _read(path: Path) -> ImageFile | str:
    try:
        return describe_pixels(path, read_rgb(path))
    except UserError as error:
        return str(error)


def _recall(entries: dict[str, Any], path: Path) -> ImageFile | None:
    entry = entries.get(str(path))
    if entry is None:
        return None
    try:
        status = path.stat()
        size, mtime_ns, width_px, height_px, sha256 = entry
    except (OSError, ValueError, TypeError):
        return None
    if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
        return None
    return ImageFile(path=str(path), width_px=width_px, height_px=height_px, sha256=sha256, file_size=size)


def _load() -> dict[str, Any]:
    """Entries by path; a missing one, or one of another decoder, is empty; a damaged one is set aside."""
    file = _index_file()
    try:
        content = json.loads(file.read_bytes())
        if not is_intact(content):
            raise ValueError("its content does not match its checksum")
        return dict(content["images"]) if content["reader"] == _reader() else {}
    except OSError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        with contextlib.suppress(OSError):
            aside = set_aside(file)
            _log.warning("%s is damaged (%s): kept as %s, and made anew", file, error, aside.name)
        return {}


def _reader() -> str:
    # JPEG pixels may differ between decoder versions, and then the remembered hashes would be false.
    return f"{READER_VERSION} pillow {PIL.__version__}"


def _index_file() -> Path:
    return cache_root() / "images.json"
