"""The study's Table 1 for a sweep: every number recomputed from the results by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from latex_reader import check
from synthetic_results import families, result, timing, timings_of, write_sweep

from analysis.__main__ import main
from analysis.anchors import load_anchor
from analysis.bdrate import Curve, bd_rate, rate_saving_pct
from analysis.errors import AnalysisError
from analysis.load import Source, read
from analysis.published import presets, table1
from analysis.study_table import study_table
from analysis.study_text import latex, markdown, printed
from analysis.tables import export

LMBDAS = (0.0035, 0.0067, 0.013, 0.025, 0.0483)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Seven families at two widths; one of them at five lmbdas."""
    curve = [result(64, "charm", transform="elic", lmbda=lmbda) for lmbda in LMBDAS if lmbda != 0.013]
    trees = [*families((32, 64)), *curve]
    return read(write_sweep(tmp_path_factory.mktemp("x") / "s", trees, timings=timings_of(trees)))


def test_a_row_per_architecture_cheapest_first_with_the_numbers_of_the_trials(source: Source) -> None:
    rows = study_table(source).rows
    assert len(rows) == rows["arch_id"].nunique() == 14
    assert rows["kflop_per_px_dec"].is_monotonic_increasing
    trials = source.frame[source.frame["lmbda"] == 0.013].set_index("arch_id")
    for name in ("params_m", "params_dec_m", "kflop_per_px_dec", "rd_loss", "label", "entropy_model"):
        assert rows[name].tolist() == trials.loc[rows["arch_id"], name].tolist()
    best = rows.sort_values("rd_loss").iloc[0]
    assert best["on_frontier"]
    cheaper_and_better = [
        ((rows["rd_loss"] < row["rd_loss"]) & (rows["kflop_per_px_dec"] < row["kflop_per_px_dec"])).any()
        for _, row in rows.iterrows()
    ]
    assert rows["on_frontier"].tolist() == [not beaten for beaten in cheaper_and_better]


def test_decode_speed_is_megapixels_over_seconds(source: Source) -> None:
    table = study_table(source)
    assert [setting.key for setting in table.timed] == [
        "cpu-synthetic__1t__bf16__512x768",
        "cpu-synthetic__1t__bf16__1365x2048",
        "cpu-synthetic__2t__bf16__512x768",
        "gpu-synthetic__1t__bf16__512x768",
        "gpu-synthetic__1t__bf16__1365x2048",
    ]
    tree = result(64, "charm", transform="elic")
    row = table.rows[table.rows["arch_id"] == tree["arch_id"]].iloc[0]
    measured = timing(tree, image_px=(1365, 2048))["decode"]
    for part, stage in (("net", "network_ms"), ("total", "total_ms")):
        speed = 1365 * 2048 / 1e6 / (measured[stage]["median"] / 1e3)
        assert row[f"dec_{part}_mpps__cpu-synthetic__1t__bf16__1365x2048"] == pytest.approx(speed, rel=1e-12)


def test_savings_are_of_the_curve_where_there_is_one_and_else_of_the_point(source: Source) -> None:
    rows = study_table(source).rows
    trees = [result(64, "charm", transform="elic", lmbda=lmbda) for lmbda in LMBDAS]
    scores = [tree["evaluation"] for tree in trees]
    curve = Curve("x", tuple(s["bpp"] for s in scores), tuple(s["psnr_db"] for s in scores))
    bpg = load_anchor("bpg").curve
    of_curve = rows[rows["saving_kind"] == "curve"]
    assert of_curve["arch_id"].tolist() == [trees[0]["arch_id"]]
    assert of_curve["rate_saving_vs_bpg_pct"].iloc[0] == pytest.approx(-bd_rate(bpg, curve).bd_rate_pct)
    assert of_curve["saving_lmbdas"].iloc[0] == "0.0035 0.0067 0.013 0.025 0.0483"
    assert of_curve["saving_range_low_db"].iloc[0] == pytest.approx(max(bpg.psnr_db[0], curve.psnr_db[0]))
    points = rows[rows["saving_kind"] == "point"]
    assert len(points) == 13
    for _, row in points.iterrows():
        saving = rate_saving_pct(bpg, bpp=row["bpp"], psnr_db=row["psnr_db"])
        assert row["rate_saving_vs_bpg_pct"] == pytest.approx(saving)
    lines = [line.split() for line in printed(source, study_table(source)).splitlines()]
    marked = [words for words in lines if "*" in words[1:]]
    assert len(marked) == 13


def test_what_has_no_saving_says_why_in_a_footnote(tmp_path: Path) -> None:
    below = read(write_sweep(tmp_path / "a", [result(32), result(64, penalty=9.0)]))
    table = study_table(below)
    refused = table.rows[table.rows["rate_saving_vs_bpg_pct"].isna()]
    assert len(refused) == 1
    text = printed(below, table)
    assert "a             no rate saving: PSNR" in text
    assert "is below the range of bpg" in text
    elsewhere = read(write_sweep(tmp_path / "b", [result(32, dataset="clic", images=5)]))
    assert "no rate saving: anchor is on kodak, evaluation set is clic" in printed(
        elsewhere, study_table(elsewhere)
    )


