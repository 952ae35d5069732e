"""Training as a whole: what it logs, how it recovers, and that an interruption leaves no trace."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from rdc.data import PixelCache, split
from rdc.learner import Learner
from rdc.models.codec import build
from rdc.resume import NO_METRICS, RESUME_FILE, MetricsLog, Progress, ResumePoint, open_resume, save_resume
from rdc.spec import RunSettings, TrialSpec
from rdc.train import TrainingDiverged, TrainLog, _Trainer, train
from rdc.trial import run_trial
from rdc.validation import rd_loss_slope, validate
from tests.rdc.forked import Forked, wait_for


def run_training(
    trial: tuple[TrialSpec, RunSettings], image_sets: Any, *, trainer: type[_Trainer] | None = None
) -> tuple[TrainLog, list[dict[str, Any]], Any]:
    """(log, lines of metrics.jsonl, codec); continues from a resume.pt if the folder has one."""
    spec, run = trial
    folder = Path(run.folder)
    folder.mkdir(exist_ok=True)
    train_set, validation = (PixelCache(images) for images in split(image_sets[0]))
    torch.manual_seed(spec.seed)
    codec = build(spec.model)
    metrics = MetricsLog(folder)
    resume, _ = open_resume(folder, spec_id=spec.spec_id)
    assert metrics.go_back(resume.metrics if resume else NO_METRICS) is None
    log = train(codec, spec, run, crops=train_set, validation=validation, metrics=metrics, resume=resume)
    return log, metrics.rows(), codec


def breaking(monkeypatch: pytest.MonkeyPatch, *, at_updates: set[int], value: float) -> None:
    """Let the numbered calls of Learner.update ruin the weights, as a diverging step does."""
    original = Learner.update
    calls = iter(range(10**6))

    def update(self: Learner, x: torch.Tensor, step: int) -> torch.Tensor:
        statistics = original(self, x, step)
        if next(calls) in at_updates:
            with torch.no_grad():
                self.codec.get_parameter("g_s.0.bias").fill_(value)
        return statistics

    monkeypatch.setattr(Learner, "update", update)


def test_lines_hold_what_readers_expect(make_trial: Any, image_sets: Any) -> None:
    log, rows, _ = run_training(make_trial(steps=7, run={"validate_every": 4}), image_sets)
    lines = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in lines] == [2, 4, 6, 7]
    assert set(lines[0]) == {
        "step", "t", "train/loss", "train/bpp", "train/mse", "train/psnr_db", "train/rd_loss",
        "train/aux_loss", "train/lr", "train/images_per_s", "eta_s",
    }  # fmt: skip
    for row in lines:
        assert row["train/rd_loss"] == pytest.approx(row["train/bpp"] + 0.013 * 255**2 * row["train/mse"])
    assert lines[-1]["eta_s"] == 0.0
    # Every 4 steps as asked, and at 80 % of the steps, from where the final slope is measured.
    assert [row["step"] for row in rows if "val/rd_loss" in row] == [4, 6]
    assert (log.steps, log.rollbacks, log.resumed_at_steps, log.micro_batch) == (7, [], [], 2)


def test_a_validation_on_the_way_changes_nothing(make_trial: Any, image_sets: Any) -> None:
    _, _, plain = run_training(make_trial(run={"folder": make_trial()[1].folder + "-a"}), image_sets)
    _, _, checked = run_training(
        make_trial(run={"folder": make_trial()[1].folder + "-b", "validate_every": 1}), image_sets
    )
    assert_equal_weights(plain, checked)


def assert_equal_weights(one: Any, other: Any) -> None:
    others = dict(other.named_parameters())
    for name, p in one.named_parameters():
        assert torch.equal(p, others[name]), name


def test_validation_does_not_depend_on_the_mode_and_keeps_it(make_trial: Any, image_sets: Any) -> None:
    spec, _ = make_trial()
    codec = build(spec.model).train()
    codec.update(force=True, update_quantiles=True)
    images = PixelCache(image_sets[1])
    first = validate(codec, images, 0.013)
    assert codec.training
    assert validate(codec.eval(), images, 0.013) == first
    assert first.images == 3


def test_broken_weights_are_rolled_back_and_training_goes_on(
    make_trial: Any, image_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, at_updates={2}, value=float("nan"))
    log, rows, codec = run_training(make_trial(steps=8), image_sets)
    (rollback,) = log.rollbacks
    assert rollback["to_step"] < rollback["step"] <= 4
    assert "the loss is not finite before step" in rollback["cause"]
    rates = [row["train/lr"] for row in rows if "train/lr" in row]
    undisturbed = [Learner.learning_rate(_learner(make_trial), step - 1) for step in (2, 4, 6, 8)]
    assert rates[-1] == pytest.approx(undisturbed[-1] / 2)
    assert [row["step"] for row in rows if row.get("event") == "rollback"] == [rollback["step"]]
    assert log.steps == 8
    assert all(p.isfinite().all() for p in codec.parameters())


def _learner(make_trial: Any) -> Learner:
    spec, _ = make_trial(steps=8)
    return Learner(build(spec.model), spec.recipe, lmbda=spec.lmbda, seed=0)


def test_a_finite_explosion_is_noticed_too(
    make_trial: Any, image_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, at_updates={3}, value=100.0)
    log, _, _ = run_training(make_trial(steps=8), image_sets)
    (rollback,) = log.rollbacks
    assert "times the best" in rollback["cause"]


def test_one_batch_that_the_model_fails_on_is_no_divergence(
    make_trial: Any, image_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Learner.update

    def update(self: Learner, x: torch.Tensor, step: int) -> torch.Tensor:
        statistics = original(self, x, step)
        if step == 4:
            statistics[2:4] += 1e6  # mse and distortion, as of a picture that the synthesis blows up
        return statistics

    monkeypatch.setattr(Learner, "update", update)
    log, rows, _ = run_training(make_trial(steps=9, run={"log_every": 3}), image_sets)
    assert (log.steps, log.rollbacks) == (9, [])
    (outlier,) = [row for row in rows if row.get("event") == "outlier"]
    assert outlier["step"] == 6
    assert outlier["rd_loss"] > 1e5 > 1e3 > outlier["median_rd_loss"]


def test_training_gives_up_after_three_roll_backs_and_says_why(
    make_trial: Any, image_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, at_updates=set(range(100)), value=float("nan"))
    with pytest.raises(TrainingDiverged, match=r"not finite before step 2; gave up after 3 roll-backs"):
        run_training(make_trial(steps=8), image_sets)


def test_a_device_that_runs_out_of_memory_gets_smaller_parts(
    make_trial: Any, image_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Learner.update

    def update(self: Learner, x: torch.Tensor, step: int) -> torch.Tensor:
        if self.micro_batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, x, step)

    monkeypatch.setattr(Learner, "update", update)
    log, rows, _ = run_training(make_trial(batch_size=4), image_sets)
    assert log.micro_batch == 1
    assert [row["micro_batch"] for row in rows if row.get("event") == "micro_batch"] == [2, 1]
    assert log.out_of_memory == [{"step": 0, "device": "cuda", "micro_batch": size} for size in (2, 1)]


def test_the_slope_is_the_change_over_the_last_fifth() -> None:
    rows = [{"step": step, "val/rd_loss": 5 - 0.002 * step} for step in (400, 800, 1000)]
    rows[0]["val/rd_loss"] = 9.0  # what happened before does not matter
    # 0.4 less in 200 steps is 2 less per 1,000.
    assert rd_loss_slope([{"event": "phase", "phase": "train"}, *rows], 1000) == pytest.approx(-2.0)
    assert rd_loss_slope(rows[:2], 1000) is None
    assert rd_loss_slope(rows[2:], 1000) is None
    assert rd_loss_slope(rows, 1) is None


def test_a_damaged_checkpoint_is_set_aside_by_name(tmp_path: Path, make_trial: Any) -> None:
    spec, _ = make_trial()
    point = ResumePoint(Progress(step=3), {"weights": {"a": torch.ones(3)}}, metrics=NO_METRICS)
    save_resume(tmp_path, point, spec_id=spec.spec_id)
    found, damage = open_resume(tmp_path, spec_id=spec.spec_id)
    assert damage is None
    assert found is not None
    assert (found.progress.step, found.metrics) == (3, NO_METRICS)
    _, damage = open_resume(tmp_path, spec_id="another")
    assert damage is not None
    assert f"it belongs to trial {spec.spec_id}" in damage

    save_resume(tmp_path, point, spec_id=spec.spec_id)
    file = tmp_path / RESUME_FILE
    file.write_bytes(file.read_bytes()[:-200])
    found, damage = open_resume(tmp_path, spec_id=spec.spec_id)
    assert found is None
    assert damage is not None
    assert damage.startswith("resume.pt could not be used and is now resume.pt.damaged2: ")
    aside = sorted(path.name for path in tmp_path.glob("resume*"))
    assert aside == ["resume.pt.damaged1", "resume.pt.damaged2"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ],
    ids=["python", "torch"],
)
def test_a_lack_of_memory_leaves_a_good_checkpoint_where_it_is(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_resume(tmp_path, ResumePoint(Progress(step=3), {}, metrics=NO_METRICS), spec_id="x")

    def load(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", load)
        with pytest.raises(type(error)):
            open_resume(tmp_path, spec_id="x")
    assert [path.name for path in tmp_path.iterdir()] == [RESUME_FILE]
    assert open_resume(tmp_path, spec_id="x")[0] is not None


class _Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch bombed",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"schema_version": 1, "spec_id": "x", "progress": _Bomb()}, tmp_path / RESUME_FILE)
    found, damage = open_resume(tmp_path, spec_id="x")
    assert found is None
    assert damage is not None
    assert not (tmp_path / "bombed").exists()


def test_an_interruption_before_a_divergence_leaves_no_trace(
    make_trial: Any, image_sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights break in step 7; the interruption comes after step 6, and the state to return to is of step 4.

    However often a checkpoint is written, a resumed training must not go back to another state.
    """
    monkeypatch.setattr("rdc.train.SNAPSHOT_STEPS", 4)
    original = Learner.update
    interrupt = False

    def update(self: Learner, x: torch.Tensor, step: int) -> torch.Tensor:
        if interrupt and step == 6:
            raise KeyboardInterrupt
        statistics = original(self, x, step)
        if step == 6 and self.rate_scale == 1:
            with torch.no_grad():
                self.codec.get_parameter("g_s.0.bias").fill_(float("nan"))
        return statistics

    monkeypatch.setattr(Learner, "update", update)
    run = {"checkpoint_every_s": 0.0, "validate_every": 4}
    spec, settings = make_trial(steps=12, run=run)
    whole, whole_rows, expected = run_training(
        (spec, dataclasses.replace(settings, folder=str(tmp_path / "whole"))), image_sets
    )
    interrupt = True
    with pytest.raises(KeyboardInterrupt):
        run_training((spec, settings), image_sets)
    interrupt = False
    continued, rows, codec = run_training((spec, settings), image_sets)
    assert [(r["step"], r["to_step"]) for r in whole.rollbacks] == [(8, 4)]
    assert continued.rollbacks == whole.rollbacks
    assert continued.resumed_at_steps == [4]
    assert_equal_weights(codec, expected)
    assert _points(rows) == _points(whole_rows)


