"""`python -m analysis claims` from a sweep's files to the printed report, the CSV and the JSON."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from claims_evidence import times
from synthetic_results import FAMILIES, result, timing, write_sweep

from analysis.__main__ import main
from analysis.claims.evidence import gather
from analysis.claims.report import ClaimsReport, report
from analysis.claims.statements import STATEMENTS
from analysis.comparable import Choice
from analysis.errors import AnalysisError
from analysis.load import read
from analysis.text import WIDTH
from conf import compose


def results(**changes: Any) -> list[dict[str, Any]]:
    """All families at four widths: the study's order of quality and of cost is built in."""
    return [
        result(width, entropy, transform=transform, hyper_transform=hyper, **changes)
        for transform, entropy, hyper in FAMILIES
        for width in (32, 48, 64, 128)
    ]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    trees = results()
    both = [timing(tree) for tree in trees]
    both += [timing(tree, device_slug="gpu-synthetic", second=True) for tree in trees]
    return write_sweep(folder, trees, timings=both)


def quietly(*sources: Path, out: Path, **options: Any) -> ClaimsReport:
    return report([read(source) for source in sources], out, print_text=False, **options)


def verdicts(of: ClaimsReport) -> dict[int, str]:
    return {s.number: f.verdict for s, f in zip(STATEMENTS, of.tested[0].findings, strict=True)}


def test_a_sweep_with_the_studys_order_built_in(sweep: Path, tmp_path: Path) -> None:
    found = verdicts(quietly(sweep, out=tmp_path))
    assert found[2] == found[3] == found[5] == found[6] == "supported"
    # No family of SwinT shares entropy model and hyper-transform with conv or with several of ELIC.
    assert found[1] == "not enough data"
    assert found[8] == "supported"
    assert found[9] == "not enough data"


