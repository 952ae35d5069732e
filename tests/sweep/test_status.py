"""What `python -m sweep status` makes of the files of running, ended and killed sweeps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from rdc.errors import UserError
from sweep.lock import DRIVER_FILE, sweep_lock
from sweep.status import main, read_status, sweep_folder
from sweep.status_text import as_json, counts_text, frontier_text
from tests.sweep.synthetic_sweep import SyntheticSweep


@pytest.fixture
def made(tmp_path: Path) -> SyntheticSweep:
    """Twelve trials: three good, a mismatch, two failed, one stopped early, two with checkpoints."""
    made = SyntheticSweep(tmp_path / "runs" / "made")
    for number in (0, 1, 2):
        made.write_trial(number, picture=False)
    made.write_trial(3, status="rate_mismatch", picture=False)
    for number in (4, 5):
        made.write_trial(number, status="failed", picture=False)
    for number, names in (
        (6, ["resume.pt", "rung.json"]),
        (7, ["resume.pt"]),
        (8, ["rung.json", "resume.pt"]),
    ):
        for age, name in enumerate(names):
            path = trial_folder(made, number) / name
            path.write_text(json.dumps({"spec_id": made.trials[number]["spec_id"], "step": 125}))
            os.utime(path, (1000.0 + age, 1000.0 + age))
    return made


def trial_folder(made: SyntheticSweep, number: int) -> Path:
    folder = made.folder / "trials" / str(made.trials[number]["spec_id"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def edit(made: SyntheticSweep, **fields: Any) -> None:
    """Change sweep.json."""
    (made.folder / "sweep.json").write_text(json.dumps({**made.sweep, **fields}))


def log_end(made: SyntheticSweep, number: int, *, ended_at: float, took_s: float = 10.0) -> None:
    """What the driver notes when a trial's job has ended."""
    job = {"kind": "trial", "job": made.trials[number]["spec_id"], "error": None}
    with open(made.folder / "jobs.jsonl", "a") as file:
        file.write(json.dumps({**job, "started_at": ended_at - took_s, "ended_at": ended_at}) + "\n")


def counts(made: SyntheticSweep) -> dict[str, int]:
    found: dict[str, int] = as_json(read_status(made.folder))["counts"]
    return {state: count for state, count in found.items() if count}


def test_every_state_is_counted(made: SyntheticSweep) -> None:
    edit(made, status="stopped", ended_at=time.time() - 7300)
    assert counts(made) == {"ok": 3, "mismatch": 1, "failed": 2, "paused": 1, "interrupted": 2, "waiting": 3}
    text = counts_text(read_status(made.folder))
    assert "12 trials: 3 ok, 1 mismatch, 2 failed, 1 stopped early, 2 to be continued, 3 waiting" in text
    assert "stopped 2.0 h ago; continue with: python -m sweep +experiment=made" in text
    assert f"  {made.trials[6]['label']}  stopped early at step 125/500" in text
    (paused,) = [trial for trial in as_json(read_status(made.folder))["trials"] if trial["state"] == "paused"]
    assert (paused["spec_id"], paused["step"]) == (made.trials[6]["spec_id"], 125)


@pytest.mark.parametrize("content", ["{}", '{"status": "fine"}', "[]"])
def test_what_is_no_result_counts_as_none(made: SyntheticSweep, content: str) -> None:
    (trial_folder(made, 0) / "result.json").write_text(content)
    assert counts(made) == {"ok": 2, "mismatch": 1, "failed": 2, "paused": 1, "interrupted": 2, "waiting": 4}


def test_failures_are_grouped_by_class_with_the_way_to_their_logs(
    made: SyntheticSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.folder.parent.parent)
    text = counts_text(read_status(made.folder))
    log = trial_folder(made, 4) / "log.txt"
    assert "2 x MemoryError: 12 GiB asked for, 8 GiB there" in text
    assert f"{made.trials[4]['label']}: runs/made/trials/{made.trials[4]['spec_id']}/log.txt" in text
    found = as_json(read_status(made.folder))["failures"]
    assert found["MemoryError"][0]["log"] == str(log)


def test_the_frontier_so_far_is_that_of_the_analysis(made: SyntheticSweep) -> None:
    from analysis.frontier import write_report

    wanted = write_report(made.folder, print_table=False, draw=False).frontier
    found = as_json(read_status(made.folder))["frontier"]
    assert {row["arch_id"] for row in found["architectures"]} == set(wanted["arch_id"])
    assert found["compared"] == 3
    text = frontier_text(read_status(made.folder))
    assert text.startswith(f"frontier so far: {len(wanted)} of 3 architectures\n")


