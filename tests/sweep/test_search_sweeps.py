"""Searches through the shipped command on real, tiny trainings; nothing is patched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import conf
from rdc.errors import UserError
from rdc.files import read_json
from sweep.driver import run_sweep
from tests.sweep.conftest import ROOT, wait_until
from tests.sweep.searching import own_trials

pytestmark = pytest.mark.usefixtures("environment")

# A conv family, and a SwinT family that alone has windows and heads; 16 channels per head do not fit 8.
SPACE = (
    "space.axes=[{transform:[conv],depth.channels:[[8,8,8],[8,12,8]],"
    "entropy_model:[scale_hyperprior]},"
    "{transform:[swint],depth:[swint_s],depth.channels:[[16,16,16]],depth.layers:[[1,1,1,1]],"
    "transform.head_dim:[8,16],transform.window:[4,8]}]"
)
QUICK = [
    "cluster=inline",
    "time=false",
    "budget.steps=8",
    "budget.warmup_steps=1",
    "budget.fresh_decode_images=0",
    "budget.ms_ssim=false",
]
TINY = [SPACE, *QUICK]


def run(overrides: list[str]) -> int:
    return run_sweep(conf.compose(overrides), overrides=overrides, command=["python", "x"])


def history(folder: Path) -> list[Any]:
    """The study as anybody opens it: by Optuna alone, from the file."""
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    storage = optuna.storages.JournalStorage(backend)
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert study.metric_names == ["rd_loss", "kmac_per_px_dec"]
    return study.trials


def assert_each_trained_once(folder: Path, *, wanted: int) -> None:
    results = {path.parent.name: read_json(path) for path in folder.glob("trials/*/result.json")}
    assert {result["status"] for result in results.values()} == {"ok"}
    assert len(results) == wanted
    jobs = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    ended = Counter(job["job"] for job in jobs if job["error"] is None)
    assert set(ended.values()) == {1}
    assert {result["attempt"] for result in results.values()} == {1}
    trials = history(folder)
    assert "RUNNING" not in {trial.state.name for trial in trials}
    own = [t for t in trials if t.user_attrs.keys().isdisjoint({"dup_of", "rejected"})]
    assert Counter(t.user_attrs["spec_ids"][0] for t in own) == Counter(list(results))
    for trial in own:
        (spec_id,) = trial.user_attrs["spec_ids"]
        result = results[spec_id]
        kmac = result["complexity"]["decode"]["parity_kmac_per_px"]
        assert trial.values == pytest.approx([result["evaluation"]["rd_loss"], kmac])
    sweep = read_json(folder / "sweep.json")
    assert {trial["spec_id"] for trial in sweep["trials"]} == set(results)
    assert sweep["status"] == "finished"


@pytest.mark.full
def test_tpe_trains_nothing_twice_and_knows_what_lies_there(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*base_overrides, *TINY, "search=tpe"]
    folder = tmp_path / "runs/tiny"
    assert run([*overrides, "search.trials=2"]) == 0
    assert "2 trials ok, 0 failed" in capsys.readouterr().out
    assert_each_trained_once(folder, wanted=2)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert run([*overrides, "search.trials=99"]) == 0
    output = capsys.readouterr().out
    assert "the space is exhausted: 4 architectures" in output
    assert "4 trials ok, 0 failed" in output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_each_trained_once(folder, wanted=4)


@pytest.mark.full
@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_kill_9_of_the_driver_and_the_same_command_again(
    base_overrides: list[str], tmp_path: Path, sampler: str
) -> None:
    """On the shipped space, at a tenth of its widths."""
    overrides = [
        "+experiment=search",
        *base_overrides,
        *QUICK,
        "width=0.1",
        f"search={sampler}",
        "search.trials=4",
    ]
    folder, log = tmp_path / "runs/tiny", tmp_path / "log.txt"
    with open(log, "w") as output:
        driver = subprocess.Popen(
            [sys.executable, "-m", "sweep", *overrides],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        assert wait_until(lambda: len(list(folder.glob("trials/*/result.json"))) >= 2, limit_s=200), (
            log.read_text()
        )
    finally:
        driver.kill()
        driver.wait()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert len(before) < 4, "the driver was killed in the middle"
    assert run(overrides) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    everything = history(folder)
    assert "RUNNING" not in {trial.state.name for trial in everything}
    # The kill may have come between a suggestion and its architecture; such a trial says nothing.
    trials = [t for t in everything if "spec_ids" in t.user_attrs and "dup_of" not in t.user_attrs]
    results = {path.parent.name for path in folder.glob("trials/*/result.json")}
    assert Counter(t.user_attrs["spec_ids"][0] for t in trials) == Counter(list(results))
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert len(results) == 4


@pytest.mark.full
def test_rungs_stop_early_and_a_later_command_trains_on(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*base_overrides, *TINY, "search=random", "search.trials=4"]
    folder = tmp_path / "runs/tiny"
    assert run([*overrides, "search.rungs=[0.5]"]) == 0
    output = capsys.readouterr().out
    stopped = {path.parent.name for path in folder.glob("trials/*/resume.pt")}
    finished = {path.parent.name for path in folder.glob("trials/*/result.json")}
    assert len(stopped) + len(finished) == 4
    assert len(finished) >= 2
    assert output.count("stopped early: ") == len(stopped) > 0
    assert "0 failed" in output
    states = Counter(states[0] for states in own_trials(_past(folder)).values())
    assert states == {"COMPLETE": len(finished), "PRUNED": len(stopped)}
    assert run(overrides) == 0
    for spec_id in stopped:
        training = read_json(folder / "trials" / spec_id / "result.json")["training"]
        assert training["resumed_at_steps"] == [4]
    assert all(states.count("COMPLETE") == 1 for states in own_trials(_past(folder)).values())


def _past(folder: Path) -> list[Any]:
    from sweep.search.study import PastTrial

    return [
        PastTrial(number=t.number, state=t.state.name, params=t.params, values=None, attrs=t.user_attrs)
        for t in history(folder)
    ]


@pytest.mark.full
def test_limits_seeds_and_a_database(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Costs reject before training; two seeds of an architecture are one trial of the study."""
    import optuna

    storage = f"sqlite:///{tmp_path}/study.db"
    limits = ["search.constraints.params_m=0.03", "seeds=[0,1]", f"search.storage={storage}"]
    overrides = [*base_overrides, *TINY, "search=nsga2", "search.trials=2", *limits]
    assert run(overrides) == 0
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    own = [t for t in trials if t.user_attrs.keys().isdisjoint({"dup_of", "rejected"})]
    assert len(own) == 2
    for trial in own:
        results = [
            read_json(tmp_path / "runs/tiny/trials" / spec_id / "result.json")
            for spec_id in trial.user_attrs["spec_ids"]
        ]
        assert [result["spec"]["seed"] for result in results] == [0, 1]
        assert all(result["complexity"]["params"]["total"] <= 30_000 for result in results)
        losses = [result["evaluation"]["rd_loss"] for result in results]
        assert trial.values[0] == pytest.approx(sum(losses) / 2)
    assert not (tmp_path / "runs/tiny/optuna.journal").exists()


