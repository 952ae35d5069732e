"""Training over several processes: the same curve and weights as in one, and one error when one dies."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdc.data import PixelCache
from rdc.ddp import ContactLost, TeamFailed, _contact, _failure, share_of
from rdc.files import StorageError, read_json, read_jsonl
from rdc.learner import Learner
from rdc.models.codec import build
from rdc.resume import open_resume
from rdc.spec import RunSettings, TrialSpec
from rdc.trial import run_trial
from tests.rdc.forked import Forked, wait_for
from tests.rdc.shared import lasting


@given(size=st.integers(1, 9), batch_size=st.integers(1, 70))
def test_shares_cover_the_batch_once_and_are_equal_but_for_one_image(size: int, batch_size: int) -> None:
    shares = [share_of(rank, size, batch_size) for rank in range(size)]
    assert [image for first, end in shares for image in range(first, end)] == list(range(batch_size))
    lengths = [end - first for first, end in shares]
    assert max(lengths) - min(lengths) <= 1


def test_a_share_of_the_crops_is_that_part_of_them(image_sets: Any, tmp_path: Path) -> None:
    cache = PixelCache(image_sets[0], root=tmp_path)
    for step in (0, 1, 2, 7):
        whole = cache.crops_uint8(step, 5, 64, 3).numpy()
        for share in ((0, 2), (2, 5)):
            assert np.array_equal(cache.crops_uint8(step, 5, 64, 3, share).numpy(), whole[slice(*share)])


def test_two_processes_train_what_one_does_that_passes_half_batches(
    make_trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same crops and the same noise: what differs is the rounding of sums."""
    spec, run = make_trial(steps=8, batch_size=4, run={"validate_every": 3})
    shared = run_trial(spec, dataclasses.replace(run, folder=str(tmp_path / "two"), processes=2))
    assert shared["status"] in ("ok", "rate_mismatch"), shared["error"]
    _pass_half_batches(monkeypatch)
    alone = run_trial(spec, dataclasses.replace(run, folder=str(tmp_path / "one")))
    assert _curve(tmp_path / "two") == pytest.approx(_curve(tmp_path / "one"), rel=1e-6)
    assert len(_curve(tmp_path / "two")) == 4 * 4
    ours, theirs = (
        safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")
    )
    for name, tensor in ours.items():
        # Adam divides by the size of a gradient: a last bit may grow to a part of the learning rate, 1e-3.
        assert torch.allclose(tensor.float(), theirs[name].float(), rtol=1e-5, atol=1e-6), name
    assert shared["evaluation"]["rd_loss"] == pytest.approx(alone["evaluation"]["rd_loss"], rel=1e-4)
    assert (shared["training"]["processes"], shared["training"]["steps"]) == (2, 8)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        path.name for path in (tmp_path / "one").iterdir()
    }


