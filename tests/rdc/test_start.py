"""The weights that a trial begins with: of a model without what starts as the identity, or only measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rdc.checkpoint import load_model, save_model
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.spec import TrainedWeights, TrialSpec, WarmStart, parse_model, parse_trial
from rdc.start import starting_codec
from rdc.trial import run_trial
from tests.rdc.shared import TINY_MODEL

CPU = torch.device("cpu")
GATED: dict[str, Any] = {"gating": {"name": "ecg"}, "rate_control": {"name": "modulator"}}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def saved(path: Path, **groups: Any) -> Codec:
    """A model of random weights in a file, as a trial leaves it."""
    torch.manual_seed(7)
    codec = build(parse_model({**TINY_MODEL, **groups}))
    codec.update(force=True, update_quantiles=True)
    save_model(path, codec, extra={})
    return codec.eval()


def started(make_trial: Any, path: Path, *, measured: bool = False, **groups: Any) -> Codec:
    given = {"spec_id": "a" * 12, "checkpoint_sha256": sha256(path)}
    how: dict[str, Any] = (
        {"weights": TrainedWeights(**given)} if measured else {"warm_start": WarmStart(**given, lmbda=0.013)}
    )
    spec, run = make_trial(run={"warm_start_checkpoint": str(path)}, **how)
    spec = dataclasses.replace(spec, model=parse_model({**TINY_MODEL, **groups}))
    return starting_codec(spec, run, CPU)


def test_gates_and_rate_control_may_be_added_and_change_nothing(make_trial: Any, tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.safetensors")
    gated = started(make_trial, tmp_path / "plain.safetensors", **GATED).eval()
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(plain(x)["x_hat"], gated(x)["x_hat"])


@pytest.mark.parametrize(
    ("had", "has", "message"),
    [
        ({"gating": {"name": "ecg"}}, {}, r"g_a\.2\.channel_gate\.alpha is no part of the trial's model"),
        (
            {},
            {"depth": {"channels": [8, 8, 8], "latent_channels": 16}},
            r"g_a\.6\.weight has shape \[12, 8, 5, 5\], the trial's model needs \[16, 8, 5, 5\]",
        ),
        ({}, {"entropy_model": {"name": "joint_autoregressive"}}, r"entropy_model\.context\.\S+ is missing"),
    ],
    ids=["fewer", "other shapes", "more"],
)
def test_weights_of_another_architecture_are_no_start(
    make_trial: Any, tmp_path: Path, had: dict[str, Any], has: dict[str, Any], message: str
) -> None:
    saved(tmp_path / "other.safetensors", **had)
    with pytest.raises(UserError, match=rf"holds another architecture than the trial: {message}"):
        started(make_trial, tmp_path / "other.safetensors", **has)


def test_a_fixed_mask_is_kept(make_trial: Any, tmp_path: Path) -> None:
    """What a mask closes is no parameter, and belongs to the weights all the same."""
    codec = saved(tmp_path / "one.safetensors", gating={"name": "static"})
    masks = {name: buffer for name, buffer in codec.named_buffers() if codec.is_addition(name)}
    assert masks
    for buffer in masks.values():
        buffer.view(-1)[::2] = 0
    save_model(tmp_path / "one.safetensors", codec, extra={})
    again = dict(started(make_trial, tmp_path / "one.safetensors", gating={"name": "static"}).named_buffers())
    assert all(torch.equal(again[name], buffer) for name, buffer in masks.items())


def test_measured_weights_are_taken_with_their_tables(make_trial: Any, tmp_path: Path) -> None:
    codec = saved(tmp_path / "one.safetensors")
    measured = started(make_trial, tmp_path / "one.safetensors", measured=True)
    assert not measured.training
    assert measured.has_tables
    state = measured.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in codec.state_dict().items())


def test_measured_weights_are_of_the_very_architecture(make_trial: Any, tmp_path: Path) -> None:
    saved(tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="holds another architecture than the trial that is to measure it"):
        started(make_trial, tmp_path / "plain.safetensors", measured=True, **GATED)


def trained_and_measured(
    make_trial: Any, tmp_path: Path, **changes_of_spec: Any
) -> tuple[Any, Any, TrialSpec, Any]:
    """Results of a trial and of one that measures its weights, with spec and run settings of that one."""
    spec, run = make_trial(run={"budget_name": "test", "stage": "base"}, **changes_of_spec)
    trained = run_trial(spec, run)
    weights = TrainedWeights(spec_id=spec.spec_id, checkpoint_sha256=trained["model"]["sha256"])
    checkpoint = str(Path(run.folder) / "model.safetensors")
    changes = {"folder": str(tmp_path / "measured"), "warm_start_checkpoint": checkpoint, "stage": "rates"}
    other = dataclasses.replace(spec, lmbda=0.05, weights=weights)
    other_run = dataclasses.replace(run, **changes)
    return trained, run_trial(other, other_run), other, other_run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trial_that_measures_trains_nothing_and_says_whose_weights_it_has(
    make_trial: Any, tmp_path: Path, precision: str
) -> None:
    trained, measured, spec, run = trained_and_measured(make_trial, tmp_path, precision=precision)
    assert trained["evaluation"]["precision"] == measured["evaluation"]["precision"] == precision
    assert (trained["stage"], measured["stage"]) == ("base", "rates")
    assert measured["status"] in ("ok", "rate_mismatch")
    assert parse_trial(json.loads(json.dumps(measured["spec"]))) == spec
    for name in ("curve_id", "budget_id", "arch_id", "label", "model"):
        assert measured[name] == trained[name]
    assert measured["spec_id"] != trained["spec_id"]
    assert measured["data"]["train"] == trained["data"]["train"]
    keys = ("steps", "batch_size", "crop_px", "budget", "percent_of_paper_pixels")
    assert {key: measured["training"][key] for key in keys} == {key: trained["training"][key] for key in keys}
    assert "wall_s" not in measured["training"]  # its own result says what training took, and only once
    scores, others = measured["evaluation"], trained["evaluation"]
    assert (scores["bpp"], scores["mse"]) == (others["bpp"], others["mse"])
    assert scores["rd_loss"] == pytest.approx(scores["bpp"] + 0.05 * 255**2 * scores["mse"], rel=1e-6)
    file = Path(run.folder) / "model.safetensors"
    assert file.samefile(run.warm_start_checkpoint)
    assert load_model(file)[1]["extra"]["spec_id"] == trained["spec_id"]


def test_weights_that_have_changed_since_are_not_measured(make_trial: Any, tmp_path: Path) -> None:
    _, _, spec, run = trained_and_measured(make_trial, tmp_path)
    elsewhere = dataclasses.replace(run, folder=str(tmp_path / "third"))
    Path(run.warm_start_checkpoint).write_bytes(b"others")
    result = run_trial(spec, elsewhere)
    assert "is not the checkpoint that this trial was planned to start from" in result["error"]["message"]
    assert result["stage"] == "rates"