def test_without_a_result_there_is_no_frontier(tmp_path: Path) -> None:
    empty = SyntheticSweep(tmp_path / "empty")
    assert frontier_text(read_status(empty.folder)) == "frontier so far: no trial to compare yet"
    assert counts(empty) == {"waiting": 12}


def test_looking_changes_nothing(made: SyntheticSweep, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    assert main(["status", str(made.folder)]) == 0
    assert main(["status", str(made.folder), "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before


def test_what_has_written_since_its_last_end_is_running(made: SyntheticSweep) -> None:
    with sweep_lock(made.folder):
        time.sleep(0.02)  # file dates are a few milliseconds behind the clock
        log_end(made, 7, ended_at=time.time() - 1)
        log_end(made, 0, ended_at=time.time() - 50, took_s=30.0)
        for number in (7, 9):  # one goes on, one is new
            made.write_curve(number, last_step=100)
        (trial_folder(made, 4) / "spec.json").write_text("{}")  # a failed one is tried again
        at_rest = {"ok": 3, "mismatch": 1, "failed": 1, "paused": 1, "interrupted": 1, "waiting": 2}
        assert counts(made) == {**at_rest, "running": 3}
        text = counts_text(read_status(made.folder))
        assert f"running: driven by process {os.getpid()} on " in text
        assert f"  {made.trials[9]['label']}  step 100/500  loss " in text
        assert "ETA 48 s" in text
        # What the three say themselves, and three more at the 30 s of the finished one, on three slots.
        assert read_status(made.folder).eta_s == pytest.approx((48 + 48 + 30 + 3 * 30) / 3)
        log_end(made, 9, ended_at=time.time() + 1)
        assert counts(made)["running"] == 2
    assert "running" not in counts(made)


def test_a_killed_driver_is_named_and_how_to_go_on(made: SyntheticSweep) -> None:
    edit(made, status="running")
    dead = {"pid": 1, "host": "far", "place": "elsewhere", "born": 1, "started_at": 1.0}
    (made.folder / DRIVER_FILE).write_text(json.dumps(dead))
    os.utime(made.folder / DRIVER_FILE, (1.0, 1.0))
    text = counts_text(read_status(made.folder))
    assert "killed: process 1 on far is gone; what is finished is kept" in text
    assert "continue with: python -m sweep +experiment=made" in text


def test_a_sweep_is_known_before_it_has_a_plan(tmp_path: Path, made: SyntheticSweep) -> None:
    """Its driver loads models for a while, which takes minutes on a large space."""
    new = made.folder.parent / "new"
    with sweep_lock(new):
        assert sweep_folder(None, new.parent) == sweep_folder("new", new.parent) == new
        text = counts_text(read_status(new))
        assert f"running: driven by process {os.getpid()} on " in text
        assert "0 trials: none planned yet; models and images come first" in text
        assert frontier_text(read_status(new)) == "frontier so far: no trial to compare yet"
        driver = (new / DRIVER_FILE).read_text()
    with pytest.raises(UserError, match="new: there is no such sweep"):
        sweep_folder("new", new.parent)
    (new / DRIVER_FILE).write_text(driver.replace('"born": ', '"born": 1'))
    text = counts_text(read_status(new))
    assert f"killed: process {os.getpid()} on " in text
    assert "continue with: the same command" in text
    assert "0 trials: none planned yet\n" in f"{text}\n"


def test_trials_of_earlier_commands_are_told_apart(made: SyntheticSweep) -> None:
    edit(made, planned=[made.trials[0]["spec_id"], made.trials[9]["spec_id"]])
    assert counts(made) == {"ok": 1, "waiting": 1}
    assert "10 more of earlier commands" in counts_text(read_status(made.folder))


def test_damaged_lines_and_results_are_passed_over(made: SyntheticSweep) -> None:
    (trial_folder(made, 0) / "result.json").write_text('{"status": "o')
    (made.folder / "jobs.jsonl").write_text('{"kind": "tri\n[]\n{"kind": "trial"}\n')
    assert counts(made)["ok"] == 2
    (made.folder / "sweep.json").write_text("{}")
    assert counts(made) == {}


def test_the_newest_sweep_is_the_default(made: SyntheticSweep, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    SyntheticSweep(runs / "older", start_t=made.start_t - 100)
    assert sweep_folder(None, runs) == runs / "made"
    assert sweep_folder("older", runs) == runs / "older"
    assert sweep_folder(str(runs / "older"), Path("nowhere")) == runs / "older"


def test_a_sweep_that_is_not_there_is_named(made: SyntheticSweep, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UserError, match=f"mad: there is no such sweep; {runs} has made$"):
        sweep_folder("mad", runs)
    with pytest.raises(UserError, match=f"{tmp_path}/x: there is no sweep yet; name its folder"):
        sweep_folder(None, tmp_path / "x")
