"""One model of variable rate against fixed-rate ones: numbers that follow from how the results were made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import variable_rate_results as made
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.claims.comparisons import matched_pairs
from analysis.claims.evidence import gather
from analysis.comparable import comparable
from analysis.compressai_json import export
from analysis.curves import curve_names, trial_curves
from analysis.errors import AnalysisError
from analysis.load import Source, read
from analysis.more_reports import write_more
from analysis.study_table import study_table
from analysis.variable_rate import VariableModel, parse_lmbdas, variable_models
from analysis.variable_rate_bytes import ByteSteps, byte_steps
from analysis.variable_rate_published import (
    COMPRESSAI,
    PUBLISHED_PCT,
    compressai_saving_pct,
    modulator_params,
    saving_pct,
)
from analysis.variable_rate_report import report, write
from analysis.variable_rate_text import _reasons


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("whole")
    return read(made.write(folder, made.fixed(), made.fixed_short(), made.variable()))


def model_of(folder: Path, *parts: list[dict[str, Any]]) -> VariableModel:
    (model,) = variable_models(read(made.write(folder, *parts)))
    return model


# ------------------------------------------------------------------------------------------- comparison


def test_files_of_a_constant_size_ratio_have_that_bd_rate(whole: Source) -> None:
    # At equal PSNR the variable model's files have 1.1 times the bytes of `fixed`, 1.1 / 1.375 = 0.8 times
    # those of `fixed_short`: a constant gap of log rates, whose mean is itself whatever the interpolation.
    (model,) = variable_models(whole)
    each, total = model.arm("each"), model.arm("total")
    assert each is not None
    assert total is not None
    assert (each.name, total.name) == ("fixed", "fixed_short")
    for arm, expected in ((each, 10.0), (total, -20.0)):
        assert arm.shared.bd_rate_pct == pytest.approx(expected, abs=1e-9)
        assert arm.shared.points == 8
        assert arm.every.bd_rate_pct == pytest.approx(expected, abs=1e-3)  # bytes in between are rounded
        assert arm.every.points == len({*made.CODES, *made.LMBDAS}) == 31
        assert arm.shared.overlap_pct == 100
        assert (arm.shared.psnr_low_db, arm.shared.psnr_high_db) == (25, 39)
        assert arm.shared.images is not None
        assert arm.shared.image_count == 5
        assert arm.shared.images.mean == pytest.approx(expected, abs=1e-3)


def test_points_that_another_beats_are_left_out_and_named(tmp_path: Path) -> None:
    short = made.fixed_short()
    scores = [tree["evaluation"] for tree in short]
    scores[3]["psnr_db"], scores[4]["psnr_db"] = scores[4]["psnr_db"], scores[3]["psnr_db"]
    model = model_of(tmp_path / "odd", made.fixed(), short, made.variable())
    arms = {arm.name: arm.every for arm in model.arms}
    assert [arms[name].refused for name in ("fixed", "fixed_short")] == ["", ""]
    assert arms["fixed"].left_out == ()
    # The fifth now has more rate and less PSNR than the fourth.
    assert arms["fixed_short"].left_out == ("fixed_short at lmbda 0.025",)
    without = [tree for tree in made.fixed_short() if tree["spec"]["lmbda"] != 0.025]
    without[3]["evaluation"]["psnr_db"] = scores[3]["psnr_db"]
    expected = model_of(tmp_path / "without", made.fixed(), without, made.variable()).arms
    bd_rates = {arm.name: arm.every.bd_rate_pct for arm in expected}
    assert arms["fixed_short"].bd_rate_pct == pytest.approx(bd_rates["fixed_short"], rel=1e-9)
    assert any("fixed_short at lmbda 0.025: another point" in line for line in _reasons(model))


def test_training_is_counted_once_whatever_was_measured(whole: Source) -> None:
    (model,) = variable_models(whole)
    # 400 steps of 8 crops; 30 further trials only measure. synthetic_results: 20 + 0.4 width = 45.6 s each.
    assert (model.cost.trainings, model.cost.steps, model.cost.images) == (1, 400, 3200)
    assert model.cost.wall_s == pytest.approx(45.6)
    each, total = model.arm("each"), model.arm("total")
    assert each is not None
    assert total is not None
    assert (each.cost.trainings, each.cost.steps, each.cost.steps_each) == (8, 3200, 400)
    assert (total.cost.trainings, total.cost.steps, total.cost.steps_each) == (8, 400, 50)
    assert each.cost.wall_s == pytest.approx(8 * 45.6)


def test_storage_is_that_of_one_model_against_eight(whole: Source) -> None:
    (model,) = variable_models(whole)
    for arm in model.arms:
        assert arm.params == 8_000_000
        assert arm.saving_pct == pytest.approx(100 * (1 - 1_083_072 / 8_000_000))


def test_compressais_own_models_give_the_published_savings_nearly() -> None:
    # 60,828,184, 98,358,808 and 158,540,252 parameters in the eight models of qualities 1 to 8; the modulator
    # has two networks of 2 x 128 and 129 x 320 parameters: 83,072.
    sums = {name: sum(w.models * w.params for w in widths) for name, widths in COMPRESSAI.items()}
    assert list(sums.values()) == [60_828_184, 98_358_808, 158_540_252]
    assert all(sum(w.models for w in widths) == 8 for widths in COMPRESSAI.values())
    assert modulator_params(320) == 83_072
    found = {name: compressai_saving_pct(name) for name in PUBLISHED_PCT}
    assert found["scale_hyperprior"] == pytest.approx(100 * (1 - 11_899_395 / 60_828_184))
    assert found["scale_hyperprior"] == pytest.approx(PUBLISHED_PCT["scale_hyperprior"], abs=0.05)
    assert found["mean_scale_hyperprior"] == pytest.approx(PUBLISHED_PCT["mean_scale_hyperprior"], abs=0.05)
    assert found["joint_autoregressive"] == pytest.approx(83.86, abs=0.005)  # published: 83.07
    assert saving_pct(1, 8) == 87.5


def test_a_start_from_other_weights_counts_as_training(tmp_path: Path) -> None:
    start = {"spec_id": "first", "checkpoint_sha256": "cd" * 32, "lmbda": 0.013}
    first = made.trial(0.013, steps=300, stage="base", variable=True)
    first |= {"spec_id": "first", "curve_id": "other", "budget_id": "base"}
    tuned = made.variable(steps=100, warm_start=start)
    models = variable_models(read(made.write(tmp_path, made.fixed(), [first], tuned)))
    model = next(model for model in models if len(model.curve.values("lmbda")) > 1)
    assert (model.cost.steps, model.cost.steps_each, model.cost.images) == (400, 400, 3200)
    assert model.arms[0].role == "each"


def test_a_start_from_weights_outside_the_table_leaves_training_unknown(tmp_path: Path) -> None:
    start = {"spec_id": "elsewhere", "checkpoint_sha256": "cd" * 32, "lmbda": 0.013}
    model = model_of(tmp_path, made.fixed(), made.variable(warm_start=start))
    assert math.isnan(model.cost.steps)
    assert math.isnan(model.cost.wall_s)
    assert model.arms[0].role == "unknown"


def test_seeds_are_trainings_of_their_own_and_points_are_their_means(tmp_path: Path) -> None:
    parts = [made.fixed(seed=seed) for seed in (0, 1)] + [made.fixed_short(seed=seed) for seed in (0, 1)]
    parts += [made.variable(seed=0), made.variable(seed=1)]
    model = model_of(tmp_path, *parts)
    each, total = model.arm("each"), model.arm("total")
    assert each is not None
    assert total is not None
    assert (model.cost.trainings, model.cost.steps, model.cost.per_seed) == (2, 800, 400)
    assert each.cost.trainings == 16
    assert each.params == 8_000_000  # of one seed: nobody stores two
    assert each.shared.bd_rate_pct == pytest.approx(10, abs=1e-9)
    assert [steps.seed for steps in model.steps] == [0, 1]


def test_models_of_other_networks_or_images_are_no_arms(tmp_path: Path) -> None:
    scale = made.fixed(entropy_model="scale_hyperprior")
    other_images = [tree | {"spec_id": f"o{i}", "curve_id": "o"} for i, tree in enumerate(made.fixed())]
    for tree in other_images:
        tree["evaluation"] = tree["evaluation"] | {"dataset_hash": "others"}
    model = model_of(tmp_path, scale, other_images, made.variable())
    assert model.arms == ()


def test_another_training_set_is_told(tmp_path: Path) -> None:
    others = made.fixed()
    for tree in others:
        tree["data"]["train"]["content_hash"] = "ffff"
    model = model_of(tmp_path, others, made.variable())
    assert model.arms[0].note == "other training images (ffff and a1b2c3d4e5f6) than the variable model"


def test_lmbdas_are_read_also_where_one_is_written_with_an_exponent() -> None:
    assert parse_lmbdas("1e-05-0.0018-0.18") == (1e-05, 0.0018, 0.18)
    assert parse_lmbdas("") == ()


# ---------------------------------------------------------------------------------------- missing parts


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    fixed = made.fixed()
    fixed[2] = made.trial(made.LMBDAS[2], status="failed")
    source = read(made.write(tmp_path / "sweep", fixed, made.variable()))
    said = report(source, tmp_path / "out", print_table=False).text
    assert "missing       fixed has no good trial at lmbda 0.0067: failed" in said
    assert "missing       no fixed-rate models that were trained in total for as many steps" in said
    (model,) = variable_models(source)
    assert model.arms[0].shared.points == 7


def test_a_lone_variable_model_is_reported_without_arms(tmp_path: Path) -> None:
    source = read(made.write(tmp_path / "sweep", made.variable()))
    found = report(source, tmp_path / "out", print_table=False)
    assert "missing       no fixed-rate models that were each trained" in found.text
    assert "mean over 5 images rises strictly over all 31 rates" in found.text
    assert len(found.table) == 1


def test_a_single_rate_is_nothing_to_compare(tmp_path: Path) -> None:
    source = read(made.write(tmp_path / "sweep", made.fixed(), made.variable([])))
    found = report(source, tmp_path / "out", print_table=False)
    assert "measured at one rate only, lmbda 0.013" in found.text
    assert not (tmp_path / "out" / "variable_rate_bytes.png").exists()


def test_no_model_of_variable_rate_is_refused_with_the_way_out(tmp_path: Path) -> None:
    source = read(made.write(tmp_path / "none", made.fixed()))
    with pytest.raises(
        AnalysisError, match=r"holds no model of variable rate; `python -m sweep \+experiment"
    ):
        variable_models(source)
    failed = [made.trial(0.013, variable=True, status="failed")]
    with pytest.raises(AnalysisError, match=r"no trial of variable rate has status ok .*status: failed"):
        variable_models(read(made.write(tmp_path / "failed", made.fixed(), failed)))


def test_a_table_without_the_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("label,lmbda,bpp,psnr_db,dataset\nx,0.01,0.5,30,kodak\n")
    with pytest.raises(AnalysisError, match="mine lacks rate_control"):
        variable_models(read(path))


def test_curves_that_do_not_overlap_have_a_reason_instead_of_a_number(tmp_path: Path) -> None:
    high = made.variable()
    for tree in high:
        tree["evaluation"]["psnr_db"] += 20
    model = model_of(tmp_path, made.fixed(), high)
    assert model.arms[0].shared.bd_rate_pct is None
    assert "'variable' (45.00..59.00 dB) has 0 % of its range inside" in model.arms[0].shared.refused


def test_a_table_without_images_is_not_judged_by_bytes(whole: Source, tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    whole.frame.to_csv(path, index=False)
    source = read(path)
    assert source.images.empty
    said = report(source, tmp_path, print_table=False).text
    assert "not judged: 31 of 31 rates have no scores of single images" in said
    assert "no spread     fixed: the source holds no scores of single images" in said


def test_rates_with_a_mismatch_are_on_no_curve_and_said(tmp_path: Path) -> None:
    variable = made.variable()
    variable[3]["status"] = "rate_mismatch"
    source = read(made.write(tmp_path, made.fixed(), variable))
    (model,) = variable_models(source)
    lmbda = variable[3]["spec"]["lmbda"]
    assert lmbda not in model.curve.values("lmbda")
    assert model.unused == (f"lmbda {lmbda:g}: rate_mismatch",)
    assert lmbda in model.steps[0].lmbdas  # its files are real


# ------------------------------------------------------------------------------------------------ bytes


def bytes_with(image: int, at: float, count: int) -> Any:
    """The usual files, but for one."""
    variable = made.variable()
    for place, tree in enumerate(variable):
        if tree["spec"]["lmbda"] == at:
            row = tree["evaluation"]["per_image"][image]
            row["bpp"] = 8 * count / (row["width_px"] * row["height_px"])
            variable[place] = tree
    return variable


def test_one_file_that_does_not_grow_is_counted_and_named(tmp_path: Path) -> None:
    # image4 has 1.5 times 11,000 2^k bytes: 33,000 at 0.0035; at the next code, 0.003878, it gets 32,000.
    at = made.CODES[4]
    model = model_of(tmp_path, made.fixed(), bytes_with(4, at, 32_000))
    (steps,) = model.steps
    (violation,) = steps.image_violations()
    assert (violation.image, violation.lmbda, violation.next_lmbda) == ("image4.png", 0.0035, at)
    assert (violation.bytes, violation.next_bytes) == (33_000, 32_000)
    assert violation.fall_pct == pytest.approx(100 / 33)
    assert steps.mean_violations() == []


def test_the_first_step_at_which_the_mean_falls_is_named(tmp_path: Path) -> None:
    # The mean at 0.0035 is 22,000, at the next code 24,545: 15,000 bytes less in one file make it fall.
    at = made.CODES[4]
    source = read(made.write(tmp_path / "sweep", made.fixed(), bytes_with(4, at, 36_818 - 15_000)))
    found = report(source, tmp_path / "out", print_table=False)
    said = " ".join(found.text.split())
    # 24,545 less a fifth of 15,000
    first = "first from lmbda 0.0035 to 0.003878, 22,000 to 21,545 bytes"
    assert f"does NOT rise strictly: 1 of 30 steps; {first}" in said
    assert found.table["first_violation_lmbda"].tolist() == [0.0035]
    assert found.table["mean_bytes_violations"].tolist() == [1]
    assert "! not more bytes than the rate before" in found.text


def test_equal_files_are_no_growth(tmp_path: Path) -> None:
    model = model_of(tmp_path, made.fixed(), bytes_with(0, made.CODES[4], 11_000))
    (violation,) = model.steps[0].image_violations()
    assert violation.fall_pct == 0


def test_two_lmbdas_of_one_code_are_one_rate(tmp_path: Path) -> None:
    near = 0.013 * (1 + 1e-7)
    model = model_of(tmp_path, made.fixed(), made.variable([0.0018, near, 0.18]))
    (steps,) = model.steps
    assert steps.lmbdas == (0.0018, 0.013, 0.18)
    assert steps.repeated == 1
    assert steps.image_violations() == []


def slow_violations(sizes: list[list[int]]) -> tuple[list[int], list[tuple[int, int]]]:
    """(places where the sum over images does not rise, (image, place) where an image's file does not)."""
    of_mean, of_images = [], []
    for place in range(len(sizes) - 1):
        if not sum(sizes[place]) < sum(sizes[place + 1]):
            of_mean.append(place)
        for image in range(len(sizes[0])):
            if not sizes[place][image] < sizes[place + 1][image]:
                of_images.append((image, place))
    return of_mean, sorted(of_images)


SIZES = st.integers(1, 4).flatmap(
    lambda images: st.lists(
        st.lists(st.integers(1, 30), min_size=images, max_size=images), min_size=1, max_size=8
    )
)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.randoms(use_true_random=False))
def test_violations_are_those_of_a_plain_loop(sizes: list[list[int]], random: Any) -> None:
    trials = [
        {
            "spec_id": f"t{place}", "status": "ok", "seed": 0, "lmbda": 0.001 * 2**place,
            "lmbda_code": 100 * place, "weights_sha256": "" if place == 0 else "ab",
        }
        for place in range(len(sizes))
    ]  # fmt: skip
    images = [
        {"spec_id": f"t{place}", "image": f"i{image}", "width_px": 7, "height_px": 3, "bpp": 8 * count / 21}
        for place, row in enumerate(sizes)
        for image, count in enumerate(row)
    ]
    random.shuffle(trials)
    random.shuffle(images)
    (steps,) = byte_steps(pd.DataFrame(trials), pd.DataFrame(images))
    of_mean, of_images = slow_violations(sizes)
    assert [steps.lmbdas.index(v.lmbda) for v in steps.mean_violations()] == of_mean
    found = [(int(v.image[1:]), steps.lmbdas.index(v.lmbda)) for v in steps.image_violations()]
    assert sorted(found) == of_images
    assert steps.steps == len(sizes) - 1


