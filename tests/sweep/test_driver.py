"""The shipped driver on pretended trials: failures are data, and resuming runs only what is missing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import conf
from analysis.__main__ import main as analysis_main
from rdc.errors import UserError
from rdc.files import read_json, write_sealed
from sweep.driver import run_sweep
from sweep.jobs import Job, Outcome
from sweep.machines import Entries
from sweep.plan import choose_data, choose_models, make_plan
from sweep.record import write_sweep
from sweep.settings import read_settings
from sweep.timing import outcome_line
from tests.sweep import pretend

ENTRIES = Entries(trial="pretend:trial", timing="pretend:timing", probe="pretend:probe", preload=("pretend",))
Sweep = Callable[..., int]


@pytest.fixture
def sweep(environment: None, base_overrides: list[str]) -> Sweep:
    """Runs a sweep inline with more overrides; returns its exit code."""

    def run(*overrides: str, entries: Entries = ENTRIES) -> int:
        every = [*base_overrides, "cluster=inline", *overrides]
        return run_sweep(conf.compose(every), overrides=every, command=["python", "x"], entries=entries)

    return run


def results(folder: Path) -> dict[int, dict[str, Any]]:
    """By seed."""
    found = [read_json(path) for path in folder.glob("runs/tiny/trials/*/result.json")]
    return {result["spec"]["seed"]: result for result in found}


def ended_jobs(folder: Path, kind: str = "trial") -> list[dict[str, Any]]:
    lines = (folder / "runs/tiny/jobs.jsonl").read_text().splitlines()
    return [job for job in map(json.loads, lines) if job["kind"] == kind]


def test_a_sweep_leaves_all_its_files(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seeds=[0,1]") == 0
    folder = tmp_path / "runs/tiny"
    files = {path.name for path in folder.iterdir()}
    assert {"sweep.json", "data_train.json", "data_val.json", "data_eval.json", "trials", "timing"} <= files
    assert {"trials.csv", "frontier.csv", "driver.lock", "jobs.jsonl"} <= files
    state = read_json(folder / "sweep.json")
    assert (state["status"], state["precision"], len(state["trials"])) == ("finished", "fp32", 2)
    assert state["command"] == "python x"
    assert {trial["spec_id"] for trial in state["trials"]} == {
        path.name for path in (folder / "trials").iterdir()
    }
    assert len(list((folder / "timing").glob("*.json"))) == 1  # one architecture, whatever the seeds
    output = capsys.readouterr().out
    assert "2 trials, budget smoke, fp32" in output
    assert "2 trials ok, 0 failed" in output
    assert "python -m analysis bdrate" not in output  # its images are not those of the published curves


def test_a_comparison_is_suggested_where_it_works(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep("time=false")
    path = next(tmp_path.glob("runs/tiny/trials/*/result.json"))
    result = read_json(path)
    for status, dataset, images in (
        ("ok", "kodak", 24),
        ("ok", "kodak", 4),
        ("ok", "mine", 24),
        ("rate_mismatch", "kodak", 24),
    ):
        evaluation = {**result["evaluation"], "dataset": dataset, "images": images}
        path.write_text(json.dumps({**result, "status": status, "evaluation": evaluation}))
        capsys.readouterr()
        sweep("time=false")
        works = (status, dataset, images) == ("ok", "kodak", 24)
        assert ("python -m analysis bdrate" in capsys.readouterr().out) is works
        assert (analysis_main(["bdrate", str(tmp_path / "runs/tiny")]) == 0) is works


def test_the_same_command_again_runs_only_what_is_missing(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep("seeds=[0,1]", "time=false")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/tiny/trials/*/result.json")}
    sweep("seeds=[0,1,2]", "time=false")
    assert "3 trials, budget smoke, fp32; 2 have results already" in capsys.readouterr().out
    assert len(ended_jobs(tmp_path)) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    sweep("seeds=[0,1,2]", "time=false")
    assert "3 have results already; nothing is missing" in capsys.readouterr().out
    assert len(ended_jobs(tmp_path)) == 3
    assert len(read_json(tmp_path / "runs/tiny/sweep.json")["resumed_at"]) == 2


def test_a_later_mistake_leaves_the_record_of_a_finished_sweep_alone(
    sweep: Sweep, tmp_path: Path, image_folders: Path
) -> None:
    sweep("time=false")
    record = (tmp_path / "runs/tiny/sweep.json").read_text()
    with pytest.raises(UserError, match="is for training and shows the same pixels"):
        sweep(f"data.eval={image_folders}/train")
    assert (tmp_path / "runs/tiny/sweep.json").read_text() == record


def test_a_command_that_fails_after_its_plan_says_so_in_the_record(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_executor(*_: object) -> None:
        raise UserError("no machine")

    monkeypatch.setattr("sweep.machines.open_executor", no_executor)
    with pytest.raises(UserError, match="no machine"):
        sweep("time=false")
    assert read_json(tmp_path / "runs/tiny/sweep.json")["status"] == "failed"


@pytest.mark.parametrize("content", ["[]", '"x"', '{"trials": {"a": 1}}', '{"trials": [{"label": "x"}]}'])
def test_a_record_that_is_none_is_refused_and_kept(sweep: Sweep, tmp_path: Path, content: str) -> None:
    path = tmp_path / "runs/tiny/sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match=r"sweep\.json: is not the record of a sweep; move it away"):
        sweep("time=false")
    assert path.read_text() == content


def test_trials_of_an_earlier_plan_stay(sweep: Sweep, tmp_path: Path) -> None:
    sweep("seed=0", "time=false")
    sweep("seed=1", "time=false")
    assert len(read_json(tmp_path / "runs/tiny/sweep.json")["trials"]) == 2
    assert set(results(tmp_path)) == {0, 1}
    rows = (tmp_path / "runs/tiny/trials.csv").read_text().splitlines()
    assert len(rows) == 3


def test_a_failed_trial_is_data_and_is_tried_once_per_command(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = f"seeds=[0,{pretend.RAISE},1]"
    assert sweep(seeds, "time=false") == 1
    failed = results(tmp_path)[pretend.RAISE]
    assert (failed["status"], failed["attempt"]) == ("failed", 1)
    assert failed["error"]["class"] == "RuntimeError"
    assert failed["error"]["message"] == "the loss was not finite in spite of three rollbacks"
    output = capsys.readouterr().out
    assert "2 trials ok, 1 failed" in output
    assert "FAILED RuntimeError: the loss was not finite" in output
    trial = tmp_path / "runs/tiny/trials" / failed["spec_id"]
    assert "RuntimeError: the loss was not finite" in (trial / "log.txt").read_text()

    assert sweep(seeds, "time=false") == 1
    assert "1 failed before and are tried once more" in capsys.readouterr().out
    assert results(tmp_path)[pretend.RAISE]["attempt"] == 2
    assert len(ended_jobs(tmp_path)) == 4

    (trial / "mended").touch()
    assert sweep(seeds, "time=false") == 0
    assert results(tmp_path)[pretend.RAISE]["status"] == "ok"


def test_a_damaged_result_is_no_result(sweep: Sweep, tmp_path: Path) -> None:
    sweep("seed=0", "time=false")
    path = next(tmp_path.glob("runs/tiny/trials/*/result.json"))
    path.write_text(path.read_text()[:100])
    assert sweep("seed=0", "time=false") == 0
    assert results(tmp_path)[0]["status"] == "ok"
    assert len(ended_jobs(tmp_path)) == 2


def test_a_mismatch_is_finished_and_a_decode_mismatch_shows_in_the_exit_code(
    sweep: Sweep, tmp_path: Path
) -> None:
    sweep("seed=0", "time=false")
    path = next(tmp_path.glob("runs/tiny/trials/*/result.json"))
    for status, code in (("rate_mismatch", 0), ("decode_mismatch", 1)):
        path.write_text(json.dumps({**read_json(path), "status": status}))
        assert sweep("seed=0", "time=false") == code
    assert len(ended_jobs(tmp_path)) == 1


def test_timing_covers_each_architecture_once(sweep: Sweep, tmp_path: Path) -> None:
    axes = "space.axes={depth.latent_channels:[8,12]}"
    sweep(axes, "seeds=[0,1]")
    assert len(ended_jobs(tmp_path, "timing")) == 2
    sweep("space.axes={depth.latent_channels:[8,12,16]}")
    assert len(ended_jobs(tmp_path, "timing")) == 3
    timing = read_json(next(tmp_path.glob("runs/tiny/timing/*.json")))
    assert (timing["threads"], timing["precision"], timing["device"]) == (1, "fp32", "cpu")


def test_another_image_size_is_another_timing(sweep: Sweep, tmp_path: Path) -> None:
    for size in (64, 128):
        sweep(f"cluster.timing.height_px={size}", "cluster.timing.width_px=64")
    assert len(ended_jobs(tmp_path, "timing")) == 2
    found = [read_json(path)["image_px"] for path in tmp_path.glob("runs/tiny/timing/*.json")]
    assert sorted(found) == [[64, 64], [128, 64]]


def test_a_timing_with_a_changed_digit_does_not_count_and_is_measured_again(
    sweep: Sweep, tmp_path: Path
) -> None:
    sweep()
    (path,) = tmp_path.glob("runs/tiny/timing/*.json")
    write_sealed(path, read_json(path))
    sweep()
    assert len(ended_jobs(tmp_path, "timing")) == 1
    path.write_text(path.read_text().replace("10.0", "10.5"))
    job = Job(job_id="timing", entry="x:y", payload={"label": "conv", "out": str(path)})
    line = outcome_line(Outcome(job=job, started_at=0, ended_at=1, node="here"))
    assert line == f"conv: the timing job wrote no usable {path.name}"
    sweep()
    assert len(ended_jobs(tmp_path, "timing")) == 2


def test_a_failed_timing_is_told_and_does_not_fail_the_sweep(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        sweep(
            entries=Entries(
                trial="pretend:trial", timing="pretend:misbehave_by_payload", probe="pretend:probe"
            )
        )
        == 0
    )
    assert "no timing (KeyError: 'what')" in capsys.readouterr().out


def test_precision_once_chosen_stays(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep("budget.precision=auto", "time=false")
    assert "precision fp32: bf16 is 1.0 times as fast as fp32 here" in capsys.readouterr().out
    state = tmp_path / "runs/tiny/sweep.json"
    state.write_text(json.dumps({**read_json(state), "precision": "bf16"}))
    sweep("budget.precision=auto", "seed=1", "time=false")
    assert {r["spec"]["precision"] for r in results(tmp_path).values()} == {"fp32", "bf16"}


def test_a_second_driver_is_refused_by_the_holders_name(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "runs/tiny"
    folder.mkdir(parents=True)
    holder = "from sweep.lock import sweep_lock; from pathlib import Path; import sys, time\n"
    holder += "with sweep_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(folder)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            UserError, match=f"tiny is in use by process {other.pid} on .*; wait until it has ended"
        ):
            sweep("seed=0")
        other.kill()
        other.wait()
    assert sweep("seed=0", "time=false") == 0


def test_a_worker_that_cannot_run_ends_the_sweep_with_its_reason(sweep: Sweep) -> None:
    with pytest.raises(UserError, match="job entry 'pretend:gone' cannot be imported"):
        sweep(entries=Entries(trial="pretend:trial", timing="pretend:timing", probe="pretend:gone"))


def test_evaluation_images_in_training_are_refused_before_anything_runs(
    sweep: Sweep, image_folders: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is for training and shows the same pixels as the evaluation image"):
        sweep(f"data.eval={image_folders}/train")
    assert not (tmp_path / "runs/tiny/trials").exists()


def run_on_ray(overrides: Sequence[str]) -> int:
    return run_sweep(
        conf.compose(list(overrides)), overrides=overrides, command=["python", "x"], entries=ENTRIES
    )


def test_on_ray_failures_are_data_and_no_timing_overlaps_training(
    environment: None, base_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLEEP_S", "0.3")
    seeds = [0, pretend.EXIT, 1, pretend.KILLED, 2, pretend.LIE, 3]
    overrides = [*base_overrides, "cluster.slots=2", f"seeds={seeds}".replace(" ", "")]
    overrides.append("space.axes={depth.latent_channels:[8,12]}")
    assert run_on_ray(overrides) == 1

    found = [read_json(path) for path in tmp_path.glob("runs/tiny/trials/*/result.json")]
    assert len(found) == 14
    by_seed = {r["spec"]["seed"]: (r["status"], (r["error"] or {}).get("class")) for r in found}
    assert by_seed == {
        **dict.fromkeys((0, 1, 2, 3), ("ok", None)),
        pretend.EXIT: ("failed", "Exit"),
        pretend.KILLED: ("failed", "SIGKILL"),
        pretend.LIE: ("failed", "SystemExit"),
    }
    trials, timings = ended_jobs(tmp_path), ended_jobs(tmp_path, "timing")
    assert (len(trials), len(timings)) == (14, 2)
    for timing in timings:
        for other in [*trials, *(t for t in timings if t is not timing)]:
            assert other["node"] == timing["node"]
            assert other["ended_at"] <= timing["started_at"] or other["started_at"] >= timing["ended_at"]
    # Both slots worked: somewhere two trials overlapped.
    assert any(a["started_at"] < b["started_at"] < a["ended_at"] for a in trials for b in trials)
    assert "Error" not in (tmp_path / "runs/tiny/frontier.csv").read_text()


def test_a_tracking_address_is_checked_before_anything_runs(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"tracking.uri='ftp://\*\*\*@host'.*nothing that MLflow can write to"
    ):
        sweep("tracking=mlflow", "tracking.uri=ftp://me:secret@host")
    assert not (tmp_path / "runs").exists()


def test_credentials_stay_out_of_the_record(tmp_path: Path, base_overrides: list[str]) -> None:
    config = conf.compose([*base_overrides, "tracking=mlflow", "tracking.uri=http://me:secret@host"])
    settings = read_settings(config)
    data = choose_data(settings, print)
    plan = make_plan(config, settings, choose_models(config, [], settings), data, "fp32")
    plan.folder.mkdir(parents=True)
    write_sweep(plan, ["python", "x", "tracking.uri=http://me:secret@host"], {})
    text = (plan.folder / "sweep.json").read_text()
    assert "secret" not in text
    assert text.count("http://***@host") == 2


def early(entry: str) -> Entries:
    return dataclasses.replace(ENTRIES, trial=f"early_ends:{entry}")


def test_a_preempted_trial_goes_on_without_using_up_an_attempt(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seeds=[0,1]", "time=false", entries=early("preempted_twice")) == 0
    output = capsys.readouterr().out
    assert output.count("preempted at step 5") == 4
    assert "2 trials ok, 0 failed" in output
    assert {result["attempt"] for result in results(tmp_path).values()} == {1}
    assert len(ended_jobs(tmp_path)) == 6


def test_a_stop_starts_nothing_new_and_says_how_to_go_on(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seeds=[0,1,2]", entries=early("asks_to_stop")) == 0
    output = capsys.readouterr().out
    assert "1 trials ok, 0 failed" in output
    assert "alone on its node" not in output  # nothing will be timed
    assert "ended early: stop requested by " in output
    assert "; 2 trials are not finished" in output
    assert "continue with the same command:\n  python x" in output
    assert read_json(tmp_path / "runs/tiny/sweep.json")["status"] == "stopped"
    assert ended_jobs(tmp_path, "timing") == []
    assert sweep("seeds=[0,1,2]") == 0  # the request was for the command that it ended
    assert "3 trials ok, 0 failed" in capsys.readouterr().out
    assert read_json(tmp_path / "runs/tiny/sweep.json")["status"] == "finished"
    assert len(ended_jobs(tmp_path)) == 3


def test_what_killed_drivers_left_half_written_goes(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "runs/tiny"
    folder.mkdir(parents=True)
    names = ("sweep.json", "driver.json", "tracking.json", "data_val.json", "node_check.json", "stop.json")
    for name in names:
        (folder / f".{name}.abc123.tmp").touch()
    assert sweep("cluster.walltime=0.001", "time=false") == 0
    assert [path.name for path in folder.glob(".*")] == [".stop.json.abc123.tmp"]  # may be one at work


def test_what_is_preempted_by_a_stop_waits_for_the_next_command(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seeds=[0,1]", "time=false", entries=early("preempted_by_a_stop")) == 0
    assert "0 trials ok, 0 failed" in capsys.readouterr().out
    assert len(ended_jobs(tmp_path)) == 1
    assert results(tmp_path) == {}
    assert sweep("seeds=[0,1]", "time=false") == 0
    assert len(results(tmp_path)) == 2


def test_a_walltime_that_is_over_stops_before_the_first_trial(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("cluster.walltime=0.001", "time=false") == 0
    assert "ended early: the walltime of 0.001 s is nearly over" in capsys.readouterr().out
    assert results(tmp_path) == {}


def test_a_stop_before_the_precision_is_known_starts_nothing(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("cluster.walltime=0.001", "budget.precision=auto") == 0
    output = capsys.readouterr().out
    assert "ended early: the walltime of 0.001 s is nearly over; nothing was started" in output
    assert "trial at a time" not in output
    assert not (tmp_path / "runs/tiny/sweep.json").exists()


def test_a_trial_that_had_to_be_killed_when_asked_to_end_has_not_failed(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("time=false", entries=early("killed_when_asked_to_end")) == 0
    assert "preempted at step unknown" in capsys.readouterr().out
    assert [result["attempt"] for result in results(tmp_path).values()] == [1]


def test_trials_that_may_not_fit_on_a_gpu_together_are_warned_of(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("cluster.gpus_per_trial=0.5", "time=false", entries=early("large")) == 0
    assert "warning: 2 trials at a time on one device can need 121.2 GiB" in capsys.readouterr().out


def test_a_driver_whose_folder_was_taken_over_ends_and_leaves_it_alone(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.lock.BEAT_S", 0.05)
    with pytest.raises(
        UserError, match="tiny: process 7 on far has taken over this sweep and goes on with it"
    ):
        sweep("seeds=[0,1]", "time=false", entries=early("taken_over"))
    assert read_json(tmp_path / "runs/tiny/sweep.json")["status"] == "running"
    assert read_json(tmp_path / "runs/tiny/driver.json")["pid"] == 7
    assert len(ended_jobs(tmp_path)) == 1


def test_a_disk_that_takes_no_files_ends_the_sweep_and_blames_no_trial(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is full; make room, and the same command continues"):
        sweep("seeds=[0,1]", "time=false", entries=early("full_disk"))
    assert results(tmp_path) == {}
    assert read_json(tmp_path / "runs/tiny/sweep.json")["status"] == "failed"