def _points(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what a clock decides."""
    clocked = {"t", "train/images_per_s", "eta_s"}
    return [{k: row[k] for k in row.keys() - clocked} for row in rows if "step" in row and "event" not in row]


def test_a_second_roll_back_keeps_the_lower_rate_over_an_interruption(
    make_trial: Any, image_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint after a roll-back knows of it."""
    original = Learner.update

    def update(self: Learner, x: torch.Tensor, step: int) -> torch.Tensor:
        statistics = original(self, x, step)
        if self.rate_scale == 1:
            with torch.no_grad():
                self.codec.get_parameter("g_s.0.bias").fill_(float("nan"))
        elif step == 4:
            raise KeyboardInterrupt
        return statistics

    monkeypatch.setattr(Learner, "update", update)
    trial = make_trial(steps=8, run={"checkpoint_every_s": 0.0})
    with pytest.raises(KeyboardInterrupt):
        run_training(trial, image_sets)
    point, _ = open_resume(Path(trial[1].folder), spec_id=trial[0].spec_id)
    assert point is not None
    assert point.learner["rate_scale"] == 0.5
    assert [r["to_step"] for r in point.progress.rollbacks] == [0]


def test_a_killed_run_continues_to_the_same_weights_as_an_undisturbed_one(
    make_trial: Any, tmp_path: Path, forked: Forked
) -> None:
    """A real process is killed by SIGKILL in the middle of a trial; another one finishes it."""
    steps = 120
    spec, run = make_trial(steps=steps, run={"checkpoint_every_s": 0.05, "folder": str(tmp_path / "killed")})
    forked.start(spec, run)
    assert wait_for((tmp_path / "killed" / RESUME_FILE).exists)
    os.kill(forked.pid, signal.SIGKILL)
    assert forked.wait() == (-signal.SIGKILL, None), "the trial ended before it could be killed"
    point, _ = open_resume(tmp_path / "killed", spec_id=spec.spec_id)
    assert point is not None
    assert 0 < point.progress.step < steps

    torch.rand(5)  # what this process drew before must not matter
    continued = run_trial(spec, run)
    whole = run_trial(spec, dataclasses.replace(run, folder=str(tmp_path / "whole"), checkpoint_every_s=1e9))
    assert continued["training"]["resumed_at_steps"] == [point.progress.step]
    assert whole["training"]["resumed_at_steps"] == []
    weights = {name: safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in RUNS}
    assert weights["whole"].keys() == weights["killed"].keys()
    for name, tensor in weights["whole"].items():
        assert torch.equal(tensor, weights["killed"][name]), name
    assert _curve(tmp_path / "killed") == _curve(tmp_path / "whole")
    assert continued["evaluation"]["rd_loss"] == whole["evaluation"]["rd_loss"]


RUNS = ("killed", "whole")


def _curve(folder: Path) -> list[tuple[int, float, float]]:
    rows = MetricsLog(folder).rows()
    return [(row["step"], row["train/loss"], row["train/bpp"]) for row in rows if "train/loss" in row]
