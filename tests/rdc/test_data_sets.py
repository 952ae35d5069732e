"""Image sets: identity by content, the split, and the wall between training and evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rdc.data import ImageFile, ImageSet, check_disjoint, split
from rdc.data import index as image_index
from rdc.data.index import describe
from rdc.data.kodak import FILE_SHA256, PIXEL_SHA256
from rdc.data.sets import without_duplicates
from rdc.errors import UserError


def image(name: str, sha256: str) -> ImageFile:
    return ImageFile(path=f"/photos/{name}", width_px=64, height_px=48, sha256=sha256, file_size=1)


def image_set(*hashes: str, name: str = "mine") -> ImageSet:
    images = tuple(image(f"{i}.png", sha256) for i, sha256 in enumerate(hashes))
    return ImageSet(name=name, source="made for a test", images=images)


HASHES = st.lists(st.integers(0, 10**6).map(lambda v: f"{v:064x}"), min_size=2, max_size=60, unique=True)


def test_content_hash_ignores_names_and_order() -> None:
    a = image_set("aa", "bb", "cc")
    b = ImageSet(name="other", source="", images=(image("z", "cc"), image("y", "aa"), image("x", "bb")))
    assert a.content_hash == b.content_hash
    # printf 'aa\nbb\ncc' | sha256sum | cut -c1-12
    assert a.content_hash == "bb3a8f77129e"
    assert a.content_hash != image_set("aa", "bb").content_hash


def test_kodak_is_recognised_by_its_pixels_alone() -> None:
    hashes = list(PIXEL_SHA256.values())
    assert len(set(hashes)) == len(set(FILE_SHA256.values())) == 24
    assert image_set(*reversed(hashes)).is_kodak
    assert not image_set(*hashes[:23]).is_kodak
    assert not image_set(*hashes, "aa").is_kodak
    assert not image_set(*hashes[:23], hashes[0]).is_kodak


def test_manifest_round_trip(tmp_path: Path) -> None:
    images = image_set("aa", "bb")
    images.save(tmp_path / "m.json")
    assert ImageSet.load(tmp_path / "m.json") == images
    assert images.images[1].name == "1.png"
    assert images.to_result() == {
        "name": "mine", "source": "made for a test", "images": 2, "content_hash": images.content_hash
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema_version": 99}, "is not a list of images of version 1"),
        ({"images": [{"path": "x"}]}, "is damaged"),
        ({"content_hash": "0" * 12}, "its images do not match its hash"),
    ],
)
def test_damaged_manifest(tmp_path: Path, change: dict[str, object], text: str) -> None:
    file = tmp_path / "m.json"
    image_set("aa").save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=rf"m\.json: {text}"):
        ImageSet.load(file)


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        ImageSet.load(tmp_path / "none.json")


@given(hashes=HASHES, share=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_split_is_a_partition_decided_by_content(hashes: list[str], share: float, seed: int) -> None:
    train, validation = split(image_set(*hashes), share, seed)
    assert {i.sha256 for i in train.images} | {i.sha256 for i in validation.images} == set(hashes)
    assert len(train) + len(validation) == len(hashes)
    assert min(len(train), len(validation)) >= 1
    assert abs(len(validation) - share * len(hashes)) <= 1
    again = split(image_set(*reversed(hashes)), share, seed)
    assert [part.content_hash for part in again] == [train.content_hash, validation.content_hash]


def test_split_follows_the_seed() -> None:
    images = image_set(*(f"{i:064x}" for i in range(40)))
    held_out = {split(images, 0.2, seed)[1].content_hash for seed in range(5)}
    assert len(held_out) == 5


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_shares_outside_0_and_1(share: float) -> None:
    with pytest.raises(UserError, match=r"data\.validation_share=.*: must lie between 0 and 1"):
        split(image_set("aa", "bb"), share)


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(UserError, match="1 training image cannot be split into training and validation"):
        split(image_set("aa"))


def test_an_image_in_both_sets_is_refused_with_both_names() -> None:
    check_disjoint(image_set("aa", "bb"), image_set("cc"))
    both = ImageSet(name="eval", source="", images=(image("copy.bmp", "bb"),))
    with pytest.raises(UserError, match=r"/photos/1\.png is for training .* /photos/copy\.bmp"):
        check_disjoint(image_set("aa", "bb"), both)


def test_duplicates_keep_the_first() -> None:
    images = [image("a", "1"), image("b", "2"), image("c", "1")]
    assert [i.path for i in without_duplicates(images)] == ["/photos/a", "/photos/b"]


def save(folder: Path, name: str, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def decoded(paths: list[Path], **options: bool) -> tuple[list[ImageFile], int]:
    """Entries, and how many files had to be decoded for them."""
    count = 0

    def progress(_done: int, total: int, _what: str) -> None:
        nonlocal count
        count = total

    return describe(paths, progress=progress, **options)[0], count


def test_only_new_and_changed_files_are_decoded(tmp_path: Path, cache: Path) -> None:
    paths = [save(tmp_path, f"{i}.png", i) for i in range(3)]
    first, fresh = decoded(paths)
    assert fresh == 3
    assert decoded(paths) == (first, 0)
    save(tmp_path, "1.png", 99)
    second, fresh = decoded(paths)
    assert fresh == 1
    assert second[1].sha256 != first[1].sha256
    assert (second[0], second[2]) == (first[0], first[2])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"reader": "other", "images": {}}'])
def test_damaged_index_is_made_anew(tmp_path: Path, cache: Path, content: str) -> None:
    paths = [save(tmp_path, "a.png", 0)]
    first, _ = decoded(paths)
    (cache / "images.json").write_text(content)
    assert decoded(paths) == (first, 1)
    assert decoded(paths) == (first, 0)


def test_index_of_another_decoder_is_not_trusted(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path, "a.png", 0)]
    decoded(paths)
    monkeypatch.setattr(image_index, "READER_VERSION", 99)
    assert decoded(paths)[1] == 1


def test_entries_of_deleted_files_are_forgotten(tmp_path: Path, cache: Path) -> None:
    decoded([save(tmp_path, "a.png", 0)])
    (tmp_path / "a.png").unlink()
    decoded([save(tmp_path, "b.png", 1)])
    entries = json.loads((cache / "images.json").read_text())["images"]
    assert list(entries) == [str(tmp_path / "b.png")]


def test_unusable_files_are_refused_together_or_left_out(tmp_path: Path, cache: Path) -> None:
    paths = [save(tmp_path, f"{i}.png", i) for i in range(4)]
    paths[1].write_bytes(b"not an image")
    paths[3].write_bytes(b"")
    with pytest.raises(UserError, match=r"1\.png: cannot .*\(1 more like it; data\.skip_unusable=true"):
        describe(paths)
    images, refusals = describe(paths, skip_unusable=True)
    assert [i.name for i in images] == ["0.png", "2.png"]
    assert len(refusals) == 2


def test_unwritable_cache_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"the cache cannot be written \(.*\); set RDC_CACHE to a folder"):
        describe([save(tmp_path, "a.png", 0)])
