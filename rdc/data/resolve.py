"""From the config group `data` to the images of a sweep.

resolve_train and resolve_eval never take images from each other's defaults; check_disjoint has the last word.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.data import kodak, packaged
from rdc.data.download import OutOfReachError, download, missing
from rdc.data.images import SUFFIXES
from rdc.data.index import Progress, describe
from rdc.data.roots import cache_root, data_root
from rdc.data.scenes import synthetic_images
from rdc.data.sets import ImageFile, ImageSet, without_duplicates
from rdc.data.synthetic import GENERATOR_VERSION
from rdc.errors import UserError

_log = logging.getLogger(__name__)

SYNTHETIC_SEED = 0
SYNTHETIC_SCENES = 150

# Words that data.train and data.eval understand when no file of that name exists.
TRAIN_WORDS = ("packaged",)
EVAL_WORDS = ("kodak", "packaged")

_KEYS = (
    "name",
    "train",
    "eval",
    "max_eval_images",
    "validation_share",
    "cache_gb",
    "download",
    "skip_unusable",
)


def resolve_train(config: Mapping[str, Any], *, progress: Progress | None = None) -> ImageSet:
    """Training images, validation still among them.

    What data.train names, else $RDC_DATA/train, else photos of installed packages and synthetic scenes.
    config: the group `data`; keys that are left out have the values of conf/data/auto.yaml.
    """
    check_config(config)
    if _word(config, "train", TRAIN_WORDS) == "packaged":
        return _packaged_train(progress)
    if named := _paths(config, "train", TRAIN_WORDS):
        return _from_paths(named, config, progress)
    if (folder := _in_data_root("train")) is not None:
        return _from_paths([folder], config, progress, where="$RDC_DATA/train")
    return _packaged_train(progress)


def resolve_eval(config: Mapping[str, Any], *, progress: Progress | None = None) -> ImageSet:
    """Evaluation images.

    What data.eval names, else Kodak from $RDC_DATA/kodak, the cache or the network, else photos of installed
    packages. The set is named kodak only if its pixels are those of the 24 Kodak images.
    """
    check_config(config)
    images = _resolve_eval(config, progress)
    limit = config.get("max_eval_images")
    return images if limit is None else _first(images, limit)


def check_config(config: Mapping[str, Any]) -> None:
    """UserError for keys and values that the config group `data` does not have."""
    for key in config:
        if key not in _KEYS:
            raise UserError(f"data.{key}: there is no such key; known: {', '.join(_KEYS)}")
    for key in ("download", "skip_unusable"):
        if not isinstance(config.get(key, False), bool):
            raise UserError(f"data.{key}={config[key]!r}: must be true or false")
    limit = config.get("max_eval_images")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UserError(f"data.max_eval_images={limit!r}: must be a number of at least 1, or null for all")
    for key, low, high in (("validation_share", 0.0, 1.0), ("cache_gb", -1.0, float("inf"))):
        value = config.get(key, 0.5)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value < high:
            expected = "a number between 0 and 1" if high == 1 else "a number of gigabytes, 0 or more"
            raise UserError(f"data.{key}={value!r}: must be {expected}")


def _resolve_eval(config: Mapping[str, Any], progress: Progress | None) -> ImageSet:
    word = _word(config, "eval", EVAL_WORDS)
    if word == "packaged":
        return _packaged_eval(progress)
    if word is None and (named := _paths(config, "eval", EVAL_WORDS)):
        return _from_paths(named, config, progress)
    if (folder := _in_data_root("kodak")) is not None:
        return _from_paths([folder], config, progress, where="$RDC_DATA/kodak")
    try:
        return _kodak(config, progress)
    except OutOfReachError as error:
        if word == "kodak":
            raise UserError(
                f"data.eval=kodak: cannot be fetched ({error}); put kodim01.png to kodim24.png into a "
                "folder and name it in data.eval"
            ) from None
        _log.warning("Kodak cannot be fetched (%s); evaluating on photos of installed packages", error)
    return _packaged_eval(progress)


def _kodak(config: Mapping[str, Any], progress: Progress | None) -> ImageSet:
    folder = cache_root() / "kodak"
    origin = "the cache"
    if missing(folder, kodak.FILE_SHA256):
        if not config.get("download", True):
            raise OutOfReachError("data.download=false")
        origin = "r0k.us"
        download(folder, kodak.FILE_SHA256, kodak.BASE_URLS, progress=progress, what="downloading Kodak")
    images, _ = describe([folder / name for name in kodak.FILE_SHA256], progress=progress)
    return ImageSet(name="kodak", source=f"24 Kodak images from {origin}", images=tuple(images))


def _packaged_eval(progress: Progress | None) -> ImageSet:
    images, origin = _packaged(packaged.EVALUATION, progress)
    if not images:
        raise UserError(
            "data.eval: Kodak is out of reach and neither scikit-image nor scikit-learn is installed; "
            "name a folder of images with data.eval=FOLDER"
        )
    return ImageSet(name="packaged-photos", source=f"{len(images)} photos {origin}", images=tuple(images))


def _packaged_train(progress: Progress | None) -> ImageSet:
    photos, origin = _packaged(packaged.TRAINING, progress)
    scenes = synthetic_images(SYNTHETIC_SEED, SYNTHETIC_SCENES, progress=progress)
    drawn = f"{len(scenes)} synthetic scenes (generator {GENERATOR_VERSION}, seed {SYNTHETIC_SEED})"
    source = f"{len(photos)} photos {origin} and {drawn}" if photos else drawn
    return ImageSet(name="packaged-and-synthetic", source=source, images=(*photos, *scenes))


def _packaged(photos: packaged.Photos, progress: Progress | None) -> tuple[list[ImageFile], str]:
    files, packages = packaged.find(photos)
    images, _ = describe(files, progress=progress)
    return images, f"of installed Python packages ({', '.join(packages)})"


def _word(config: Mapping[str, Any], key: str, words: tuple[str, ...]) -> str | None:
    """The value of data.<key> if it is one of the words and no file is called so."""
    value = config.get(key)
    return value if isinstance(value, str) and value in words and not Path(value).exists() else None


def _paths(config: Mapping[str, Any], key: str, words: tuple[str, ...]) -> list[Path]:
    """The folders and files that data.<key> names; none if it is null."""
    value = config.get(key)
    if value is None and config.get("name") == "folder":
        raise UserError(f"data=folder needs data.{key}: add data.{key}=FOLDER, or choose data=auto")
    if value is None:
        return []
    values = [value] if isinstance(value, (str, os.PathLike)) else value
    are_texts = isinstance(values, Sequence) and all(v and isinstance(v, (str, os.PathLike)) for v in values)
    if not values or not are_texts:
        raise UserError(f"data.{key}={value!r}: must be a folder, an image file, or a list of these")
    paths = [Path(v).expanduser() for v in values]
    for path in paths:
        if not path.exists():
            raise UserError(
                f"data.{key}={path}: there is no such folder or file; "
                f"name one that exists, or one of: {', '.join(words)}"
            )
    return paths


def _in_data_root(folder: str) -> Path | None:
    root = data_root()
    if root is None:
        return None
    if not (root / folder).is_dir():
        _log.warning("$RDC_DATA has no folder %s; using other images", folder)
        return None
    return root / folder


def _from_paths(
    paths: Sequence[Path], config: Mapping[str, Any], progress: Progress | None, *, where: str | None = None
) -> ImageSet:
    """All images in folders and files, at any depth, without duplicates."""
    files = [file for path in paths for file in _image_files(path)]
    found, refusals = describe(files, progress=progress, skip_unusable=config.get("skip_unusable", False))
    for refusal in refusals:
        _log.warning("left out: %s", refusal)
    if not found:
        raise UserError(f"{paths[0]}: none of its {len(files)} images can be used, for example {refusals[0]}")
    label = "+".join(path.resolve().name for path in paths)
    images = ImageSet(name=label, source="", images=without_duplicates(found))
    left_out = [
        f"{count} {kind} left out"
        for count, kind in ((len(refusals), "unusable"), (len(found) - len(images), "duplicate"))
        if count
    ]
    noun = "Kodak images" if images.is_kodak else "images" if len(images) > 1 else "image"
    place = where or ("folder " if paths[0].is_dir() and len(paths) == 1 else "") + label
    source = "; ".join([f"{len(images)} {noun} from {place}", *left_out])
    return ImageSet(name=_name(images, label), source=source, images=images.images)


def _name(images: ImageSet, label: str) -> str:
    """kodak is what anchors are compared on: no other set may be called so."""
    if images.is_kodak:
        return "kodak"
    return f"folder-{label}" if label == "kodak" else label


def _first(images: ImageSet, limit: int) -> ImageSet:
    """The first images; a part of Kodak is not Kodak."""
    if limit >= len(images):
        return images
    name = f"{images.name}-first-{limit}"
    return ImageSet(name=name, source=f"first {limit} of {images.source}", images=images.images[:limit])


def _image_files(path: Path) -> Iterator[Path]:
    """Files with a known suffix, in the order of their names, without hidden ones."""
    if path.is_file():
        yield path.absolute()
        return
    count = 0
    for folder, folders, names in os.walk(path.absolute()):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                count += 1
                yield Path(folder, name)
    if not count:
        raise UserError(f"{path}: holds no images ({' '.join(SUFFIXES)})")
