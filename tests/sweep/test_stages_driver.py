"""Stages as a user runs them, with pretended trials: from the configuration to results, and again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import conf
from rdc.errors import UserError
from rdc.spec import parse_trial
from sweep.driver import run_sweep
from sweep.machines import Entries
from sweep.status import read_status
from sweep.status_text import counts_text
from tests.sweep import pretend
from tests.sweep.conftest import HERE, wait_until

pytestmark = pytest.mark.usefixtures("environment")
ENTRIES = Entries(trial="pretend:trial", timing="pretend:timing", probe="pretend:probe")
STAGES = (
    "stages={base:null,more:{start:base,overrides:['budget=smoke_tune','budget.steps=9','budget.warmup_steps=1']},"
    "rates:{start:more,measure:true,lmbdas:[0.005,0.013,0.03]}}"
)


def run(*overrides: str, entries: Entries = ENTRIES) -> int:
    return run_sweep(conf.compose(overrides), overrides=overrides, entries=entries)


@pytest.fixture
def inline(base_overrides: list[str]) -> list[str]:
    return [*base_overrides, "cluster=inline", "time=false", "space.axes={depth.latent_channels:[8,12]}"]


def results(folder: Path) -> dict[tuple[str, float, int], Mapping[str, Any]]:
    """(stage, lmbda, latent channels) -> result.json."""
    found = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    sweep = {trial["spec_id"]: trial for trial in json.loads((folder / "sweep.json").read_text())["trials"]}
    return {
        (
            sweep[result["spec_id"]]["stage"],
            result["spec"]["lmbda"],
            result["spec"]["model"]["depth"]["latent_channels"],
        ): result
        for result in found
    }


def test_stages_run_in_their_order_and_the_same_command_finds_everything_done(
    inline: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*inline, STAGES) == 0
    said = capsys.readouterr().out
    assert (
        "8 trials, budget smoke, fp32; 6 need results of others and are planned when those are there" in said
    )
    assert "  8/8   rates: conv 8-8-8/" in said
    found = results(tmp_path / "runs/tiny")
    wanted = [("base", 0.013), ("more", 0.013), ("rates", 0.005), ("rates", 0.03)]
    assert set(found) == {(stage, lmbda, m) for stage, lmbda in wanted for m in (8, 12)}
    for m in (8, 12):
        base, more = found["base", 0.013, m], found["more", 0.013, m]
        low = found["rates", 0.005, m]
        assert (base["spec"]["recipe"]["steps"], more["spec"]["recipe"]["steps"]) == (150, 9)
        budgets = [trial["training"]["budget"] for trial in (base, more, low)]
        assert budgets == ["smoke", "smoke_tune", "smoke_tune"]
        assert more["spec"]["warm_start"] == {
            "spec_id": base["spec_id"],
            "checkpoint_sha256": base["model"]["sha256"],
            "lmbda": 0.013,
            "curve_id": base["curve_id"],
        }
        assert low["spec"]["weights"] == {
            "spec_id": more["spec_id"],
            "checkpoint_sha256": more["model"]["sha256"],
        }
        assert {**low["spec"], "lmbda": 0.013, "weights": None} == more["spec"]
        assert low["curve_id"] == more["curve_id"] != base["curve_id"]
        assert parse_trial(low["spec"]).spec_id == low["spec_id"]
    assert run(*inline, STAGES) == 0
    said = capsys.readouterr().out
    assert "8 trials, budget smoke, fp32; 8 have results already; nothing is missing" in said
    assert "start " not in said


def test_what_a_failed_trial_keeps_from_running_is_said_once_and_runs_when_it_has_succeeded(
    inline: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = f"seeds=[0,{pretend.RAISE}]"
    assert run(*inline, STAGES, seeds) == 1
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("not run: ")]
    assert len(lines) == 4  # of two points: more, and rates
    assert lines[0] == (
        f"not run: more: conv 8-8-8/8 mean-scale seed {pretend.RAISE} lmbda 0.013: stage base, which it "
        "needs, ended with failed (RuntimeError: the loss was not finite in spite of three rollbacks)"
    )
    more = "lmbda 0.005, 0.03: stage more, which it needs, was not run"  # 0.013 is what more has measured
    assert lines[2] == f"not run: rates: conv 8-8-8/8 mean-scale seed {pretend.RAISE} {more}"
    assert "8 trials ok, 2 failed" in said
    (tmp_path / "runs/tiny/trials/mended").touch()
    assert run(*inline, STAGES, seeds) == 0
    said = capsys.readouterr().out
    assert "; 2 failed before and are tried once more; 6 need results of others" in said
    assert "16 trials ok, 0 failed" in said
    assert "not run" not in said


def test_a_dry_run_shows_every_stage_and_its_price(
    inline: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = STAGES.removesuffix("}") + ",gated:{start:base,overrides:['gating=ecg']},narrow:{match:gated}}"
    assert run(*inline, narrow, "dry_run=true") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if ": conv 8-8-8/8 mean-scale" in line]
    states = [re.split(r"  +", row)[-1] for row in rows]
    assert states == [
        "run",
        "run: after base",
        "run: after more",
        "run: after more",
        "run: after base",
        "run: after gated; at most this, decided by gated",
    ]
    pflop = [float(re.split(r"  +", row)[-3]) for row in rows]
    assert pflop[2:4] == [0.0, 0.0]  # measuring trains nothing
    assert pflop[1] == pytest.approx(pflop[0] * 9 / 150, rel=0.01)
    assert "stage more: budget smoke_tune, 9 steps" in lines
    assert any(line.startswith("12 of 12 trials would run, ") for line in lines)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            "{base:null,wide:{start:base,overrides:['depth.latent_channels=16']}}",
            r"stage wide: start=base: its weights do not fit .* g_a\.6\.weight has shape \[8, 8, 5, 5\]",
        ),
        (
            "{gated:{overrides:['gating=ecg']},plain:{start:gated}}",
            r"stage plain: start=gated: its weights do not fit .*channel_gate.* is no part of the trial's",
        ),
        (
            "{base:null,narrow:{match:base}}",
            "stage narrow: match=base: its model has no gates, and so no cost of its own to match",
        ),
        (
            "{base:null,gated:{start:base,overrides:['gating=ecg']},narrow:{start:base,match:gated}}",
            "stage narrow: match=gated makes the model narrower, so that the weights of start=base do not",
        ),
        (
            "{base:{overrides:['depth.latnt_channels=16']}}",
            r"stages\.base: depth\.latnt_channels: there is no such key \(did you mean depth\.latent_",
        ),
        (
            "{one:{overrides:['rate_control=modulator'],lmbdas:[0.013]},"
            "rates:{start:one,measure:true,lmbdas:[0.01,0.5]}}",
            r"stages\.rates: lmbda=0\.5: lies outside of the range that the model is trained for, 0\.0018 to",
        ),
        (
            "{one:null,fixed:{start:one,overrides:['gating=static','gating.channels=[1,2]']}}",
            r"gating\.channels has 2 entries; the model has \d+ gated layers: g_a\.2 of 8, ",
        ),
        ("{base:{overrides:['gating=often']}}", r"stages\.base: gating=often: there is no such choice"),
        ("{base:{overrides:['budget.stps=9']}}", r"stages\.base: budget\.stps: there is no such key"),
        (
            "{base:{overrides:['budget.precision=bf16']}}",
            r"stages\.base: budget\.precision=bf16: all stages of a sweep have the same one",
        ),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_is_impossible_is_said_before_anything_starts(
    base_overrides: list[str], tmp_path: Path, stages: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(*base_overrides, "cluster=inline", f"stages={stages}")
    assert not (tmp_path / "runs/tiny/trials").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["from=other", "top=1"], "from=other: stages start from trials of their own sweep"),
        (
            ["search=random", "space.axes={depth.latent_channels:[8,12]}"],
            "search=random: chooses single trials, no stages; use search=grid",
        ),
    ],
)
def test_what_does_not_go_with_stages(base_overrides: list[str], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(*base_overrides, "stages={base:null}", *overrides)


@pytest.mark.full
def test_after_a_kill_the_same_command_runs_what_is_left_and_nothing_twice(
    inline: list[str], tmp_path: Path
) -> None:
    overrides = [*inline, STAGES]
    whole = [text.replace(f"{tmp_path}/runs", f"{tmp_path}/whole") for text in overrides]
    assert run(*whole) == 0
    wanted = {path.name for path in tmp_path.glob("whole/tiny/trials/*")}
    folder = tmp_path / "runs/tiny"
    command = [sys.executable, str(HERE / "pretend.py"), *overrides]
    with open(tmp_path / "output.txt", "w") as output:
        driver = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "SLEEP_S": "0.5"})
    try:
        # Both bases, and one of what starts from them; another one is running.
        assert wait_until(lambda: len(list(folder.glob("trials/*/result.json"))) == 3, limit_s=120), (
            tmp_path / "output.txt"
        ).read_text()
    finally:
        driver.kill()
        driver.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    status = read_status(folder)
    assert len(status.trials) + status.to_come == len(wanted)
    assert f"{status.to_come} more need results of others" in counts_text(status)
    assert len(before) < len(wanted)
    assert run(*overrides) == 0
    after = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert {path.parent.name for path in after} == wanted
    assert {path: after[path] for path in before} == before
    assert read_status(folder).to_come == 0


def test_every_trial_with_gates_is_timed_and_of_other_architectures_one(
    base_overrides: list[str], tmp_path: Path
) -> None:
    stages = (
        "stages={base:null,more:{start:base,overrides:['budget.steps=9','budget.warmup_steps=1']},"
        "gated:{start:base,overrides:['gating=ecg']},rates:{start:gated,measure:true,lmbdas:[0.005,0.013]},"
        "plain:{start:base,measure:true,lmbdas:[0.005]}}"
    )
    assert run(*base_overrides, "cluster=inline", stages) == 0
    folder = tmp_path / "runs/tiny"
    timings = [json.loads(path.read_text()) for path in folder.glob("timing/*.json")]
    found = {path.name.partition("__")[0] for path in folder.glob("timing/*.json")}
    trials = {stage: result for (stage, _, _), result in results(folder).items()}
    gates = {trials[stage]["spec_id"] for stage in ("gated", "rates")}
    assert found == {trials["base"]["arch_id"], *gates}
    assert {timing.get("spec_id") for timing in timings} == {None, *gates}
    before = {path: path.stat().st_mtime_ns for path in folder.glob("timing/*.json")}
    assert run(*base_overrides, "cluster=inline", stages) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("timing/*.json")} == before


def test_what_cannot_run_though_nothing_failed_is_no_success(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights take room, and somebody may have deleted those that another stage is to start from."""
    command = [*base_overrides, "cluster=inline", "time=false"]
    assert run(*command, "stages={base:null}") == 0
    (weights,) = tmp_path.glob("runs/tiny/trials/*/model.safetensors")
    weights.unlink()
    capsys.readouterr()
    assert run(*command, "stages={base:null,more:{start:base,overrides:['budget.steps=99']}}") == 1
    said = capsys.readouterr().out
    assert f"not run: more: conv 8-8-8/8 mean-scale lmbda 0.013: {weights}: is missing, and the trial" in said
    assert "nothing is missing" not in said
