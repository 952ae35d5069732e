"""Whole trials: what result.json says, what is left behind, and that failures are data."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from rdc.checkpoint import load_model, model_hash
from rdc.data import ImageSet, split
from rdc.evaluate import Evaluation
from rdc.files import read_json, read_jsonl
from rdc.result import architecture_label, read_finished, shares_of_paper
from rdc.resume import drop_resume
from rdc.spec import Recipe, WarmStart, parse_trial
from rdc.trial import run_payload, run_trial


def test_a_trial_from_spec_to_result(make_trial: Any, image_sets: Any) -> None:
    spec, run = make_trial(
        steps=10,
        precision="bf16",
        initialisation="wavelet",
        run={"fresh_decode_images": -1, "budget_name": "test"},
    )
    result = run_payload({"spec": spec.to_dict(), "run": dataclasses.asdict(run)})
    folder = Path(run.folder)
    assert result == read_json(folder / "result.json")
    assert result["status"] in ("ok", "rate_mismatch"), result["error"]
    assert {path.name for path in folder.iterdir()} == {
        "spec.json", "metrics.jsonl", "result.json", "model.safetensors", "log.txt", "reconstructions.png",
        "shown",
    }  # fmt: skip
    assert parse_trial(read_json(folder / "spec.json")) == spec
    ids = ("spec_id", "arch_id", "curve_id", "budget_id")
    assert {name: result[name] for name in ids} == {name: getattr(spec, name) for name in ids}
    assert result["label"] == "conv 8-8-8/12 mean-scale"

    training = result["training"]
    assert training["images_seen"] == 20
    assert training["budget"] == "test"
    assert training["precision"] == "bf16"
    assert training["started_at"] < training["ended_at"]
    assert training["rd_loss_slope_per_1k_steps"] is not None
    rows = read_jsonl(folder / "metrics.jsonl")
    last_validation = [row for row in rows if "val/rd_loss" in row][-1]
    assert (last_validation["step"], last_validation["val/rd_loss"]) == (10, training["val_rd_loss"])
    assert [row["phase"] for row in rows if row.get("event") == "phase"] == [
        "data", "train", "evaluate", "fresh_decode", "done",
    ]  # fmt: skip

    scores = result["evaluation"]
    assert scores["fresh_decode"] == {"images": 3, "identical": True}
    assert scores["images"] == len(scores["per_image"]) == 3
    assert scores["dataset_hash"] == spec.eval_data
    train_part, validation_part = split(image_sets[0])
    assert result["data"]["train"] == train_part.to_result()
    assert result["data"]["validation"] == validation_part.to_result()
    assert len(train_part) + len(validation_part) == len(image_sets[0])
    assert result["complexity"]["decode"]["parity_kmac_per_px"] > 0

    codec, metadata = load_model(folder / "model.safetensors")
    assert metadata["extra"]["spec_id"] == spec.spec_id
    assert metadata["extra"]["precision"] == "bf16"
    assert model_hash(codec) == model_hash(folder / "model.safetensors")


def test_a_finished_trial_is_read_and_not_run_again(make_trial: Any) -> None:
    spec, run = make_trial()
    first = run_trial(spec, run)
    (Path(run.folder) / "model.safetensors").unlink()
    assert run_trial(spec, run) == first
    assert not (Path(run.folder) / "model.safetensors").exists()
    # The same folder is of no use to another trial, nor is a damaged result.
    assert read_finished(Path(run.folder), spec_id="another") is None
    (Path(run.folder) / "result.json").write_text("{")
    assert read_finished(Path(run.folder), spec_id=spec.spec_id) is None


def test_a_failure_is_a_result_with_its_cause_and_can_be_tried_again(make_trial: Any, tmp_path: Path) -> None:
    spec, run = make_trial()
    broken = dataclasses.replace(run, eval_manifest=run.train_manifest)
    result = run_trial(spec, broken)
    assert result["status"] == "failed"
    assert result["error"]["class"] == "UserError"
    assert f"the trial was planned with {spec.eval_data}; plan it anew" in result["error"]["message"]
    assert "evaluation" not in result
    assert (result["attempt"], result["spec_id"], result["family"]) == (
        1,
        spec.spec_id,
        "conv/mean_scale_hyperprior/conv",
    )
    assert "Traceback" in (Path(run.folder) / "log.txt").read_text()
    assert result == read_json(Path(run.folder) / "result.json")
    again = run_trial(spec, run)
    assert again["status"] != "failed"
    assert again["attempt"] == 2


def test_crops_larger_than_every_image_are_told(make_trial: Any) -> None:
    result = run_trial(*make_trial(crop_px=256))
    assert result["status"] == "failed"
    assert "budget.crop_px=256: no image" in result["error"]["message"]


def test_a_rate_that_the_files_do_not_keep_is_a_mismatch(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluation, "rate_agrees", property(lambda self: False))
    result = run_trial(*make_trial())
    assert result["status"] == "rate_mismatch"
    assert result["error"]["class"] == "RateMismatch"
    assert result["evaluation"]["rate_gap_pct"] == pytest.approx(
        100 * (_payload(result) / _estimated(result) - 1)
    )


def _payload(result: dict[str, Any]) -> float:
    rows = result["evaluation"]["per_image"]
    return sum(row["bpp_payload"] * row["width_px"] * row["height_px"] for row in rows)


def _estimated(result: dict[str, Any]) -> float:
    rows = result["evaluation"]["per_image"]
    return sum(row["bpp_estimated"] * row["width_px"] * row["height_px"] for row in rows)


def test_a_file_that_decodes_otherwise_elsewhere_is_a_mismatch(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "image 0: a new interpreter decodes other pixels"  # tests.rdc.test_evaluate starts a real one
    monkeypatch.setattr("rdc.trial.decodes_alike", lambda *_, **__: (False, said))
    result = run_trial(*make_trial(run={"fresh_decode_images": 1}))
    assert result["status"] == "decode_mismatch"
    assert result["evaluation"]["fresh_decode"] == {"images": 1, "identical": False}
    assert result["error"]["message"] == said


def test_a_damaged_checkpoint_is_recorded_and_training_starts_anew(make_trial: Any) -> None:
    spec, run = make_trial()
    folder = Path(run.folder)
    folder.mkdir()
    (folder / "resume.pt").write_bytes(b"not a checkpoint")
    (folder / "metrics.jsonl").write_text('{"step": 4, "t": 0, "train/loss": 1}\n')
    result = run_trial(spec, run)
    assert result["training"]["resumed_at_steps"] == []
    assert (folder / "resume.pt.damaged1").exists()
    rows = read_jsonl(folder / "metrics.jsonl")
    assert rows[0]["event"] == "resume_damaged"
    assert "is now resume.pt.damaged1" in rows[0]["cause"]
    assert [row["step"] for row in rows if "train/loss" in row] == [2, 4, 6]


def test_a_warm_start_begins_with_the_named_weights(make_trial: Any, tmp_path: Path) -> None:
    spec, run = make_trial()
    run_trial(spec, run)
    origin = Path(run.folder) / "model.safetensors"
    warm = WarmStart(
        spec_id=spec.spec_id, checkpoint_sha256=hashlib.sha256(origin.read_bytes()).hexdigest(), lmbda=0.013
    )
    frozen = {"learning_rate": 1e-12, "final_learning_rate": 0.0, "aux_learning_rate": 0.0}
    second, second_run = make_trial(
        lmbda=0.05,
        warm_start=warm,
        **frozen,
        run={"folder": str(tmp_path / "second"), "warm_start_checkpoint": str(origin)},
    )
    result = run_trial(second, second_run)
    assert result["warm_start"] == dataclasses.asdict(warm)
    (before, _), (after, _) = (
        load_model(path) for path in (origin, tmp_path / "second" / "model.safetensors")
    )
    weights = dict(after.named_parameters())
    assert all(torch.allclose(p, weights[name], atol=1e-6) for name, p in before.named_parameters())

    origin.write_bytes(origin.read_bytes() + b" ")
    other_run = dataclasses.replace(second_run, folder=str(tmp_path / "third"))
    result = run_trial(second, other_run)
    assert "is not the checkpoint that this trial was planned to start from" in result["error"]["message"]
    result = run_trial(second, dataclasses.replace(other_run, warm_start_checkpoint=None))
    assert "run.warm_start_checkpoint is missing" in result["error"]["message"]


def test_a_given_validation_set_is_used(make_trial: Any, image_sets: Any, tmp_path: Path) -> None:
    validation = ImageSet(name="mine", source="test", images=image_sets[1].images[1:2])
    validation.save(tmp_path / "validation.json")
    result = run_trial(*make_trial(run={"validation_manifest": str(tmp_path / "validation.json")}))
    assert result["data"]["validation"]["name"] == "mine"
    assert result["training"]["val_images"] == 1


def test_the_checkpoint_outlives_everything_but_the_result(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed before result.json is there continues from resume.pt."""
    spec, run = make_trial()
    folder = Path(run.folder)
    seen = []

    def drop(where: Path) -> None:
        seen.append((where / "resume.pt").exists() and (where / "result.json").exists())
        drop_resume(where)

    monkeypatch.setattr("rdc.trial.drop_resume", drop)
    run_trial(spec, run)
    assert seen == [True]
    (folder / "resume.pt").write_bytes(b"left by a kill after the result")
    run_trial(spec, run)
    assert not (folder / "resume.pt").exists()