def test_tables_of_other_machines_add_columns(
    tmp_path: Path, source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = families((32, 64))
    far = [
        {**timing(tree, device_slug="far", factor=0.5), "weights": f"trained {tree['spec_id']}"}
        for tree in trees
    ]
    export(read(write_sweep(tmp_path / "far", trees, timings=far)), tmp_path / "out", "csv")
    near = write_sweep(tmp_path / "near", trees)
    options = ["--runtimes", str(tmp_path / "out" / "runtimes.csv"), "-o", str(tmp_path / "table")]
    assert main(["table", str(near), *options]) == 0
    assert (
        "[2]           far, 1 thread, bf16, image of 512 x 768 px (height x width)" in capsys.readouterr().out
    )
    rows = pd.read_csv(tmp_path / "table" / "study_table.csv")
    assert rows["dec_net_mpps__far__1t__bf16__512x768"].notna().all()
    faster = (
        rows["dec_net_mpps__far__1t__bf16__512x768"] / rows["dec_net_mpps__cpu-synthetic__1t__bf16__512x768"]
    )
    assert faster.tolist() == pytest.approx([2.0] * 14)


def test_of_two_timings_of_one_setting_the_later_table_counts(source: Source) -> None:
    slower = source.runtimes.assign(dec_net_ms=2 * source.runtimes["dec_net_ms"], weights="other")
    before, after = study_table(source).rows, study_table(source, runtimes=[slower]).rows
    speeds = [str(name) for name in before.columns if str(name).startswith("dec_net_mpps__")]
    pd.testing.assert_frame_equal(2 * after[speeds], before[speeds])


def preset_g() -> dict[str, Any]:
    """A result of model G at full width."""
    tree = result(128, "mean_scale_hyperprior")
    tree["spec"]["model"]["depth"] = {"channels": [128] * 3, "latent_channels": 320, "layers": [0, 0, 0]}
    tree["complexity"]["decode"]["parity_kflop_per_px"] = 117.152
    tree["complexity"]["params"] = {"total": 12_822_659, "total_without_g_a": 10_919_619}
    return tree


def test_a_model_of_the_study_has_its_letter_at_full_width_only(tmp_path: Path) -> None:
    narrow = result(32)
    other = preset_g()
    other["complexity"]["params"]["total"] = 14_640_000  # the same depth with a wider hyper-transform
    other |= {"arch_id": "other", "spec_id": "other", "curve_id": "other"}
    rows = study_table(read(write_sweep(tmp_path / "s", [preset_g(), narrow, other]))).rows
    by_arch = rows.set_index("arch_id")["model"]
    assert by_arch[preset_g()["arch_id"]] == "G"
    assert by_arch[narrow["arch_id"]] == by_arch["other"] == ""


def test_the_published_numbers_stand_apart(tmp_path: Path, source: Source) -> None:
    text = printed(source, study_table(source))
    ours, _, theirs = text.partition("published: Minnen & Johnston, ICIP 2023, Table 1")
    assert "1076.4" not in ours
    for _, row in table1().iterrows():
        assert f"{row['kflops_per_px_decode']:.1f}" in theirs
        assert f"{row['rate_saving_vs_bpg_pct']:+.2f}" in theirs
    assert "ours had at most 0.025 % of these steps" in " ".join(theirs.split())
    main(["table", str(source.folder), "--format", "csv", "-o", str(tmp_path)])
    assert len(pd.read_csv(tmp_path / "study_table.csv")) == 14
    assert [path.name for path in tmp_path.iterdir()] == ["study_table.csv"]


def test_latex_and_markdown_hold_the_same_cells(source: Source) -> None:
    table = study_table(source)
    ours, theirs = latex(source, table).split("\n\n% ")
    rows = check(ours)
    assert len(rows) == 2 + 14
    assert len(check("% " + theirs)) == 2 + 7
    lines = [line for line in markdown(source, table).splitlines() if line.startswith("|")]
    assert len(lines) == (2 + 14) + (2 + 7)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:16]]
    assert {len(row) for row in cells} == {11 + 10}
    plain = [[cell.replace("$", "").replace("--", "-") for cell in row] for row in rows[2:]]
    assert [row[4:8] for row in cells[2:]] == [row[4:8] for row in plain]


def test_no_line_is_wider_than_a_terminal(source: Source) -> None:
    assert max(map(len, printed(source, study_table(source)).splitlines())) <= 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "pdf"], "--format 'pdf' is not known; known: text, csv, latex, markdown"),
        (["--runtimes", "no.csv"], "no.csv: there is no such file"),
        (["--lmbda", "0.5"], "--lmbda 0.5: no usable trial has it"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(source.folder), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no trial of s can be compared"):
        study_table(read(write_sweep(tmp_path / "s", [result(status="failed")])))


@pytest.mark.full
@pytest.mark.parametrize("letter", "ABCDEFG")
def test_the_shipped_sizes_are_those_of_the_presets(letter: str) -> None:
    command = [sys.executable, "-m", "rdc", "describe", f"model=rdc_{letter.lower()}", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    known = presets().set_index("model").loc[letter]
    parts = [str(known[part]) for part in ("transform", "entropy_model", "hyper_transform")]
    assert found["family"] == "/".join(parts)
    assert found["params"]["total"] / 1e6 == pytest.approx(known["params_m"], rel=1e-6)
    assert found["decode"]["parity_kflop_per_px"] == pytest.approx(known["kflop_per_px_dec"], rel=1e-6)
