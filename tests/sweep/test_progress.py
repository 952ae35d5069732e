"""What the display reads and says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sweep.progress import LiveDisplay, PlainDisplay, Tally, TrialWatch, duration, open_display, verdict
from tests.sweep.test_plan import plan_of


def write(path: Path, *rows: dict[str, Any], end: str = "\n") -> None:
    with open(path, "a") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + end)


POINT = {"train/loss": 1.5, "train/bpp": 0.4, "train/psnr_db": 31.25, "eta_s": 300}


def test_a_watch_shows_the_last_complete_line(tmp_path: Path) -> None:
    file, watch = tmp_path / "metrics.jsonl", TrialWatch(tmp_path)
    watch.look()
    assert watch.text(100) == "starting"
    write(file, {"event": "phase", "phase": "data", "t": 1.0})
    watch.look()
    assert watch.text(100) == "data"
    write(file, {"event": "phase", "phase": "train"}, {"step": 20, **POINT}, {"step": 30, **POINT}, end="")
    watch.look()
    assert watch.text(100) == "step 20/100  loss 1.500  0.400 bpp  31.25 dB  ETA 5.0 min"
    write(file, end="\n")
    watch.look()
    assert watch.text(100).startswith("step 30/100")
    write(file, {"event": "phase", "phase": "fresh_decode"})
    watch.look()
    assert watch.text(100) == "fresh decode"


def test_a_watch_starts_over_when_a_resumed_trial_cuts_its_file(tmp_path: Path) -> None:
    file, watch = tmp_path / "metrics.jsonl", TrialWatch(tmp_path)
    write(
        file, {"event": "phase", "phase": "train"}, *({"step": step, **POINT} for step in range(10, 60, 10))
    )
    watch.look()
    file.write_text("")
    write(file, {"event": "phase", "phase": "train"}, {"step": 20, **POINT})
    watch.look()
    assert watch.text(100).startswith("step 20/100")


def test_a_watch_finds_its_place_again_in_the_middle_of_a_line(tmp_path: Path) -> None:
    file, watch = tmp_path / "metrics.jsonl", TrialWatch(tmp_path)
    write(file, {"event": "phase", "phase": "train"}, {"step": 10, **POINT})
    watch.look()
    file.write_text("")
    write(file, {"event": "resume", "step": 5, "note": "x" * 200}, {"step": 30, **POINT})
    watch.look()
    watch.look()
    assert watch.text(100).startswith("step 30/100")


def test_what_is_left_follows_the_work_and_the_longest_trial() -> None:
    tally = Tally(names={}, work={"a": 1.0, "b": 2.0, "c": 3.0, "d": 10.0}, slots=2, total=4)
    assert tally.left_s({}) is None
    tally.add("a", 10.0, failed=False)
    assert tally.left_s({}) == pytest.approx(100)  # d alone takes 100 s, more than (20 + 30 + 100) / 2
    assert tally.left_s({"d": 90.0}) == pytest.approx(30)  # (20 + 30 + 10) / 2
    tally.add("b", 5.0, failed=True)  # says nothing about the speed
    assert tally.left_s({"d": 90.0}) == pytest.approx(30)  # c alone
    tally.add("c", 20.0, failed=False)
    # Two points now: 10 s for 1, 20 s for 3 make 5 s and 5 s per unit of work, so 55 s for d.
    assert tally.left_s({"d": 15.0}) == pytest.approx(40)
    tally.add("d", 100.0, failed=False)
    assert tally.left_s({}) == 0


def test_what_a_search_has_not_chosen_yet_takes_the_mean() -> None:
    tally = Tally(names={}, work={}, slots=2, total=5)
    tally.expect("a", "a", 1.0)
    tally.add("a", 10.0, failed=False)
    tally.expect("b", "b", 2.0)
    assert tally.left_s({"b": 5.0}) == pytest.approx((15 + 3 * 10) / 2)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "1.5 min"), (5400, "1.5 h"), (345600, "4.0 days")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_verdicts() -> None:
    scores = {"bpp": 0.4612, "psnr_db": 32.104, "rd_loss": 0.98765}
    assert verdict({"status": "ok", "evaluation": scores}) == "0.461 bpp  32.10 dB  rd_loss 0.988"
    assert verdict({"status": "rate_mismatch", "evaluation": scores}).startswith("RATE_MISMATCH  0.461 bpp")
    failed = {"status": "failed", "error": {"class": "SIGKILL", "message": "exit code -9"}}
    assert verdict(failed) == "FAILED SIGKILL: exit code -9"
    assert verdict({"status": "paused", "step": 125}) == "paused at step 125"


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_a_display_tells_starts_and_ends(kind: type[PlainDisplay | LiveDisplay]) -> None:
    plan = plan_of(["depth=n32", "seeds=[0,1]"])
    first, second = plan.trials
    stream = io.StringIO()
    work = {trial.spec.spec_id: 1.0 for trial in plan.trials}
    display = kind(stream, Tally(names=plan.names(), work=work, slots=1, total=2))
    display.started(first)
    display.update()
    display.ended(first, {"status": "ok", "evaluation": {"bpp": 0.5, "psnr_db": 30.0, "rd_loss": 1.5}})
    display.started(second)
    display.ended(
        second, {"status": "failed", "error": {"class": "MemoryError", "message": "no [red] memory"}}
    )
    display.say("done")
    display.close()
    lines = [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
    assert "  1/2   conv 32-32-32/48 mean-scale seed 0  0.500 bpp  30.00 dB  rd_loss 1.500  0 s" in lines
    assert "  2/2   conv 32-32-32/48 mean-scale seed 1  FAILED MemoryError: no [red] memory  0 s" in lines
    assert "done" in lines


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(open_display(io.StringIO(), Tally(names={}, work={}, slots=1, total=0)), PlainDisplay)
