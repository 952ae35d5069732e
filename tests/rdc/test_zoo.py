"""Checkpoints of CompressAI: read without running anything, refused by name, measured as they are."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import compressai.models
import compressai.zoo.image
import pytest
import torch

import conf
from rdc.checkpoint import load_compressai_state_dict, load_model
from rdc.configured import model_of, zoo_of
from rdc.errors import UserError
from rdc.files import read_json
from rdc.models.codec import Codec, build
from rdc.spec import ExternalWeights, TrialSpec, parse, parse_trial, to_plain
from rdc.trial import run_trial
from rdc.zoo import ARCHITECTURES, LMBDAS, ZooModel, external_weights, load_external

IN_THE_ZOO = [name for name in ARCHITECTURES if name in compressai.zoo.image.cfgs]


def asked(name: str, quality: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """The configuration as composed from the command line."""
    overrides = ["model=compressai", f"compressai.name={name}", f"compressai.quality={quality}"]
    return conf.compose([*overrides, *([f"compressai.checkpoint='{checkpoint}'"] if checkpoint else [])])


def weights_of(config: dict[str, Any]) -> ExternalWeights:
    zoo = zoo_of(config)
    assert zoo is not None
    weights = external_weights(zoo, model_of(config))
    assert weights is not None
    return weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mbt2018-mean of quality 1 to 4 with random weights, as CompressAI's training script saves it."""
    path = tmp_path_factory.mktemp("zoo") / "checkpoint_best_loss.pth.tar"
    model = compressai.models.MeanScaleHyperprior(128, 192)
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    extra = {"epoch": 3, "loss": torch.tensor(1.5), "optimizer": optimizer.state_dict()}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min")
    torch.save({"state_dict": model.state_dict(), **extra, "lr_scheduler": scheduler.state_dict()}, path)
    return path


@pytest.mark.parametrize("name", IN_THE_ZOO)
def test_qualities_and_widths_are_the_zoos(name: str) -> None:
    for quality, widths in compressai.zoo.image.cfgs[name].items():
        depth = model_of(asked(name, quality)).depth
        assert (depth.channels[0], depth.latent_channels) == (widths[0], widths[-1])
    qualities = len(compressai.zoo.image.cfgs[name])
    with pytest.raises(UserError, match=f"compressai.quality={qualities + 1}: {name} has qualities 1 to"):
        ZooModel(name=name, quality=qualities + 1)


def zoo_files() -> list[tuple[str, str, int, str]]:
    """(name, metric, quality, file name) of all that its zoo serves."""
    return [
        (name, metric, quality, url.rpartition("/")[2])
        for name, metrics in compressai.zoo.image.model_urls.items()
        for metric, qualities in metrics.items()
        for quality, url in qualities.items()
    ]


def test_a_file_of_the_zoo_says_what_it_is() -> None:
    files = zoo_files()
    assert len(files) >= 80
    for name, metric, quality, file_name in files:
        message = rf"={file_name}: is quality {quality} of {name}\S* by its name, not compressai\.name="
        if name not in ARCHITECTURES:
            with pytest.raises(UserError, match=message):
                ZooModel(name="bmshj2018-hyperprior", quality=quality, checkpoint=file_name)
            continue
        lmbda = 9.5 if metric == "ms-ssim" else None
        right = ZooModel(name=name, quality=quality, checkpoint=f"~/zoo/{file_name}", lmbda=lmbda)
        for other in ({"quality": quality % 6 + 1}, {"name": "elic2022-official"}):
            with pytest.raises(UserError, match=message):
                dataclasses.replace(right, **other)
        if metric == "ms-ssim":
            with pytest.raises(UserError, match=rf"{file_name}: was trained for MS-SSIM by its name"):
                dataclasses.replace(right, lmbda=None)


@pytest.mark.parametrize("file_name", ["mbt2018-mean-1.pth.tar", "mbt2018-1-e522738d.pth", "mbt2018-1.pth"])
def test_names_in_the_zoos_manner_are_believed_too(file_name: str) -> None:
    message = r"is quality 1 of mbt2018.*, not compressai\.name=mbt2018-mean compressai\.quality=4"
    with pytest.raises(UserError, match=message) as caught:
        model_of(asked("mbt2018-mean", 4, Path("/x") / file_name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_name", ["best.pth.tar", "my-mbt2018-mean-1.pth.tar", "mbt2018-mean-12.pth"])
def test_other_file_names_say_nothing(file_name: str) -> None:
    assert ZooModel(name="mbt2018-mean", quality=4, checkpoint=file_name).trade_off == 0.013


def test_files_of_the_zoo_and_of_the_training_script_are_read(checkpoint: Path, tmp_path: Path) -> None:
    config = asked("mbt2018-mean", 4, checkpoint)
    weights = weights_of(config)
    assert weights == ExternalWeights(
        source="compressai",
        name="mbt2018-mean",
        quality=4,
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    )
    codec = build(model_of(config))
    load_external(codec, weights, checkpoint)
    alone = tmp_path / "mbt2018-mean-4-0123abcd.pth.tar"
    renamed = OrderedDict(
        (f"module.{key.replace('.matrices.', '._matrix')}", value)
        for key, value in torch.load(checkpoint, weights_only=True)["state_dict"].items()
    )
    torch.save(renamed, alone)
    second = build(codec.spec)
    load_external(second, weights_of(asked("mbt2018-mean", 4, alone)), alone)
    assert same_tensors(codec, second)


def same_tensors(one: Codec, other: Codec) -> bool:
    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[key], others[key]) for key in mine)


