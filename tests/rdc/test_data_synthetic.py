"""Synthetic scenes: the same on every machine, different from each other, and like photos to a codec."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdc.data import pixel_sha256, read_rgb
from rdc.data.scenes import synthetic_images
from rdc.data.synthetic import SIDE_PX, Draws, scene


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return np.stack([scene(0, index) for index in range(24)])


def test_golden_scene() -> None:
    # Regenerate with pixel_sha256(scene(0, 0)), and raise GENERATOR_VERSION with it.
    assert pixel_sha256(scene(0, 0)) == "9b559f2241b49033874f013c27b328edbecf51f46ac682346c1c7280b10f8f5c"
    assert pixel_sha256(scene(7, 3)) == "574ccf8342019e350750a16a53813ab24a519a22596afc99b62d2aa4ea16330b"


def test_raw_stream_is_the_promised_one() -> None:
    # PCG64 seeded by the first child of SeedSequence((1, 2)): upper 24 bits, from the end of a block of 1024.
    raw = np.random.PCG64(np.random.SeedSequence((1, 2)).spawn(2)[0]).random_raw(1024)
    assert Draws(1, 2).number() == (int(raw[-1]) >> 40) / 2**24


def test_draws_have_the_stated_ranges() -> None:
    draws = Draws(3)
    bells = np.array([draws.bell() for _ in range(4000)])
    # standard error of the mean 0.016, of the variance about 0.02
    assert abs(bells.mean()) < 0.06
    assert abs(bells.var() - 1) < 0.08
    wholes = [draws.whole(2, 5) for _ in range(300)]
    assert set(wholes) == {2, 3, 4}
    a, b = draws.direction()
    assert a * a + b * b == pytest.approx(1)
    array = draws.array(50, 40)
    assert array.dtype == np.float32
    assert 0 <= array.min() <= array.max() < 1


def test_scenes_differ_and_follow_the_seed(scenes: np.ndarray) -> None:
    assert scenes.shape == (24, SIDE_PX, SIDE_PX, 3)
    assert len({pixel_sha256(pixels) for pixels in scenes}) == 24
    assert pixel_sha256(scene(1, 0)) != pixel_sha256(scenes[0])


def test_spectrum_falls_like_that_of_photos(scenes: np.ndarray) -> None:
    # Power of photos falls about as f^-2 to f^-3 between 1/64 and 1/8 cycles per pixel.
    luma = scenes.astype(float) @ [0.299, 0.587, 0.114]
    window = np.outer(np.hanning(SIDE_PX), np.hanning(SIDE_PX))
    centred = (luma - luma.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(axis=0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE_PX), np.fft.fftfreq(SIDE_PX)))
    edges = [1 / 64, 1 / 32, 1 / 16, 1 / 8]
    bands = [power[(radius >= low) & (radius < 2 * low)].mean() for low in edges]
    slope = np.polyfit(np.log2(edges), np.log2(bands), 1)[0]
    assert -3.2 < slope < -2.0


def test_gradients_are_sparse(scenes: np.ndarray) -> None:
    # Kurtosis of luma differences: 3 for Gaussian noise, 8 to 60 for photos, mostly flat with few edges.
    luma = scenes.astype(float) @ [0.299, 0.587, 0.114]
    steps = np.diff(luma, axis=2).reshape(len(luma), -1)
    kurtosis = (steps**4).mean(axis=1) / (steps**2).mean(axis=1) ** 2
    assert 8 < np.median(kurtosis) < 60


def test_both_chroma_axes_carry_signal(scenes: np.ndarray) -> None:
    # Photos have about 5e-3 on the stronger axis and 1.4e-3 on the weaker one; luma varies ten times as much.
    rgb = scenes.reshape(-1, 3) / 255
    luma = rgb @ [0.299, 0.587, 0.114]
    blue, red = (rgb[:, 2] - luma) / 1.772, (rgb[:, 0] - luma) / 1.402
    weak, strong = np.linalg.eigvalsh(np.cov(blue, red))
    assert 0.8e-3 < weak < 4e-3
    assert 2e-3 < strong < 15e-3
    assert luma.var() > 5 * strong


def test_jpeg_finds_them_as_hard_as_photos(scenes: np.ndarray) -> None:
    bits_per_px = []
    for pixels in scenes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
        bits_per_px.append(8 * buffer.tell() / SIDE_PX**2)
    assert 0.5 < np.median(bits_per_px) < 1.6


def test_files_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDC_CACHE", str(tmp_path))
    reports: list[str] = []
    first = synthetic_images(5, 3, progress=lambda _done, _total, what: reports.append(what))
    assert reports == ["drawing synthetic scenes"] * 3
    assert [pixel_sha256(read_rgb(image.path)) for image in first] == [image.sha256 for image in first]
    assert first[2].sha256 == pixel_sha256(scene(5, 2))
    reports.clear()
    assert synthetic_images(5, 3, progress=lambda _done, _total, what: reports.append(what)) == first
    assert reports == []


def test_interrupted_drawing_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDC_CACHE", str(tmp_path))

    def stop(done: int, _total: int, _what: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic_images(5, 2, progress=stop)
    assert len(synthetic_images(5, 2)) == 2
    assert not list(tmp_path.glob("synthetic/*.unfinished"))
