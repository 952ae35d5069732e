"""Sets of images, identified by what they show and not by where they lie, and the rules between sets."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rdc.data.kodak import PIXEL_SHA256
from rdc.errors import UserError
from rdc.files import is_intact, read_json, write_sealed

MANIFEST_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """One image. sha256: of the decoded pixels and their shape; file_size: bytes on disk."""

    path: str
    width_px: int
    height_px: int
    sha256: str
    file_size: int

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def pixels(self) -> int:
        return self.width_px * self.height_px


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageSet:
    """Images without duplicates. source: in words where they came from; it stands in every result."""

    name: str
    source: str
    images: tuple[ImageFile, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def content_hash(self) -> str:
        """12 hex digits of the decoded pixels; neither file names nor order enter."""
        return hashlib.sha256("\n".join(sorted(i.sha256 for i in self.images)).encode()).hexdigest()[:12]

    @property
    def is_kodak(self) -> bool:
        """Exactly the 24 Kodak images by their pixels; only for them do Kodak anchors hold."""
        return sorted(i.sha256 for i in self.images) == sorted(PIXEL_SHA256.values())

    def save(self, path: str | Path) -> None:
        """Write the manifest that travels to trials."""
        images = [dataclasses.asdict(image) for image in self.images]
        content = {"schema_version": MANIFEST_VERSION, "content_hash": self.content_hash}
        write_sealed(path, {**content, "name": self.name, "source": self.source, "images": images})

    @classmethod
    def load(cls, path: str | Path) -> ImageSet:
        """Read what save wrote; UserError if it is damaged or does not match its own hash."""
        content = read_json(path)
        if not isinstance(content, dict) or content.get("schema_version") != MANIFEST_VERSION:
            raise UserError(
                f"{path}: is not a list of images of version {MANIFEST_VERSION}; start the sweep anew"
            )
        try:
            images = tuple(ImageFile(**image) for image in content["images"])
            images_set = cls(name=content["name"], source=content["source"], images=images)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); delete it and start the sweep anew") from None
        if images_set.content_hash != content.get("content_hash") or not is_intact(content):
            raise UserError(f"{path}: its images do not match its hash; delete it and start the sweep anew")
        return images_set

    def to_result(self) -> dict[str, Any]:
        """What a result says about its data."""
        return {
            "name": self.name,
            "source": self.source,
            "images": len(self),
            "content_hash": self.content_hash,
        }


def without_duplicates(images: Iterable[ImageFile]) -> tuple[ImageFile, ...]:
    """The first of each group of images with equal pixels, in the given order."""
    first: dict[str, ImageFile] = {}
    for image in images:
        first.setdefault(image.sha256, image)
    return tuple(first.values())


def split(train: ImageSet, share: float = 0.05, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """(training, validation), both non-empty, decided by the pixels and the seed alone.

    share: part of the images held out, in (0, 1); Kodak is for the final report, this part for every choice.
    """
    if not 0 < share < 1:
        raise UserError(f"data.validation_share={share}: must lie between 0 and 1")
    if len(train) < 2:
        raise UserError(
            f"{train.name}: {len(train)} training image cannot be split into training and validation; "
            "name a folder with at least 2 different images in data.train"
        )
    count = min(max(round(share * len(train)), 1), len(train) - 1)
    by_draw = sorted(train.images, key=lambda i: hashlib.sha256(f"{seed}:{i.sha256}".encode()).digest())
    held_out = {image.sha256 for image in by_draw[:count]}
    kept = tuple(i for i in train.images if i.sha256 not in held_out)
    validation = tuple(i for i in train.images if i.sha256 in held_out)
    return (
        dataclasses.replace(train, images=kept),
        ImageSet(name=f"{train.name}-validation", source=f"held out from: {train.source}", images=validation),
    )


def check_disjoint(train: ImageSet, evaluation: ImageSet) -> None:
    """UserError naming both files if any decoded image is in both sets."""
    seen = {image.sha256: image for image in evaluation.images}
    for image in train.images:
        if image.sha256 in seen:
            raise UserError(
                f"{image.path} is for training and shows the same pixels as the evaluation image "
                f"{seen[image.sha256].path}; take it out of one of the two"
            )
