"""Conversions between RGB and YCbCr, and what headers say of the samples."""

from __future__ import annotations

import contextlib
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.codecs import colour
from analysis.codecs.codec import CodecError, mean_squared_error, psnr_db
from analysis.codecs.container import Samples, samples_of
from analysis.errors import AnalysisError
from tests.analysis.codec_images import photo

byte = st.integers(0, 255)
WEIGHTS = [Fraction(text) for text in ("0.2126", "0.7152", "0.0722")]


def one(red: int, green: int, blue: int) -> np.ndarray:
    return np.array([[[red, green, blue]]], np.uint8)


def exact_ycbcr(rgb: tuple[int, int, int]) -> list[int]:
    """By fractions and from the text of BT.709 and H.273: halves up, then clipped."""
    luma = sum(weight * value for weight, value in zip(WEIGHTS, rgb, strict=True))
    cb = (rgb[2] - luma) / (2 * (1 - WEIGHTS[2])) + 128
    cr = (rgb[0] - luma) / (2 * (1 - WEIGHTS[0])) + 128
    return [min(max(math.floor(value + Fraction(1, 2)), 0), 255) for value in (luma, cb, cr)]


@given(byte, byte, byte)
@example(1, 198, 198)  # Cr is 29.5 exactly, and in floating point a little less
@settings(max_examples=300, deadline=None)
def test_conversion_equals_exact_arithmetic(red: int, green: int, blue: int) -> None:
    found = colour.to_ycbcr(one(red, green, blue))[:, 0, 0].tolist()
    assert found == exact_ycbcr((red, green, blue))


@given(byte, byte, byte)
@settings(max_examples=300, deadline=None)
def test_no_colour_comes_back_further_off_than_one_level(red: int, green: int, blue: int) -> None:
    back = colour.to_rgb(colour.to_ycbcr(one(red, green, blue)))
    assert np.abs(back.astype(int) - one(red, green, blue)).max() <= colour.WORST_ERROR


def test_golden_primaries() -> None:
    # Red: Y 0.2126 * 255 = 54.2; Cb (0 - 54.213) / 1.8556 + 128 = 98.8; Cr 127.5 + 128 = 255.5, clipped.
    assert colour.to_ycbcr(one(255, 0, 0))[:, 0, 0].tolist() == [54, 99, 255]
    # Green: Y 182.4; Cb -182.376 / 1.8556 + 128 = 29.7; Cr -182.376 / 1.5748 + 128 = 12.2.
    assert colour.to_ycbcr(one(0, 255, 0))[:, 0, 0].tolist() == [182, 30, 12]
    # Blue: Y 18.4; Cb 255.5, clipped; Cr -18.411 / 1.5748 + 128 = 116.3.
    assert colour.to_ycbcr(one(0, 0, 255))[:, 0, 0].tolist() == [18, 255, 116]
    assert colour.to_ycbcr(one(255, 255, 255))[:, 0, 0].tolist() == [255, 128, 128]


def test_grey_stays_grey_and_planes_lie_apart() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    planes = colour.to_ycbcr(grey)
    assert (planes[1:] == 128).all()
    np.testing.assert_array_equal(colour.to_rgb(planes), grey)


@pytest.mark.parametrize("size", [(33, 17), (1, 1), (7, 2)])
def test_odd_sizes_keep_rows_and_columns(size: tuple[int, int]) -> None:
    pixels = photo(*size)
    planes = colour.to_ycbcr(pixels)
    assert planes.shape == (3, size[1], size[0])
    assert np.abs(colour.to_rgb(planes).astype(int) - pixels).max() <= 1


def test_rounding_is_several_decibels_better_than_truncation() -> None:
    pixels = photo(64, 64)
    red, green, blue = (pixels[..., n].astype(float) for n in range(3))
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    truncated = np.stack([luma, (blue - luma) / 1.8556 + 128, (red - luma) / 1.5748 + 128]).clip(0, 255)
    rounded_db, truncated_db = (
        psnr_db(mean_squared_error(pixels, colour.to_rgb(planes)))
        for planes in (colour.to_ycbcr(pixels), truncated.astype(np.uint8))
    )
    assert rounded_db > truncated_db + 4


def test_the_self_test_passes_here() -> None:
    colour.self_test()


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (lambda number, by: number // by, "levels off|truncates"),
        (lambda number, by: number // by // 4 * 4, "grey does not come back"),
        (lambda number, by: np.minimum((2 * number + by) // (2 * by), 250), "grey does not come back"),
    ],
)
def test_the_self_test_sees_truncation_and_loss(
    broken: object, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colour, "_divide", broken)
    with pytest.raises(AnalysisError, match=match):
        colour.self_test()


def test_psnr_of_one_level_everywhere() -> None:
    source = np.full((4, 5, 3), 100, np.uint8)
    assert mean_squared_error(source, source + 1) == 1.0
    assert psnr_db(1.0) == pytest.approx(20 * math.log10(255))  # 48.13 dB
    assert mean_squared_error(source, source) == 0.0
    assert psnr_db(0.0) == math.inf
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr_db(mean_squared_error(black, white)) == pytest.approx(0.0)
    assert mean_squared_error(white, black) == 255.0**2


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def nclx(matrix: int, full: bool) -> bytes:
    return box(b"colr", b"nclx" + struct.pack(">HHHB", 1, 13, matrix, 0x80 if full else 0))


def file_with(*properties: bytes) -> bytes:
    meta = box(b"meta", bytes(4) + box(b"iprp", box(b"ipco", b"".join(properties))))
    return box(b"ftyp", b"heic") + meta + box(b"mdat", b"av1C" * 9)


def hvcc(chroma: int, bits: int) -> bytes:
    return box(b"hvcC", bytes(16) + bytes([0xFC | chroma, 0xF8 | (bits - 8)]) + bytes(5))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (file_with(hvcc(3, 8), nclx(6, True)), Samples("4:4:4", 8, "BT.601", True)),
        (file_with(hvcc(1, 10), nclx(1, False)), Samples("4:2:0", 10, "BT.709", False)),
        (
            file_with(box(b"av1C", bytes([0x81, 0x24, 0x00, 0])), nclx(6, True)),
            Samples("4:4:4", 8, "BT.601", True),
        ),
        (
            file_with(box(b"av1C", bytes([0x81, 0x04, 0x0C, 0])), nclx(9, True)),
            Samples("4:2:0", 8, "BT.2020", True),
        ),
        (
            file_with(box(b"av1C", bytes([0x81, 0x44, 0x48, 0])), nclx(77, True)),
            Samples("4:2:2", 10, "matrix 77", True),
        ),
    ],
)
def test_headers_are_read(file: bytes, expected: Samples) -> None:
    assert samples_of(file) == expected


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"no boxes at all, but long enough",
        file_with(hvcc(3, 8)),
        file_with(nclx(6, True)),
        file_with(hvcc(3, 8), hvcc(1, 8), nclx(6, True)),
    ],
)
def test_a_file_that_does_not_tell_is_refused(file: bytes) -> None:
    with pytest.raises(CodecError, match="does not say in one way"):
        samples_of(file)


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_an_answer_or_a_codec_error(file: bytes) -> None:
    for data in (
        file,
        file_with(box(b"hvcC", file), nclx(6, True)),
        file_with(hvcc(3, 8), box(b"colr", file)),
    ):
        with contextlib.suppress(CodecError):
            assert samples_of(data).chroma
