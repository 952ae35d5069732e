"""A sweep in stages with real trainings, on tiny images: what starts from, measures and matches what."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.conftest import ROOT

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

STAGES = """
stages:
  base: null
  gated:
    start: base
    overrides: [gating=ecg, gating.gamma=1000.0, rate_control=modulator, budget.steps=6]
  fixed: {start: base, match: gated, overrides: [gating=static, budget.steps=4]}
  narrow: {match: gated}
  narrow_more: {start: narrow, overrides: [budget.steps=4]}
  rates: {start: gated, measure: true, lmbdas: [0.005, 0.013, 0.03]}
  plain_rates: {start: base, measure: true, lmbdas: [0.005, 0.03]}
"""

Trial = Mapping[str, Any]


@pytest.fixture
def command(tmp_path: Path, image_folders: Path) -> list[str]:
    """The sweep, with its stages in a file of its own, as a user would keep them."""
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/staged.yaml").write_text(f"# @package _global_{STAGES}")
    return [
        *(sys.executable, "-m", "sweep", "--config-dir", str(tmp_path / "conf"), "+experiment=staged"),
        *("name=tiny", "budget=smoke", "budget.steps=3", "budget.warmup_steps=1", "budget.ms_ssim=false"),
        *("budget.precision=fp32", "depth.channels=[16,16,16]", "depth.latent_channels=24"),
        *(f"data.train={image_folders}/train", f"data.eval={image_folders}/eval", "tracking=none"),
        *("cluster=inline", "cluster.timing={threads:1,repeats:1,height_px:64,width_px:64}"),
    ]


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RDC_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(folder: Path) -> dict[tuple[str, float], Trial]:
    found = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    return {(trial["stage"], trial["spec"]["lmbda"]): trial for trial in found}


def kmac_per_px(trial: Trial) -> float:
    gating = trial["evaluation"]["gating"]
    return float(gating["encode_kmac_per_px"]["mean"] + gating["decode_kmac_per_px"]["mean"])


def test_every_stage_from_the_weights_and_at_the_cost_that_it_asked_for(
    command: list[str], tmp_path: Path
) -> None:
    assert "; 8 need results of others and are planned when those are there" in run(command, tmp_path)
    folder = tmp_path / "runs/tiny"
    trials = read(folder)
    assert len(trials) == 9
    assert {trial["status"] for trial in trials.values()} <= {"ok", "rate_mismatch"}
    base, gated = trials["base", 0.013], trials["gated", 0.013]
    check_measured(folder, gated, [trials["rates", lmbda] for lmbda in (0.005, 0.03)])
    check_measured(folder, base, [trials["plain_rates", lmbda] for lmbda in (0.005, 0.03)])
    # Without rate control the same weights make the same files, whatever weighs their errors.
    plain = trials["plain_rates", 0.03]["evaluation"]
    assert (plain["bpp"], plain["psnr_db"]) == (base["evaluation"]["bpp"], base["evaluation"]["psnr_db"])
    mse_part = plain["rd_loss"] - plain["bpp"]
    assert mse_part == pytest.approx((base["evaluation"]["rd_loss"] - plain["bpp"]) * 0.03 / 0.013)

    fixed, narrow = trials["fixed", 0.013], trials["narrow", 0.013]
    opened = [layer["open"] for layer in gated["evaluation"]["gating"]["layers"]]
    assert fixed["spec"]["model"]["gating"]["channels"] == [int(value + 0.5) for value in opened]
    assert min(opened[:3]) < 16  # some gates are closed, or nothing was matched
    assert kmac_per_px(fixed) == pytest.approx(kmac_per_px(gated), rel=0.05)
    cost = sum(narrow["complexity"][side]["executed_kmac_per_px"] for side in ("encode", "decode"))
    assert cost == pytest.approx(kmac_per_px(gated), rel=0.25)  # widths of such a model are few
    assert cost < sum(base["complexity"][side]["executed_kmac_per_px"] for side in ("encode", "decode"))
    assert trials["narrow_more", 0.013]["arch_id"] == narrow["arch_id"] != base["arch_id"]

    check_times(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")}
    assert "9 trials, budget smoke, fp32; 9 have results already; nothing is missing" in run(
        command, tmp_path
    )
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")} == before


def check_measured(folder: Path, trained: Trial, measured: list[Trial]) -> None:
    weights = folder / "trials" / trained["spec_id"] / "model.safetensors"
    for trial in measured:
        assert trial["model"] == trained["model"]
        assert (folder / "trials" / trial["spec_id"] / "model.safetensors").samefile(weights)
        assert (trial["curve_id"], trial["budget_id"]) == (trained["curve_id"], trained["budget_id"])
        training = trial["training"]
        assert training["weights"]["spec_id"] == trained["spec_id"]
        assert (training["steps"], "wall_s" in training) == (trained["training"]["steps"], False)
    assert len({trial["spec_id"] for trial in (trained, *measured)}) == 1 + len(measured)


def check_times(folder: Path) -> None:
    """What has gates is timed per trial, everything else per architecture."""
    with open(folder / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["stage"] and row["time_dec_total_ms"] for row in rows)
    timed = {path.name.partition("__")[0] for path in folder.glob("timing/*.json")}
    gates = {row["spec_id"] for row in rows if row["stage"] in ("gated", "fixed", "rates")}
    assert timed == gates | {row["arch_id"] for row in rows if row["spec_id"] not in gates}
