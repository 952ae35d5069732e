"""Searches by decode time: what is trained is timed before anything else is chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conf
from rdc.errors import UserError
from rdc.files import read_json
from rdc.result import write_result
from sweep.driver import run_sweep
from sweep.machines import Entries
from sweep.search.study import PastTrial
from sweep.settings import read_settings
from tests.sweep.searching import SPACE, ListStudy, World, drive, own_trials, search

SUGGESTED = list(SPACE.in_random_order(np.random.default_rng(0)))


@settings(deadline=None)
@given(seed=st.integers(0, 99), slots=st.integers(1, 4), cut_after=st.integers(1, 8))
def test_every_architecture_is_told_its_time_once_also_after_a_cut(
    tmp_path_factory: pytest.TempPathFactory, seed: int, slots: int, cut_after: int
) -> None:
    world, study = World(tmp_path_factory.mktemp("world"), seeds=2), ListStudy(SUGGESTED)
    random = np.random.default_rng(seed)
    drive(search(world, study, wanted=4, timed=True), world, random, slots=slots, ends=cut_after)
    drive(search(world, study, wanted=4, timed=True), world, random, slots=slots)
    assert set(map(tuple, own_trials(study.history()).values())) == {("COMPLETE",)}
    assert set(world.finished_runs.values()) == {1}
    told = [past for past in study.history() if past.values and "dup_of" not in past.attrs]
    assert len(told) == 4
    for past in told:
        assert past.values is not None
        assert past.values[1] == world.timed[past.attrs["spec_ids"][0]]


def test_nothing_is_asked_between_the_end_of_a_training_and_its_timing(tmp_path: Path) -> None:
    world, study = World(tmp_path), ListStudy(SUGGESTED)
    source = search(world, study, wanted=4, timed=True)
    one, other = source.ask(2)
    source.tell(one.spec_id, world.run(one))
    assert source.wants_times
    assert not source.ask(1)
    assert "COMPLETE" not in study.states
    source.tell(other.spec_id, world.run(other))
    world.time()
    source.timed()
    assert study.states[:2] == ["COMPLETE", "COMPLETE"]
    assert len(source.ask(2)) == 2


def test_what_cannot_be_timed_says_nothing_and_the_search_goes_on(tmp_path: Path) -> None:
    world, study = World(tmp_path), ListStudy(SUGGESTED)
    source = search(world, study, wanted=3, timed=True)
    (first,) = source.ask(1)
    world.untimable.add(first.spec_id)
    source.tell(first.spec_id, world.run(first))
    world.time()
    source.timed()
    drive(source, world, np.random.default_rng(0))
    states = own_trials(study.history())
    assert states["arch0"] == ["FAIL"]
    assert sorted(map(tuple, states.values()))[0] == ("COMPLETE",)
    assert study.attrs[0]["failed"] == "no time_dec_total_ms"


@pytest.mark.usefixtures("environment")
def test_real_trainings_are_told_the_times_that_the_report_shows(base_overrides: list[str]) -> None:
    overrides = [
        *base_overrides,
        *("space.axes={depth.channels:[[8,8,8],[8,12,8],[12,8,8]]}", "entropy_model=scale_hyperprior"),
        *("cluster=inline", "search=random", "search.trials=2"),
        "search.objectives=[rd_loss,time_dec_total_ms]",
        *("cluster.timing.height_px=64", "cluster.timing.width_px=64", "cluster.timing.repeats=2"),
        *("budget.steps=8", "budget.warmup_steps=1", "budget.fresh_decode_images=0", "budget.ms_ssim=false"),
    ]
    config = conf.compose(overrides)
    assert run_sweep(config, overrides=overrides, command=["python", "x"]) == 0
    folder = Path(config["runs_dir"]) / "tiny"
    told = {past.attrs["arch_id"]: past.values[1] for past in own_history(folder) if past.values}
    written = [read_json(path) for path in (folder / "timing").glob("*.json")]
    assert told == {timing["arch_id"]: timing["decode"]["total_ms"]["median"] for timing in written}
    assert len(told) == 2
    jobs = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    assert [job["kind"] for job in jobs] == ["trial", "timing", "trial", "timing"]


@pytest.mark.usefixtures("environment")
def test_what_a_grid_has_trained_belongs_to_the_search_and_is_timed_for_it(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs/tiny"
    entries = Entries(trial="pretend:trial", timing="pretend:timing", probe="pretend:probe")
    base = [*base_overrides, "cluster=inline", "space.axes={depth.latent_channels:[8,12]}"]
    grid = [*base, "time=false"]
    assert run_sweep(conf.compose(grid), overrides=grid, command=["x"], entries=entries) == 0
    odd, _ = sorted(folder.glob("trials/*/result.json"))
    write_result(odd.parent, {**read_json(odd), "status": "rate_mismatch"})
    (folder / "sweep.json").unlink()  # also where no record tells of them

    by_time = [*base, "search=random", "search.trials=2", "search.objectives=[rd_loss,time_dec_total_ms]"]
    assert run_sweep(conf.compose(by_time), overrides=by_time, command=["x"], entries=entries) == 0
    assert "rate_mismatch: conv" in capsys.readouterr().out
    jobs = [json.loads(line)["kind"] for line in (folder / "jobs.jsonl").read_text().splitlines()]
    assert jobs == ["trial", "trial", "timing", "timing"]
    sweep = read_json(folder / "sweep.json")
    listed = {trial["spec_id"] for trial in sweep["trials"]}
    assert set(sweep["planned"]) == listed == {path.name for path in (folder / "trials").iterdir()}
    told = {past.attrs["spec_ids"][0]: past for past in own_history(folder)}
    assert told.pop(odd.parent.name).state == "FAIL"
    (good,) = told.values()
    assert good.values is not None
    assert good.values[1] == 10.0


def own_history(folder: Path) -> list[PastTrial]:
    """The study as anybody opens it, without suggestions that were answered."""
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    return [
        PastTrial(number=t.number, state=t.state.name, params=t.params, values=t.values, attrs=t.user_attrs)  # type: ignore[arg-type]
        for t in study.trials
        if "dup_of" not in t.user_attrs
    ]


def test_times_that_are_not_measured_cannot_be_searched_by() -> None:
    config = conf.compose(
        ["space=quick_families", "search=random", "search.objectives=[rd_loss,time_dec_net_ms]", "time=false"]
    )
    with pytest.raises(UserError, match=r"time=false: search.objectives holds time_dec_net_ms, which has to"):
        read_settings(config)
