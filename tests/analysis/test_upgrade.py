"""Files of older releases are read as new ones; those of newer releases are refused in one line."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_results import grid, result, timing, write_sweep

from analysis import schema
from analysis.__main__ import main
from analysis.errors import AnalysisError
from analysis.load import read
from analysis.upgrade import upgraded_trials

DATA = Path(__file__).parent / "data"
FIRST = DATA / "example_trials_v1.csv"  # as the first release that wrote tables wrote it


def test_a_table_of_the_first_version_is_read_as_one_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    raw = pd.read_csv(FIRST, dtype=str, keep_default_na=False)
    assert schema.VERSION_COLUMN not in raw
    source = read(FIRST)
    assert source.frame["layers"].tolist() == raw["extra_layers"].tolist()
    assert "extra_layers" not in source.frame
    assert source.frame["bpp"].dropna().tolist() == [float(cell) for cell in raw["bpp"] if cell]
    assert set(source.frame[schema.VERSION_COLUMN]) == {schema.TABLE_VERSION} == {2}
    source.require(["layers"])


def test_a_table_of_the_first_version_gives_a_frontier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["frontier", str(FIRST), "-o", str(tmp_path)]) == 0
    assert "of 12 architectures are dominated" in " ".join(capsys.readouterr().out.split())
    assert pd.read_csv(tmp_path / "trials.csv")["table_version"].unique().tolist() == [2]


def test_upgrading_changes_neither_its_input_nor_what_is_new() -> None:
    old = pd.DataFrame({"label": ["a"], "extra_layers": ["1-0-0"]})
    new = pd.DataFrame({"label": ["a"], "layers": ["1-0-0"], "table_version": ["2"]})
    pd.testing.assert_frame_equal(upgraded_trials(old, "t"), upgraded_trials(new, "t"))
    assert list(old.columns) == ["label", "extra_layers"]
    assert list(new.columns) == ["label", "layers", "table_version"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["3", "3"], r"mine\.csv has version 3, this release reads up to 2; upgrade rdc, or write it again"),
        (["1", "2"], r"mine\.csv mixes rows of the versions 1, 2; export each source with one release"),
        (["x", ""], r"mine\.csv has version 'x'; expected a whole number from 1 to 2"),
        (["0", ""], r"mine\.csv has version 0; expected a whole number from 1 to 2"),
        (["1.5", ""], r"mine\.csv has version '1\.5'; expected"),
    ],
)
def test_other_versions_are_refused(tmp_path: Path, cells: list[str], message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"label,bpp,table_version\na,0.5,{cells[0]}\nb,0.6,{cells[1]}\n")
    with pytest.raises(AnalysisError, match=f"^table .*{message}"):
        read(path)


def test_versions_as_spreadsheets_leave_them(tmp_path: Path) -> None:
    """2 becomes 2.0 or ' 2', and a row that was typed in has none."""
    path = tmp_path / "mine.csv"
    path.write_text("label,layers,table_version\na,1-0-0,2.0\nb,0-0-0,\n")
    assert read(path).frame["table_version"].tolist() == [2, 2]


def test_results_and_timings_of_a_newer_release_are_named_and_left_out(tmp_path: Path) -> None:
    trees: list[dict[str, Any]] = [result(64), {**result(96), "schema_version": 2}]
    times = [timing(trees[0]), {**timing(trees[0], threads=2), "schema_version": 7}]
    source = read(write_sweep(tmp_path / "s", trees, timings=times))
    assert len(source.frame) == len(source.runtimes) == 1
    of_timing, of_result = source.problems
    assert "the timing has version 7, this release reads up to 1; upgrade rdc" in of_timing
    assert "2t__bf16" in of_timing
    assert "result.json: the result has version 2, this release reads up to 1" in of_result


def test_results_without_the_keys_that_came_later_are_read(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", grid())
    path = next(folder.glob("trials/*/result.json"))
    tree = json.loads(path.read_text())
    for key in ("budget_id", "data", "environment", "warm_start", "attempt"):
        tree.pop(key, None)
    tree["evaluation"].pop("per_image")
    path.write_text(json.dumps(tree))
    source = read(folder)
    assert not source.problems
    assert source.frame["budget_id"].nunique() == 1


def test_rdc_and_analysis_speak_of_the_same_versions() -> None:
    import rdc.result
    import rdc.runtime

    assert rdc.result.SCHEMA_VERSION == schema.RESULT_VERSION
    assert rdc.runtime.SCHEMA_VERSION == schema.TIMING_VERSION
