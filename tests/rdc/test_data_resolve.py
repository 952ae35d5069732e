"""Which images a sweep gets, from what is named and what is at hand."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdc.data import check_disjoint, kodak, packaged, resolve, resolve_eval, resolve_train, split
from rdc.errors import UserError

OFFLINE = {"download": False}


def fill(folder: Path, count: int, seed: int = 0, suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.random.default_rng([seed, index]).integers(0, 256, (40, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.{suffix}")
    return folder


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh machine without data and without a network; few scenes, to be quick."""
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RDC_DATA", raising=False)
    monkeypatch.setattr(kodak, "BASE_URLS", ("http://127.0.0.1:9",))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(resolve, "SYNTHETIC_SCENES", 3)


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("RDC_DATA", str(root))
    return root


def test_fresh_machine_offline(caplog: pytest.LogCaptureFixture) -> None:
    train, evaluation = resolve_train({}), resolve_eval({})
    assert "Kodak cannot be fetched" in caplog.text
    assert evaluation.name == "packaged-photos"
    assert evaluation.source == "5 photos of installed Python packages (scikit-image, scikit-learn)"
    assert train.name == "packaged-and-synthetic"
    assert train.source == (
        "9 photos of installed Python packages (matplotlib, scikit-image) and "
        "3 synthetic scenes (generator 1, seed 0)"
    )
    assert not evaluation.is_kodak
    check_disjoint(train, evaluation)
    assert [len(part) for part in split(train, 0.25)] == [9, 3]
    assert min(min(i.width_px, i.height_px) for i in train.images) >= 256


def test_packaged_photos_are_kept_apart() -> None:
    assert not set(packaged.EVALUATION) & set(packaged.TRAINING)
    scenes = [
        Path(name).stem.removesuffix("_left").removesuffix("_right") for *_, name in packaged.EVALUATION
    ]
    assert not set(scenes) & {
        Path(n).stem.removesuffix("_left").removesuffix("_right") for *_, n in packaged.TRAINING
    }


def test_data_root_comes_before_other_sources(data_root: Path) -> None:
    fill(data_root / "train" / "deep" / "deeper", 3)
    fill(data_root / "kodak", 2, seed=1)
    train, evaluation = resolve_train({}), resolve_eval({})
    assert (train.name, train.source) == ("train", "3 images from $RDC_DATA/train")
    assert evaluation.source == "2 images from $RDC_DATA/kodak"


def test_a_folder_called_kodak_does_not_make_its_images_kodak(data_root: Path, tmp_path: Path) -> None:
    fill(data_root / "kodak", 2)
    assert resolve_eval({}).name == "folder-kodak"
    assert resolve_eval({"eval": str(data_root / "kodak")}).name == "folder-kodak"


def test_data_root_without_the_folder_is_noted(data_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_train({}).name == "packaged-and-synthetic"
    assert "$RDC_DATA has no folder train; using other images" in caplog.text


def test_data_root_that_is_no_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDC_DATA", "/nowhere/at/all")
    for function in (resolve_train, resolve_eval):
        with pytest.raises(
            UserError, match="RDC_DATA=/nowhere/at/all: is not a folder; correct it, or unset it"
        ):
            function({})


def test_what_is_named_comes_first(data_root: Path, tmp_path: Path) -> None:
    fill(data_root / "train", 2)
    mine = fill(tmp_path / "mine", 4, seed=2)
    more = fill(tmp_path / "more", 1, seed=3, suffix="BMP")
    assert resolve_train({"train": str(mine)}).source == "4 images from folder mine"
    both = resolve_train({"train": [str(mine), str(more / "00.BMP")]})
    assert (both.name, both.source) == ("mine+00.BMP", "5 images from mine+00.BMP")
    assert resolve_eval({"eval": str(more / "00.BMP")}).source == "1 image from 00.BMP"


def test_sources_hold_no_absolute_paths(tmp_path: Path) -> None:
    images = resolve_eval({"eval": str(fill(tmp_path / "mine", 1))})
    assert "/" not in images.name + images.source


def test_words_name_what_is_not_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_eval({"eval": "packaged"}).name == "packaged-photos"
    assert resolve_train({"train": "packaged"}).name == "packaged-and-synthetic"
    with pytest.raises(
        UserError, match=r"data\.eval=kodak: cannot be fetched .* put kodim01\.png to kodim24\.png"
    ):
        resolve_eval({"eval": "kodak"})
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "packaged", 1)
    assert resolve_eval({"eval": "packaged"}).source == "1 image from folder packaged"


def test_download_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_eval(OFFLINE).name == "packaged-photos"
    assert "data.download=false" in caplog.text


