import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_results import example, result, write_sweep

from analysis.anchors import Anchor, load_anchor
from analysis.bdrate import Curve, bd_psnr, bd_rate
from analysis.bdrate_report import BdRateReport, report
from analysis.curves import trial_curves
from analysis.errors import AnalysisError
from analysis.load import load, read
from analysis.settings import METHODS, Settings

LMBDAS = (0.0035, 0.0067, 0.013, 0.025)


def anchors(*names: str) -> list[Anchor]:
    return [load_anchor(name) for name in names or ("bpg", "vtm")]


def run(folder: Path, *names: str, settings: Settings | None = None) -> BdRateReport:
    return report(read(folder), folder, anchors(*names), settings or Settings(), print_table=False)


def test_curves_get_bd_rates_and_points_get_savings(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", example())
    found = run(folder)
    table = pd.read_csv(folder / "bdrate.csv", float_precision="round_trip")
    assert table.groupby(["kind", "anchor"]).size().to_dict() == {
        ("curve", "bpg"): 2, ("curve", "vtm"): 2, ("point", "bpg"): 14, ("point", "vtm"): 14,
    }  # fmt: skip
    rows = load(folder)
    curve = table[(table["kind"] == "curve") & (table["anchor"] == "vtm")].iloc[0]
    own = rows[(rows["arch_id"] == curve["arch_id"]) & (rows["warm_start"] != "")]
    wanted = bd_rate(load_anchor("vtm").curve, Curve("own", tuple(own["bpp"]), tuple(own["psnr_db"])))
    assert curve["bd_rate_pct"] == pytest.approx(wanted.bd_rate_pct, abs=1e-12)
    assert (curve["points"], curve["lmbdas"]) == (5, "0.0035 0.0067 0.013 0.025 0.0483")
    points = table[(table["kind"] == "point") & (table["anchor"] == "bpg")]
    savings = rows.drop_duplicates("curve_id").set_index("curve_id")["rate_saving_vs_bpg_pct"]
    for _, point in points.iterrows():
        assert point["rate_saving_pct"] == savings[point["curve_id"]]
    assert (folder / "bdrate.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, found.text.splitlines())) <= 120


def test_the_printed_report_names_method_range_overlap_averaging_and_anchors(tmp_path: Path) -> None:
    found = run(
        write_sweep(tmp_path / "s", example()), settings=Settings(method="akima", min_bpp=0.1, max_bpp=1.0)
    )
    text = " ".join(found.text.split())
    for part in (
        "akima of log rate over PSNR",
        "narrowed to where the anchor has from 0.1 bpp to 1 bpp",
        "mean of per-image PSNR (RGB, 8-bit rounded)",
        "seeds are averaged first",
        "kodak (24 images)",
        "anchor vtm: VTM-9.1 intra (CompressAI), kodak, 8 points; 0.048..3.63 bpp, 26.14..46.59 dB",
        "source: CompressAI@869a9f5d4126:results/image/kodak/vtm.json",
        "integrated",
        "range %",
    ):
        assert part in text, part


def test_seeds_are_averaged_before_the_curve(tmp_path: Path) -> None:
    trials = [result(lmbda=lmbda, seed=seed) for lmbda in LMBDAS for seed in (0, 1, 2)]
    (curve,) = trial_curves(load(write_sweep(tmp_path / "s", trials)))
    assert curve.is_curve
    assert list(curve.rows["seeds"]) == [3, 3, 3, 3]
    at_first = [t["evaluation"]["psnr_db"] for t in trials if t["spec"]["lmbda"] == LMBDAS[0]]
    assert curve.rows["psnr_db"].iloc[0] == pytest.approx(sum(at_first) / 3)


def test_only_good_trials_and_equal_trainings_make_a_curve(tmp_path: Path) -> None:
    three = [result(lmbda=lmbda) for lmbda in LMBDAS[:3]]
    others = [result(lmbda=LMBDAS[3], status="rate_mismatch"), result(lmbda=LMBDAS[3], steps=900)]
    curves = trial_curves(load(write_sweep(tmp_path / "s", [*three, *others])))
    assert sorted(len(curve.rows) for curve in curves) == [1, 3]
    assert not any(curve.is_curve for curve in curves)


def test_what_an_anchor_does_not_reach_is_listed(tmp_path: Path) -> None:
    low = [result(32, lmbda=lmbda, penalty=6.5) for lmbda in LMBDAS]
    found = run(write_sweep(tmp_path / "s", [*low, result(64, penalty=5.2), result(96)]))
    text = " ".join(found.text.split())
    assert "% of its range inside that of 'vtm'" in text
    assert "is below the range of vtm (26.14..46.59 dB): conv 64-64-64/96 scale" in text
    refused = found.table[found.table["refused"] != ""]
    assert refused[["bd_rate_pct", "rate_saving_pct"]].isna().all(axis=None)


def test_a_curve_that_is_not_monotone_is_refused_by_name(tmp_path: Path) -> None:
    trials = [result(64, lmbda=lmbda) for lmbda in LMBDAS]
    trials[2]["evaluation"]["psnr_db"] = 20.0
    found = run(write_sweep(tmp_path / "s", [*trials, result(96)]))
    assert "curve 'conv 64-64-64/96 scale' is not monotone" in " ".join(found.text.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "clic", "images": 41}, "bpg: anchor is on kodak, evaluation set is clic; name a curve"),
        ({"images": 4}, "anchor is the mean over 24 Kodak images, evaluation has 4"),
    ],
)
def test_kodak_anchors_are_refused_for_other_images(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_sweep(tmp_path / "s", [result(lmbda=lmbda, **changes) for lmbda in LMBDAS])
    with pytest.raises(AnalysisError, match=message):
        run(folder)


def test_own_anchor_on_own_images(tmp_path: Path) -> None:
    trials = [result(lmbda=lmbda, dataset="clic", images=41) for lmbda in LMBDAS]
    folder = write_sweep(tmp_path / "s", trials)
    rows = load(folder).sort_values("bpp")
    lines = [f"clic,{2 * row['bpp']!r},{row['psnr_db']!r}" for _, row in rows.iterrows()]
    (tmp_path / "own.csv").write_text("\n".join(["dataset,bpp,psnr_rgb_db", *lines]))
    found = run(folder, str(tmp_path / "own.csv"))
    # The anchor needs twice the rate everywhere, so the curve saves half of it.
    assert found.table["bd_rate_pct"].tolist() == pytest.approx([-50.0])


def test_infinite_psnr_is_no_point_of_a_curve(tmp_path: Path) -> None:
    perfect = result(96)
    perfect["evaluation"]["psnr_db"] = math.inf
    found = run(write_sweep(tmp_path / "s", [perfect, result(64)]))
    assert set(found.table["label"]) == {"conv 64-64-64/96 scale"}


def test_points_from_two_origins_are_two_points(tmp_path: Path) -> None:
    trees = [result(64, warm_start={"spec_id": name * 12, "lmbda": 0.013}) for name in "ab"]
    trees[1]["evaluation"]["bpp"] *= 1.1
    found = run(write_sweep(tmp_path / "s", trees))
    assert len(found.table) == 4
    assert found.text.count("conv 64-64-64/96 scale") == 2


def test_every_number_comes_with_what_it_stands_for(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", example())
    run(folder, settings=Settings(min_bpp=0.1, max_bpp=0.5))
    table = pd.read_csv(folder / "bdrate.csv", float_precision="round_trip")
    curve = table[(table["kind"] == "curve") & (table["anchor"] == "bpg")].iloc[0]
    bpg = load_anchor("bpg").curve
    assert (curve["method"], curve["average"], curve["points"], curve["anchor_points"]) == (
        "pchip", "mean_curve", 5, 52,
    )  # fmt: skip
    assert (curve["range_low_bpp"], curve["range_high_bpp"]) == pytest.approx((0.1, 0.5))
    rows = load(folder)
    own = rows[(rows["arch_id"] == curve["arch_id"]) & (rows["warm_start"] != "")]
    own_curve = Curve("own", tuple(own["bpp"]), tuple(own["psnr_db"]))
    found = bd_psnr(bpg, own_curve, min_bpp=0.1, max_bpp=0.5)
    assert curve["bd_psnr_db"] == pytest.approx(found.bd_psnr_db, abs=1e-12)
    shared_bpp = (max(0.1, own["bpp"].min()), 0.5)
    assert (curve["bd_psnr_low_bpp"], curve["bd_psnr_high_bpp"]) == pytest.approx(shared_bpp)
    cautions = table.groupby("anchor")["anchor_caution"].first()
    assert cautions["vtm"].startswith("PSNR of vtm is RGB against the source after that conversion")
    assert cautions["bpg"] is None or pd.isna(cautions["bpg"])


def test_a_psnr_measured_otherwise_and_little_training_are_said(tmp_path: Path) -> None:
    text = " ".join(run(write_sweep(tmp_path / "s", example())).text.split())
    assert "caution PSNR of vtm is RGB against the source after that conversion, not against the PNG" in text
    assert "undertrained 0.025 % of the study's 2,000,000 steps" in text
    assert "caution PSNR of bpg" not in text


def test_bd_psnr_that_does_not_exist_leaves_the_bd_rate(tmp_path: Path) -> None:
    """Curves that share PSNRs and no rate: a BD-rate of -98 %, and no rate at which to compare PSNR."""
    folder = write_sweep(tmp_path / "s", [result(lmbda=lmbda) for lmbda in LMBDAS])
    rows = load(folder).sort_values("bpp")
    lines = [f"kodak,{50 * row['bpp']!r},{row['psnr_db']!r}" for _, row in rows.iterrows()]
    (tmp_path / "own.csv").write_text("\n".join(["dataset,bpp,psnr_db", *lines]))
    found = run(folder, str(tmp_path / "own.csv"))
    assert found.table["bd_rate_pct"].iloc[0] == pytest.approx(-98.0)
    assert pd.isna(found.table["bd_psnr_db"].iloc[0])
    assert "note no BD-PSNR: curve 'conv 64-64-64/96 scale'" in " ".join(found.text.split())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("steps", (500, 500, 500, 900), "mixes training steps (500, 900)"),
        ("precision", ("bf16", "fp32", "fp32", "fp32"), "mixes precisions (bf16, fp32)"),
        ("eval_images", (24, 24, 24, 24.0), ""),
    ],
)
def test_points_that_were_not_trained_alike_are_no_curve(
    tmp_path: Path, name: str, values: tuple[Any, ...], message: str
) -> None:
    """A table may call two trainings one budget; a sweep's budget_id cannot."""
    frame = pd.DataFrame({
        "label": "x", "dataset": "kodak", "budget": "b", "lmbda": LMBDAS, "bpp": (0.1, 0.2, 0.4, 0.8),
        "psnr_db": (27.0, 29.0, 31.0, 34.0), name: values,
    })  # fmt: skip
    frame.to_csv(tmp_path / "t.csv", index=False)
    found = report(read(tmp_path / "t.csv"), tmp_path, anchors("bpg"), Settings(), print_table=False).table
    assert message in found["refused"].iloc[0]
    assert found["bd_rate_pct"].isna().iloc[0] == bool(message)


def test_the_method_is_handed_on(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", [result(lmbda=lmbda) for lmbda in LMBDAS])
    by_method = {
        method: run(folder, "vtm", settings=Settings(method=method)).table["bd_rate_pct"].iloc[0]
        for method in METHODS
    }
    assert len({round(value, 6) for value in by_method.values()}) == len(METHODS)


@pytest.mark.parametrize("bad", [{"method": "spline"}, {"average": "median"}])
def test_settings_know_their_choices(bad: dict[str, Any]) -> None:
    with pytest.raises(AnalysisError, match=r"is not known; known: (pchip, akima|mean_curve, per_image)"):
        Settings(**bad)
