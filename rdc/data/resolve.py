"""From the config group `data` to the images of a sweep."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.data.images import SUFFIXES
from rdc.data.index import Progress, describe
from rdc.data.roots import data_root
from rdc.data.sets import ImageSet, without_duplicates
from rdc.errors import UserError

_log = logging.getLogger(__name__)

KEYS = {
    "name", "train", "eval", "cache_gb", "validation_share", "max_eval_images", "download", "skip_unusable"
}  # fmt: skip


def resolve_train(config: Mapping[str, Any], *, progress: Progress | None = None) -> ImageSet:
    """Training images: what data.train names, else $RDC_DATA/train, else packaged photos and synthetic scenes."""
    _check_keys(config)
    if named := _named(config, "train"):
        return _from_folders(named, config, progress)
    if (folder := _in_data_root("train")) is not None:
        return _from_folders([folder], config, progress, source="$RDC_DATA/train", name="train")
    raise UserError("data.train: no training images; name a folder of images with data.train=FOLDER")


def resolve_eval(config: Mapping[str, Any], *, progress: Progress | None = None) -> ImageSet:
    """Evaluation images: what data.eval names, else Kodak from $RDC_DATA/kodak, the cache or the network, else
    photos of installed packages."""
    _check_keys(config)
    if named := _named(config, "eval"):
        images = _from_folders(named, config, progress)
    elif (folder := _in_data_root("kodak")) is not None:
        images = _from_folders([folder], config, progress, source="$RDC_DATA/kodak", name="kodak")
    else:
        raise UserError("data.eval: no evaluation images; name a folder of images with data.eval=FOLDER")
    return images


def _check_keys(config: Mapping[str, Any]) -> None:
    if unknown := sorted(set(config) - KEYS):
        raise UserError(f"data.{unknown[0]}: there is no such key; known: {', '.join(sorted(KEYS))}")


def _named(config: Mapping[str, Any], key: str) -> list[Path]:
    value = config.get(key)
    if value is None:
        return []
    values = [value] if isinstance(value, (str, os.PathLike)) else value
    if (
        not isinstance(values, Sequence)
        or not values
        or not all(isinstance(v, (str, os.PathLike)) for v in values)
    ):
        raise UserError(f"data.{key}={value!r}: must be a folder, an image file, or a list of these")
    paths = [Path(v).expanduser() for v in values]
    for path in paths:
        if not path.exists():
            raise UserError(f"data.{key}={path}: there is no such folder or file")
    return paths


def _in_data_root(folder: str) -> Path | None:
    root = data_root()
    if root is None:
        return None
    if not (root / folder).is_dir():
        _log.warning("$RDC_DATA has no folder %s; looking for other images", folder)
        return None
    return root / folder


def _from_folders(
    paths: Sequence[Path],
    config: Mapping[str, Any],
    progress: Progress | None,
    *,
    source: str | None = None,
    name: str | None = None,
) -> ImageSet:
    files = [file for path in paths for file in _image_files(path)]
    images, _refused = describe(files, progress=progress, skip_unusable=bool(config.get("skip_unusable")))
    unique = without_duplicates(images)
    label = name or "+".join(path.resolve().name for path in paths)
    return ImageSet(name=label, source=f"{len(unique)} images from {source or label}", images=unique)


def _image_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path.absolute()
        return
    count = 0
    for folder, folders, names in os.walk(path.absolute()):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                count += 1
                yield Path(folder, name)
    if not count:
        raise UserError(f"{path}: holds no images ({', '.join(SUFFIXES)})")
