import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_results import example, grid, result, write_sweep

from analysis.anchors import load_anchor
from analysis.bdrate import rate_saving_pct
from analysis.comparable import Choice
from analysis.errors import AnalysisError
from analysis.frontier import DEFAULT_OBJECTIVES, FrontierReport, report, write_report
from analysis.load import Source, read


def quietly(folder: Path) -> FrontierReport:
    """The tables alone."""
    return write_report(folder, print_table=False, draw=False)


def compare(
    source: Source, folder: Path, objectives: Sequence[str] = DEFAULT_OBJECTIVES, choice: Choice | None = None
) -> FrontierReport:
    """The tables alone, with options."""
    return report(source, folder, objectives=objectives, choice=choice, print_table=False, draw=False)


def slow_frontier(folder: Path) -> dict[str, tuple[float, float]]:
    """Label -> (rd_loss, kMAC/px) of the non-dominated good trials, straight from the result files."""
    points = {}
    for path in folder.glob("trials/*/result.json"):
        tree = json.loads(path.read_text())
        if tree["status"] == "ok":
            points[tree["spec_id"]] = (
                tree["evaluation"]["rd_loss"],
                tree["complexity"]["decode"]["parity_kmac_per_px"],
            )
    return {
        name: (loss, cost)
        for name, (loss, cost) in points.items()
        if not any(a <= loss and b <= cost and (a < loss or b < cost) for a, b in points.values())
    }


def test_frontier_csv_equals_the_frontier_recomputed_from_the_results(tmp_path: Path) -> None:
    folder = write_sweep(
        tmp_path / "s", [*grid(), result(40, status="failed"), result(80, status="rate_mismatch")]
    )
    found = quietly(folder)
    table = pd.read_csv(folder / "frontier.csv", float_precision="round_trip")
    wanted = slow_frontier(folder)
    assert 2 <= len(wanted) < 12
    assert (
        dict(zip(table["spec_id"], zip(table["rd_loss"], table["kmac_per_px_dec"], strict=True), strict=True))
        == wanted
    )
    assert list(found.frontier["spec_id"]) == list(table["spec_id"])
    assert table["kmac_per_px_dec"].is_monotonic_increasing


