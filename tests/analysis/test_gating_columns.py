"""The columns of gated trials: what they cost, from result.json to tables, the frontier and the tracker."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_results import CONV_SHARE, grid, result, write_sweep

from analysis import schema
from analysis.errors import AnalysisError
from analysis.frontier import write_report
from analysis.gating_counts import reductions
from analysis.gating_layers import layer_frame
from analysis.load import load, read
from analysis.rows import trial_row
from sweep.tracking.content import file_metrics, table_metrics

LEFT = 1 - CONV_SHARE + CONV_SHARE * 0.5  # gates that leave half of the convolutions' channels


def gated(**changes: Any) -> dict[str, Any]:
    return result(gating={"name": "ecg", "alpha_target": 1.0}, **changes)


def test_a_gated_trial_costs_what_its_gates_leave_and_says_what_it_would_cost_without() -> None:
    tree = gated()
    complexity = tree["complexity"]
    row = trial_row(tree)
    for way, long in (("dec", "decode"), ("enc", "encode")):
        counts = complexity[long]
        assert row[f"kmac_per_px_{way}"] == pytest.approx(LEFT * counts["parity_kmac_per_px"])
        assert row[f"kflop_per_px_{way}"] == pytest.approx(2 * row[f"kmac_per_px_{way}"])
        assert row[f"kmac_per_px_{way}_dense"] == counts["parity_kmac_per_px"]
        assert row[f"kmac_per_px_{way}_executed"] == pytest.approx(row[f"gating_kmac_per_px_{way}"])
        assert row[f"gating_kmac_per_px_{way}_dense"] == counts["executed_kmac_per_px"]
    assert row["gating"] == "ecg"
    assert row["gating_reduction"] == pytest.approx(1 / LEFT)
    assert row["gating_conv_reduction_dec"] == pytest.approx(2.0)


def test_without_gates_nothing_changes() -> None:
    tree = result()
    row = trial_row(tree)
    assert (
        row["kmac_per_px_dec"]
        == row["kmac_per_px_dec_dense"]
        == tree["complexity"]["decode"]["parity_kmac_per_px"]
    )
    assert row["gating"] == "none"
    assert all(row[c.name] is None for c in schema.COLUMNS if c.name.startswith("gating_"))
    del tree["spec"]["model"]["gating"]  # as results of before there were gates have it
    assert trial_row(tree)["kmac_per_px_dec"] == row["kmac_per_px_dec"]


def test_gates_of_which_nothing_is_known_have_no_cost_rather_than_that_of_an_open_model() -> None:
    tree = gated()
    del tree["evaluation"]["gating"]
    row = trial_row(tree)
    assert row["kmac_per_px_dec"] is None
    assert row["kmac_per_px_dec_dense"] is not None
    assert row["gating_reduction"] is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=4, max_size=4), st.floats(0.05, 1), st.floats(0.05, 1))
def test_reductions_divide_sums_and_never_average_ratios(dense: list[float], enc: float, dec: float) -> None:
    row = {
        "gating_kmac_per_px_enc_dense": dense[0], "gating_kmac_per_px_enc": enc * dense[0],
        "gating_kmac_per_px_dec_dense": dense[1], "gating_kmac_per_px_dec": dec * dense[1],
    }  # fmt: skip
    found = reductions(row)
    assert found["gating_reduction"] == pytest.approx(
        (dense[0] + dense[1]) / (enc * dense[0] + dec * dense[1])
    )
    assert found["gating_reduction_dec"] == pytest.approx(1 / dec)
    assert found["gating_reduction_dec_masks"] is None
    assert found["gating_conv_reduction"] is None
    assert found["gating_reduction"] is not None
    assert 1 - 1e-9 <= found["gating_reduction"] <= max(1 / enc, 1 / dec) + 1e-9


def test_the_frontier_goes_by_what_it_really_costs_and_shows_theory_count_and_time(tmp_path: Path) -> None:
    """Gates that save 45 % at no loss of quality beat the model that they were put into."""
    plain, with_gates = result(128), gated(width=128)
    for tree in (plain, with_gates):
        tree["evaluation"]["rd_loss"] = 1.0
        for image in tree["evaluation"]["per_image"]:
            image["rd_loss"] = 1.0
    found = write_report(write_sweep(tmp_path / "s", [plain, with_gates]), print_table=False, draw=False)
    assert list(found.frontier["gating"]) == ["ecg"]
    assert "fewer x  fewer x" in found.text
    head = next(line for line in found.text.splitlines() if line.startswith("architecture"))
    assert "masks  counted" in head
    assert "dec ms" in head
    assert "python -m analysis gating compares with the ungated model" in " ".join(found.text.split())
    ungated = write_report(write_sweep(tmp_path / "u", grid()[:3]), print_table=False, draw=False)
    assert "fewer x" not in ungated.text
    assert "python -m analysis gating" not in ungated.text


def test_the_tracker_logs_the_columns_digit_for_digit(tmp_path: Path) -> None:
    tree = gated()
    folder = write_sweep(tmp_path / "s", [tree])
    write_report(folder, print_table=False, draw=False)
    with open(folder / "trials.csv", newline="") as file:
        (cells,) = csv.DictReader(file)
    logged = file_metrics(tree, "result") | table_metrics(cells)
    row = load(folder).iloc[0]
    of_gates = {c.metric: row[c.name] for c in schema.COLUMNS if c.metric and c.metric.startswith("gating/")}
    assert len(of_gates) == 20
    assert {key: logged[key] for key in of_gates} == of_gates
    assert logged["cost/kmac_per_px_dec"] == row["kmac_per_px_dec"]
    assert logged["cost/kmac_per_px_dec_dense"] == row["kmac_per_px_dec_dense"]
    # A table that is written and read again keeps every digit, too.
    pd.testing.assert_frame_equal(
        load(folder / "trials.csv")[list(row.index)], load(folder), check_exact=True, check_like=False
    )


def test_a_count_below_zero_is_refused(tmp_path: Path) -> None:
    row = {"label": "a", "lmbda": 0.01, "gating": "ecg", "gating_kmac_per_px_dec": -1}
    pd.DataFrame([row]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(AnalysisError, match=r"row 1: gating_kmac_per_px_dec='-1' must not be negative"):
        read(tmp_path / "t.csv")


def test_layers_are_read_from_results_and_damaged_ones_left_out(tmp_path: Path) -> None:
    trees = [gated(width=128), gated(width=64)]
    folder = write_sweep(tmp_path / "s", trees)
    frame = layer_frame(folder, [tree["spec_id"] for tree in trees])
    assert len(frame) == 18
    assert frame["open_share"].iloc[0] == pytest.approx(0.5)
    (folder / "trials" / trees[0]["spec_id"] / "result.json").write_text(json.dumps({"evaluation": None}))
    assert set(layer_frame(folder, [t["spec_id"] for t in trees])["spec_id"]) == {trees[1]["spec_id"]}
    assert layer_frame(tmp_path, ["missing"]).empty
