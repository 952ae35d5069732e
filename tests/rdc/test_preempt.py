"""Trials that end early, at a rung or by SIGTERM, and go on later as if nothing had happened."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rdc.data import ImageSet
from rdc.files import read_json, read_jsonl
from rdc.learner import Learner
from rdc.preempt import Preemption, StoppedEarly, asking
from rdc.result import read_finished, read_rung
from rdc.resume import MetricsLog, open_resume
from rdc.spec import RunSettings, TrialSpec
from rdc.trial import run_payload, run_trial
from tests.rdc.forked import Forked
from tests.rdc.shared import lasting


def curve(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of the training without what a clock decides."""
    clocked = {"t", "train/images_per_s", "eta_s"}
    rows = [row for row in read_jsonl(Path(folder) / "metrics.jsonl") if "train/loss" in row]
    return [{key: row[key] for key in row.keys() - clocked} for row in rows]


def undisturbed(spec: TrialSpec, run: RunSettings, tmp_path: Path) -> tuple[dict[str, Any], Path]:
    folder = tmp_path / "whole"
    return run_trial(spec, dataclasses.replace(run, folder=str(folder), stop_at_step=None)), folder


def weights(folder: str | Path) -> bytes:
    return (Path(folder) / "model.safetensors").read_bytes()


# ------------------------------------------------------------------------------------------------ rungs


@pytest.mark.parametrize("stops", [[5], [4, 7]], ids=["one rung", "two rungs"])
def test_a_paused_trial_ends_as_an_uninterrupted_one(
    make_trial: Any, tmp_path: Path, stops: list[int]
) -> None:
    """At step 5 and 7 the means since the last line are unfinished; at 8 of 10 steps the slope begins."""
    spec, run = make_trial(steps=10)
    for stop in stops:
        paused = run_trial(spec, dataclasses.replace(run, stop_at_step=stop))
        assert (paused["status"], paused["step"]) == ("paused", stop)
        point, _ = open_resume(Path(run.folder), spec_id=spec.spec_id)
        assert point is not None
        assert point.progress.step == stop
        assert not (Path(run.folder) / "result.json").exists()
        rung = read_rung(Path(run.folder), spec_id=spec.spec_id)
        assert rung is not None
        assert {key: rung[key] for key in ("spec_id", "step")} == {"spec_id": spec.spec_id, "step": stop}
        for name in ("val_rd_loss", "val_bpp", "val_psnr_db", "elapsed_s"):
            assert rung[name] == paused[name] > 0
        torch.rand(3)  # what this process draws in between must not matter
    finished = run_trial(spec, run)
    whole, folder = undisturbed(spec, run, tmp_path)
    assert lasting(finished) == lasting(whole)
    assert weights(run.folder) == weights(folder)
    assert curve(run.folder) == curve(folder)
    assert finished["training"]["resumed_at_steps"] == stops
    assert not (Path(run.folder) / "resume.pt").exists()


def test_a_rung_that_is_reached_already_is_not_run_again(make_trial: Any) -> None:
    spec, run = make_trial(run={"stop_at_step": 3})
    first, again = run_trial(spec, run), run_trial(spec, run)
    assert (again["step"], again["val_rd_loss"]) == (3, first["val_rd_loss"])
    rows = read_jsonl(Path(run.folder) / "metrics.jsonl")
    assert [row["step"] for row in rows if "val/rd_loss" in row] == [3]
    # A lower one is behind us; one at the end or beyond it is no rung.
    assert run_trial(spec, dataclasses.replace(run, stop_at_step=2))["step"] == 3
    assert run_trial(spec, dataclasses.replace(run, stop_at_step=6))["status"] in ("ok", "rate_mismatch")


def test_the_pause_is_no_part_of_the_trials_identity(make_trial: Any) -> None:
    spec, run = make_trial(run={"stop_at_step": 3})
    answer = run_payload({"spec": spec.to_dict(), "run": dataclasses.asdict(run)})
    assert answer["spec_id"] == spec.spec_id == make_trial()[0].spec_id
    assert read_finished(Path(run.folder), spec_id=spec.spec_id) is None
    assert read_rung(Path(run.folder), spec_id="another") is None