def test_labels_are_short_and_say_what_differs(make_trial: Any) -> None:
    spec, _ = make_trial(
        model={
            "depth": {"channels": [32, 48, 64], "latent_channels": 96, "layers": [0, 1, 2]},
            "entropy_model": {"name": "scale_hyperprior"},
        }
    )
    assert architecture_label(spec.model) == "conv 32-48-64/96 +0-1-2 scale"


def test_labels_name_what_is_not_the_default(make_trial: Any) -> None:
    depth = {"channels": [16, 16, 16], "latent_channels": 20}
    charm = {"name": "charm", "slices": 5, "widths": [8, 8], "lrp": "add", "side": "whole"}
    spec, _ = make_trial(
        model={"transform": {"name": "elic"}, "depth": depth | {"layers": [1, 1, 1]}, "entropy_model": charm}
    )
    assert architecture_label(spec.model) == "elic 16-16-16/20 +1-1-1 charm side=whole lrp=add"


def test_the_share_of_the_papers_training_by_hand() -> None:
    recipe = Recipe(
        steps=2000,
        batch_size=8,
        crop_px=128,
        learning_rate=1e-3,
        schedule="cosine",
        final_learning_rate=1e-5,
    )
    # 2,000 of 2,000,000 steps; a quarter of the batch, a quarter of the crop's area.
    assert shares_of_paper(recipe) == {
        "percent_of_paper_steps": pytest.approx(0.1),
        "percent_of_paper_pixels": pytest.approx(0.1 / 16),
    }
