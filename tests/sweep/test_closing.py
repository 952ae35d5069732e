"""What a sweep leaves at its end: tables, figures and the page, whatever becomes of the last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from analysis.schema import PAGE_FILE
from sweep.closing import written_report
from sweep.tracking import open_tracker
from sweep.tracking.public import public_copy
from tests.sweep.synthetic_sweep import SyntheticSweep
from tests.sweep.tracking_fixtures import empty_database as empty_database
from tests.sweep.tracking_fixtures import runs as runs
from tests.sweep.tracking_reader import SETTINGS, server_of

# MLflow's own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture
def ended(runs: Path) -> SyntheticSweep:
    sweep = SyntheticSweep(runs / "frontier", trials=3, steps=20)
    for number in range(3):
        sweep.write_trial(number, picture=False)
    return sweep


def test_the_page_stands_beside_the_tables(ended: SyntheticSweep) -> None:
    said = written_report(ended.folder)
    assert said.startswith("Frontier of frontier: ")
    assert PAGE_FILE not in said, "it is named among what to do next"
    page = (ended.folder / PAGE_FILE).read_text(encoding="utf-8")
    assert re.search(r"\d of 3 architectures", page)
    assert (ended.folder / "trials.csv").exists()


def test_a_page_that_cannot_be_written_costs_one_line_and_leaves_no_older_one(
    ended: SyntheticSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ended.folder / PAGE_FILE).write_text("of yesterday")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("several\nlines")

    monkeypatch.setattr("analysis.report.write_page", broken)
    said = written_report(ended.folder).splitlines()
    assert said[-1] == (
        "no report.html: RuntimeError: several lines; python -m analysis report writes it again"
    )
    assert not (ended.folder / PAGE_FILE).exists()
    assert (ended.folder / "frontier.csv").exists()


def test_the_page_goes_to_the_sweeps_own_run_as_it_is(ended: SyntheticSweep) -> None:
    tracker = open_tracker(SETTINGS, ended.folder, ended.sweep)
    written_report(ended.folder)
    # Its pictures are text with many slashes; what is in it is public already.
    assert public_copy(ended.folder / PAGE_FILE) is None
    tracker.poll()
    tracker.finish("FINISHED")
    server = server_of(ended)
    assert PAGE_FILE in server.artifacts(server.parent())
