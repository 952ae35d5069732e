"""The command line as a user starts it: new interpreters, the committed example table, no torch."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic_results import example, grid, result, write_sweep

from analysis.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).parent / "data" / "example_trials.csv"


def analysis(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in an interpreter of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "analysis", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_frontier_of_the_example_table(tmp_path: Path) -> None:
    done = analysis("frontier", EXAMPLE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Frontier of example_trials: 7 of 12 architectures" in done.stdout
    out = tmp_path / "example_trials_analysis"
    figures = {"frontier.png", "frontier_rate_saving.png", "frontier_time.png", "rd.png"}
    tables = {"trials.csv", "frontier.csv", "hypervolume.csv"}
    assert {path.name for path in out.iterdir()} == {*tables, "hypervolume.png", *figures}
    # The table has no scores per image beside it, from which the sweep's own report resampled.
    again, given = (pd.read_csv(path, dtype=str) for path in (out / "trials.csv", EXAMPLE))
    resampled = ["frontier_probability", "rd_loss_low", "rd_loss_high"]
    assert again[resampled].isna().all(axis=None)
    assert given[resampled].notna().any(axis=None)
    pd.testing.assert_frame_equal(again.drop(columns=resampled), given.drop(columns=resampled))


def test_epsilon_and_budgets_of_the_example_table(tmp_path: Path) -> None:
    done = analysis("frontier", EXAMPLE, "--epsilon", "20%,5%", "--reference", "rd_loss=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    assert "represent the frontier to within rd_loss 20 %, kmac_per_px_dec 5 %; not listed: " in printed
    assert "to the reference rd_loss 3 (given); kmac_per_px_dec" in printed
    table = pd.read_csv(tmp_path / "example_trials_analysis" / "frontier.csv")
    assert 1 <= table["on_epsilon_frontier"].sum() < len(table) == 7
    assert f"epsilon {table['on_epsilon_frontier'].sum()} of 7" in printed
    listed = done.stdout.partition("---\n")[2].partition("\n\n")[0].splitlines()
    assert len(listed) == table["on_epsilon_frontier"].sum()
    by_budget = analysis("frontier", EXAMPLE, "--per", "budget", "-o", "per", cwd=tmp_path)
    assert by_budget.returncode == 0, by_budget.stderr
    assert [path.name for path in (tmp_path / "per").iterdir()] == ["frontier_by_budget.csv"]


def test_bdrate_of_the_example_table(tmp_path: Path) -> None:
    options = ["--anchor", "vtm", "--method", "akima", "--min-bpp", "0.1", "-o", "out"]
    done = analysis("bdrate", EXAMPLE, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "akima of log rate over PSNR" in done.stdout
    assert pd.read_csv(tmp_path / "out" / "bdrate.csv")["bd_rate_pct"].notna().sum() == 2


def test_the_example_table_is_what_its_maker_makes(tmp_path: Path) -> None:
    from analysis.frontier import write_report

    folder = write_sweep(tmp_path / "s", example())
    write_report(folder, print_table=False, draw=False)
    fresh = pd.read_csv(folder / "trials.csv")
    # Not compared as text: the last digit of log and pow differs between machines.
    pd.testing.assert_frame_equal(fresh, pd.read_csv(EXAMPLE), rtol=1e-9)


def test_the_last_sweep_is_the_default_and_a_damaged_result_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep(tmp_path / "runs" / "s", grid())
    next(folder.glob("trials/*/result.json")).write_text("{")
    monkeypatch.chdir(tmp_path)
    assert main(["frontier"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "result.json: damaged" in printed
    assert "Frontier of s:" in printed
    assert "of 11 architectures" in printed
    assert "in runs/s/: frontier.csv, trials.csv" in printed


def test_a_mistake_ends_the_process_with_status_2_and_one_line(tmp_path: Path) -> None:
    done = analysis("frontier", "missing", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: missing does not exist; name a sweep folder")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frontier"], "there is no sweep under runs/"),
        (["frontier", "missing"], "missing does not exist"),
        (
            ["frontier", str(EXAMPLE), "--objectives", "rd_loss,beauty"],
            "objective 'beauty' is not known; objectives: bpp",
        ),
        (
            ["frontier", str(EXAMPLE), "--lmbda", "0.9"],
            "--lmbda 0.9: no usable trial has it; there are 0.0035",
        ),
        (
            ["frontier", str(EXAMPLE), "--device", "cuda"],
            "--device chooses among the timings of a sweep folder",
        ),
        (["frontier", str(EXAMPLE), "--epsilon", "a lot"], "epsilon 'a lot': must be a number such as 0.05"),
        (["frontier", str(EXAMPLE), "--epsilon", "1%,2%,3%"], "--epsilon has 3 values; give one for all, or"),
        (
            ["frontier", str(EXAMPLE), "--objectives", "psnr_db,params_m", "--epsilon", "2%"],
            "--epsilon 2 % of psnr_db: its unit is dB; give a number in dB",
        ),
        (
            ["frontier", "zero.csv", "--epsilon", "2%"],
            "--epsilon 2 % of kmac_per_px_dec: has values of 0 or less, of which per cent mean nothing",
        ),
        (["frontier", str(EXAMPLE), "--reference", "bpp=1"], "--reference bpp: is no objective here"),
        (["frontier", str(EXAMPLE), "--resamples", "0"], "--resamples 0: must lie between 1 and 1,000,000"),
        (["frontier", str(EXAMPLE), "--seed=-1"], "--seed -1: must be 0 or greater"),
        (["frontier", str(EXAMPLE), "--per", "device"], "--per device: example_trials holds no timings"),
        (["frontier", "short.csv"], "short lacks lmbda, rd_loss, kmac_per_px_dec; it has label, bpp"),
        (["bdrate", "short.csv"], "short lacks lmbda, psnr_db, dataset; it has label, bpp"),
        (["frontier", "failed"], "no trial of failed can be compared; trials.csv gives the reasons"),
        (["bdrate", str(EXAMPLE), "--anchor", "av2"], "anchor 'av2' is not known"),
        (["bdrate", str(EXAMPLE), "--anchor", "bpg", "--anchor", "bpg"], "two anchors are called 'bpg'"),
        (["bdrate", str(EXAMPLE), "--anchor", "ragged.csv"], "anchor file ragged.csv, row 2: lacks dataset"),
        (
            ["bdrate", str(EXAMPLE), "--anchor", "latin.csv"],
            "latin.csv is not readable as CSV in UTF-8: 'utf",
        ),
        (["bdrate", str(EXAMPLE), "--anchor", "x" * 5000 + ".csv"], "anchor file xxxxx"),
        (["bdrate", str(EXAMPLE), "--min-bpp", "nan"], "--min-bpp nan: must be greater than 0"),
        (["bdrate", str(EXAMPLE), "--min-bpp=-1"], "--min-bpp -1: must be greater than 0"),
        (["bdrate", str(EXAMPLE), "--min-bpp", "inf"], "--min-bpp inf: must be greater than 0 and finite"),
        (["bdrate", str(EXAMPLE), "--max-bpp", "0"], "--max-bpp 0: must be greater than 0"),
        (
            ["bdrate", str(EXAMPLE), "--min-bpp", "1", "--max-bpp", "0.5"],
            "--min-bpp 1: must be below --max-bpp 0.5",
        ),
        (["bdrate", str(EXAMPLE), "--min-overlap", "nan"], "--min-overlap nan: must lie between 0 and 100"),
        (["bdrate", str(EXAMPLE), "--min-overlap=-5"], "--min-overlap -5: must lie between 0 and 100"),
        (["bdrate", str(EXAMPLE), "--min-overlap", "500"], "--min-overlap 500: must lie between 0 and 100"),
        (["frontier", "y" * 5000], "yyy... does not exist; name a sweep folder"),
        (["frontier", str(EXAMPLE), "--out", "short.csv"], "choose another folder with --out"),
        (
            ["frontier", "mlflow:0123456789abcdef0123456789abcdef"],
            "MLflow run 0123456789abcdef0123456789abcdef",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "short.csv").write_text("label,bpp\nx,0.5\n")
    (tmp_path / "zero.csv").write_text("label,lmbda,rd_loss,kmac_per_px_dec\nx,0.1,1,0\ny,0.1,2,3\n")
    (tmp_path / "ragged.csv").write_text("bpp,psnr_db,dataset\n0.1,30,kodak\n0.2,31\n")
    (tmp_path / "latin.csv").write_bytes("bpp,psnr_db,dataset\n0.1,30,Größe\n".encode("latin-1"))
    write_sweep(tmp_path / "failed", [result(status="failed")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert message in text


@pytest.mark.parametrize("arguments", [[], ["frontier"], ["bdrate"], ["export"]])
def test_help_comes_with_examples(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--help"])
    printed = capsys.readouterr().out
    assert "python -m analysis" in printed
    assert ("examples:" in printed) == bool(arguments)


def test_help_loads_no_heavy_library() -> None:
    code = "import sys, analysis.__main__ as m; m._parser().format_help(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_module_of_analysis_loads_torch_or_its_siblings() -> None:
    code = (
        "import importlib, pkgutil, sys, analysis\n"
        "for module in pkgutil.walk_packages(analysis.__path__, 'analysis.'):\n"
        "    importlib.import_module(module.name)\n"
        "bad = {'torch', 'rdc', 'sweep', 'conf', 'mlflow', 'ray', 'hydra', 'optuna', 'compressai'}\n"
        "print(sorted(bad & set(sys.modules)), 'analysis.figures' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_export_prints_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(EXAMPLE), "--format", "compressai", "-o", "results/image"]) == 0
    assert capsys.readouterr().out.count("results/image/kodak/") == 16
