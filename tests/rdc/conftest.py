"""Small codecs and small photographs that the tests of training and measuring share."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rdc.checkpoint import load_model, save_model
from rdc.data import ImageSet, PixelCache, resolve_eval, resolve_train
from rdc.files import locked
from rdc.models.codec import Codec
from rdc.resume import MetricsLog
from rdc.spec import Recipe, RunSettings, TrialSpec, parse_model
from rdc.start import starting_codec
from rdc.train import train
from tests.rdc.forked import Forked, forking
from tests.rdc.shared import TINY_MODEL

MakeTrial = Callable[..., tuple[TrialSpec, RunSettings]]


def photo(seed: int, height_px: int, width_px: int) -> np.ndarray:
    """Smooth colour blobs with a little noise: something that a codec can learn."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width_px, height_px), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-4, 5, smooth.shape), 0, 255).astype(np.uint8)


def write_photos(folder: Path, seeds: range, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir()
    for seed in seeds:
        height_px, width_px = sizes[seed % len(sizes)]
        Image.fromarray(photo(seed, height_px, width_px)).save(folder / f"{seed}.png")


@pytest.fixture(scope="session")
def image_sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    """(6 training images, 3 evaluation images, one of them of odd size and one too small for MS-SSIM)."""
    root = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RDC_CACHE", str(root / "cache"))
        write_photos(root / "train", range(6), [(160, 192)])
        write_photos(root / "eval", range(100, 103), [(256, 256), (203, 171), (96, 64)])
        return resolve_train({"train": str(root / "train")}), resolve_eval({"eval": str(root / "eval")})


@pytest.fixture
def make_trial(
    tmp_path: Path, image_sets: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> MakeTrial:
    """make_trial(steps=..., run={...}, model={...}, **spec changes) -> (TrialSpec, RunSettings) to run."""
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "cache"))
    return functools.partial(small_trial, tmp_path, image_sets)


@pytest.fixture(scope="module")
def make_trial_once(image_sets: tuple[ImageSet, ImageSet]) -> Iterator[MakeTrial]:
    """As make_trial, with the folder before the other arguments: for what the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:

        def make(folder: Path, **changes: Any) -> tuple[TrialSpec, RunSettings]:
            patch.setenv("RDC_CACHE", str(folder / "cache"))
            return small_trial(folder, image_sets, **changes)

        yield make


@pytest.fixture(scope="session")
def variable_rate(
    image_sets: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Codec, PixelCache]:
    """(a tiny codec that was trained for seconds, until rates follow lmbda; images that it has not seen).

    Only its rate may be changed. Trained once for all processes of the tests.
    """
    common = tmp_path_factory.getbasetemp()
    common = common.parent if "PYTEST_XDIST_WORKER" in os.environ else common
    path = common / "variable_rate.safetensors"
    with locked(common / "variable_rate.lock"):
        if not path.exists():
            codec = trained_variable_rate(image_sets, tmp_path_factory.mktemp("variable_rate"))
            save_model(path, codec, extra={"lmbda": 0.013})
    return load_model(path)[0], PixelCache(image_sets[1], root=tmp_path_factory.mktemp("pixels"))


def trained_variable_rate(image_sets: tuple[ImageSet, ImageSet], folder: Path) -> Codec:
    spec, run = small_trial(
        folder,
        image_sets,
        steps=300,
        batch_size=8,
        learning_rate=3e-3,
        warmup_steps=10,
        ema_decay=0.0,
        initialisation="wavelet",
        model={"rate_control": {"name": "modulator"}},
    )
    Path(run.folder).mkdir()
    codec = starting_codec(spec, run, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RDC_CACHE", str(folder / "cache"))
        crops = PixelCache(image_sets[0])
        train(codec, spec, run, crops=crops, validation=crops, metrics=MetricsLog(Path(run.folder)))
    codec.update(force=True, update_quantiles=True)
    return codec


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    with forking() as trials:
        yield trials


def small_trial(
    folder: Path,
    image_sets: tuple[ImageSet, ImageSet],
    *,
    run: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[TrialSpec, RunSettings]:
    train_set, eval_set = image_sets
    recipe = Recipe(
        steps=6,
        batch_size=2,
        crop_px=64,
        learning_rate=1e-3,
        schedule="cosine",
        final_learning_rate=1e-5,
        warmup_steps=2,
        ema_decay=0.9,
    )
    names = {field.name for field in dataclasses.fields(Recipe)}
    recipe = dataclasses.replace(recipe, **{k: changes.pop(k) for k in list(changes) if k in names})
    groups: dict[str, Any] = copy.deepcopy(TINY_MODEL)
    spec = TrialSpec(
        model=parse_model(groups | (model or {})),
        recipe=recipe,
        train_data=train_set.content_hash,
        eval_data=eval_set.content_hash,
        **{"precision": "fp32", "lmbda": 0.013, "seed": 0, **changes},
    )
    train_set.save(folder / "data_train.json")
    eval_set.save(folder / "data_eval.json")
    settings: dict[str, Any] = {
        "folder": str(folder / "trial"),
        "train_manifest": str(folder / "data_train.json"),
        "eval_manifest": str(folder / "data_eval.json"),
        "log_every": 2,
        "fresh_decode_images": 0,
    }
    return spec, RunSettings(**(settings | (run or {})))