def test_bytes_are_whole_numbers_again() -> None:
    # With this size the rates of a quarter of all files do not give back their bytes in doubles.
    width_px, height_px = 321, 481
    counts = list(range(1, 200))
    names = [f"t{count}" for count in counts]
    trials = pd.DataFrame({"spec_id": names, "lmbda": [0.001 * count for count in counts]})
    trials = trials.assign(status="ok", seed=0, lmbda_code=counts, weights_sha256="")
    bpp = [8 * count / (width_px * height_px) for count in counts]
    images = pd.DataFrame({"spec_id": names, "bpp": bpp})
    images = images.assign(image="i", width_px=width_px, height_px=height_px)
    (steps,) = byte_steps(trials, images)
    assert steps.bytes[:, 0].tolist() == counts


def test_nothing_measured_is_nothing_judged() -> None:
    names = ["spec_id", "status", "seed", "lmbda", "lmbda_code", "weights_sha256"]
    images = ["spec_id", "image", "width_px", "height_px", "bpp"]
    empty: tuple[ByteSteps, ...] = byte_steps(pd.DataFrame(columns=names), pd.DataFrame(columns=images))
    assert empty == ()


# ----------------------------------------------------------------------------------------------- reports


def test_the_tables_hold_what_is_printed(whole: Source, tmp_path: Path) -> None:
    found = report(whole, tmp_path, print_table=False)
    assert {path.name for path in found.files} == {
        "variable_rate.csv", "variable_rate_points.csv", "variable_rate_rd.png", "variable_rate_bytes.png",
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "variable_rate.csv", float_precision="round_trip")
    assert table["role"].tolist() == ["each", "total"]
    assert table["bd_rate_pct"].tolist() == pytest.approx([10, -20])
    assert table["image_violations"].tolist() == [0, 0]
    assert table["image_steps"].tolist() == [150, 150]
    assert table["published_saving_pct"].tolist() == [82.04, 82.04]
    # synthetic_results: (93.7 (64 / 128)^1.8 + 4) kMAC/px, 1.15 times that to encode.
    assert table["kmac_per_px_dec"].tolist() == pytest.approx([93.7 * 0.5**1.8 + 4] * 2)
    assert table["arm_kmac_per_px_enc"].tolist() == pytest.approx([1.15 * (93.7 * 0.5**1.8 + 4)] * 2)
    points = pd.read_csv(tmp_path / "variable_rate_points.csv")
    assert points.groupby("arm").size().to_dict() == {"fixed": 8, "fixed_short": 8, "variable": 31}
    own = points[points["arm"] == "variable"]
    assert own["trained_lmbda"].sum() == 8
    assert own["lmbda_code"].iloc[[0, -1]].tolist() == [0, 65535]
    assert own["mean_bytes"].iloc[[0, -1]].tolist() == [11_000, 11_000 * 2**7]
    assert "undertrained  0.02 % of the study's 2,000,000 steps" in found.text
    assert "coded against estimated bits over 31 rates: +0.00 to +0.70 %" in found.text
    assert all(len(line) <= 120 for line in found.text.splitlines())


