"""The pixel file, and the crops: a function of pixels, seed and step, whatever is cached and however."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rdc.data import ImageFile, ImageSet, PixelCache, pixelfile
from rdc.data import cache as cache_module
from rdc.data.index import describe_pixels
from rdc.errors import UserError

SIZES = [(40, 70), (64, 64), (100, 50), (32, 33), (48, 90), (80, 80)]  # height, width


def make_set(folder: Path, sizes: list[tuple[int, int]] = SIZES, seed: int = 0) -> ImageSet:
    folder.mkdir(parents=True, exist_ok=True)
    images: list[ImageFile] = []
    for index, size in enumerate(sizes):
        pixels = np.random.default_rng([seed, index]).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        images.append(describe_pixels(folder / f"{index}.png", pixels))
    return ImageSet(name="mine", source="made for a test", images=tuple(images))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_set(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def shared(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> PixelCache:
    return PixelCache(images, root=tmp_path_factory.mktemp("cache"))


def pixels_of(image: ImageFile) -> np.ndarray:
    return np.asarray(Image.open(image.path))


def nhwc(batch: torch.Tensor) -> np.ndarray:
    return batch.permute(0, 2, 3, 1).numpy()


def data_file(root: Path) -> Path:
    return next((root / "pixels").glob("*.u8"))


def test_whole_images_in_the_order_of_the_set(images: ImageSet, shared: PixelCache) -> None:
    assert len(shared) == shared.held == len(SIZES)
    for index, image in enumerate(images.images):
        assert np.array_equal(shared.image(index), pixels_of(image))
        assert not shared.image(index).flags.writeable
    x = shared.tensor(0)
    assert x.shape == (1, 3, 40, 70)
    assert x.dtype == torch.float32
    assert np.array_equal((255 * x[0]).round().byte().permute(1, 2, 0).numpy(), pixels_of(images.images[0]))


def test_crops_are_crops(images: ImageSet, shared: PixelCache) -> None:
    """Each crop is found in some image that is large enough, possibly mirrored."""
    windows: set[bytes] = set()
    for image in images.images:
        if min(image.height_px, image.width_px) >= 40:
            pixels = pixels_of(image)
            corners = itertools.product(range(image.height_px - 39), range(image.width_px - 39))
            windows.update(pixels[top : top + 40, left : left + 40].tobytes() for top, left in corners)
    seen, mirrored = 0, 0
    for step in range(6):
        batch = shared.crops_uint8(step, 5, 40, 0)
        assert batch.shape == (5, 3, 40, 40)
        assert batch.dtype == torch.uint8
        assert batch.is_contiguous(memory_format=torch.channels_last)
        for crop in batch.permute(0, 2, 3, 1).numpy():
            straight, flipped = crop.tobytes() in windows, crop[:, ::-1].tobytes() in windows
            assert straight or flipped
            seen += 1
            mirrored += flipped and not straight
    assert 0.2 < mirrored / seen < 0.8


def test_float_crops_are_the_same_scaled_to_one(shared: PixelCache) -> None:
    x = shared.crops(3, 4, 32, 1)
    assert x.dtype == torch.float32
    assert torch.equal(x, shared.crops_uint8(3, 4, 32, 1).float() / 255)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_every_image_is_drawn_once_per_pass(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PixelCache(images, root=tmp_path)
    drawn: list[str] = []
    read = cache._read

    def note(image: ImageFile) -> np.ndarray:
        drawn.append(image.sha256)
        return read(image)

    monkeypatch.setattr(cache, "_read", note)
    for step in range(9):
        cache._draw(step, 4, 32, 0)  # 36 draws: six passes over six images; no thread looks ahead
    passes = [drawn[start : start + 6] for start in range(0, 36, 6)]
    assert all(len(set(one)) == 6 for one in passes)
    assert len({tuple(one) for one in passes}) > 1


def test_positions_cover_the_image(tmp_path: Path) -> None:
    ramp = np.zeros((9, 12, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(9)[:, None], np.arange(12)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    alone = ImageSet(name="ramp", source="", images=(describe_pixels(tmp_path / "ramp.png", ramp),))
    batch = PixelCache(alone, root=tmp_path).crops_uint8(0, 400, 8, 0)
    corners = {(int(crop[0, 0, 0]), min(int(crop[1, 0, 0]), int(crop[1, 0, -1]))) for crop in batch}
    assert corners == {(top, left) for top in range(2) for left in range(5)}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    step=st.integers(0, 10**7),
    batch=st.integers(1, 9),
    crop=st.sampled_from([8, 32, 64]),
)
def test_crops_are_a_function_of_seed_and_step(
    shared: PixelCache, images: ImageSet, seed: int, step: int, batch: int, crop: int
) -> None:
    x = shared.crops_uint8(step, batch, crop, seed)
    reversed_set = dataclasses.replace(images, images=images.images[::-1])
    again = PixelCache(reversed_set, root=Path(images.images[0].path).parent, cache_gb=20_000 / 1e9)
    assert 0 < again.held < len(again)
    assert torch.equal(again.crops_uint8(step, batch, crop, seed), x)


def test_seeds_and_steps_differ(shared: PixelCache) -> None:
    batches = [shared.crops_uint8(step, 4, 32, seed) for step in range(3) for seed in range(3)]
    assert len({batch.numpy().tobytes() for batch in batches}) == 9


def test_small_images_take_no_part(shared: PixelCache) -> None:
    assert shared.excluded(32) == 0
    assert shared.excluded(64) == 4
    with pytest.raises(
        UserError, match=r"budget\.crop_px=128: no image of mine .* has 80 pixels\. Choose smaller"
    ):
        shared.crops_uint8(0, 1, 128, 0)


@pytest.mark.parametrize("cache_gb", [0.0, 20_000 / 1e9])
def test_images_beyond_the_cap_are_decoded_when_needed(
    images: ImageSet, tmp_path: Path, cache_gb: float
) -> None:
    cache = PixelCache(images, root=tmp_path, cache_gb=cache_gb)
    assert cache.held == sum(p.is_file() for p in tmp_path.rglob("*.u8")) * 2
    for file in tmp_path.rglob("*.u8"):
        assert file.stat().st_size <= cache_gb * 1e9
    for index, image in enumerate(images.images):
        assert np.array_equal(cache.image(index), pixels_of(image))


def test_negative_cap_is_refused(images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.cache_gb=-1: must be 0 or more"):
        PixelCache(images, root=tmp_path, cache_gb=-1)


def test_decoded_images_are_kept_within_bounds(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def read(image: ImageFile) -> np.ndarray:
        reads.append(image.name)
        return pixelfile.read_checked(image)

    monkeypatch.setattr(cache_module, "DECODED_BYTES", 40_000)
    monkeypatch.setattr(cache_module, "read_checked", read)
    cache = PixelCache(images, root=tmp_path, cache_gb=0)
    for index in (0, 1, 0, 1, 5, 0):  # 8,400 + 12,288 + 19,200 bytes: all stay
        cache.image(index)
    assert reads == ["0.png", "1.png", "5.png"]
    cache.image(4)  # 12,960 more: the least recently used ones have to go, first 1, then 5
    cache.image(0)
    assert reads == ["0.png", "1.png", "5.png", "4.png"]
    cache.image(5)
    assert reads[-1] == "5.png"


def test_second_opening_writes_and_decodes_nothing(images: ImageSet, tmp_path: Path) -> None:
    reports: list[Any] = []
    PixelCache(images, root=tmp_path, progress=lambda *report: reports.append(report))
    assert reports[-1] == (6, 6, "decoding images")
    stamp = data_file(tmp_path).stat().st_mtime_ns
    reports.clear()
    moved = dataclasses.replace(
        images, images=tuple(dataclasses.replace(i, path="/gone/away.png") for i in images.images)
    )
    cache = PixelCache(moved, root=tmp_path, progress=lambda *report: reports.append(report))
    assert reports == []
    assert data_file(tmp_path).stat().st_mtime_ns == stamp
    assert np.array_equal(cache.image(2), pixels_of(images.images[2]))


def spoil(file: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(file, file.stat().st_size - 1)
    elif how == "longer":
        file.write_bytes(file.read_bytes() + b"x")
    elif how == "flipped":
        content = bytearray(file.read_bytes())
        content[1234] ^= 1
        file.write_bytes(bytes(content))
    os.utime(file)


@pytest.mark.parametrize("how", ["truncated", "longer", "flipped"])
def test_damaged_file_is_set_aside_and_made_anew(
    images: ImageSet, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    PixelCache(images, root=tmp_path)
    file = data_file(tmp_path)
    good = file.read_bytes()
    spoil(file, how)
    cache = PixelCache(images, root=tmp_path)
    assert file.read_bytes() == good
    assert file.with_name(f"{file.name}.damaged1").exists()
    assert f"is damaged: kept as {file.name}.damaged1, and decoded anew" in caplog.text
    assert np.array_equal(cache.image(0), pixels_of(images.images[0]))


@pytest.mark.parametrize("content", [None, "", "{}", '{"layout": 0}'])
def test_damaged_index_of_a_good_file_is_repaired(
    images: ImageSet, tmp_path: Path, content: str | None
) -> None:
    PixelCache(images, root=tmp_path)
    index = data_file(tmp_path).with_suffix(".json")
    before = json.loads(index.read_text())
    index.unlink() if content is None else index.write_text(content)
    PixelCache(images, root=tmp_path)
    assert json.loads(index.read_text()) == before
    assert not list(tmp_path.rglob("*.damaged*"))


def test_half_written_file_is_no_cache(images: ImageSet, tmp_path: Path) -> None:
    PixelCache(images, root=tmp_path)
    file = data_file(tmp_path)
    file.rename(file.with_suffix(".unfinished"))
    cache = PixelCache(images, root=tmp_path)
    assert np.array_equal(cache.image(1), pixels_of(images.images[1]))
    assert not file.with_suffix(".unfinished").exists()


def test_source_that_changed_is_named(tmp_path: Path) -> None:
    changed = make_set(tmp_path / "images")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "images" / "1.png")
    with pytest.raises(
        UserError, match=r"1\.png: has changed since this sweep looked at it; repeat the command"
    ):
        PixelCache(changed, root=tmp_path)
    assert not list(tmp_path.rglob("*.u8")) + list(tmp_path.rglob("*.unfinished"))
    with pytest.raises(UserError, match=r"1\.png: has changed"):
        PixelCache(changed, root=tmp_path, cache_gb=0).image(1)


def test_full_disk_falls_back_to_decoding(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pixelfile, "SPARE_BYTES", 2**60)
    cache = PixelCache(images, root=tmp_path)
    assert cache.held == 0
    assert "images are decoded when they are needed, which is slower" in caplog.text
    assert np.array_equal(cache.image(3), pixels_of(images.images[3]))


def test_files_that_nobody_used_for_long_make_room(images: ImageSet, tmp_path: Path) -> None:
    PixelCache(images, root=tmp_path)
    old = data_file(tmp_path)
    other = make_set(tmp_path / "other", [(20, 20)], seed=1)
    PixelCache(other, root=tmp_path)
    assert old.exists()
    os.utime(old.with_suffix(".json"), (time.time() - 40 * 86400,) * 2)
    PixelCache(make_set(tmp_path / "third", [(20, 20)], seed=2), root=tmp_path)
    assert not old.exists()
    assert len(list(tmp_path.rglob("*.u8"))) == 2


BUILD = """
import sys, time
from pathlib import Path
from rdc.data import ImageSet, PixelCache
images, root, ready, built = ImageSet.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), []
ready.touch()
while len(list(ready.parent.glob("ready*"))) < 2:
    time.sleep(0.001)
