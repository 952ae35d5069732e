"""Which images are taken, and what a set of them is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.codecs.images import (
    KODAK_SHA256,
    SourceImage,
    content_sha256,
    dataset_name,
    find_images,
    pixel_sha256,
    read_rgb,
)
from analysis.errors import AnalysisError
from tests.analysis.codec_images import photo, save_photos


def kodak() -> list[SourceImage]:
    from rdc.data.kodak import PIXEL_SHA256

    return [SourceImage(name, Path(name), 768, 512, sha256) for name, sha256 in PIXEL_SHA256.items()]


def test_kodak_is_known_by_the_hashes_that_trials_know_it_by() -> None:
    from rdc.data.sets import ImageFile, ImageSet

    assert content_sha256(kodak()) == KODAK_SHA256
    files = [ImageFile(path=i.name, width_px=1, height_px=1, sha256=i.sha256, file_size=1) for i in kodak()]
    images = ImageSet(name="x", source="", images=tuple(files))
    assert images.is_kodak
    assert KODAK_SHA256.startswith(images.content_hash)


def test_pixels_have_the_hash_that_trials_give_them(tmp_path: Path) -> None:
    from rdc.data.images import pixel_sha256 as rdc_sha256
    from rdc.data.images import read_rgb as rdc_read

    path = save_photos(tmp_path, 1) / "a.png"
    np.testing.assert_array_equal(read_rgb(path), rdc_read(path))
    assert pixel_sha256(read_rgb(path)) == rdc_sha256(rdc_read(path))


def test_only_kodak_is_called_kodak(tmp_path: Path) -> None:
    images, _ = find_images(save_photos(tmp_path / "kodak"))
    assert dataset_name(tmp_path / "kodak", images, None) == "folder-kodak"
    assert dataset_name(tmp_path / "photos", images, None) == "photos"
    assert dataset_name(tmp_path, images, "mine") == "mine"
    assert dataset_name(tmp_path / "any", kodak(), None) == "kodak"
    assert dataset_name(tmp_path / "any", kodak()[:23], None) == "any"
    with pytest.raises(AnalysisError, match="these are not the 24 Kodak images"):
        dataset_name(tmp_path, images, "Kodak")
    with pytest.raises(AnalysisError, match="these are the 24 Kodak images"):
        dataset_name(tmp_path, kodak(), "mine")
    with pytest.raises(AnalysisError, match="--dataset: is empty"):
        dataset_name(tmp_path, images, " ")


def test_grey_palette_and_bilevel_lose_nothing(tmp_path: Path) -> None:
    grey = photo()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    few = (photo() // 64) * 64
    Image.fromarray(few).quantize(256).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "palette.png"), few)
    Image.fromarray(grey > 128).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "bits.png")[..., 1], (grey > 128) * 255)


def wide_png(path: Path) -> None:
    """A 16-bit RGB PNG, written by hand because Pillow cannot."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(9 * 6) for _ in range(9))
    header = struct.pack(">IIBBBBB", 9, 9, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_what_has_no_one_way_to_rgb_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    wide_png(path)
    with pytest.raises(AnalysisError, match=r"x.png: has 16-bit samples"):
        read_rgb(path)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)
    with pytest.raises(AnalysisError, match="has 16-bit samples"):
        read_rgb(path)
    Image.fromarray(photo()).convert("RGBA").save(path)
    with pytest.raises(AnalysisError, match="has transparency"):
        read_rgb(path)
    Image.fromarray(photo()).save(path, transparency=(0, 0, 0))
    with pytest.raises(AnalysisError, match="has transparency"):
        read_rgb(path)
    Image.fromarray(photo()).convert("CMYK").save(tmp_path / "x.jpg")
    with pytest.raises(AnalysisError, match="pixel type CMYK"):
        read_rgb(tmp_path / "x.jpg")
    frames = [Image.fromarray(photo(seed=n)) for n in range(2)]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(AnalysisError, match="is animated"):
        read_rgb(tmp_path / "x.webp")
    Image.fromarray(photo(7, 40)).save(path)
    with pytest.raises(AnalysisError, match="7x40 pixels"):
        read_rgb(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\nbroken"])
def test_a_file_that_is_no_image_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(AnalysisError, match=r"x.png: cannot be read as an image") as caught:
        find_images(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    path = save_photos(tmp_path, 1) / "a.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(AnalysisError, match=r"a.png: cannot be read"):
        read_rgb(path)


def test_folders_that_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="nowhere: is no folder"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(AnalysisError, match=r"has no images; looked for .png"):
        find_images(tmp_path)
    save_photos(tmp_path, 1)
    images, others = find_images(tmp_path)
    assert ([image.name for image in images], others) == (["a"], ["notes.txt"])
    Image.fromarray(photo(seed=5)).save(tmp_path / "a.bmp")
    with pytest.raises(AnalysisError, match="2 images are called a; keep one"):
        find_images(tmp_path)
    (tmp_path / "a.bmp").unlink()
    Image.open(tmp_path / "a.png").save(tmp_path / "b.bmp")
    with pytest.raises(AnalysisError, match="2 images show the same pixels"):
        find_images(tmp_path)