def test_the_end_of_a_sweep_gets_a_few_lines(whole: Source, tmp_path: Path) -> None:
    said = write(whole, tmp_path)
    assert "8 of fixed, each trained for as many steps as the variable model: BD-rate +10.00 %" in said
    assert (
        "8 of fixed_short, trained in total for as many steps as the variable model: BD-rate -20.00" in said
    )
    assert len(said.splitlines()) < 12


# ------------------------------------------------------------------------------ the rest of the analysis


def test_all_rates_are_one_curve_and_one_lmbda_is_one_frontier_entry(whole: Source) -> None:
    curves = trial_curves(whole.frame)
    assert sorted(len(curve.values("lmbda")) for curve in curves) == [8, 8, 31]
    selection = comparable(whole.frame, ["rd_loss"])
    assert len(selection.rows) == 2
    assert "31 lmbdas from 0.0018 to 0.18: taken 0.013" in selection.message


def test_a_rate_measured_where_it_was_trained_is_no_second_seed(tmp_path: Path) -> None:
    again = made.trial(0.013, size=1.1, variable=True, measured=True, stage="codes")
    source = read(made.write(tmp_path, made.fixed(), made.variable(), [again]))
    (variable,) = [c for c in trial_curves(source.frame) if c.values("rate_control")[0] == "modulator"]
    assert variable.values("seeds") == [1] * 31
    selection = comparable(source.frame, ["rd_loss"])
    assert selection.reasons.tolist().count("the rate at which it was trained, again") == 1
    assert (selection.rows["weights_sha256"] == "").all()