cache = PixelCache(images, root=root, progress=lambda *report: built.append(report))
print(bool(built), *(int(cache.image(i).sum()) for i in range(len(cache))))
"""


def test_two_processes_build_once(tmp_path: Path) -> None:
    many = make_set(tmp_path / "images", [(200, 200)] * 12)
    many.save(tmp_path / "m.json")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, tmp_path / "m.json", tmp_path / "cache", tmp_path / f"ready{i}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outcomes = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(built for built, *_ in outcomes) == ["False", "True"]
    expected = [str(int(pixels_of(image).sum())) for image in many.images]
    assert [sums for _, *sums in outcomes] == [expected, expected]


@pytest.mark.parametrize("cache_gb", [0.0, 4.0])
def test_crops_made_ahead_are_those_of_their_step(images: ImageSet, tmp_path: Path, cache_gb: float) -> None:
    cache = PixelCache(images, root=tmp_path, cache_gb=cache_gb)
    steps = [7, 8, 9, 9, 10, 3, 4, 6, 8]  # in a row, again, and jumping back and forth as after a rollback
    for step in steps:
        assert np.array_equal(nhwc(cache.crops_uint8(step, 3, 32, 5)), cache._draw(step, 3, 32, 5))
    cache.crops_uint8(9, 3, 32, 5)
    assert np.array_equal(nhwc(cache.crops_uint8(10, 4, 32, 6)), cache._draw(10, 4, 32, 6))


@pytest.mark.parametrize(("cache_gb", "made_ahead"), [(0.0, 2), (4.0, 1)])
def test_following_steps_are_made_in_the_background(
    images: ImageSet, tmp_path: Path, cache_gb: float, made_ahead: int
) -> None:
    cache = PixelCache(images, root=tmp_path, cache_gb=cache_gb)
    cache.crops_uint8(0, 2, 32, 0)
    assert [key[0] for key in cache._ahead] == list(range(1, 1 + made_ahead))
    made = cache._ahead[1, 2, 32, 0]
    batch = cache.crops_uint8(1, 2, 32, 0)
    assert batch.data_ptr() == made.result().ctypes.data


def test_threads_end_with_the_cache(images: ImageSet, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    cache = PixelCache(images, root=tmp_path)
    cache.crops_uint8(0, 2, 32, 0)
    (worker,) = set(threading.enumerate()) - before
    assert worker.name.startswith("crops")
    del cache
    gc.collect()
    worker.join(timeout=10)
    assert not worker.is_alive()


def test_what_is_made_ahead_in_vain_raises_nothing(tmp_path: Path) -> None:
    two = make_set(tmp_path / "images", [(40, 40), (40, 40)])
    cache = PixelCache(two, root=tmp_path, cache_gb=0)
    Path(two.images[0].path).write_bytes(b"rubbish")
    outcomes = []
    for step in range(4):  # each of the two images twice
        try:
            outcomes.append(cache.crops_uint8(step, 1, 32, 0).shape[0])
        except UserError as error:
            outcomes.append("0.png" in str(error))
    assert sorted(outcomes) == [1, 1, True, True]


def test_many_threads_read_one_cache(images: ImageSet, tmp_path: Path) -> None:
    cache = PixelCache(images, root=tmp_path, cache_gb=0)
    expected = [cache.crops_uint8(step, 4, 32, 0).numpy().tobytes() for step in range(12)]
    got: dict[int, bytes] = {}

    def work(first: int) -> None:
        for step in range(first, 12, 3):
            got[step] = cache.crops_uint8(step, 4, 32, 0).numpy().tobytes()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[step] for step in range(12)] == expected


def test_golden_crop(tmp_path: Path) -> None:
    # (down, along, flip) as below: an 8 px crop of 9 x 12 pixels lies at (int(down * 2), int(along * 5)).
    down, along, flip = np.random.default_rng([3, 5, 1]).random((1, 3))[0]
    ramp = np.zeros((9, 12, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(9)[:, None], np.arange(12)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    alone = ImageSet(name="ramp", source="", images=(describe_pixels(tmp_path / "ramp.png", ramp),))
    crop = PixelCache(alone, root=tmp_path).crops_uint8(5, 1, 8, 3)[0]
    assert int(crop[0, 0, 0]) == int(down * 2)
    assert int(crop[1, 0, -1 if flip < 0.5 else 0]) == int(along * 5)
    assert f"{down:.6f} {along:.6f} {flip:.6f}" == "0.606842 0.245860 0.456693"
