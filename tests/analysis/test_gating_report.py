"""`python -m analysis gating` on a sweep whose every number is known: see gating_sweep."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from gating_sweep import IMAGES, LMBDA, arms, sweep, trial
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_results import grid, result, write_sweep

from analysis.__main__ import main
from analysis.claims.statistics import Quantity
from analysis.errors import AnalysisError
from analysis.gating_report import report
from analysis.gating_table import GatingTable, gating_table
from analysis.gating_verdict import Verdict, judged, mean_of, sentence
from analysis.load import read
from analysis.more_reports import write_more
from analysis.published import gating as published


def table_of(folder: Path, trees: list[dict[str, Any]], *, timed: bool = True) -> GatingTable:
    return gating_table(read(sweep(folder, trees, timed=timed)))


def rows_of(found: GatingTable) -> pd.DataFrame:
    return found.rows.set_index("stage")


def approx(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def test_every_number_of_the_table(tmp_path: Path) -> None:
    """100 (30 - 29.7) / 30 = 1; of base 29.4: -1.0204; rates .49 and .5; losses 1.02 times the control's.

    Operations 20 against 2 (1 + 9 / 2) = 11; the convolutions' 18 against 9; the narrower network's 11.2.
    """
    found = table_of(tmp_path / "s", list(arms().values()))
    rows: Any = rows_of(found)
    assert list(rows.index) == ["base", "control", "ecg_10", "static", "narrow", "narrow_tuned"]
    ecg = rows.loc["ecg_10"]
    assert ecg["psnr_drop_pct"] == approx(1.0)
    assert ecg["psnr_drop_vs_base_pct"] == approx(100 * (29.4 - 29.7) / 29.4)
    assert ecg["bpp_change_pct"] == approx(-2.0)
    assert ecg["bpp_change_vs_base_pct"] == approx(-2.0)
    changes = ecg[["rd_loss_change_pct", "rd_loss_low_pct", "rd_loss_high_pct"]]
    assert list(changes) == [approx(2.0)] * 3  # every image lost as much, so that no resampling matters
    assert ecg[["reduction", "reduction_enc", "reduction_dec"]].tolist() == [approx(20 / 11)] * 3
    assert ecg["gating_reduction_dec_masks"] == approx(20 / 11)
    assert ecg[["gating_conv_reduction", "gating_conv_reduction_dec"]].tolist() == [approx(2.0)] * 2
    sparsities = ["gating_sparsity", "gating_natural_sparsity", "gating_learned_sparsity"]
    assert ecg[sparsities].tolist() == [approx(0.5), approx(0.1), approx(0.4)]
    # Counts of 5.5 kMAC/px with a swing of 5 % of the 4.5 of convolutions, in pairs that cancel.
    assert ecg["gating_kmac_per_px_dec_std"] == approx(0.05 * 4.5)
    assert ecg[["speedup_enc", "speedup_dec"]].tolist() == [approx(1.25)] * 2
    assert ecg[["published_psnr_drop_pct", "published_reduction"]].tolist() == [0.269, 2.54]
    assert math.isnan(ecg["bd_rate_pct"])
    assert ecg["bd_rate_note"] == "1 of the 4 lmbdas that a BD-rate needs"
    static, narrow = rows.loc["static"], rows.loc["narrow_tuned"]
    assert static["rd_loss_change_pct"] == approx(5.0)
    assert static[sparsities[1:]].isna().all()
    assert static["gating_kmac_per_px_dec_std"] == 0
    assert narrow["reduction"] == approx(20 / 11.2)
    assert narrow["speedup_dec"] == approx(2.0)
    assert rows.loc[["static", "narrow_tuned"], "published_reduction"].isna().all()
    # What was trained for fewer steps has no control, only a base.
    assert rows.loc[["base", "control", "narrow"], "rd_loss_change_pct"].isna().all()
    assert rows.loc["narrow", "psnr_drop_vs_base_pct"] == approx(100 * (29.4 - 29) / 29.4)
    assert found.notes == ()


def test_a_bd_rate_against_the_control_where_there_are_four_lmbdas(tmp_path: Path) -> None:
    """Every rate of the gates' curve is 0.98 of the control's, at 0.3 dB less: shifted up that is 0 dB."""
    lmbdas = (0.0035, 0.0067, 0.013, 0.025)
    trees = [tree for lmbda in lmbdas for tree in arms(lmbda=lmbda).values()]
    for tree in trees:
        if tree["stage"] == "ecg_10":
            tree["evaluation"]["psnr_db"] += 0.3  # now at the control's
    found = table_of(tmp_path / "s", trees)
    rows = found.rows
    assert rows.loc[rows["stage"] == "ecg_10", "bd_rate_pct"].tolist() == [approx(-2.0)] * 4
    assert (rows.loc[rows["stage"] == "ecg_10", "bd_rate_note"] == "").all()
    assert rows.loc[rows["role"].isin(["base", "control", "narrow"]), "bd_rate_pct"].isna().all()


def test_who_wins_at_equal_cost(tmp_path: Path) -> None:
    """ecg against static: 1.02 / 1.05 on every image; against the narrower one by turns 4 % up and down."""
    trees = arms()
    by_turns = [1.02 * (1.04 if n % 2 else 1 / 1.04) for n in range(IMAGES)]
    trees["narrow_tuned"] = trial("narrow_tuned", trees["narrow"], factors=by_turns)
    static, narrow = judged(table_of(tmp_path / "s", list(trees.values())))
    assert (static.rival, static.outcome, static.lmbdas) == ("static", "better", (LMBDA,))
    assert static.change is not None
    assert static.change.estimate == approx(100 * (1.02 / 1.05 - 1))
    assert (narrow.rival, narrow.outcome) == ("narrow_tuned", "undecided")
    assert narrow.cost_off_pct == approx(100 * (11 / 11.2 - 1))
    assert "ecg_10 changes rd_loss by -2.86 % (-2.86..-2.86) at equal cost (within 0.0 %)" in sentence(static)
    assert "8 images, one training each: the gate per image is better; undertrained" in sentence(static)
    assert "undecided: the interval includes zero" in sentence(narrow)
    worse = arms()
    worse["ecg_10"] = trial("ecg_10", worse["base"], factors=[1.06] * IMAGES)
    assert [v.outcome for v in judged(table_of(tmp_path / "w", list(worse.values())))] == ["worse", "worse"]


def test_what_costs_more_is_not_judged(tmp_path: Path) -> None:
    found = table_of(tmp_path / "s", list(arms(narrow_kmac=7.0).values()))
    narrow = judged(found)[1]
    assert narrow.outcome == "unknown"
    # 11 kMAC/px against 14
    assert sentence(narrow).endswith("not judged: they do not cost the same: ecg_10 -21 %")
    near = judged(table_of(tmp_path / "n", list(arms(narrow_kmac=11 / 2 / 1.049).values())))[1]
    assert near.outcome != "unknown"
    far = judged(table_of(tmp_path / "f", list(arms(narrow_kmac=11 / 2 / 1.051).values())))[1]
    assert far.outcome == "unknown"


def test_seeds_are_averaged_before_they_are_compared(tmp_path: Path) -> None:
    """Controls of 1 and 1.02, gates of 1.02 and 1.10: (1.06 / 1.01 - 1)."""
    first, second = arms(), arms(seed=1)
    second["control"] = trial("control", second["base"], factors=[1.02] * IMAGES, seed=1)
    second["ecg_10"] = trial("ecg_10", second["base"], factors=[1.10] * IMAGES, seed=1)
    for trees in (first, second):
        for name in ("control", "ecg_10", "static"):  # seeds start from weights of their own, on one curve
            trees[name]["curve_id"] = name
    both = [*first.values(), *second.values()]
    for tree in both:
        tree["budget_id"] = {500: "long", 250: "short"}[tree["training"]["steps"]]
    found = table_of(tmp_path / "s", both)
    ecg = rows_of(found).loc["ecg_10"]
    assert ecg["seeds"] == 2
    assert ecg["rd_loss_change_pct"] == approx(100 * (1.06 / 1.01 - 1))
    assert judged(found)[0].seeds == 2


@pytest.mark.parametrize(
    ("left_out", "note"),
    [
        (
            "control",
            "no ungated control that was fine-tuned for as many steps, for 2 of 2 gated rows, such as",
        ),
        ("static", r"no fixed mask \(gating=static\) to compare with, for conv 128"),
        ("narrow_tuned", "no narrower network that was trained as long to compare with, for conv 128"),
    ],
)
def test_what_a_sweep_lacks_is_said(tmp_path: Path, left_out: str, note: str) -> None:
    trees = [tree for name, tree in arms().items() if name != left_out]
    found = table_of(tmp_path / "s", trees)
    assert len(found.notes) == 1
    assert pd.Series(found.notes).str.contains(note).all()
    assert len(found.rows) == 5


def test_a_control_of_other_steps_is_no_control(tmp_path: Path) -> None:
    trees = arms()
    trees["control"]["training"]["steps"] = 200
    found = table_of(tmp_path / "s", list(trees.values()))
    assert rows_of(found)["rd_loss_change_pct"].isna().all()
    assert "as many steps" in found.notes[0]


def test_gates_from_the_start_have_the_base_of_the_same_training_as_control(tmp_path: Path) -> None:
    trees = arms()
    from_scratch = trial("ecg_10", factors=[1.21] * IMAGES)
    for tree in (from_scratch, trees["base"]):
        tree["budget_id"] = "same"
    rows = rows_of(table_of(tmp_path / "s", [trees["base"], from_scratch]))
    assert rows.loc["ecg_10", "rd_loss_change_pct"] == approx(100 * (1.21 / 1.1 - 1))
    from_scratch["budget_id"] = "other"
    rows = rows_of(table_of(tmp_path / "o", [trees["base"], from_scratch]))
    assert rows["rd_loss_change_pct"].isna().all()


def test_without_timings_or_scores_of_images_there_is_less_and_it_is_said(tmp_path: Path) -> None:
    trees = arms()
    trees["static"]["evaluation"]["per_image"].pop()
    found = table_of(tmp_path / "s", list(trees.values()), timed=False)
    rows = rows_of(found)
    assert rows["speedup_dec"].isna().all()
    assert rows.loc["ecg_10", "rd_loss_change_pct"] == approx(2.0)
    assert rows["rd_loss_low_pct"].isna().all()
    assert found.notes == (
        "no intervals: they need the scores of the same 5 or more images for every trial",
        "no wall-clock: gated trials or their control were not timed",
    )
    assert [verdict.outcome for verdict in judged(found)] == ["unknown", "unknown"]
    assert "not judged: there is no interval" in sentence(judged(found)[0])
    drawn = report(read(tmp_path / "s"), tmp_path / "out", print_table=False)
    names = ["gating.csv", "gating_tradeoff.png", "gating_published.png", "gating_sparsity.png"]
    assert [path.name for path in drawn.files] == names
    assert "gating_speed.png: no gated trial was timed together with its ungated model" in " ".join(
        drawn.text.split()
    )


def test_two_gated_models_of_a_family_leave_narrower_ones_to_nobody(tmp_path: Path) -> None:
    other = result(192, images=IMAGES, gating={"name": "ecg"}, stage="ecg_wide")
    found = table_of(tmp_path / "s", [*arms().values(), other])
    assert set(rows_of(found).index) == {"base", "control", "ecg_10", "static", "ecg_wide"}
    assert found.notes[0].startswith("of no gated model, and left out: conv 96-96-96/144 scale")


def test_failed_trials_are_named(tmp_path: Path) -> None:
    trees = [*arms().values(), result(40, status="failed")]
    found = table_of(tmp_path / "s", trees, timed=False)
    assert found.notes[0] == "without good numbers, and left out: conv 40-40-40/60 scale"


def test_another_model_of_the_same_widths_is_no_narrower_one(tmp_path: Path) -> None:
    """As the fixed-rate models are that stand beside a gated one of variable rate."""
    fixed = trial("base", seed=1)
    fixed |= {"arch_id": "fixed0000000", "curve_id": "fixed", "spec_id": "fixed0000001", "stage": "fixed"}
    found = table_of(tmp_path / "s", [*arms().values(), fixed])
    assert set(rows_of(found).index) == set(arms())
    assert found.notes[0] == "of no gated model, and left out: conv 128-128-128/192 scale"


def test_a_table_tells_what_a_folder_tells_but_the_layers(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", list(arms().values()))
    wanted = report(read(folder), tmp_path / "one", print_table=False)
    assert main(["export", str(folder), "--format", "csv", "-o", str(tmp_path / "out")]) == 0
    found = report(read(tmp_path / "out" / "trials.csv"), tmp_path / "two", print_table=False)
    pd.testing.assert_frame_equal(found.table, wanted.table, check_exact=True)
    assert "layers stand in the trials' result.json of a sweep folder only" in " ".join(found.text.split())
    again = pd.read_csv(tmp_path / "one" / "gating.csv", float_precision="round_trip")
    assert again["reduction"].tolist() == wanted.table["reduction"].tolist()


def test_seeds_of_a_stage_that_is_fitted_to_each_of_them_are_averaged(tmp_path: Path) -> None:
    """Seeds close other channels: their masks and the widths of the narrower networks differ a little."""
    first, second = arms(), arms(seed=1, narrow_width=92, keep=0.4)
    for name in ("control", "ecg_10", "static"):
        second[name]["curve_id"] = first[name]["curve_id"]
    for name in ("static", "narrow", "narrow_tuned"):
        assert first[name]["arch_id"] != second[name]["arch_id"]
    found = table_of(tmp_path / "s", [*first.values(), *second.values()])
    assert rows_of(found)["seeds"].to_dict() == dict.fromkeys(first, 2)
    assert found.notes == ()


def test_means_over_different_seeds_are_told(tmp_path: Path) -> None:
    """The control of the first seed is missing, so that the second's stands for both."""
    first, second = arms(), arms(seed=1)
    del first["control"]
    found = table_of(tmp_path / "s", [*first.values(), *second.values()])
    note = next(note for note in found.notes if note.startswith("the same seeds"))
    assert "at lmbda 0.013 " in note
    assert " base of 0, 1; control of 1; ecg_10 of 0, 1; " in note


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        (grid()[:2], "s has no good trial with gates; `python -m sweep \\+experiment=gating` trains some"),
        (
            [*arms().values(), trial("static", result(images=IMAGES), precision="fp32")],
            r"model [0-9a-f]{12}: its trials differ in precision \(bf16, fp32\) and are no comparison",
        ),
        (
            [*arms().values(), trial("ecg_10", trial("base", penalty=1.0), seed=3, budget="other")],
            "ecg_10 at lmbda 0.013 stands for several trainings or models, such as .* name them by stages",
        ),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path: Path, trees: list[dict[str, Any]], message: str) -> None:
    for tree in trees:
        if tree["spec"]["precision"] == "fp32":
            tree["training"]["precision"] = "fp32"
        if tree["training"]["budget"] == "other":
            tree["budget_id"] = "other"
    with pytest.raises(AnalysisError, match=message):
        table_of(tmp_path / "s", trees)


