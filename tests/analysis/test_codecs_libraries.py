"""The codecs that come as packages, run for real on small images."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from analysis.codecs import libraries
from analysis.codecs.codec import Codec, CodecError, mean_squared_error, psnr_db
from analysis.errors import AnalysisError
from tests.analysis.codec_images import photo

FINDERS = {
    "hevc": libraries.hevc,
    "av1": libraries.av1,
    "jpegxl": libraries.jpegxl,
    "webp": libraries.webp,
    "jpeg2000": libraries.jpeg2000,
    "jpeg": libraries.jpeg,
}
NAMES = list(FINDERS)


def best(codec: Codec) -> float:
    return codec.low if codec.name == "jpeg2000" else codec.high


@pytest.mark.parametrize("name", NAMES)
def test_more_bits_bring_more_quality(name: str) -> None:
    codec = FINDERS[name]()
    pixels = photo(96, 80)  # in smaller ones the first settings are all header
    values = codec.values[-7::3]
    coded = [codec.code(pixels, value) for value in values]
    for low, high in itertools.pairwise(coded):
        assert low.size_bytes < high.size_bytes
        assert mean_squared_error(pixels, low.pixels) > mean_squared_error(pixels, high.pixels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(33, 17), (8, 9)])
def test_odd_sizes_come_back_whole(name: str, size: tuple[int, int]) -> None:
    pixels = photo(*size)
    coded = FINDERS[name]().code(pixels, best(FINDERS[name]()))
    assert coded.pixels.shape == pixels.shape
    assert coded.pixels.dtype == np.uint8
    floor_db = 25 if name == "webp" or size == (8, 9) else 35  # 4:2:0 and headers set limits of their own
    assert psnr_db(mean_squared_error(pixels, coded.pixels)) > floor_db


@pytest.mark.parametrize("name", NAMES)
def test_decoding_inverts_the_colours_that_encoding_made(name: str) -> None:
    """A wrong matrix or range would move saturated colours by tens of levels."""
    codec = FINDERS[name]()
    for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (127, 128, 129)):
        patch = np.tile(np.array(colour, np.uint8), (32, 32, 1))
        found = codec.code(patch, best(codec)).pixels.astype(int)
        assert np.abs(found - patch).max() <= 4, colour


@pytest.mark.parametrize("name", NAMES)
def test_equal_input_gives_equal_files(name: str) -> None:
    codec = FINDERS[name]()
    first, second = (codec.code(photo(), codec.values[3]) for _ in range(2))
    assert first.size_bytes == second.size_bytes
    np.testing.assert_array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize("name", NAMES)
def test_versions_and_grids_are_stated(name: str) -> None:
    codec = FINDERS[name]()
    assert codec.name == name
    assert sum(character.isdigit() for character in codec.version) >= 4
    assert "None" not in codec.version
    assert "not told" not in codec.version
    assert len(codec.values) >= 8
    assert codec.with_values(codec.values) == codec


def test_jpeg_has_full_chroma() -> None:
    file = libraries._save(photo(), "JPEG", quality=50, subsampling="4:4:4", optimize=True)
    with Image.open(io.BytesIO(file)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(image) == 0


def test_an_encoder_that_writes_other_samples_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import pillow_heif

    real = pillow_heif.encode

    def without_chroma(*given: Any, **options: Any) -> None:
        real(*given, **{**options, "chroma": 420})

    monkeypatch.setattr(pillow_heif, "encode", without_chroma)
    with pytest.raises(
        CodecError, match=r"wrote YCbCr 4:2:0, BT\.601, full range, 8 bit instead of YCbCr 4:4:4"
    ):
        libraries.hevc().code(photo(), 50)


def test_settings_outside_what_the_encoder_takes_are_refused() -> None:
    with pytest.raises(AnalysisError, match="--settings jpeg=0: quality takes whole numbers from 1 to 100"):
        libraries.jpeg().with_values((0.0,))
    with pytest.raises(AnalysisError, match=r"--settings hevc=10.5: quality takes whole numbers"):
        libraries.hevc().with_values((10.5,))
    with pytest.raises(AnalysisError, match="--settings jpegxl=nan: quality takes numbers from"):
        libraries.jpegxl().with_values((float("nan"),))
    with pytest.raises(AnalysisError, match="--settings av1: has a value twice"):
        libraries.av1().with_values((10, 10))
