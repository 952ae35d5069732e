"""Early ends: by a stop request, by the walltime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import conf
from rdc.errors import UserError
from sweep import drain
from sweep.drain import STOP_FILE, Drain, parse_walltime, write_request


def test_without_a_request_there_is_no_reason(tmp_path: Path) -> None:
    quiet = Drain(tmp_path)
    assert quiet.reason() is None
    assert not quiet.now


@pytest.mark.parametrize("now", [False, True])
def test_a_request_names_who_asked(tmp_path: Path, now: bool) -> None:
    asked = Drain(tmp_path, walltime_s=3600)
    write_request(tmp_path, now=now)
    reason = asked.reason()
    assert reason is not None
    assert re.fullmatch(r"stop requested by \S.* on \S+", reason)
    assert asked.now is now


def test_a_request_can_become_more_urgent(tmp_path: Path) -> None:
    asked = Drain(tmp_path)
    write_request(tmp_path, now=False)
    assert not asked.now
    write_request(tmp_path, now=True)
    assert asked.now


@pytest.mark.parametrize("content", ["", "{", "[]", '{"now": "yes"}'])
def test_a_file_made_by_hand_is_a_request_that_lets_trials_finish(tmp_path: Path, content: str) -> None:
    asked = Drain(tmp_path)
    (tmp_path / STOP_FILE).write_text(content)
    assert asked.reason() == "stop requested by stop.json"
    assert not asked.now


def test_a_request_to_an_earlier_driver_does_not_stop_the_next_one(tmp_path: Path) -> None:
    write_request(tmp_path, now=True)
    assert Drain(tmp_path).reason() is None
    assert not (tmp_path / STOP_FILE).exists()


@pytest.mark.parametrize(("walltime_s", "over_after_s"), [(100.0, 95.0), (86400.0, 86280.0)])
def test_the_end_comes_in_time_for_checkpoints_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walltime_s: float, over_after_s: float
) -> None:
    clock = 5000.0
    monkeypatch.setattr(drain.time, "monotonic", lambda: clock)
    limited = Drain(tmp_path, walltime_s)
    clock += over_after_s - 0.1
    assert limited.reason() is None
    assert not limited.now
    clock += 0.2
    assert limited.reason() == f"the walltime of {walltime_s:g} s is nearly over"
    assert limited.now


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        ("00:01:30", 90.0),
        ("12:00:00", 43200.0),
        ("100:00:01", 360001.0),
        ("2-12:00:00", 216000.0),
    ],
)
def test_walltimes(value: Any, seconds: float | None) -> None:
    assert parse_walltime(value) == seconds


@pytest.mark.parametrize("value", [0, -1, "", "soon", "1:30", "00:00:00", "1:60:00", True, [1], "nan"])
def test_what_is_no_walltime_is_named(value: Any) -> None:
    with pytest.raises(UserError, match=re.escape(f"cluster.walltime={value!r}: must be seconds above 0, ")):
        parse_walltime(value)


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("12:00:00", 43200.0), ("'2-00:00:00'", 172800.0), ("7200", 7200.0), ("null", None)],
)
def test_walltimes_as_typed(typed: str, seconds: float | None) -> None:
    config = conf.compose([f"++cluster.walltime={typed}"])
    assert parse_walltime(config["cluster"]["walltime"]) == seconds