def test_a_sweep_with_gates_writes_the_report_and_no_other_does(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", list(arms().values()))
    said = " ".join(write_more(read(folder), folder).split())
    assert "gates per image against a fixed mask (static)" in said
    assert {path.name for path in folder.glob("gating*")} == {
        "gating.csv", "gating_tradeoff.png", "gating_published.png", "gating_sparsity.png",
        "gating_speed.png",
    }  # fmt: skip
    plain = write_sweep(tmp_path / "p", grid()[:2])
    assert write_more(read(plain), plain) == ""
    assert not list(plain.glob("gating*"))


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep(tmp_path / "s", list(arms().values()))
    assert main(["gating", str(folder), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "0.013  ecg_10        29.70  0.4900      +1.00      -1.02      -2.00      +2.00" in said
    assert "kodim01.png: networks alone" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 120
    assert main(["gating", str(write_sweep(tmp_path / "p", grid()[:1]))]) == 2
    assert "error: p has no good trial with gates" in capsys.readouterr().err


@settings(max_examples=25, deadline=None)
@given(
    losses=st.lists(st.floats(0.1, 10), min_size=IMAGES, max_size=IMAGES),
    others=st.lists(st.floats(0.1, 10), min_size=IMAGES, max_size=IMAGES),
)
def test_the_interval_is_that_of_a_slow_bootstrap_of_ratios(losses: list[float], others: list[float]) -> None:
    from analysis.claims.statistics import DRAWS
    from analysis.gating_table import Scores

    ids = [("a", losses), ("b", others)]
    images = pd.DataFrame(
        [(name, f"{n}.png", loss) for name, every in ids for n, loss in enumerate(every)],
        columns=["spec_id", "image", "rd_loss"],
    )
    scores = Scores(pd.DataFrame({"spec_id": ["a", "b"]}), images)
    change = scores.change_pct(
        {"spec_id": "a", "rd_loss": np.mean(losses)}, {"spec_id": "b", "rd_loss": np.mean(others)}
    )
    counts = np.random.default_rng(0).multinomial(IMAGES, [1 / IMAGES] * IMAGES, size=DRAWS)
    slow = [
        100
        * (
            sum(n * x for n, x in zip(row, losses, strict=True))
            / sum(n * x for n, x in zip(row, others, strict=True))
            - 1
        )
        for row in counts[:50]
    ]
    assert change.draws is not None
    assert change.draws[:50] == pytest.approx(slow)
    low, high = change.interval()
    assert low <= change.estimate + 1e-9
    assert change.estimate <= high + 1e-9


def test_a_mean_over_lmbdas_keeps_the_images_together() -> None:
    """Two changes that cancel on every resample have a mean without any spread."""
    draws = np.linspace(-1, 1, 101)
    found = mean_of([Quantity("", "%", 3.0, 3 + draws, units=8), Quantity("", "%", 1.0, 1 - draws, units=8)])
    assert found.estimate == 2.0
    assert found.interval() == (approx(2.0), approx(2.0))
    assert not mean_of([Quantity("", "%", 3.0), Quantity("", "%", 1.0, draws, units=8)]).has_interval


def test_a_verdict_without_numbers_is_unknown() -> None:
    assert Verdict("m", "", "static", "static", why="no lmbda has both").outcome == "unknown"


def test_the_posters_table_is_whole() -> None:
    """As the poster has it: three models at CompressAI's eight qualities; 2.03 to 2.86 fold and so on."""
    table = published()
    assert len(table) == 24
    ends = table.groupby("entropy_model").agg(
        low=("flop_reduction", "min"), high=("flop_reduction", "max"), drop=("psnr_drop_pct", "max")
    )
    assert ends.to_dict("index") == {
        "scale_hyperprior": {"low": 2.03, "high": 2.86, "drop": 0.346},
        "mean_scale_hyperprior": {"low": 2.12, "high": 2.68, "drop": 0.78},
        "joint_autoregressive": {"low": 2.02, "high": 2.67, "drop": 0.807},
    }
    assert list(table["lmbda"][:8]) == [0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven stages of a tiny model as they were left by `+experiment=gating budget=smoke width=0.15`.

    On six Kodak images, of which the first was timed; nothing in the results was changed.
    """
    found = json.loads((Path(__file__).parent / "data" / "gating_results.json").read_text())
    return write_sweep(tmp_path_factory.mktemp("real") / "s", found["results"], timings=found["timings"])


def test_real_results_from_end_to_end(real: Path, tmp_path: Path) -> None:
    found = report(read(real), tmp_path, print_table=False)
    assert not read(real).problems  # their checksums are right
    rows: Any = found.table.set_index("stage")
    roles = ["base", "control", "ecg", "ecg", "static", "narrow", "narrow_tuned"]
    assert list(found.table["role"]) == roles
    assert found.found.notes == ()
    trials = found.found.trials.set_index("stage")
    for stage in ("ecg_05", "ecg_10", "static"):
        for way in ("enc", "dec"):
            counts = [trials[f"gating_kmac_per_px_{way}{name}"][stage] for name in ("", "_masks")]
            assert counts[0] == counts[1]  # what ran is what the masks say, to the last operation
        assert rows.loc[stage, "reduction"] > 1
        executed = sum(trials[f"kmac_per_px_{way}_executed"][stage] for way in ("enc", "dec"))
        assert executed == approx(sum(trials[f"gating_kmac_per_px_{way}"][stage] for way in ("enc", "dec")))
    # Gates differ between images, a fixed mask does not; more pressure closes more.
    assert rows.loc["ecg_10", "gating_kmac_per_px_enc_std"] > 0
    assert rows.loc["static", "gating_kmac_per_px_enc_std"] == approx(0.0)
    assert rows.loc["ecg_10", "gating_sparsity"] > rows.loc["ecg_05", "gating_sparsity"] > 0
    parts = rows.loc["ecg_10", ["gating_natural_sparsity", "gating_learned_sparsity"]]
    assert parts.sum() >= rows.loc["ecg_10", "gating_sparsity"] - 1e-9
    # From the images' own losses, without a bootstrap: the mean change, and that it lies in its interval.
    images = read(real).images.groupby("spec_id")["rd_loss"].mean()
    losses = {stage: images[spec_id] for stage, spec_id in trials["spec_id"].items()}
    change = 100 * (losses["ecg_10"] / losses["control"] - 1)
    assert rows.loc["ecg_10", "rd_loss_change_pct"] == pytest.approx(change)
    assert rows.loc["ecg_10", "rd_loss_low_pct"] < change < rows.loc["ecg_10", "rd_loss_high_pct"]
    static, narrow = judged(found.found)
    assert (static.stage, narrow.stage) == ("ecg_10", "ecg_10")  # which both were made to match
    assert abs(static.cost_off_pct) < 5
    assert {path.name for path in found.files} == {
        "gating.csv", "gating_tradeoff.png", "gating_published.png", "gating_sparsity.png",
        "gating_speed.png",
    }  # fmt: skip
    said = " ".join(found.text.split())
    assert "kodim01.png: networks alone" in said
    assert re.search(
        r"quartiles of the repeats are up to \d+ % apart; load of the machine before: up to \d", said
    )