def _pass_half_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.__init__

    def halved(self: Learner, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        self.micro_batch = 2

    monkeypatch.setattr(Learner, "__init__", halved)


def _curve(folder: Path) -> list[float]:
    names = ("train/loss", "train/bpp", "train/mse", "train/aux_loss")
    return [row[n] for row in read_jsonl(folder / "metrics.jsonl") if "train/loss" in row for n in names]


def test_noise_depends_on_the_place_in_the_batch_alone(make_trial: Any) -> None:
    """Passes of 2 and 2, or of 2, 1 and 1: the first two images see the same noise."""
    spec, _ = make_trial(batch_size=4)
    learner = Learner(build(spec.model), spec.recipe, lmbda=spec.lmbda, seed=3)
    drawn = {}
    for first in (0, 2):
        learner._seed_noise(5, first)
        drawn[first] = torch.rand(4)
    learner._seed_noise(5, 0)
    assert torch.equal(torch.rand(4), drawn[0])
    assert not torch.equal(drawn[0], drawn[2])


def test_more_processes_than_images_are_refused(make_trial: Any) -> None:
    result = run_trial(*make_trial(batch_size=2, run={"processes": 3}))
    assert result["error"]["message"] == (
        "run.processes=3: a batch of 2 gives each less than one image; use fewer, or a larger "
        "budget.batch_size"
    )


# ----------------------------------------------------------------------------------- processes that end

LOST = {"status": "failed", "class": "ContactLost", "message": "Connection closed by peer"}
SECOND = "process 2 of the 2 that share this training"
OUT_OF_MEMORY = {"status": "failed", "class": "OutOfMemory", "message": "cuda memory ran out"}


@pytest.mark.parametrize(
    ("codes", "reports", "kind", "message"),
    [
        ([1, 1], [LOST, OUT_OF_MEMORY], "OutOfMemory", "cuda memory ran out"),
        ([1, -9], [LOST, None], "ProcessLost", f"{SECOND} was ended by SIGKILL without a word"),
        ([1, 7], [LOST, None], "ProcessLost", f"{SECOND} ended with exit code 7 without a word"),
        ([1, None], [LOST, None], "ProcessLost", "Connection closed by peer"),
    ],
    ids=["an error", "a kill", "an end", "a silence"],
)  # fmt: skip
def test_the_first_cause_is_told_and_not_what_the_others_saw_of_it(
    codes: Any, reports: Any, kind: str, message: str
) -> None:
    error = _failure(codes, reports)
    assert isinstance(error, TeamFailed)
    assert error.error_class == kind
    assert str(error).startswith(message)


def test_a_disk_that_is_full_for_one_process_is_full_for_the_trial() -> None:
    full = {"status": "failed", "class": "StorageError", "message": "no room"}
    assert isinstance(_failure([1, 1], [LOST, full]), StorageError)


def test_a_lack_of_memory_while_gradients_are_added_up_is_no_loss_of_contact() -> None:
    with pytest.raises(torch.OutOfMemoryError), _contact():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(ContactLost), _contact():
        raise RuntimeError("Connection closed by peer")


def ranks_of(trial: int) -> list[int]:
    text = Path(f"/proc/{trial}/task/{trial}/children").read_text()
    pids = [int(pid) for pid in text.split()]
    return [pid for pid in pids if b"rdc.ddp" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def long_trial(make_trial: Any, tmp_path: Path) -> tuple[TrialSpec, RunSettings]:
    spec, run = make_trial(
        steps=20_000, batch_size=4, run={"processes": 2, "checkpoint_every_s": 0.2, "threads": 1}
    )
    return spec, run


@pytest.mark.full
def test_the_death_of_one_process_ends_the_trial_with_one_error(make_trial: Any, tmp_path: Path) -> None:
    spec, run = long_trial(make_trial, tmp_path)
    pids: list[int] = []
    killed_at: list[float] = []

    def kill_the_second() -> None:
        if wait_for((Path(run.folder) / "resume.pt").exists, limit_s=200):
            pids.extend(ranks_of(os.getpid()))
            os.kill(pids[1], signal.SIGKILL)
            killed_at.append(time.monotonic())

    killer = threading.Thread(target=kill_the_second)
    killer.start()
    result = run_trial(spec, run)
    killer.join()
    assert time.monotonic() - killed_at[0] < 30
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
    assert result == read_json(Path(run.folder) / "result.json")
    assert (result["status"], result["error"]["class"]) == ("failed", "ProcessLost")
    assert result["error"]["message"].startswith(
        "process 2 of the 2 that share this training was ended by SIGKILL without a word"
    )
    assert (Path(run.folder) / "resume.pt").exists(), "from there it goes on"


@pytest.mark.full
def test_sigterm_pauses_all_processes_at_one_step(make_trial: Any, tmp_path: Path, forked: Forked) -> None:
    """To the whole group of the trial: it alone obeys, and tells the others."""
    spec, run = long_trial(make_trial, tmp_path)
    forked.start(spec, run)
    assert wait_for((Path(run.folder) / "resume.pt").exists)
    pids = ranks_of(forked.pid)
    os.killpg(forked.pid, signal.SIGTERM)
    code, value = forked.wait()
    assert (code, value["status"]) == (0, "preempted")
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
    point, _ = open_resume(Path(run.folder), spec_id=spec.spec_id)
    assert point is not None
    assert point.progress.step == value["step"]
    assert not (Path(run.folder) / "result.json").exists()


@pytest.mark.full
def test_the_processes_end_with_the_trial_that_started_them(
    make_trial: Any, tmp_path: Path, forked: Forked
) -> None:
    spec, run = long_trial(make_trial, tmp_path)
    forked.start(spec, run)
    assert wait_for((Path(run.folder) / "resume.pt").exists)
    pids = ranks_of(forked.pid)
    assert len(pids) == 2
    os.kill(forked.pid, signal.SIGKILL)
    assert forked.wait()[0] == -signal.SIGKILL
    assert wait_for(lambda: all(gone(pid) for pid in pids), limit_s=10)


@pytest.mark.full
def test_a_training_over_two_processes_pauses_and_goes_on_alike(make_trial: Any, tmp_path: Path) -> None:
    spec, run = make_trial(steps=8, batch_size=4, run={"processes": 2})
    paused = run_trial(spec, dataclasses.replace(run, stop_at_step=5))
    assert (paused["status"], paused["step"]) == ("paused", 5)
    assert paused["val_rd_loss"] > 0
    finished = run_trial(spec, run)
    whole = run_trial(spec, dataclasses.replace(run, folder=str(tmp_path / "whole")))
    assert lasting(finished) == lasting(whole)
    assert finished["training"]["resumed_at_steps"] == [5]


@pytest.mark.full
def test_an_error_in_one_process_is_the_error_of_the_trial(make_trial: Any, tmp_path: Path) -> None:
    spec, run = make_trial(steps=8, batch_size=4, crop_px=256, run={"processes": 2})
    result = run_trial(spec, run)
    assert result["error"]["class"] == "UserError"
    assert "budget.crop_px=256: no image" in result["error"]["message"]