def test_trials_csv_holds_everybody_with_a_fate(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", example())
    quietly(folder)
    table = pd.read_csv(folder / "trials.csv")
    text = ["off_frontier_reason", "dominated_by"]
    table[text] = table[text].fillna("")
    assert len(table) == len(example())
    by_reason = table.groupby("off_frontier_reason").size().to_dict()
    assert by_reason == {"": 12, "other budget": 12, "status failed": 1, "status rate_mismatch": 1}
    compared = table[table["off_frontier_reason"] == ""]
    on_frontier = set(compared.loc[compared["on_frontier"], "arch_id"])
    for _, row in compared.iterrows():
        if row["on_frontier"]:
            assert row["dominated_by"] == ""
        else:
            assert row["dominated_by"] in on_frontier
            other = compared[compared["arch_id"] == row["dominated_by"]].iloc[0]
            assert other["rd_loss"] <= row["rd_loss"]
            assert other["kmac_per_px_dec"] <= row["kmac_per_px_dec"]
    assert not table.loc[table["off_frontier_reason"] != "", "on_frontier"].any()


def test_trials_csv_gives_the_same_files_again(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", example())
    quietly(folder)
    compare(read(folder / "trials.csv"), tmp_path / "again")
    resampled = ["frontier_probability", "rd_loss_low", "rd_loss_high"]  # from scores that a table has not
    for name in ("trials.csv", "frontier.csv"):
        one, other = (pd.read_csv(place / name, dtype=str) for place in (tmp_path / "again", folder))
        pd.testing.assert_frame_equal(one.drop(columns=resampled), other.drop(columns=resampled))
    name = "hypervolume.csv"
    assert (tmp_path / "again" / name).read_text() == (folder / name).read_text()


def test_bad_trials_stay_off_even_if_they_would_win(tmp_path: Path) -> None:
    cheat = result(32, status="rate_mismatch")
    cheat["evaluation"]["rd_loss"] = 0.01
    crash = result(48, "mean_scale_hyperprior", status="decode_mismatch")
    crash["complexity"]["decode"]["parity_kmac_per_px"] = 0.01
    found = quietly(write_sweep(tmp_path / "s", [*grid()[1:], cheat, crash]))
    assert not {cheat["spec_id"], crash["spec_id"]} & set(found.frontier["spec_id"])
    assert "1 with status rate_mismatch: conv 32-32-32/48 scale" in found.text


def test_seeds_are_averaged_before_comparing(tmp_path: Path) -> None:
    lucky, unlucky = result(64, seed=0), result(64, seed=1)
    lucky["evaluation"]["rd_loss"], unlucky["evaluation"]["rd_loss"] = 0.9, 1.5  # mean 1.2
    rival = result(66)
    rival["evaluation"]["rd_loss"] = 1.1
    rival["complexity"]["decode"]["parity_kmac_per_px"] = lucky["complexity"]["decode"]["parity_kmac_per_px"]
    found = quietly(write_sweep(tmp_path / "s", [lucky, unlucky, rival]))
    assert list(found.frontier["label"]) == ["conv 66-66-66/99 scale"]
    averaged = found.architectures.set_index("label").loc["conv 64-64-64/96 scale"].to_dict()
    assert averaged["rd_loss"] == pytest.approx(1.2)
    assert averaged["seeds"] == 2
    bpps = [lucky["evaluation"]["bpp"], unlucky["evaluation"]["bpp"]]
    assert averaged["bpp"] == pytest.approx(np.mean(bpps))
    saving = rate_saving_pct(load_anchor("vtm").curve, bpp=averaged["bpp"], psnr_db=averaged["psnr_db"])
    assert averaged["rate_saving_vs_vtm_pct"] == saving
    fates = found.trials.set_index("spec_id")["dominated_by"]
    assert fates[lucky["spec_id"]] == fates[unlucky["spec_id"]] == rival["arch_id"]


def test_one_group_is_compared_and_the_choice_is_said(tmp_path: Path) -> None:
    trials = [
        *grid(),
        *(result(width, lmbda=0.025) for width in (32, 64)),
        *(result(width, steps=5000, budget="long") for width in (32, 64, 96)),
        result(32, dataset="clic", images=41),
    ]
    source = read(write_sweep(tmp_path / "s", trials))
    found = compare(source, tmp_path / "o")
    assert len(found.architectures) == 12
    for text in (
        "evaluation sets clic, kodak: taken kodak (--eval chooses)",
        "budgets long, quick: taken quick (--budget chooses)",
        "lmbdas 0.013, 0.025: taken 0.013 (--lmbda chooses)",
    ):
        assert text in " ".join(found.text.split())
    long = compare(source, tmp_path / "o", choice=Choice(budget="long"))
    assert len(long.architectures) == 3
    other = compare(source, tmp_path / "o", choice=Choice(lmbda=0.025))
    assert set(other.architectures["lmbda"]) == {0.025}
    clic = compare(source, tmp_path / "o", choice=Choice(evaluation="clic"))
    assert len(clic.architectures) == 1
    with pytest.raises(
        AnalysisError, match=r"--lmbda 0\.5: no usable trial has it; there are 0\.013, 0\.025"
    ):
        compare(source, tmp_path / "o", choice=Choice(lmbda=0.5))


def test_other_objectives_use_their_own_direction(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", grid()))
    by_psnr = report(source, tmp_path / "o", objectives=["psnr_db", "params_m"], print_table=False)
    best = by_psnr.architectures["psnr_db"].max()
    assert best in set(by_psnr.frontier["psnr_db"])
    assert (tmp_path / "o" / "frontier_psnr_db_params_m.png").exists()
    three = compare(source, tmp_path / "o", objectives=["rd_loss", "kmac_per_px_dec", "time_dec_total_ms"])
    two = compare(source, tmp_path / "o")
    assert set(two.frontier["arch_id"]) <= set(three.frontier["arch_id"])


def test_architectures_without_an_objective_are_not_compared(tmp_path: Path) -> None:
    untimed = read(write_sweep(tmp_path / "s", grid(), timings=[]))
    found = compare(untimed, tmp_path / "o", objectives=["rd_loss", "time_dec_total_ms"])
    assert found.frontier.empty
    assert set(found.trials["off_frontier_reason"]) == {"no value for time_dec_total_ms"}
    assert "No frontier for s: none of its 12 trials can be compared." in found.text


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (["rd_loss", "speed"], r"objective 'speed' is not known; objectives: bpp, .*rd_loss"),
        (["rd_loss", "lmbda"], r"objective 'lmbda' is not known"),
        (["rd_loss"], "name at least two different ones"),
        (["rd_loss", "rd_loss"], "name at least two different ones"),
    ],
)
def test_unknown_objectives_are_refused(tmp_path: Path, objectives: list[str], message: str) -> None:
    source = read(write_sweep(tmp_path / "s", [result()]))
    with pytest.raises(AnalysisError, match=message):
        compare(source, tmp_path / "o", objectives=objectives)


def test_the_report_says_what_it_rests_on(tmp_path: Path) -> None:
    text = " ".join(quietly(write_sweep(tmp_path / "s", example())).text.split())
    for part in (
        "240 images, packaged (photos inside installed Python packages",
        "500 steps of 8 crops of 128 x 128 px, bf16, budget quick, on cpu:synthetic",
        "undertrained 0.025 % of the study's 2,000,000 steps, 0.0016 % of its training pixels",
        "rd_loss still falls by",
        "kodak (24 images",
        "mean of per-image PSNR",
        "BPG = BPG 4:4:4 (tensorflow/compression), at equal mean PSNR",
        "cpu:synthetic, 1 thread(s), bf16, image of 512 x 768 px (height x width), alone on its node",
        "FloatingPointError: loss is not finite, three times",
    ):
        assert part in text, part


def test_lines_fit_a_terminal(tmp_path: Path) -> None:
    trials = grid()
    for tree in trials:
        tree["label"] = f"{tree['label']} +1-1-1 with a long name"
    found = quietly(write_sweep(tmp_path / "s", trials))
    assert max(map(len, found.text.splitlines())) <= 120
    assert "..." in found.text


def test_figures_are_drawn_or_their_absence_explained(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", example())
    found = write_report(folder, print_table=False)
    names = {"frontier.png", "frontier_rate_saving.png", "frontier_time.png", "hypervolume.png", "rd.png"}
    assert {path.name for path in found.files if path.suffix == ".png"} == names
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    other = [result(width, dataset="clic", images=41) for width in (32, 64)]
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "frontier_time.png").write_text("of an earlier report")
    bare = write_report(write_sweep(tmp_path / "t", other, timings=[]), print_table=False)
    assert not (tmp_path / "t" / "frontier_time.png").exists()
    drawn = {path.name for path in bare.files if path.suffix == ".png"}
    assert drawn == {"frontier.png", "hypervolume.png", "rd.png"}
    text = " ".join(bare.text.split())
    assert (
        "frontier_rate_saving.png: no architecture has rate_saving_vs_bpg_pct (bpg: anchor is on kodak"
        in text
    )
    assert "frontier_time.png: nothing was timed" in text


def test_a_sweep_in_which_all_failed_has_an_empty_frontier(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", [result(32, status="failed"), result(64, status="failed")])
    found = write_report(folder, print_table=False)
    assert found.frontier.empty
    assert len(pd.read_csv(folder / "frontier.csv")) == 0
    assert "none of its 2 trials can be compared" in found.text
    assert not list(folder.glob("*.png"))


def test_equal_labels_of_different_architectures_are_told_apart(tmp_path: Path) -> None:
    one, other = result(32), result(64)
    other["label"] = one["label"]
    found = quietly(write_sweep(tmp_path / "s", [one, other]))
    assert f"{one['label']} #{one['arch_id'][:4]}" in found.text
    assert f"{one['label']} #{other['arch_id'][:4]}" in found.text


def newer(tree: dict[str, Any], *, budget_id: str = "b" * 12, version: int = 2) -> dict[str, Any]:
    """The same result from newer code: it names its budget, and its architecture has another id."""
    environment = {**tree["environment"], "semantics_version": version}
    ids = {name: "x" + tree[name][1:] for name in ("arch_id", "spec_id", "curve_id")}
    return {**tree, **ids, "budget_id": budget_id, "environment": environment}


def test_results_of_older_code_are_left_aside_and_the_report_says_so(tmp_path: Path) -> None:
    old = grid()
    new = [newer(tree) for tree in grid()]
    source = read(write_sweep(tmp_path / "s", [*old, *new]))
    found = compare(source, tmp_path / "o")
    assert set(found.architectures["budget_id"]) == {"b" * 12}
    assert len(found.architectures) == len(new)
    reasons = found.trials.set_index("spec_id")["off_frontier_reason"]
    assert {reasons[tree["spec_id"]] for tree in old} == {"other budget"}
    text = " ".join(found.text.split())
    assert "code of version 1" in text
    assert f"taken quick, code of version 2 [{'b' * 12}] (--budget chooses); 12 architectures remain" in text


def test_an_architecture_trained_from_two_origins_is_not_averaged(tmp_path: Path) -> None:
    origins = [
        result(64, seed=seed, warm_start={"spec_id": origin, "lmbda": 0.013})
        for origin in ("a" * 12, "b" * 12)
        for seed in (0, 1)
    ]
    for tree, loss in zip(origins, (1.0, 1.2, 2.0, 2.2), strict=True):
        tree["evaluation"]["rd_loss"] = loss
    found = quietly(write_sweep(tmp_path / "s", origins))
    assert sorted(found.architectures["rd_loss"]) == pytest.approx([1.1, 2.1])
    assert set(found.architectures["seeds"]) == {2}
    assert len(found.frontier) == 1
    fates = found.trials.set_index("spec_id")["on_frontier"]
    assert [bool(fates[tree["spec_id"]]) for tree in origins] == [True, True, False, False]
