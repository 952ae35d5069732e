"""Files that are not what was written: known as such, set aside by name, and made anew."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdc.checkpoint import load_model, read_metadata, save_model
from rdc.data import ImageSet, PixelCache, index
from rdc.errors import UserError
from rdc.files import (
    StorageError,
    append_jsonl,
    atomic_write_json,
    atomic_write_text,
    is_intact,
    read_json,
    read_jsonl,
    read_sealed,
    sealed,
    write_sealed,
)
from rdc.models.codec import build
from rdc.result import read_any, read_finished, write_result
from rdc.resume import (
    NO_METRICS,
    RESUME_FILE,
    MetricsLog,
    Progress,
    ResumePoint,
    open_resume,
    save_resume,
)
from rdc.runtime import time_payload
from rdc.spec import to_plain
from rdc.trial import run_payload, run_trial
from tests.rdc.shared import lasting

RESULT = {
    "schema_version": 1,
    "status": "ok",
    "spec_id": "0123456789ab",
    "evaluation": {"bpp": 0.25, "psnr_db": 31.5, "mse": 1e-05, "ms_ssim": None, "per_image": [[1, 2.5e-07]]},
    "label": "conv 8-8-8/12 größer",
    "attempt": 1,
}


def flipped(data: bytes, at: int, change: int) -> bytes:
    return data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]


# ----------------------------------------------------------------------------------------------- results


@settings(max_examples=150, deadline=None)
@given(where=st.integers(0, 2**20), change=st.integers(1, 255))
def test_a_changed_byte_of_a_result_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, where: int, change: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = write_result(folder, RESULT)
    file = folder / "result.json"
    data = file.read_bytes()
    file.write_bytes(flipped(data, where % len(data), change))
    found = read_any(folder)
    if found is not None:
        # Either blank space or the name of the checksum itself: every value is what was written.
        values = {key: found.get(key) for key in RESULT}
        assert json.dumps(values) == json.dumps({key: whole[key] for key in RESULT})
        assert read_finished(folder, spec_id="0123456789ab") is not None


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 2**20))
def test_a_shortened_result_is_none(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_result(folder, RESULT)
    file = folder / "result.json"
    data = file.read_bytes().rstrip()
    file.write_bytes(data[: length % len(data)])
    assert read_any(folder) is None


def test_results_of_older_releases_have_no_checksum_and_count(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "result.json", RESULT)
    assert read_finished(tmp_path, spec_id="0123456789ab") == RESULT


def test_a_result_of_a_newer_release_is_neither_read_nor_run_again(tmp_path: Path) -> None:
    for status in ("ok", "failed"):
        write_result(tmp_path, {**RESULT, "schema_version": 2, "status": status})
        with pytest.raises(UserError, match=r"result\.json: has schema version 2, .* upgrade rdc, or sweep"):
            read_finished(tmp_path, spec_id="0123456789ab")


def test_a_checksum_is_of_the_values_alone(tmp_path: Path) -> None:
    whole = sealed(RESULT)
    assert is_intact(json.loads(json.dumps(whole)))
    assert is_intact(dict(reversed(whole.items())))
    assert sealed(whole) == whole
    assert not is_intact({**whole, "attempt": 2})
    assert write_sealed(tmp_path / "a.json", RESULT) == read_sealed(tmp_path / "a.json") == whole
    atomic_write_json(tmp_path / "a.json", {**whole, "attempt": 2})
    with pytest.raises(UserError, match=r"a\.json: is damaged \(its content does not match its checksum\)"):
        read_sealed(tmp_path / "a.json")


def test_a_damaged_result_is_set_aside_and_the_trial_runs_again(make_trial: Any) -> None:
    spec, run = make_trial()
    folder = Path(run.folder)
    first = run_trial(spec, run)
    text = (folder / "result.json").read_text()
    bpp = json.dumps(first["evaluation"]["bpp"])
    (folder / "result.json").write_text(text.replace(bpp, bpp[:-1] + str((int(bpp[-1]) + 1) % 10), 1))
    assert read_finished(folder, spec_id=spec.spec_id) is None
    again = run_trial(spec, run)
    assert again["evaluation"]["bpp"] == first["evaluation"]["bpp"]
    assert (folder / "result.json.damaged1").exists()
    causes = [r["cause"] for r in read_jsonl(folder / "metrics.jsonl") if r.get("event") == "result_damaged"]
    assert causes == ["result.json is damaged and is now result.json.damaged1"]
    assert causes[0] in (folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_trial_once: Any) -> Any:
    """(spec, settings, result) of a trial that nobody may change: copy its folder."""
    spec, run = make_trial_once(tmp_path_factory.mktemp("finished"))
    return spec, run, run_trial(spec, run)


@pytest.fixture
def trial(finished: Any, tmp_path: Path) -> Any:
    """(spec, settings, result) of a finished trial in a folder of its own."""
    spec, run, result = finished
    folder = tmp_path / "copy"
    shutil.copytree(run.folder, folder)  # with the times of the files
    return spec, dataclasses.replace(run, folder=str(folder)), result


@pytest.mark.parametrize("damage", ["a changed byte", "cut short"])
def test_damaged_weights_are_set_aside_with_their_result_and_trained_again(trial: Any, damage: str) -> None:
    spec, run, result = trial
    folder = Path(run.folder)
    data = (folder / "model.safetensors").read_bytes()
    assert result["model"] == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    status = (folder / "model.safetensors").stat()
    damaged = data[:-1] if damage == "cut short" else flipped(data, len(data) - 40, 1)
    (folder / "model.safetensors").write_bytes(damaged)
    if damage == "cut short":  # as after a power cut: the name and the time are on the disk, the content not
        os.utime(folder / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read_finished(folder, spec_id=spec.spec_id) is None
    again = run_trial(spec, run)
    assert lasting(again) == lasting(result)
    assert again["attempt"] == 2
    assert (folder / "model.safetensors").read_bytes() == data
    assert (folder / "model.safetensors.damaged1").read_bytes() == damaged
    assert read_json(folder / "result.json.damaged1") == result
    (cause,) = (
        r["cause"] for r in read_jsonl(folder / "metrics.jsonl") if r.get("event") == "result_damaged"
    )
    assert cause == (
        "model.safetensors is damaged and is now model.safetensors.damaged1, "
        "and its result result.json.damaged1"
    )
    assert cause in (folder / "log.txt").read_text()


def test_weights_that_were_deleted_or_touched_leave_a_result_as_it_is(trial: Any) -> None:
    spec, run, result = trial
    folder = Path(run.folder)
    os.utime(folder / "model.safetensors", (2e9, 2e9))
    assert read_finished(folder, spec_id=spec.spec_id) == result
    changed = [(folder / name).stat().st_mtime_ns for name in ("model.safetensors", "result.json")]
    assert changed[0] == changed[1], "the next time it need not be read"
    (folder / "model.safetensors").unlink()
    assert run_trial(spec, run) == result


def test_weights_that_changed_on_the_disk_are_found_out_when_they_are_used(
    trial: Any, tmp_path: Path
) -> None:
    """The file keeps its size and time of change, as with a failing disk."""
    spec, run, result = trial
    folder = Path(run.folder)
    file = folder / "model.safetensors"
    status, data = file.stat(), file.read_bytes()
    payload = {"model": to_plain(spec.model), "checkpoint": str(file), "device": "cpu", "out": str(tmp_path)}
    file.write_bytes(flipped(data, len(data) - 40, 1))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read_finished(folder, spec_id=spec.spec_id) == result
    with pytest.raises(
        UserError, match=r"its result result\.json\.damaged1; repeat the command to train it again"
    ):
        time_payload(payload)
    assert read_finished(folder, spec_id=spec.spec_id) is None
    assert not file.exists()


# ------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("checkpoint")
    learner = {"weights": {"a": torch.arange(300.0)}, "rate_scale": 1.0}
    good = ResumePoint(Progress(step=3), learner, metrics=(7, "7"))
    save_resume(folder, ResumePoint(Progress(step=5), learner, (12, "c"), good=good), spec_id="x")
    return (folder / RESUME_FILE).read_bytes()


def test_a_checkpoint_comes_back_with_the_state_to_return_to(tmp_path: Path, checkpoint: bytes) -> None:
    (tmp_path / RESUME_FILE).write_bytes(checkpoint)
    point, damage = open_resume(tmp_path, spec_id="x")
    assert damage is None
    assert point is not None
    assert point.good is not None
    assert (point.progress.step, point.good.progress.step, point.good.metrics) == (5, 3, (7, "7"))
    assert torch.equal(point.learner["weights"]["a"], torch.arange(300.0))


@settings(max_examples=200, deadline=None)
@given(where=st.integers(0, 2**20), change=st.integers(1, 255))
def test_a_changed_byte_of_a_checkpoint_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: bytes, where: int, change: int
) -> None:
    assert _damage_of(tmp_path_factory, flipped(checkpoint, where % len(checkpoint), change)) is not None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_shortened_or_blanked_checkpoint_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: bytes, data: st.DataObject
) -> None:
    end = data.draw(st.integers(0, len(checkpoint) - 1))
    damage = _damage_of(tmp_path_factory, checkpoint[:end])
    assert damage is not None
    assert damage.endswith("it is cut short or no checkpoint of this version")
    start = data.draw(st.integers(0, end))
    blank = checkpoint[:start] + bytes(end - start) + checkpoint[end:]
    assert blank == checkpoint or _damage_of(tmp_path_factory, blank) is not None


def _damage_of(factory: pytest.TempPathFactory, data: bytes) -> str | None:
    folder = factory.getbasetemp()
    (folder / RESUME_FILE).write_bytes(data)
    point, damage = open_resume(folder, spec_id="x")
    assert (point is None) == (damage is not None)
    for path in folder.glob(f"{RESUME_FILE}.damaged*"):
        path.unlink()
    return damage


def test_a_changed_number_beside_the_weights_is_noticed(tmp_path: Path, make_trial: Any) -> None:
    codec = build(make_trial()[0].model)
    codec.update(force=True)
    file = tmp_path / "model.safetensors"
    save_model(file, codec, extra={"lmbda": 0.013, "precision": "fp32"})
    load_model(file)
    data = file.read_bytes()
    file.write_bytes(data.replace(b"0.013", b"0.017"))
    with pytest.raises(UserError, match=r"metadata is damaged \(its checksum does not match\); get it again"):
        read_metadata(file)
    # A weight: the last bytes of the file are tensors.
    file.write_bytes(flipped(data, len(data) - 40, 1))
    with pytest.raises(UserError, match=r"is damaged \(its content does not match its own hash\)"):
        load_model(file)


# ---------------------------------------------------------------------------------------------- caches


def test_a_pixel_that_changed_on_the_disk_is_never_used(
    image_sets: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file keeps its size and time of change, as with a failing disk."""
    images: ImageSet = image_sets[0]
    before = PixelCache(images, root=tmp_path)
    expected = [before.image(number).copy() for number in range(len(images))]
    (file,) = tmp_path.rglob("*.u8")
    status = file.stat()
    data = file.read_bytes()
    file.write_bytes(flipped(data, len(data) // 2, 16))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    cache = PixelCache(images, root=tmp_path)
    assert cache.held == len(images), "its size and time say that nobody touched it"
    for number, pixels in enumerate(expected):
        assert np.array_equal(cache.image(number), pixels)
    assert cache.held == len(images) - 1
    assert [path.name for path in tmp_path.rglob("*.damaged*")] == [f"{file.name}.damaged1"]
    assert f"is damaged: kept as {file.name}.damaged1, and decoded anew" in caplog.text
    assert PixelCache(images, root=tmp_path).held == len(images)
    assert file.read_bytes() == data


@pytest.mark.parametrize(("old", "new"), [(b"160", b"161"), (b'"images"', b'"imbges"'), (b"}", b"")])
def test_a_damaged_index_of_images_is_set_aside_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_sets: Any, old: bytes, new: bytes
) -> None:
    monkeypatch.setenv("RDC_CACHE", str(tmp_path))
    paths = [Path(image.path) for image in image_sets[0].images]
    first, _ = index.describe(paths)
    file = tmp_path / "images.json"
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    again, _ = index.describe(paths)
    assert again == first
    assert (tmp_path / "images.json.damaged1").exists()
    assert read_json(file) == json.loads(data)


def test_a_damaged_list_of_images_is_refused(tmp_path: Path, image_sets: Any) -> None:
    image_sets[0].save(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    (tmp_path / "m.json").write_text(text.replace('"height_px": 160', '"height_px": 161', 1))
    with pytest.raises(UserError, match=r"m\.json: its images do not match its hash; delete it"):
        ImageSet.load(tmp_path / "m.json")


# --------------------------------------------------------------------------------- disks that are full


def test_what_the_disk_refuses_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError,
        match=r"file: cannot be written \(No space left on device\); make room there .* is finished is kept",
    ):
        atomic_write_text(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
    with pytest.raises(IsADirectoryError):  # says nothing about the disk
        append_jsonl(tmp_path, {})


DAMAGED_CURVE = "metrics.jsonl is damaged and is now metrics.jsonl.damaged1; the curve begins anew"


def test_a_damaged_curve_is_set_aside_and_costs_no_step(make_trial: Any) -> None:
    """Whatever was logged before the checkpoint cannot be logged again; nothing else is lost."""
    spec, run = make_trial()
    folder = Path(run.folder)
    assert run_trial(spec, dataclasses.replace(run, stop_at_step=4))["status"] == "paused"
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text.replace("train/bpp", "train/bqp"))
    training = run_trial(spec, run)["training"]
    assert training["resumed_at_steps"] == [4]
    rows = read_jsonl(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [6]
    assert (
        rows[0]["cause"]
        == "metrics.jsonl is damaged and is now metrics.jsonl.damaged1; the curve begins anew"
    )
    assert rows[0]["cause"] in (folder / "log.txt").read_text()
    assert (folder / "metrics.jsonl.damaged1").exists()


def test_a_log_goes_back_to_a_mark_if_it_is_still_there(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    assert log.mark() == NO_METRICS
    assert log.go_back(NO_METRICS) is None
    log.points(1, a=1)
    mark = log.mark()
    log.points(2, a=2)
    assert log.go_back(mark) is None
    assert log.mark() == mark
    os.truncate(log.path, mark[0] - 1)  # as after a power cut
    assert (
        log.go_back(mark)
        == "metrics.jsonl is damaged and is now metrics.jsonl.damaged1; the curve begins anew"
    )
    assert log.go_back(mark) == "metrics.jsonl is missing; the curve begins anew"
    assert log.mark() == NO_METRICS


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system refuses this process files of more than 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_trial_whose_files_find_no_room_is_no_failed_trial(
    make_trial: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Its checkpoint does not fit, and nothing half remains."""
    spec, run = make_trial(run={"checkpoint_every_s": 0.0})
    # The cache is another place: it is filled before.
    run_trial(spec, dataclasses.replace(run, folder=str(tmp_path / "other"), stop_at_step=1))
    request.getfixturevalue("small_files")
    with pytest.raises(StorageError) as caught:
        run_payload({"spec": spec.to_dict(), "run": dataclasses.asdict(run)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert str(caught.value).startswith(
        f"{run.folder}/resume.pt: cannot be written (File too large); make room there"
    )
    left = {path.name for path in Path(run.folder).iterdir()}
    assert left == {"spec.json", "log.txt", "metrics.jsonl"}
    # What a killed writer leaves behind goes when the trial starts again.
    (Path(run.folder) / ".resume.pt.abcd1234.tmp").write_bytes(b"half")
    result = run_trial(spec, run)
    assert result["status"] in ("ok", "rate_mismatch")
    assert result["attempt"] == 1
    assert not list(Path(run.folder).glob(".*"))


def test_the_checkpoint_goes_when_the_result_is_there_and_not_before(
    make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise StorageError("full")

    spec, run = make_trial()
    with monkeypatch.context() as patch:
        patch.setattr("rdc.trial.write_result", refuse)
        with pytest.raises(StorageError):
            run_trial(spec, run)
    result = run_trial(spec, run)
    assert result["training"]["resumed_at_steps"] == [6]
    assert not (Path(run.folder) / RESUME_FILE).exists()
    (Path(run.folder) / RESUME_FILE).write_bytes(b"of a writer killed in between")
    assert run_trial(spec, run) == result
    assert not (Path(run.folder) / RESUME_FILE).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 600 kB of its own, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_and_a_read_only_one_stop_a_trial_cleanly(make_trial: Any, small_disk: Path) -> None:
    spec, run = make_trial(run={"folder": str(small_disk / "trial")})
    (small_disk / "filler").write_bytes(bytes(500_000))
    with pytest.raises(StorageError, match="No space left on device"):
        run_trial(spec, run)
    assert not list((small_disk / "trial").glob(".*"))
    assert not (small_disk / "trial" / "result.json").exists()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="Read-only file system"):
        run_payload({"spec": spec.to_dict(), "run": dataclasses.asdict(run)})
    subprocess.run(["mount", "-o", "remount,rw,size=100m", str(small_disk)], check=True)
    finished = run_trial(spec, run)
    assert finished["status"] in ("ok", "rate_mismatch")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run_trial(spec, run) == finished, "what is finished can be read"