def test_printed_report_fits_and_says_what_it_rests_on(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", str(sweep), "-o", str(tmp_path), "--published", "-v"]) == 0
    printed = capsys.readouterr().out
    too_long = [line for line in printed.splitlines() if len(line) > WIDTH and "python -m" not in line]
    assert too_long == []
    assert "28 architectures at 0.025 % of the study's training steps (quick)" in printed
    assert "training noise: one seed per architecture" in printed
    assert "tested; intervals and verdicts are not adjusted for that" in printed
    ours, _, theirs = printed.partition("tested on its own published table")
    assert "supported" in ours
    assert "supported" not in theirs
    assert theirs.count("holds") >= 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claims.csv", "claims.json"]


def test_files_hold_every_number(sweep: Path, tmp_path: Path) -> None:
    found = quietly(sweep, out=tmp_path, published=True)
    table = pd.read_csv(tmp_path / "claims.csv", float_precision="round_trip")
    tree = json.loads((tmp_path / "claims.json").read_text())
    assert len(tree["evidence"]) == 2
    for of, evidence in zip(found.tested, tree["evidence"], strict=True):
        rows = table[table["is_published"] == of.evidence.is_published]
        assert list(rows["number"].unique()) == list(range(1, 10))
        for finding, claim in zip(of.findings, evidence["claims"], strict=True):
            mine = rows[rows["number"] == claim["number"]]
            assert set(mine["verdict"]) == {finding.verdict} == {claim["verdict"]}
            assert claim["covers"] == finding.covers
            for quantity, entry in zip(finding.quantities, claim["quantities"], strict=True):
                (row,) = mine[mine["quantity"] == quantity.name].to_dict("records")
                low, high = quantity.interval()
                assert row["estimate"] == entry["estimate"] == quantity.estimate
                if np.isnan(low):
                    assert entry["low"] is None
                    assert np.isnan(row["low"])
                else:
                    assert (row["low"], row["high"]) == (entry["low"], entry["high"]) == (low, high)
    pairs = tree["evidence"][0]["claims"][1]["comparisons"]
    assert len(pairs) == 8
    assert all(pair["loss_one"] < pair["loss_other"] for pair in pairs)
    assert tree["evidence"][0]["basis"]["percent_of_paper_steps"] == pytest.approx(0.025)


def test_several_sources_are_taken_together(sweep: Path, tmp_path: Path) -> None:
    # The missing families of claim 1, trained by a second sweep; the first is given twice without harm.
    trees = [
        result(width, "mean_scale_hyperprior", transform=transform)
        for transform in ("elic", "swint")
        for width in (32, 64, 128)
    ]
    more = write_sweep(tmp_path / "more", trees)
    found = quietly(sweep, more, sweep, out=tmp_path)
    assert len(found.tested[0].evidence.architectures) == 28 + 6
    assert verdicts(found)[1] == "supported"


def test_seeds_are_averaged_and_their_noise_is_used(tmp_path: Path) -> None:
    trees = [tree for seed in (0, 1, 2) for tree in results(seed=seed)]
    (evidence,) = [gather([read(write_sweep(tmp_path / "s", trees))])]
    assert len(evidence.architectures) == 28
    assert evidence.seed_freedom == 28 * 2
    logs = np.log([tree["evaluation"]["rd_loss"] for tree in trees]).reshape(3, 28)
    assert evidence.seed_sd == pytest.approx(math_pooled(logs))
    np.testing.assert_allclose(evidence.scores.mean(axis=1), evidence.loss)  # type: ignore[union-attr]
    assert "other seeds (56 repeats)" in evidence.covers()


def math_pooled(logs: np.ndarray) -> float:
    """Within columns, equal numbers of seeds: root of the mean of the variances."""
    return float(np.sqrt(logs.var(axis=0, ddof=1).mean()))


def test_a_table_without_images_says_what_is_missing(sweep: Path, tmp_path: Path) -> None:
    read(sweep).frame.to_csv(tmp_path / "table.csv", index=False)
    found = quietly(tmp_path / "table.csv", out=tmp_path)
    assert verdicts(found)[3] == verdicts(found)[6] == "not enough data"
    assert "no per-image scores: name the sweep's folder, not its table" in found.text
    lacking = found.tested[0].findings[2]
    assert "per-image scores" in lacking.missing
    assert lacking.quantities[0].estimate > 0
    # Eight pairs carry an interval of their own.
    assert verdicts(found)[2] == "supported"
    assert found.tested[0].findings[1].covers.startswith("other pairs (8 resampled); not other images")


def test_trials_with_damaged_scores_are_left_out_and_named(tmp_path: Path) -> None:
    trees = results()
    del trees[0]["evaluation"]["per_image"][3]
    for score in trees[1]["evaluation"]["per_image"]:
        score["rd_loss"] *= 2
    evidence = gather([read(write_sweep(tmp_path / "s", trees))])
    assert len(evidence.architectures) == 26
    assert any("1 trials lack some image's score" in note for note in evidence.notes)
    assert any("rd_loss that is not the mean" in note for note in evidence.notes)


def test_other_budgets_and_lmbdas_never_mix(tmp_path: Path) -> None:
    trees = [*results(), *results(budget="long", steps=5000)[:6], *results(lmbda=0.025)[:4]]
    source = read(write_sweep(tmp_path / "s", trees))
    assert len(gather([source]).architectures) == 28
    long = gather([source], Choice(budget="long"))
    assert len(long.architectures) == 6
    assert set(long.architectures["budget"]) == {"long"}


def test_runtime_tables_add_devices_and_sizes(sweep: Path, tmp_path: Path) -> None:
    ids = sorted(read(sweep).frame["arch_id"].unique())
    frame = times(len(ids), {("other", 512): lambda k: 10.0 + k, ("other", 1365): lambda k: 30.0 + 2 * k})
    frame = frame.assign(arch_id=frame["arch_id"].map({f"t{k:03}": name for k, name in enumerate(ids)}))
    frame.insert(0, "table_version", 1)
    frame.assign(weights="random").to_csv(tmp_path / "times.csv", index=False)
    assert main(["claims", str(sweep), "--runtimes", str(tmp_path / "times.csv"), "-o", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "claims.csv")
    size = table[table["number"] == 9].iloc[0]
    # 28 architectures and no inversion: 1 - 0.025^(1/28) = 12.3 % cannot be excluded.
    assert size["verdict"] == "undecided"
    assert (size["estimate"], size["high"]) == (0, pytest.approx(12.34, abs=0.01))


@pytest.mark.parametrize("statement", [s for s in STATEMENTS if not s.is_timed], ids=lambda s: s.id)
def test_suggested_sweeps_compose(statement: Any) -> None:
    assert compose(shlex.split(statement.command))["name"] != "sweep"


def test_suggested_commands_train_what_can_be_compared(tmp_path: Path) -> None:
    trees = results(budget="long", lmbda=0.025)
    found = quietly(write_sweep(tmp_path / "s", trees[:4]), out=tmp_path)
    first = found.table.drop_duplicates("number").set_index("number")
    commands, missing = first["command"].map(str).to_dict(), first["missing"].map(str).to_dict()
    assert commands[2].endswith("budget=long lmbda=0.025")
    assert "/trials/*/model.safetensors --precision bf16 --images kodak clic" in commands[9]
    assert missing[2].startswith("a pair of architectures alike but for CHARM")


@pytest.mark.parametrize("number", [7, 8, 9])
def test_suggested_timings_are_commands_of_rdc(number: int, sweep: Path) -> None:
    from analysis.claims.report import command
    from rdc.__main__ import _parser

    line = command(gather([read(sweep)]), STATEMENTS[number - 1]).partition("  #")[0]
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "rdc"]
    _parser().parse_args(words[3:])


def test_mistakes_are_one_line(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("label,lmbda,rd_loss\na,0.013,1.0\n")
    for arguments, text in (
        ([str(table)], "t lacks kmac_per_px_dec, transform, entropy_model, hyper_transform"),
        ([str(sweep), "--lmbda", "7"], "--lmbda 7.0: no usable trial has it"),
        ([str(sweep), "--runtimes", str(tmp_path / "no.csv")], "no.csv: there is no such file"),
        (["nowhere"], "nowhere does not exist"),
    ):
        assert main(["claims", *arguments, "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert len(error.splitlines()) == 1
    with pytest.raises(AnalysisError, match="nothing to test: name a SOURCE, or --published"):
        report([], tmp_path)


def test_failed_trials_alone_are_refused_with_the_reason(tmp_path: Path) -> None:
    tree = copy.deepcopy(result(status="failed"))
    source = read(write_sweep(tmp_path / "s", [tree]))
    with pytest.raises(AnalysisError, match="no trial of s can be compared: status failed"):
        gather([source])


def test_one_architecture_tests_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    found = quietly(write_sweep(tmp_path / "s", [result()]), out=tmp_path)
    assert set(verdicts(found).values()) == {"not enough data"}
    assert "none was tested" in found.text or "many claims" not in found.text
