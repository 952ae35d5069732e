"""Results of weights that were trained elsewhere stay apart from those of a known budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthetic_results import grid, result, write_sweep

from analysis.comparable import Choice
from analysis.frontier import report, write_report
from analysis.load import read
from analysis.rows import budget_id


def external(width: int, *, sha256: str = "ab" * 32, quality: int = 4) -> dict[str, Any]:
    tree = result(width)
    weights = {"source": "compressai", "name": "mbt2018", "quality": quality, "checkpoint_sha256": sha256}
    tree["spec"]["weights"] = weights
    for key in ("percent_of_paper_steps", "percent_of_paper_pixels", "rd_loss_slope_per_1k_steps"):
        del tree["training"][key]
    tree["training"] |= {"budget": "external", "steps": None, "device": None}
    tree["data"]["train"] = None
    tree["spec_id"] = f"external{width}"
    return tree


def test_they_are_a_budget_of_their_own_and_the_choice_is_said(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", [*grid(), external(200), external(220, sha256="cd" * 32)])
    found = write_report(folder, print_table=False, draw=False)
    assert not found.frontier["spec_id"].str.startswith("external").any()
    reasons = found.trials.set_index("spec_id")["off_frontier_reason"]
    assert reasons["external200"] == "other budget"
    assert found.trials.set_index("spec_id")["weights_sha256"]["external200"] == "ab" * 32
    alone = report(
        read(folder), tmp_path / "out", choice=Choice(budget="external"), print_table=False, draw=False
    )
    assert set(alone.frontier["spec_id"]) <= {"external200", "external220"}
    assert not alone.frontier.empty


def test_the_group_is_one_for_all_checkpoints_of_a_source() -> None:
    one, other = external(200), external(220, sha256="cd" * 32, quality=2)
    assert budget_id(one) == budget_id(other) != budget_id(result(200))