@pytest.mark.parametrize(
    ("name", "quality"), [("mbt2018-mean", 5), ("bmshj2018-hyperprior", 3), ("cheng2020-attn", 2)]
)
def test_another_architecture_or_quality_is_refused_by_name(
    name: str, quality: int, checkpoint: Path
) -> None:
    message = (
        f"does not fit compressai.name={name} compressai.quality={quality}; "
        "it fits mbt2018-mean of quality 1 to 4"
    )
    with pytest.raises(UserError, match=message):
        weights_of(asked(name, quality, checkpoint))


class Malicious:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def test_what_is_no_checkpoint_is_refused_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    cases: list[tuple[Any, str]] = [
        (Malicious(), "cannot be read as a checkpoint of tensors and plain values alone"),
        ({"state_dict": {"epoch": 3}}, "holds no state dict"),
        ([torch.zeros(2)], "holds no state dict"),
        ({"a": torch.zeros(2)}, "it fits none of bmshj2018-hyperprior"),
    ]
    for content, message in cases:
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            weights_of(asked("mbt2018-mean", 4, path))
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        weights_of(asked("mbt2018-mean", 4, path))
    with pytest.raises(UserError, match="there is no such checkpoint"):
        weights_of(asked("mbt2018-mean", 4, tmp_path / "none.pth.tar"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compressai.name=bmshj2018-factorized"], "no hyper-latent"),
        (["compressai.name=elic"], "is not known here; known: bmshj2018-hyperprior"),
        (["compressai.quality=0"], "has qualities 1 to 8"),
        (["compressai.lmbda=0"], "must be greater than 0"),
        (["depth=n64"], "depth: compressai.name=mbt2018-mean brings its own"),
        (["transform=conv"], "transform: compressai.name=mbt2018-mean brings its own"),
        (["width=0.5", "compressai.checkpoint=x.pth.tar"], "has the widths that it has"),
    ],
)
def test_mistakes_in_the_configuration_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model_of(conf.compose(["model=compressai", *overrides]))


def test_without_a_checkpoint_it_is_an_architecture_like_any_other() -> None:
    config = conf.compose(["model=compressai", "compressai.name=mbt2018-mean", "width=0.5"])
    zoo = zoo_of(config)
    assert zoo is not None
    assert external_weights(zoo, model_of(config)) is None
    assert model_of(config).depth.channels == (64, 64, 64)


def test_the_lmbda_is_that_of_the_quality_unless_given() -> None:
    assert [ZooModel(name="mbt2018", quality=q).trade_off for q in (1, 4, 8)] == [0.0018, 0.013, 0.18]
    assert len(LMBDAS) == 8
    assert ZooModel(name="mbt2018", quality=1, lmbda=0.5).trade_off == 0.5


def external_trial(spec: TrialSpec, config: dict[str, Any], **changes: Any) -> TrialSpec:
    model, weights = model_of(config), weights_of(config)
    return dataclasses.replace(spec, model=model, weights=weights, **changes)


def test_ids_depend_on_the_weights_and_not_on_a_training_that_was_none(
    make_trial: Any, checkpoint: Path
) -> None:
    plain, _ = make_trial()
    spec = external_trial(plain, asked("mbt2018-mean", 4, checkpoint))
    recipe = dataclasses.replace(spec.recipe, steps=99)
    assert dataclasses.replace(spec, recipe=recipe, train_data="0" * 12).spec_id == spec.spec_id
    assert dataclasses.replace(spec, weights=None).spec_id != spec.spec_id
    assert spec.weights is not None
    other = dataclasses.replace(spec, weights=dataclasses.replace(spec.weights, checkpoint_sha256="0" * 64))
    assert other.spec_id != spec.spec_id
    assert other.curve_id == spec.curve_id
    assert parse_trial(spec.to_dict()) == spec
    assert parse(ExternalWeights, to_plain(spec.weights), where="weights") == spec.weights


def test_a_trial_measures_the_weights_as_they_are(make_trial: Any, checkpoint: Path) -> None:
    plain, run = make_trial(run={"fresh_decode_images": 1, "ms_ssim": False})
    spec = external_trial(plain, asked("mbt2018-mean", 4, checkpoint))
    run = dataclasses.replace(run, warm_start_checkpoint=str(checkpoint), budget_name="quick")
    result = run_trial(spec, run)
    assert result["status"] in ("ok", "rate_mismatch"), result["error"]
    assert result["label"] == "compressai mbt2018-mean-4"
    training = result["training"]
    assert (training["budget"], training["steps"]) == ("external", None)
    assert training["weights"]["checkpoint_sha256"] == spec.weights.checkpoint_sha256  # type: ignore[union-attr]
    assert result["data"]["train"] is None
    assert result["evaluation"]["fresh_decode"]["identical"] is True
    assert read_json(Path(run.folder) / "result.json") == result
    codec, metadata = load_model(Path(run.folder) / "model.safetensors")
    assert metadata["extra"]["weights"]["name"] == "mbt2018-mean"
    fresh = build(spec.model)
    load_compressai_state_dict(fresh, torch.load(checkpoint, weights_only=True)["state_dict"])
    assert same_tensors(codec, fresh)


def test_a_checkpoint_that_changed_since_the_plan_fails_the_trial(
    make_trial: Any, checkpoint: Path, tmp_path: Path
) -> None:
    plain, run = make_trial()
    spec = external_trial(plain, asked("mbt2018-mean", 4, checkpoint))
    changed = tmp_path / "changed.pth.tar"
    changed.write_bytes(checkpoint.read_bytes() + b" ")
    for path, message in ((changed, "planned with"), (None, "warm_start_checkpoint is missing")):
        settings = dataclasses.replace(run, warm_start_checkpoint=path and str(path))
        result = run_trial(spec, settings)
        assert result["status"] == "failed"
        assert message in result["error"]["message"]
