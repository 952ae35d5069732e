"""One image file -> 8-bit RGB pixels, or a refusal that names the file and the way out.

What is done with the formats people have: grey is repeated into three channels; transparency is laid over
white; 16-bit samples are scaled to 8 bits with rounding; palettes and CMYK are converted; the EXIF rotation
is applied; colour profiles are ignored, because codecs are compared on stored values.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rdc.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".gif")

# What a file holds decides, not its name: PIL would start an interpreter for some of what it knows.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")

MIN_SIDE_PX = 8  # below this an image holds no structure, and its rate is all header
MAX_PIXELS = 80_000_000  # 240 MB decoded; refused from the header alone, before anything is allocated

# A new value here when the same file would give other pixels: remembered pixel hashes are then computed anew.
READER_VERSION = 1


def read_rgb(path: str | Path) -> np.ndarray:
    """Decoded pixels, (H, W, 3) uint8, contiguous.

    UserError names files that are missing, broken, truncated, smaller than MIN_SIDE_PX on a side, larger than
    MAX_PIXELS, animated, or of a kind without a defined way to 8-bit RGB.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such image file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; delete it or fetch it again")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_size(path, *image.size)
            _check_single_frame(path, image)
            pixels = _to_rgb(path, image)
    except (UserError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"{path}: more than {MAX_PIXELS / 1e6:.0f} megapixels; cut or scale it down"
        ) from None
    except Exception as error:
        # Decoders meet hostile bytes here and raise nearly anything: OSError, SyntaxError, struct.error, ...
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: cannot be decoded ({text}); delete it or replace it by a whole image"
        ) from None
    return np.ascontiguousarray(pixels)


def pixel_sha256(pixels: np.ndarray) -> str:
    """Identity of decoded content: SHA-256 of the shape and the (H, W, 3) uint8 samples."""
    height_px, width_px, channels = pixels.shape
    digest = hashlib.sha256(f"{height_px}x{width_px}x{channels}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _check_size(path: Path, width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise UserError(
            f"{path}: {width_px}x{height_px} pixels are more than {MAX_PIXELS / 1e6:.0f} megapixels; "
            "cut or scale it down"
        )
    if min(width_px, height_px) < MIN_SIDE_PX:
        raise UserError(
            f"{path}: {width_px}x{height_px} pixels, and the shorter side must have at least {MIN_SIDE_PX}; "
            "leave this image out"
        )


def _check_single_frame(path: Path, image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    # Phones store a second view or a depth map beside the photo as MPO: the first frame is the photo.
    if frames > 1 and image.format != "MPO":
        raise UserError(f"{path}: holds {frames} frames; save the one you mean as a PNG of its own")


def _to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    if _is_wide(image):
        return _wide_to_rgb(path, image)
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return np.asarray(image.convert("RGB"))
    raise UserError(
        f"{path}: pixel type {image.mode} has no defined way to 8-bit RGB; save it as an 8-bit PNG"
    )


def _is_wide(image: Image.Image) -> bool:
    """Whether samples have 16 bits; for colour, PIL says so only in what it tells its decoder."""
    if image.mode.startswith("I"):
        return True
    bits = _tiff_tag(image, 258)
    return "16" in _raw_mode(image) or (bits is not None and max(bits) == 16)


def _wide_to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        samples = np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)
        bits = _tiff_tag(image, 258)
        if samples.min() < 0 or samples.max() > 65535 or (bits is not None and max(bits) > 16):
            raise UserError(f"{path}: samples of more than 16 bits; save it with 8 or 16 bits")
        return np.repeat(_to_8_bits(samples)[..., None], 3, axis=2)
    return _wide_colour_to_rgb(path, image)


def _wide_colour_to_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """16-bit RGB, RGBA and LA samples, of which PIL on its own would keep the high byte only."""
    if not {tile[0] for tile in getattr(image, "tile", [])} <= {"zip", "raw"}:
        raise UserError(f"{path}: this kind of 16-bit image is not supported; save it as a 16-bit PNG")
    raw_mode = _raw_mode(image)
    if raw_mode == "LA;16B":
        # Four bytes a pixel, like 8-bit RGBA.
        grey_high, grey_low, alpha_high, alpha_low = np.moveaxis(_decode_as(path, "RGBA"), 2, 0)
        colour = (grey_high << 8 | grey_low)[..., None]
        return _over_white(colour, (alpha_high << 8 | alpha_low)[..., None])
    other = {"B": "L", "L": "B"}.get(raw_mode[-1:])
    if raw_mode[:-1] not in ("RGB;16", "RGBA;16") or other is None:
        raise UserError(f"{path}: this kind of 16-bit image is not supported; save it as a 16-bit PNG")
    # Reading big-endian samples as little-endian ones makes PIL keep the other byte of each.
    wide = _decode_as(path, raw_mode) << 8 | _decode_as(path, raw_mode[:-1] + other)
    return _to_8_bits(wide) if image.mode == "RGB" else _over_white(wide[..., :3], wide[..., 3:])


def _decode_as(path: Path, raw_mode: str) -> np.ndarray:
    """Decode while telling PIL how the samples lie in the file; (H, W, C) int64."""
    with Image.open(path) as image:
        tiles = [_with_raw_mode(tile, raw_mode) for tile in getattr(image, "tile", [])]
        setattr(image, "tile", tiles)  # noqa: B010 -- only image files have it, not images
        return np.asarray(ImageOps.exif_transpose(image)).astype(np.int64)


def _over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """16-bit colour (H, W, 1 or 3) and alpha (H, W, 1) -> (H, W, 3) uint8."""
    mixed = (colour * alpha + 65535 * (65535 - alpha) + 32767) // 65535
    return np.broadcast_to(_to_8_bits(mixed), (*mixed.shape[:2], 3))


def _to_8_bits(samples: np.ndarray) -> np.ndarray:
    """0..65535 -> 0..255 to the nearest: 65535 = 255 * 257."""
    return ((samples + 128) // 257).astype(np.uint8)


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    args: Any = tiles[0][3]
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    args = (raw_mode, *tile[3][1:]) if isinstance(tile[3], tuple) else raw_mode
    return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    tags = getattr(image, "tag_v2", None)
    return tags.get(tag) if tags is not None else None