def test_a_paused_trial_whose_checkpoint_is_damaged_starts_anew_and_ends_alike(
    make_trial: Any, tmp_path: Path
) -> None:
    spec, run = make_trial(steps=8)
    run_trial(spec, dataclasses.replace(run, stop_at_step=4))
    file = Path(run.folder) / "resume.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    finished = run_trial(spec, run)
    whole, folder = undisturbed(spec, run, tmp_path)
    assert finished["training"]["resumed_at_steps"] == []
    assert lasting(finished) == lasting(whole)
    assert weights(run.folder) == weights(folder)
    assert (Path(run.folder) / "resume.pt.damaged1").exists()
    (cause,) = (
        row["cause"]
        for row in read_jsonl(Path(run.folder) / "metrics.jsonl")
        if row.get("event") == "resume_damaged"
    )
    assert cause == (
        "resume.pt could not be used and is now resume.pt.damaged1: "
        "ValueError: its content does not match its checksum"
    )
    assert cause in (Path(run.folder) / "log.txt").read_text()


def test_a_pause_between_a_good_state_and_a_divergence_leaves_no_trace(
    make_trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state to return to is of step 4, the pause at step 7, the weights break in step 8."""
    monkeypatch.setattr("rdc.train.SNAPSHOT_STEPS", 4)
    original = Learner.update

    def update(self: Learner, x: torch.Tensor, step: int) -> torch.Tensor:
        statistics = original(self, x, step)
        if step == 7 and self.rate_scale == 1:
            with torch.no_grad():
                self.codec.get_parameter("g_s.0.bias").fill_(float("nan"))
        return statistics

    monkeypatch.setattr(Learner, "update", update)
    spec, run = make_trial(steps=12)
    for stop in (7, 9):  # at 9 the weights are broken, and nobody knows yet
        paused = run_trial(spec, dataclasses.replace(run, stop_at_step=stop))
        assert paused["step"] == stop
    assert paused["val_rd_loss"] is None
    finished = run_trial(spec, run)
    whole, folder = undisturbed(spec, run, tmp_path)
    assert [(r["step"], r["to_step"]) for r in whole["training"]["rollbacks"]] == [(10, 4)]
    assert lasting(finished) == lasting(whole)
    assert weights(run.folder) == weights(folder)
    assert finished["training"]["resumed_at_steps"] == [7, 9]


# ---------------------------------------------------------------------------------------------- SIGTERM


def test_a_request_in_the_middle_of_something_that_has_to_be_finished_waits() -> None:
    preemption = Preemption()
    with preemption.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.wanted
        os.kill(os.getpid(), signal.SIGTERM)  # batch systems send several
        with pytest.raises(StoppedEarly), preemption.at_once():
            raise AssertionError("the block must not begin")


def test_a_request_ends_what_has_nothing_to_save_in_its_middle() -> None:
    preemption = Preemption()
    with preemption.listening(), pytest.raises(StoppedEarly), preemption.at_once():
        _signalled()


def test_further_requests_leave_the_first_one_to_its_work() -> None:
    """They come while what the first one has interrupted is being put away."""
    preemption = Preemption()
    put_away: list[bool] = []
    with preemption.listening(), pytest.raises(StoppedEarly), preemption.at_once():
        _signalled_again(put_away)
    assert put_away


def _signalled_again(put_away: list[bool]) -> None:
    try:
        _signalled()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        put_away.append(True)


def _signalled() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
    raise AssertionError("the handler must have raised")


def test_a_driver_that_runs_trials_itself_keeps_its_own_answer_to_the_signal() -> None:
    def answer(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, answer)
    preemption = Preemption()
    try:
        with pytest.raises(KeyboardInterrupt), preemption.listening():
            _signalled()
        assert signal.getsignal(signal.SIGTERM) is answer
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not preemption.wanted


def test_a_driver_that_runs_trials_itself_is_asked_before_each_step(make_trial: Any, tmp_path: Path) -> None:
    spec, run = make_trial()
    first_phases, steps = 2, itertools.count()  # before the images and before the weights it is asked, too
    with asking(lambda: next(steps) == first_phases + 3):
        assert run_trial(spec, run) == {"status": "preempted", "step": 3}
    with asking(lambda: True):
        assert run_trial(spec, run) == {"status": "preempted", "step": 3}
    assert lasting(run_trial(spec, run)) == lasting(undisturbed(spec, run, tmp_path)[0])


@pytest.mark.parametrize(
    ("steps", "attempts", "fresh"), [(40, 5, 0), pytest.param(60, 30, 1, marks=pytest.mark.full)]
)
def test_requests_at_any_moment_leave_a_trial_that_ends_as_an_undisturbed_one(
    make_trial: Any, tmp_path: Path, forked: Forked, steps: int, attempts: int, fresh: int
) -> None:
    """Real children, with SIGTERM to their whole group after random times, from before the first step on."""
    spec, run = make_trial(
        steps=steps, run={"fresh_decode_images": fresh, "folder": str(tmp_path / "stopped")}
    )
    draws = random.Random(4)
    reached = [0]
    for attempt in range(attempts):
        forked.start(spec, run)
        if attempt < attempts - 1:
            time.sleep(draws.choice((0.05, 0.3, 0.6, 1.0)) * (0.5 + draws.random()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(forked.pid, signal.SIGTERM)
        code, value = forked.wait()
        if code == -signal.SIGTERM:  # before it listened, or after it was done
            continue
        assert code == 0
        if value["status"] != "preempted":
            break
        assert value["step"] >= reached[-1], "no step is ever lost"
        reached.append(value["step"])
        assert not (tmp_path / "stopped" / "result.json").exists()
    assert value["status"] in ("ok", "rate_mismatch"), value
    assert max(reached) > 0, "no request came during the training"
    assert value["training"]["resumed_at_steps"] == sorted(value["training"]["resumed_at_steps"])
    whole, folder = undisturbed(spec, run, tmp_path)
    assert lasting(value) == lasting(whole)
    assert lasting(read_json(tmp_path / "stopped" / "result.json")) == lasting(whole)
    assert_same_files(tmp_path / "stopped", folder)


def assert_same_files(one: Path, other: Path) -> None:
    assert weights(one) == weights(other)
    assert curve(one) == curve(other)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


def kill_everywhere(spec: TrialSpec, run: RunSettings, forked: Forked, operation: str) -> int:
    """Kill a trial before each such operation in turn, finish each; returns how many there are."""
    whole, folder = undisturbed(spec, run, Path(run.folder).parent)
    for number in itertools.count(1):
        killed = dataclasses.replace(run, folder=f"{run.folder}-killed{number}")
        forked.start(spec, killed, kill_at=(operation, number))
        code, _ = forked.wait()
        if code == 0:
            return number - 1
        assert code == -signal.SIGKILL
        finished = run_trial(spec, killed)
        assert lasting(finished) == lasting(whole), number
        assert_same_files(Path(killed.folder), folder)
    raise AssertionError("it never ended")


def test_a_kill_before_a_file_gets_its_name_leaves_a_trial_that_ends_as_an_undisturbed_one(
    make_trial: Any, forked: Forked
) -> None:
    """spec.json, resume.pt, model.safetensors, reconstructions.png, two of each image shown, result.json."""
    spec, run = make_trial()
    assert kill_everywhere(spec, run, forked, "os.rename") == 5 + 2 * 3
    late = [name for name in forked.imported if not name.startswith("PIL.")]
    assert len(late) < 10, f"these take time in every trial of a sweep: {late}"


@pytest.mark.full
def test_a_kill_before_any_change_of_a_file_leaves_a_trial_that_ends_as_an_undisturbed_one(
    make_trial: Any, image_sets: tuple[ImageSet, ImageSet], forked: Forked
) -> None:
    """Of an evaluation on one small image: more of them would be more of the same operations."""
    images = image_sets[1].images
    small = dataclasses.replace(image_sets[1], images=tuple(i for i in images if i.height_px == 96))
    spec, run = make_trial()
    spec = dataclasses.replace(spec, eval_data=small.content_hash)
    small.save(Path(run.eval_manifest))
    assert kill_everywhere(spec, run, forked, "") > 30


@pytest.mark.parametrize("phase", ["evaluate", "fresh_decode"])
def test_a_request_after_the_training_keeps_the_final_checkpoint(
    make_trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """The signal comes as the phase begins; the next attempt trains nothing."""
    spec, run = make_trial()
    original = MetricsLog.event

    def event(self: MetricsLog, event: str, **values: Any) -> None:
        original(self, event, **values)
        if values.get("phase") == phase:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "event", event)
        answer = run_trial(spec, run)
    assert answer == {"status": "preempted", "step": 6}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finished = run_trial(spec, run)
    assert finished["training"]["resumed_at_steps"] == [6]
    assert lasting(finished) == lasting(undisturbed(spec, run, tmp_path)[0])
