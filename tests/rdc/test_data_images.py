"""read_rgb: the formats people have, and refusals that name the file."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from rdc.data import images, resolve_train
from rdc.data.images import pixel_sha256, read_rgb
from rdc.errors import UserError


def photo(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def png_16(samples: np.ndarray) -> bytes:
    """A 16-bit PNG of (H, W, 1 to 4) samples, written by hand because PIL writes 16 bits for grey only."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_lossless_colour_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(photo()).save(file, lossless=True)
    pixels = read_rgb(file)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, photo())


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = photo()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_rgb(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white(tmp_path: Path) -> None:
    bits = photo()[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "fax.png")
    assert np.array_equal(read_rgb(tmp_path / "fax.png")[..., 1], bits * np.uint8(255))


def test_palette(tmp_path: Path) -> None:
    small = Image.fromarray(photo()).quantize(16)
    small.save(tmp_path / "palette.png")
    assert np.array_equal(read_rgb(tmp_path / "palette.png"), np.asarray(small.convert("RGB")))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    colour = np.full((8, 8, 4), (200, 100, 0, 255), np.uint8)
    colour[:4, :, 3] = 0
    colour[4, :, 3] = 51  # a fifth: 255 + (200 - 255) / 5 = 244, 255 + (100 - 255) / 5 = 224, 255 - 51 = 204
    Image.fromarray(colour).save(tmp_path / "alpha.png")
    pixels = read_rgb(tmp_path / "alpha.png")
    assert (pixels[:4] == 255).all()
    assert pixels[4, 0].tolist() == [244, 224, 204]
    assert pixels[5, 0].tolist() == [200, 100, 0]


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    indexed = Image.fromarray((np.arange(64, dtype=np.uint8) % 2).reshape(8, 8), mode="P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save(tmp_path / "p.png", transparency=0)
    assert read_rgb(tmp_path / "p.png")[0, :2].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_grey_with_alpha(tmp_path: Path) -> None:
    both = np.zeros((8, 8, 2), np.uint8)
    both[..., 1] = 255
    both[0, 0] = (0, 0)
    Image.fromarray(both, mode="LA").save(tmp_path / "la.png")
    assert read_rgb(tmp_path / "la.png")[0, :2].tolist() == [[255] * 3, [0] * 3]


def test_cmyk(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cmyk.save(tmp_path / "print.tif")
    assert read_rgb(tmp_path / "print.tif")[3, 3].tolist() == [0, 255, 255]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(photo(24, 40)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "turned.png"), np.rot90(photo(24, 40), -1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_scaled_with_rounding(tmp_path: Path, channels: int) -> None:
    wide = np.random.default_rng(channels).integers(0, 65536, (9, 11, channels)).astype(np.uint16)
    wide[0, 0], wide[0, 1] = 0, 65535
    # 129 / 257 = 0.502 rounds to 1, while the high byte alone would give 0.
    wide[0, 2] = (129,) * (channels - (channels % 2 == 0)) + (65535,) * (channels % 2 == 0)
    (tmp_path / "wide.png").write_bytes(png_16(wide))
    pixels = read_rgb(tmp_path / "wide.png")
    value = wide / 65535
    colour = value if channels % 2 else value[..., :-1] * value[..., -1:] + 1 - value[..., -1:]
    expected = np.broadcast_to(255 * colour, (9, 11, 3))
    assert np.abs(pixels - expected).max() < 0.502
    assert pixels[0, 2].tolist() == [1, 1, 1]
    assert pixels[0, 1].tolist() == [255, 255, 255]


def test_16_bit_grey_tiff(tmp_path: Path) -> None:
    wide = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    Image.fromarray(wide).save(tmp_path / "wide.tif")
    assert np.array_equal(read_rgb(tmp_path / "wide.tif")[..., 2], np.round(wide / 257).astype(np.uint8))


def test_32_bit_and_float_samples_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "i.tif")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match=r"i\.tif: samples of more than 16 bits; save it with 8 or 16 bits"):
        read_rgb(tmp_path / "i.tif")
    with pytest.raises(UserError, match=r"f\.tif: pixel type F has no defined way to 8-bit RGB"):
        read_rgb(tmp_path / "f.tif")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(UserError, match=r"none\.png: there is no such image file"):
        read_rgb(tmp_path / "none.png")
    with pytest.raises(UserError, match=r"empty\.png: the file is empty; delete it or fetch it again"):
        read_rgb(tmp_path / "empty.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(photo(64, 64)).save(whole)
    (tmp_path / f"cut.{suffix}").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"cut\.{suffix}: cannot be decoded \(.*\); delete it or replace it"):
        read_rgb(tmp_path / f"cut.{suffix}")


def test_too_small(tmp_path: Path) -> None:
    Image.fromarray(photo(8, 8)).save(tmp_path / "ok.png")
    Image.fromarray(photo(7, 40)).save(tmp_path / "tiny.png")
    assert read_rgb(tmp_path / "ok.png").shape == (8, 8, 3)
    with pytest.raises(UserError, match=r"tiny\.png: 40x7 pixels, .* at least 8; leave this image"):
        read_rgb(tmp_path / "tiny.png")


@pytest.mark.parametrize(("width", "height"), [(20_000, 4_200), (60_000, 60_000)])
def test_hostile_size_is_refused_from_the_header(tmp_path: Path, width: int, height: int) -> None:
    # The first one PIL would decode, the second one it refuses itself.
    data = bytearray(png_16(np.zeros((8, 8, 1), np.uint16)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "bomb.png").write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"bomb\.png: .*more than 80 megapixels; cut or scale it down"):
        read_rgb(tmp_path / "bomb.png")


def test_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(photo(seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"moving\.png: holds 3 frames; save the one you mean as a PNG"):
        read_rgb(tmp_path / "moving.png")


def test_second_view_of_a_phone_photo_is_ignored(tmp_path: Path) -> None:
    first, second = (Image.fromarray(photo(64, 64, seed)) for seed in range(2))
    first.save(tmp_path / "phone.mpo", save_all=True, append_images=[second])
    (tmp_path / "phone.mpo").rename(tmp_path / "phone.jpg")
    alone = io.BytesIO()
    first.save(alone, "JPEG")
    difference = read_rgb(tmp_path / "phone.jpg").astype(int) - np.asarray(Image.open(alone))
    assert np.abs(difference).mean() < 1


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_by_name_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "damaged.img"
    file.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        pixels = read_rgb(file)
    except UserError as error:
        assert re.fullmatch(r".*damaged\.img.*", str(error)), "one line that names the file"  # noqa: PT017
    else:
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3


@given(st.integers(0, 65535))
def test_nearest_8_bit_value(value: int) -> None:
    assert int(images._to_8_bits(np.array(value))) == round(value / 257)


def test_pixel_hash_depends_on_shape_and_content() -> None:
    a = np.zeros((8, 16, 3), np.uint8)
    b = a.copy()
    b[7, 15, 2] = 1
    assert len({pixel_sha256(a), pixel_sha256(b), pixel_sha256(a.reshape(16, 8, 3))}) == 3
    assert pixel_sha256(a[:, ::-1]) == pixel_sha256(a)


def _huge_png(side_px: int) -> bytes:
    header = struct.pack(">II5B", side_px, side_px, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _huge_bmp(side_px: int) -> bytes:
    return b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, side_px, side_px, 1, 24, 0, 0, 0, 0, 0, 0
    )


def _huge_gif(side_px: int) -> bytes:
    side_px = min(side_px, 65_535)  # it can claim no more
    screen = b"GIF89a" + struct.pack("<HHBBB", side_px, side_px, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, side_px, side_px, 0) + b"\x02\x02\x4c\x01\x00;"


def _huge_tiff(side_px: int) -> bytes:
    tags = [(256, side_px), (257, side_px), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side_px)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def _huge_ppm(side_px: int) -> bytes:
    return b"P6 %d %d 255\n" % (side_px, side_px) + bytes(100)


HUGE = {"png": _huge_png, "bmp": _huge_bmp, "gif": _huge_gif, "tif": _huge_tiff, "ppm": _huge_ppm}


@pytest.mark.parametrize("side_px", [9_000, 100_000], ids=["81 megapixels", "10 gigapixels"])
@pytest.mark.parametrize("suffix", HUGE)
def test_a_folder_with_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(
    tmp_path: Path, suffix: str, side_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 30 GB of pixels in a hundred bytes: its decoder must not start. PIL takes 81 megapixels."""
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo()).save(tmp_path / "photos" / "good.png")
    (tmp_path / "photos" / f"huge.{suffix}").write_bytes(HUGE[suffix](side_px))

    def load(self: ImageFile.ImageFile) -> Any:
        assert max(self.size) < 9_000, "pixels of the huge image are decoded"
        return original(self)

    original = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(UserError, match=rf"huge\.{suffix}: .*more than 80 megapixels; cut or scale it down"):
        resolve_train({"train": str(tmp_path / "photos")})
    kept = resolve_train({"train": str(tmp_path / "photos"), "skip_unusable": True})
    assert [image.name for image in kept.images] == ["good.png"]


def test_what_a_file_holds_decides_and_not_its_name(tmp_path: Path) -> None:
    """PIL would start Ghostscript for this one."""
    Image.fromarray(photo()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded \(cannot identify image file"):
        read_rgb(tmp_path / "a.png")


def test_a_lack_of_memory_says_nothing_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")

    def out_of_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", out_of_memory)
    with pytest.raises(MemoryError):
        read_rgb(tmp_path / "a.png")
