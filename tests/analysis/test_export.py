import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_results import example, result, write_sweep

from analysis.anchors import load_anchor
from analysis.compressai_json import export
from analysis.errors import AnalysisError
from analysis.load import load, read


def test_a_file_per_architecture_and_budget_with_the_numbers_of_the_table(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", example()))
    files = export(source, tmp_path / "out")
    assert len(files) == len(set(files)) == 16
    assert {path.parent for path in files} == {tmp_path / "out" / "kodak"}
    trees = [json.loads(path.read_text()) for path in files]
    curve = next(tree for tree in trees if len(tree["results"]["bpp"]) == 5)
    assert set(curve) == {"name", "description", "meta", "results"}
    assert set(curve["results"]) == {"bpp", "psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time"}
    rows = source.frame
    rows = rows[(rows["arch_id"] == curve["meta"]["arch_id"]) & (rows["warm_start"] != "")].sort_values("bpp")
    assert curve["results"]["bpp"] == rows["bpp"].tolist()
    assert curve["results"]["psnr-rgb"] == rows["psnr_db"].tolist()
    assert curve["results"]["decoding_time"] == (rows["time_dec_total_ms"] / 1000).tolist()
    assert curve["meta"]["lmbda"] == rows["lmbda"].tolist()


def test_times_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    (path,) = export(read(write_sweep(tmp_path / "s", [result()], timings=[])), tmp_path / "out")
    assert set(json.loads(path.read_text())["results"]) == {"bpp", "psnr-rgb", "ms-ssim-rgb"}


def test_an_exported_curve_reads_back_as_an_anchor(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", [result(lmbda=lmbda) for lmbda in (0.0035, 0.013, 0.05)])
    (path,) = export(read(folder), tmp_path / "out")
    anchor = load_anchor(str(path))
    assert anchor.dataset == "kodak"
    rows = load(folder).sort_values("bpp")
    assert anchor.curve.bpp == tuple(rows["bpp"])
    assert anchor.curve.psnr_db == tuple(rows["psnr_db"])


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="s has no trial with status ok to export"):
        export(read(write_sweep(tmp_path / "s", [result(status="failed")])), tmp_path / "out")


def test_compressai_plots_what_we_export(tmp_path: Path) -> None:
    """`python -m compressai.utils.plot -f FILES`, by its file: the package would load torch for seconds."""
    spec = importlib.util.find_spec("compressai")
    if spec is None or spec.origin is None:
        pytest.skip("compressai is not installed")
    plot = runpy.run_path(str(Path(spec.origin).parent / "utils" / "plot" / "__main__.py"))
    files = export(read(write_sweep(tmp_path / "s", example())), tmp_path / "out")
    for metric in ("psnr", "ms-ssim"):
        output = tmp_path / f"{metric}.png"
        plot["main"](["-f", *map(str, files), "-m", metric, "-o", str(output)])
        assert output.stat().st_size > 1000


@pytest.mark.full
def test_the_plot_command_of_compressai_reads_what_we_export(tmp_path: Path) -> None:
    """As a user runs it; loads torch."""
    pytest.importorskip("compressai")
    files = export(read(write_sweep(tmp_path / "s", example())), tmp_path / "out")
    command = [sys.executable, "-m", "compressai.utils.plot", "-f", *map(str, files), "-o", "rd.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rd.png").read_bytes()[:4] == b"\x89PNG"


def test_curves_from_two_origins_are_two_files(tmp_path: Path) -> None:
    trees = [result(64, warm_start={"spec_id": name * 12, "lmbda": 0.013}) for name in "ab"]
    files = export(read(write_sweep(tmp_path / "s", trees)), tmp_path / "out")
    assert len(set(files)) == 2


def test_labels_of_the_same_letters_and_very_long_ones_are_files_of_their_own(tmp_path: Path) -> None:
    labels = ["conv a/b", "conv a b", "漢字", "x" * 400]
    trees = [result(64 + 8 * k) | {"label": label} for k, label in enumerate(labels)]
    files = export(read(write_sweep(tmp_path / "s", trees)), tmp_path / "out")
    assert len(set(files)) == len(labels)
    assert {json.loads(path.read_text())["name"] for path in files} == set(labels)


def test_a_folder_in_the_place_of_a_file_is_one_clear_line(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", [result(64)]))
    (file,) = export(source, tmp_path / "out")
    file.unlink()
    file.mkdir()
    with pytest.raises(AnalysisError, match=r"cannot write .*: Is a directory; choose another folder"):
        export(source, tmp_path / "out")
    assert [path.name for path in file.parent.iterdir()] == [file.name]
