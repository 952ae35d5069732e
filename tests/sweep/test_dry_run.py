"""What a sweep would run and cost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import conf
from rdc.complexity import measure
from rdc.errors import UserError
from rdc.spec import COMPONENT_GROUPS, Recipe, parse_model
from sweep.driver import run_sweep
from sweep.machines import Entries
from sweep.pricing import fit_line, price_of
from tests.sweep import pretend

pytestmark = pytest.mark.usefixtures("environment")
ENTRIES = Entries(trial="pretend:trial", timing="pretend:timing", probe="pretend:probe")


def run(*overrides: str) -> int:
    return run_sweep(conf.compose(overrides), overrides=overrides, entries=ENTRIES)


def test_trials_are_priced_and_nothing_is_started(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = (
        "space.points=[['depth.latent_channels=8'],['depth.channels=[4,4]'],['depth.latent_channels=12']]"
    )
    assert run(*base_overrides, points, "dry_run=true") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.endswith("  run")]
    config = conf.compose(base_overrides)
    counted = measure(parse_model({group: config[group] for group in (*COMPONENT_GROUPS, "depth")})).to_dict()
    assert len(rows) == 2
    assert rows[0][4] == f"{counted['params']['total'] / 1e6:.2f}"
    assert rows[0][5] == f"{counted['decode']['parity_kflop_per_px']:.1f}"
    assert any(line.startswith("refused: [depth.channels=[4,4]]: ") for line in lines)
    assert any(line.startswith("2 of 2 trials would run, ") for line in lines)
    assert any("by the speed of a few training steps here" in line for line in lines)
    pflop = sum(float(row[6]) for row in rows)
    hours = float(re.search(r"by operations alone: (\S+) hours of one A100", lines[-1]).group(1))  # type: ignore[union-attr]
    assert hours == pytest.approx(pflop * 1e15 / (0.3 * 312e12) / 3600, rel=0.02)
    assert not (tmp_path / "runs").exists()


def test_a_plan_without_a_possible_architecture_is_an_error(base_overrides: list[str]) -> None:
    with pytest.raises(UserError, match=r"depth.channels=\[4, 4\]: transform=conv needs 3 entries"):
        run(*base_overrides, "depth.channels=[4,4]", "dry_run=true")


def test_what_would_be_skipped_and_why(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = f"seeds=[0,{pretend.RAISE}]"
    run(*base_overrides, "cluster=inline", "time=false", seeds)
    capsys.readouterr()
    run(*base_overrides, f"seeds=[0,{pretend.RAISE},5]", "dry_run=true")
    output = capsys.readouterr().out
    states = [
        line.partition("mean-scale")[2].rpartition("  ")[2] for line in output.splitlines() if "seed" in line
    ]
    assert states == ["skip: has a result (ok)", "run: failed before (RuntimeError)", "run"]
    assert "2 of 3 trials would run" in output


def test_speed_comes_from_finished_trials_where_there_are_any(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*base_overrides, "cluster=inline", "time=false", "seed=0")
    path = next(tmp_path.glob("runs/tiny/trials/*/result.json"))
    result = json.loads(path.read_text())
    config = conf.compose(base_overrides)
    model = parse_model({group: config[group] for group in (*COMPONENT_GROUPS, "depth")})
    complexity = measure(model).to_dict()
    result["complexity"], result["training"]["wall_s"] = complexity, 100.0
    path.write_text(json.dumps(result))
    capsys.readouterr()
    run(*base_overrides, "seeds=[0,1]", "dry_run=true", "cluster.slots=1")
    output = capsys.readouterr().out
    assert "by the speed of 1 finished trials of this sweep" in output
    assert "about 1.7 min on 1 slots" in output  # the same model and steps again: 100 s


def test_training_operations_by_hand() -> None:
    parts = {
        "g_a": {"encode_parity_kmac_per_px": 10.0, "decode_parity_kmac_per_px": 0.0},
        "h_s": {"encode_parity_kmac_per_px": 2.0, "decode_parity_kmac_per_px": 2.0},
        "g_s": {"encode_parity_kmac_per_px": 0.0, "decode_parity_kmac_per_px": 10.0},
    }
    complexity = {"parts": parts, "params": {"total": 1}, "decode": {"parity_kflop_per_px": 24.0}}
    recipe = Recipe(
        steps=1000, batch_size=8, crop_px=128, learning_rate=1e-3, schedule="cosine", final_learning_rate=1e-5
    )
    price = price_of(complexity, recipe)
    # h_s once, not twice: 22 kMAC/px = 44 kFLOP/px, times 3 for forward and backward = 132 kFLOP/px,
    # on 1000*8*128^2 = 131.072e6 pixels: 1.7301504e13 operations.
    assert price.training_kflop_per_px == 132
    assert price.training_pflop == pytest.approx(0.017301504)


def test_a_line_is_never_negative() -> None:
    assert fit_line([1.0, 3.0], [10.0, 20.0]) == pytest.approx((5.0, 5.0))
    assert fit_line([2.0], [10.0]) == (0.0, 5.0)
    assert fit_line([1.0, 2.0], [1.0, 4.0]) == (
        0.0,
        pytest.approx(1.8),
    )  # would start below 0
    assert fit_line([1.0, 2.0], [4.0, 1.0]) == (0.0, pytest.approx(1.2))  # would fall


def test_a_resumed_trial_tells_the_speed_too(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its wall_s is that of all its pieces (rdc.resume.Progress)."""
    run(*base_overrides, "cluster=inline", "time=false")
    path = next(tmp_path.glob("runs/tiny/trials/*/result.json"))
    result = json.loads(path.read_text())
    result["complexity"] = measure(parse_model(result["spec"]["model"])).to_dict()
    result["training"] |= {"wall_s": 7.0, "resumed_at_steps": [1]}
    path.write_text(json.dumps(result))
    run(*base_overrides, "seeds=[0,1]", "dry_run=true")
    assert "by the speed of 1 finished trials of this sweep" in " ".join(capsys.readouterr().out.split())