def test_folder_group_needs_both_names(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"data=folder needs data\.train: add data\.train=FOLDER, or choose data=auto"
    ):
        resolve_train({"name": "folder", "train": None})
    with pytest.raises(UserError, match=r"data=folder needs data\.eval"):
        resolve_eval({"name": "folder", "eval": None})


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"eval": "/no/such"},
            r"data\.eval=/no/such: there is no such folder or file; .* one of: kodak, packaged",
        ),
        ({"eval": 3}, r"data\.eval=3: must be a folder, an image file, or a list of these"),
        ({"eval": []}, r"data\.eval=\[\]: must be a folder"),
        ({"eval": ["a", ""]}, r"must be a folder"),
        ({"evall": "x"}, r"data\.evall: there is no such key; known: name, train, eval"),
        ({"max_eval_images": 0}, r"data\.max_eval_images=0: must be a number of at least 1"),
        ({"max_eval_images": True}, r"data\.max_eval_images=True"),
        ({"skip_unusable": "yes"}, r"data\.skip_unusable='yes': must be true or false"),
        ({"validation_share": 1.0}, r"data\.validation_share=1\.0: must be a number between 0 and 1"),
        ({"cache_gb": -1}, r"data\.cache_gb=-1: must be a number of gigabytes, 0 or more"),
        ({"cache_gb": "4"}, r"data\.cache_gb='4'"),
    ],
)
def test_wrong_settings(config: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        resolve_eval({**OFFLINE, **config})


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no images \(\.png \.jpg"):
        resolve_train({"train": str(tmp_path)})


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = fill(tmp_path / "mine", 2)
    (folder / "SHA256SUMS.txt").touch()
    (folder / ".thumb.png").write_bytes(b"rubbish")
    fill(folder / ".cache", 1, seed=9)
    assert len(resolve_train({"train": str(folder)})) == 2


def test_duplicates_and_unusable_files_are_stated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fill(tmp_path / "mine", 3)
    Image.open(folder / "00.png").save(folder / "copy.bmp")
    (folder / "bad.png").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"bad\.png: cannot be decoded .*data\.skip_unusable=true"):
        resolve_train({"train": str(folder)})
    images = resolve_train({"train": str(folder), "skip_unusable": True})
    assert images.source == "3 images from folder mine; 1 unusable left out; 1 duplicate left out"
    assert "bad.png" in caplog.text


def test_folder_of_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"none of its 1 images can be used, for example .*bad\.png"):
        resolve_train({"train": str(tmp_path), "skip_unusable": True})


def test_max_eval_images_takes_the_first_and_says_so(tmp_path: Path) -> None:
    config = {"eval": str(fill(tmp_path / "mine", 4))}
    part = resolve_eval({**config, "max_eval_images": 2})
    assert [image.name for image in part.images] == ["00.png", "01.png"]
    assert (part.name, part.source) == ("mine-first-2", "first 2 of 4 images from folder mine")
    assert resolve_eval({**config, "max_eval_images": 4}).name == "mine"


def test_evaluation_images_never_train(tmp_path: Path) -> None:
    train = fill(tmp_path / "train", 3)
    (tmp_path / "eval").mkdir()
    Image.open(train / "01.png").save(tmp_path / "eval" / "same-pixels.bmp")
    with pytest.raises(UserError, match=r"01\.png is for training .*same-pixels\.bmp; take it out"):
        check_disjoint(resolve_train({"train": str(train)}), resolve_eval({"eval": str(tmp_path / "eval")}))


def test_second_start_decodes_nothing(tmp_path: Path) -> None:
    folder = fill(tmp_path / "mine", 5)
    reports: list[tuple[int, int, str]] = []
    first = resolve_train({"train": str(folder)}, progress=lambda *report: reports.append(report))
    assert reports[-1] == (5, 5, "reading images")
    reports.clear()
    assert resolve_train({"train": str(folder)}, progress=lambda *report: reports.append(report)) == first
    assert reports == []


def test_resolving_imports_neither_torch_nor_the_packages_it_looks_into(tmp_path: Path) -> None:
    code = (
        "import sys, rdc.data as d;"
        "d.resolve_eval({'eval': 'packaged'}); d.resolve_train({'train': sys.argv[1]});"
        "print(sorted({'torch', 'skimage', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    folder = str(fill(tmp_path / "mine", 2))
    environment = {**os.environ, "RDC_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(
    not Path(os.environ.get("RDC_DATA", ""), "kodak", "kodim24.png").is_file()
    or "RDC_DATA" not in os.environ,
    reason="needs the Kodak images in $RDC_DATA/kodak",
)
class TestRealKodak:
    FOLDER = Path(os.environ.get("RDC_DATA", ""), "kodak").absolute()

    def test_files_and_pixels_have_the_known_hashes(self, caplog: pytest.LogCaptureFixture) -> None:
        images = resolve_eval({"eval": str(self.FOLDER)})
        assert images.is_kodak
        assert (images.name, images.source) == ("kodak", "24 Kodak images from folder kodak")
        assert {image.name: image.sha256 for image in images.images} == kodak.PIXEL_SHA256
        with caplog.at_level(logging.WARNING):
            part = resolve_eval({"eval": str(self.FOLDER), "max_eval_images": 3})
        assert not part.is_kodak
        assert part.name == "kodak-first-3"

    def test_cache_counts_only_when_whole(self, tmp_path: Path) -> None:
        (tmp_path / "cache" / "kodak").mkdir(parents=True)
        for name in kodak.FILE_SHA256:
            (tmp_path / "cache" / "kodak" / name).symlink_to(self.FOLDER / name)
        images = resolve_eval({"eval": "kodak"})
        assert images.is_kodak
        assert images.source == "24 Kodak images from the cache"
        (tmp_path / "cache" / "kodak" / "kodim07.png").unlink()
        assert resolve_eval(OFFLINE).name == "packaged-photos"
