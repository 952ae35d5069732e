"""The report on a sweep that really trained: one model of variable rate and fixed ones, on tiny images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.sweep.conftest import ROOT
from tests.sweep.conftest import image_folders as image_folders

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

LMBDAS = [0.0018, 0.013, 0.0483, 0.18]
CODES = [0.0018, 0.005, 0.013, 0.05, 0.18]


def test_the_end_of_a_sweep_reports_what_its_results_hold(tmp_path: Path, image_folders: Path) -> None:
    command = [
        *(sys.executable, "-m", "sweep", "+experiment=variable_rate", "budget=smoke", "budget.steps=8"),
        'stages.fixed_short.overrides=["budget.steps=2"]',
        *("budget.warmup_steps=0", "budget.ms_ssim=false", "budget.precision=fp32", "width=0.1"),
        *("budget.fresh_decode_images=0", f"lmbdas={LMBDAS}", f"stages.codes.lmbdas={CODES}", "time=false"),
        *(f"data.train={image_folders}/train", f"data.eval={image_folders}/eval", "tracking=none"),
        "cluster=inline",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RDC_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "variable rate: conv " in done.stdout
    folder = tmp_path / "runs/variable_rate"
    for name in ("variable_rate_rd.png", "variable_rate_bytes.png", "report.html"):
        assert (folder / name).stat().st_size > 5_000
    check_tables(folder)


def check_tables(folder: Path) -> None:
    results = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    good = [tree for tree in results if tree["status"] in ("ok", "rate_mismatch")]
    assert len(good) == len(results) == 2 * len(LMBDAS) + len(CODES)
    variable = [tree for tree in good if tree["spec"]["model"]["rate_control"]["name"] == "modulator"]
    table = pd.read_csv(folder / "variable_rate.csv")
    assert table[["arm", "role"]].values.tolist() == [["fixed", "each"], ["fixed_short", "total"]]
    for row in table.to_dict("records"):
        fixed = [t for t in good if t["stage"] == row["arm"] and t["status"] == "ok"]
        params = sum(tree["complexity"]["params"]["total"] for tree in fixed)
        own = variable[0]["complexity"]["params"]["total"]
        assert (row["params"], row["arm_params"]) == (own, params)
        assert row["storage_saving_pct"] == pytest.approx(100 * (1 - own / params))
        assert row["steps"] == 8  # one training, whatever was measured
        assert row["arm_steps"] == {"fixed": 32, "fixed_short": 8}[row["arm"]]
        assert row["mean_bytes_steps"] == len(CODES) - 1
    images = len(variable[0]["evaluation"]["per_image"])
    points = pd.read_csv(folder / "variable_rate_points.csv").set_index(["arm", "lmbda"])
    for tree in variable:
        sizes = [s["bpp"] * s["width_px"] * s["height_px"] / 8 for s in tree["evaluation"]["per_image"]]
        if tree["status"] == "ok":
            row = points.loc[("variable", tree["spec"]["lmbda"])]
            assert row["mean_bytes"] == pytest.approx(sum(sizes) / images)
            assert row["lmbda_code"] == tree["evaluation"]["lmbda_code"]