def test_a_password_stays_out_of_messages_and_records(base_overrides: list[str], tmp_path: Path) -> None:
    storage = "search.storage=postgresql://me:secret@127.0.0.1:1/study"
    with pytest.raises(UserError, match=r"search\.storage=postgresql://\*\*\*@127") as caught:
        run([*base_overrides, *TINY, "search=nsga2", storage])
    assert "secret" not in str(caught.value)
    for path in (tmp_path / "runs").rglob("*.json"):
        assert "secret" not in path.read_text()


def test_rate_savings_need_the_anchors_images(base_overrides: list[str]) -> None:
    wanted = "search.objectives=[rate_saving_vs_bpg_pct,params_m]"
    with pytest.raises(UserError, match="rate_saving_vs_bpg_pct has no value here: anchor is on kodak"):
        run([*base_overrides, *TINY, "search=nsga2", wanted])


def test_a_dry_run_prices_a_sample_and_starts_nothing(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cheap = ["search.trials=2", "budget.batch_size=1"]  # the speed of a few training steps is probed
    assert run([*base_overrides, *TINY, "search=tpe", *cheap, "dry_run=true"]) == 0
    output = capsys.readouterr().out
    assert "would train 2 architectures\nof a space of 6 points; the 2 trials above" in output
    assert not (tmp_path / "runs").exists()