def test_it_counts_where_the_training_trial_is_no_good(tmp_path: Path) -> None:
    again = made.trial(0.013, variable=True, measured=True, stage="codes")
    bad = made.trial(0.013, variable=True, status="decode_mismatch")
    frame = read(made.write(tmp_path, [bad, again])).frame
    assert len(trial_curves(frame)) == 1


def test_a_claim_pairs_no_model_of_variable_rate_with_one_of_fixed_rate(tmp_path: Path) -> None:
    charm = [made.trial(0.013, entropy_model="charm", variable=True)]
    rows = [made.trial(0.013), made.trial(0.013, variable=True)]
    other = read(made.write(tmp_path / "other", rows[:1], charm))
    assert len(matched_pairs(gather([other]), "entropy_model", "charm", "mean_scale_hyperprior")) == 0
    alike = read(made.write(tmp_path / "alike", rows, charm))
    assert len(matched_pairs(gather([alike]), "entropy_model", "charm", "mean_scale_hyperprior")) == 1


def test_the_study_table_names_what_makes_the_rate_variable(whole: Source) -> None:
    assert study_table(whole).rows["size"].tolist() == ["64-64-64/96", "64-64-64/96 modulator"]


def test_an_export_holds_every_rate_of_the_model_once(whole: Source, tmp_path: Path) -> None:
    files = {path.name: json.loads(path.read_text()) for path in export(whole, tmp_path)}
    tree = files["conv-64-64-64-96-mean-scale-modulator.json"]
    assert tree["meta"]["lmbda"] == sorted({*made.CODES, *made.LMBDAS})
    assert tree["results"]["bpp"] == sorted(tree["results"]["bpp"])


