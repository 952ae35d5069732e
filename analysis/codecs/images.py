"""The images of a folder as 8-bit RGB, and the name under which results for them are compared.

Taken: 8-bit RGB as it is; 8-bit grey, black and white, and opaque palettes, which lose nothing on the way to
RGB. Refused, because there is no one way to 8-bit RGB: 16-bit samples, transparency, CMYK, animations. A
rotation in EXIF is applied; colour profiles are ignored, because codecs are compared on stored values.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from analysis.anchors.table import image_name
from analysis.errors import AnalysisError
from analysis.files import is_folder

SUFFIXES = (".png", ".bmp", ".webp", ".jpg", ".jpeg")
_FORMATS = ("PNG", "BMP", "WEBP", "JPEG")
MIN_SIDE_PX = 8  # below this an image is all header
MAX_PIXELS = 80_000_000

# Over the sorted pixel hashes of the 24 Kodak images; its first 12 digits are the dataset_hash of trials.
KODAK_SHA256 = "8b23b545875770c224206a208140568b0cc8bceb95acd8d45b20cc9816e07e49"


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """name: without folder and extension. sha256: of the decoded pixels and their shape."""

    name: str
    path: Path
    width_px: int
    height_px: int
    sha256: str

    @property
    def pixels(self) -> int:
        return self.width_px * self.height_px


def find_images(folder: Path) -> tuple[list[SourceImage], list[str]]:
    """All images of a folder by name, and the names of its other files.

    AnalysisError if it has none, two of one name, two with the same pixels, or one that cannot be used.
    """
    if not is_folder(folder):
        raise AnalysisError(f"{folder}: is no folder; give the folder that holds the images")
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise AnalysisError(f"{folder}: cannot be read ({error.strerror}); give a folder that can") from None
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise AnalysisError(f"{folder}: has no images; looked for {', '.join(SUFFIXES)}")
    _refuse_repeated(folder, [image_name(path.name) for path in paths], "are called")
    images = [describe(path) for path in paths]
    _refuse_repeated(folder, [image.sha256 for image in images], "show the same pixels, with SHA-256")
    return images, [path.name for path in files if path not in paths]


def describe(path: Path) -> SourceImage:
    """Reads and hashes one image."""
    pixels = read_rgb(path)
    height_px, width_px, _ = pixels.shape
    return SourceImage(image_name(path.name), path, width_px, height_px, pixel_sha256(pixels))


def content_sha256(images: Sequence[SourceImage]) -> str:
    """Identity of a set by its pixels; neither names nor order enter."""
    return hashlib.sha256("\n".join(sorted(image.sha256 for image in images)).encode()).hexdigest()


def dataset_name(folder: Path, images: Sequence[SourceImage], wanted: str | None) -> str:
    """`kodak` for the pixels of the 24 Kodak images and no others; else what is wanted, or the folder."""
    if content_sha256(images) == KODAK_SHA256:
        if wanted not in (None, "kodak"):
            raise AnalysisError(f"--dataset {wanted}: these are the 24 Kodak images, which are called kodak")
        return "kodak"
    if wanted is not None and wanted.strip().lower() == "kodak":
        raise AnalysisError(
            f"--dataset {wanted}: these are not the 24 Kodak images; choose another name, for under this one "
            "they would be compared with anchors on Kodak"
        )
    if wanted is not None and not wanted.strip():
        raise AnalysisError("--dataset: is empty; give a name")
    name = wanted or folder.resolve().name or "images"
    return f"folder-{name}" if name.lower() == "kodak" else name


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8; AnalysisError names the file, what is wrong and the way out."""
    pillow = pillow_image()
    try:
        with pillow.open(path, formats=_FORMATS) as image:
            _check(path, image)
            pixels = _upright(image).convert("RGB")
    except (AnalysisError, MemoryError):
        raise
    except pillow.DecompressionBombError:
        raise AnalysisError(f"{path}: has more than {MAX_PIXELS / 1e6:.0f} megapixels; cut it down") from None
    except Exception as error:
        # Decoders meet hostile bytes here and raise nearly anything: OSError, SyntaxError, struct.error, ...
        text = " ".join(str(error).split()) or type(error).__name__
        raise AnalysisError(
            f"{path}: cannot be read as an image ({text}); take it out of the folder"
        ) from None
    return np.ascontiguousarray(pixels)


def pixel_sha256(pixels: np.ndarray) -> str:
    """Identity of decoded pixels: SHA-256 of the shape and the (H, W, 3) uint8 samples, as trials have it."""
    height_px, width_px, channels = pixels.shape
    digest = hashlib.sha256(f"{height_px}x{width_px}x{channels}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def pillow_image() -> ModuleType:
    """PIL.Image, which is no base dependency of analysis."""
    try:
        from PIL import Image
    except ImportError:
        raise AnalysisError("reading images needs pillow: pip install 'rdc[all]'") from None
    return Image


def _check(path: Path, image: Any) -> None:
    width_px, height_px = image.size
    if width_px * height_px > MAX_PIXELS:
        raise AnalysisError(f"{path}: has more than {MAX_PIXELS / 1e6:.0f} megapixels; cut it down")
    if min(width_px, height_px) < MIN_SIDE_PX:
        raise AnalysisError(
            f"{path}: {width_px}x{height_px} pixels, and the shorter side must have at least {MIN_SIDE_PX}"
        )
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise AnalysisError(f"{path}: is animated; save the frame you mean as a PNG of its own")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        raise AnalysisError(f"{path}: has transparency, and codecs are compared on RGB; lay it over a colour")
    # Of 16-bit colour, Pillow keeps the high byte and says so only in what it tells its decoder.
    deep = image.mode.startswith(("I", "F")) or any("16" in str(tile[3]) for tile in image.tile)
    if deep and image.format == "PNG":
        raise AnalysisError(f"{path}: has 16-bit samples, and codecs are compared on 8; convert it first")
    if image.mode not in ("RGB", "L", "P", "1"):
        raise AnalysisError(f"{path}: pixel type {image.mode} has no one way to 8-bit RGB; convert it first")


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _refuse_repeated(folder: Path, names: Sequence[str], what: str) -> None:
    counts = collections.Counter(names)
    if twice := next((name for name in names if counts[name] > 1), None):
        raise AnalysisError(f"{folder}: {counts[twice]} images {what} {twice}; keep one of them")
