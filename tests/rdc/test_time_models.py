"""python -m rdc time: what is measured, what is skipped, what goes wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.runtimes import read_runtime_table
from conf import compose
from rdc import time_models
from rdc.__main__ import main
from rdc.checkpoint import save_model
from rdc.configured import model_of
from rdc.errors import UserError
from rdc.models.codec import build
from rdc.runtime_table import read_settings
from rdc.spec import arch_id, parse_model, to_plain
from rdc.speed import SpeedMeter, _Sizes
from rdc.time_models import Settings, TimedModel, TimedSize, parse_sizes
from rdc.time_worker import Task, time_group
from tests.rdc.shared import TINY_MODEL

SPEC = parse_model(TINY_MODEL)


def task(index: int = 0, **changes: Any) -> Task:
    values: dict[str, Any] = {
        "index": index, "name": "tiny", "model": to_plain(SPEC), "weights": "random", "checkpoint": None,
        "image": None, "height_px": 64, "width_px": 96, "device": "cpu", "threads": 1, "precision": "fp32",
        "repeats": 2, "decode_only": True, "cost": {"kflop_per_px_dec": 5.0},
    }  # fmt: skip
    return Task(**(values | changes))


def answers(*tasks: Task) -> list[dict[str, Any]]:
    meter = SpeedMeter(torch.device("cpu"), _Sizes(product=16, convolution=(8, 4, 4), moved=64))
    return list(time_group(tasks, meter))


def rows(found: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {answer["index"]: answer["row"] for answer in found if "row" in answer}


def test_random_weights_have_times_of_networks_alone() -> None:
    row = rows(answers(task()))[0]
    assert row["dec_net_ms"] > 0
    assert row["dec_net_q25_ms"] <= row["dec_net_ms"] <= row["dec_net_q75_ms"]
    assert not {name for name in row if name.endswith("_ms") and ("entropy" in name or "enc_" in name)}
    assert (row["arch_id"], row["weights"], row["repeats"]) == (arch_id(SPEC), "random", 2)
    assert row["kflop_per_px_dec"] == 5.0, "counted by the parent"
    assert row["roofline_ms"] == pytest.approx(row["compute_ms"] + row["memory_ms"] + row["serial_ms"])
    assert "enc_net_ms" in rows(answers(task(decode_only=False)))[0]


def test_trained_weights_have_times_of_whole_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = build(SPEC)
    codec.update(force=True, update_quantiles=True)
    save_model(tmp_path / "m.safetensors", codec, extra={"spec_id": "abc"})
    trained = task(checkpoint=str(tmp_path / "m.safetensors"), weights="trained abc")
    row = rows(answers(trained))[0]
    assert row["dec_total_ms"] > row["dec_entropy_ms"] > 0
    assert "enc_total_ms" not in row
    row = rows(answers(task(checkpoint=trained.checkpoint, decode_only=False)))[0]
    assert row["enc_total_ms"] > row["enc_entropy_ms"] > 0


def test_models_take_turns_and_every_other_round_runs_backwards() -> None:
    found = answers(task(0, repeats=3), task(1, repeats=3))
    assert [a["begin"] for a in found if "begin" in a] == [0, 1, 0, 1, 1, 0, 0, 1]
    assert set(rows(found)) == {0, 1}


def test_one_model_too_large_is_one_line_and_the_rest_goes_on() -> None:
    found = answers(task(0, height_px=2**20, width_px=2**20), task(1))
    (failed,) = [answer for answer in found if "failed" in answer]
    assert failed["index"] == 0
    assert "memory" in failed["failed"]
    assert "\n" not in failed["failed"]
    assert set(rows(found)) == {1}


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["time", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_what_is_there_is_skipped_unless_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "a.csv"
    asked = ["--models", "rdc_g width=0.05", "model=rdc_g width=0.05", "--device", "cpu", "--images", "64x64"]
    asked += ["--repeats", "1", "-o", str(table)]
    status, out, _ = run(capsys, *asked)
    assert (status, len(read_runtime_table(table))) == (0, 1), "one architecture by two names"
    assert "1 of 2 measurements to make" in out
    assert re.search(r"rdc_g width=0\.05, 1 threads, fp32, 64x64: decode [\d.]+ ms \(", out)
    before = table.read_bytes()
    status, out, _ = run(capsys, *asked)
    assert status == 0
    assert "0 of 2 measurements to make" in out
    assert table.read_bytes() == before
    settings = Settings("cpu", (1,), ("fp32",), (TimedSize(64, 64),), 1, True, False)
    models = [TimedModel("x", model_of(compose(["model=rdc_g", "width=0.05"])))]
    run_of = time_models._Run(models, settings, table, "cpu", read_runtime_table(table)["device_slug"][0], 0)
    assert run_of.missing(read_settings(table)) == []
    assert len(run_of.missing(set())) == 1, "what --again measures"


def test_mistakes_are_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    out = ["-o", str(tmp_path / "a.csv")]
    tiny = ["--models", "rdc_g width=0.05", *out]
    cases: list[tuple[list[str], str]] = [
        (out, "name what to time with --models or --checkpoints"),
        (["--models", "rdc_z", *out], "rdc_z"),
        (["--models", "rdc_g width=9", *out], "width=9"),
        (["--checkpoints", str(tmp_path / "none"), *out], "none"),
        ([*tiny, "--threads", "0"], "--threads 0: must lie between 1 and 1024"),
        ([*tiny, "--repeats", "-1"], "--repeats -1: must lie"),
        ([*tiny, "--precision", "fp16"], "--precision fp16: is not known; known: fp32, bf16"),
        ([*tiny, "--images", "large"], "--images large: must be kodak, clic, HEIGHTxWIDTH"),
        ([*tiny, "--images", "0x64"], "both sides must be at least 1"),
        ([*tiny, "--images", str(tmp_path / "empty")], "holds no image"),
        (["--models", "rdc_g width=0.05", "-o", str(tmp_path / "foreign.csv")], "is no runtime table"),
        ([*tiny, "--device", "cuda:99"], "cuda:99"),
        ([*tiny, "--device", "tpu"], "tpu"),
    ]
    for arguments, message in cases:
        status, printed, error = run(capsys, *arguments)
        assert (status, printed) == (2, ""), arguments
        assert error.count("\n") == 1, error
        assert message in error, error
    assert not (tmp_path / "a.csv").exists()


def test_sizes_come_from_names_numbers_and_photos(tmp_path: Path) -> None:
    for name, size in (("b.png", (40, 30)), ("a.png", (40, 30)), ("c.jpg", (20, 10)), ("notes.txt", None)):
        if size:
            Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / name)
        else:
            (tmp_path / name).write_text("no image")
    sizes = parse_sizes(["kodak", "64x32", str(tmp_path), "512x768"])
    assert sizes == (
        TimedSize(512, 768),
        TimedSize(64, 32),
        TimedSize(40, 30, str(tmp_path / "a.png")),
        TimedSize(20, 10, str(tmp_path / "c.jpg")),
    )
    assert parse_sizes([str(tmp_path / "c.jpg")]) == (TimedSize(20, 10, str(tmp_path / "c.jpg")),)


class Dying:
    """A worker that dies of the model with index 1, once all others in its group are done."""

    started = 0

    def __init__(self, threads: int) -> None:
        Dying.started += 1
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def ask(self, tasks: list[dict[str, Any]]) -> Any:
        row = {"dec_net_ms": 1.0, "dec_net_q25_ms": 1.0, "dec_net_q75_ms": 1.0, "roofline_ms": 1.0}
        for wanted in tasks:
            yield {"begin": wanted["index"]}
            if wanted["index"] == 1:
                self.alive = False
                return
        for wanted in tasks:
            same = {name: wanted[name] for name in ("weights", "threads", "precision", "height_px")}
            same["arch_id"] = wanted["model"]["depth"]["latent_channels"]
            yield {"index": wanted["index"], "row": {**row, **same, "table_version": 1, "width_px": 64}}
        yield {"done": True}

    def last_words(self) -> str:
        return "it died"

    def end(self) -> None:
        self.alive = False


def test_a_process_that_dies_takes_one_model_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time_models, "_Worker", Dying)
    models = []
    for latent in (12, 16, 20):
        depth = {"channels": [8, 8, 8], "latent_channels": latent}
        models.append(TimedModel(f"with {latent}", parse_model(TINY_MODEL | {"depth": depth})))
    settings = Settings("cpu", (1,), ("fp32",), (TimedSize(64, 64),), 1, True, False)
    with pytest.raises(UserError, match="1 of 3 measurements failed"):
        time_models.time_models(models, settings, tmp_path / "a.csv")
    assert "with 16, 1 threads, fp32, 64x64: not timed (it died)\n" in capsys.readouterr().err
    assert list(read_rows(tmp_path / "a.csv")) == ["12", "20"]
    assert Dying.started == 2


def read_rows(path: Path) -> list[str]:
    return [line.split(",")[1] for line in path.read_text().splitlines()[1:]]


def test_an_interrupt_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time_models._Run, "in_threads", interrupted)
    settings = Settings("cpu", (1,), ("fp32",), (TimedSize(64, 64),), 1, True, False)
    with pytest.raises(UserError, match="stopped; the same command goes on"):
        time_models.time_models([TimedModel("tiny", SPEC)], settings, tmp_path / "a.csv")


def test_gated_models_are_timed_trained_and_on_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(tmp_path / "runtimes.csv")
    assert main(["time", "--models", "scale_hyperprior width=0.1 gating=ecg", "-o", table]) == 2
    assert re.search("gating=ecg closes no channel before it is trained; time", capsys.readouterr().err)
    codec = build(parse_model({**TINY_MODEL, "gating": {"name": "ecg"}}))
    codec.update()
    with torch.no_grad():
        for alpha in codec.gate_parameters().values():
            alpha.fill_(1.0)
    path = tmp_path / "model.safetensors"
    save_model(path, codec, extra={})
    assert main(["time", "--checkpoints", str(path), "--images", "64x64", "-o", table]) == 2
    assert re.search("depends on the image; name photos with --images", capsys.readouterr().err)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(photo)
    gated = task(model=to_plain(codec.spec), checkpoint=str(path), image=str(photo))
    assert rows(answers(gated))[0]["dec_net_ms"] > 0