def test_a_report_that_fails_ends_no_sweep(whole: Source, tmp_path: Path) -> None:
    (tmp_path / "variable_rate.csv").mkdir()  # in the place of the table
    said = write_more(whole, tmp_path)
    assert said.startswith("no variable_rate report: cannot write")
    assert said.endswith("python -m analysis variable_rate writes it again")


def test_a_sweep_without_variable_rate_gets_no_report(tmp_path: Path) -> None:
    source = read(made.write(tmp_path / "sweep", made.fixed()))
    assert write_more(source, tmp_path / "out") == ""
    assert not (tmp_path / "out").exists()


def test_the_command_says_a_users_mistake_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.write(tmp_path / "sweep", made.fixed())
    assert main(["variable_rate", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("error: sweep holds no model of variable rate; ")
    folder = made.write(tmp_path / "more", made.fixed(), made.variable())
    assert main(["variable_rate", str(folder), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("Variable rate in more\n")
    assert (tmp_path / "out" / "variable_rate_rd.png").exists()


def test_curves_of_one_architecture_have_names_that_tell_them_apart(whole: Source, tmp_path: Path) -> None:
    curves = trial_curves(whole.frame)
    assert sorted(curve_names(curves)) == [
        "conv 64-64-64/96 mean-scale modulator",
        "conv 64-64-64/96 mean-scale, fixed",
        "conv 64-64-64/96 mean-scale, fixed_short",
    ]
    table = whole.frame.assign(stage="")
    assert "conv 64-64-64/96 mean-scale, " in curve_names(trial_curves(table))[0]
    assert len(set(curve_names(trial_curves(table)))) == 3
    alone = trial_curves(read(made.write(tmp_path, made.fixed())).frame)
    assert curve_names(alone) == ["conv 64-64-64/96 mean-scale"]
