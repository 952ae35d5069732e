"""`python -m analysis anchors` from a folder of images to a CSV that every command reads."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.__main__ import main
from analysis.anchors.table import ANCHOR_COLUMNS, read_points
from tests.analysis.codec_images import photo, save_photos
from tests.analysis.stand_ins import write_bpg, write_vtm

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))  # no bpgenc of the machine


def anchors(folder: Path, out: Path, *more: str) -> int:
    return main(["anchors", str(folder), "-o", str(out), "--jobs", "2", *more])


def entries(folder: Path) -> list[Path]:
    """Whole ones: those that are being written have names with a dot in front."""
    return sorted((folder / "cache" / "anchors").rglob("[!.]*.json"))


def test_rows_hold_what_an_independent_look_at_the_files_finds(tmp_path: Path) -> None:
    folder, out = save_photos(tmp_path / "mine", 2), tmp_path / "out.csv"
    assert anchors(folder, out, "--codecs", "jpeg,webp", "--settings", "jpeg=20,60") == 0
    frame = pd.read_csv(out, keep_default_na=False)
    assert tuple(frame.columns) == ANCHOR_COLUMNS
    assert len(read_points(out)) == len(frame) == 2 * (2 + 10)
    row = frame[
        (frame["codec"] == "jpeg") & (frame["image"] == "b") & (frame["setting"] == "quality=20")
    ].iloc[0]
    source = Image.open(folder / "b.png")
    source.save(tmp_path / "b.jpg", quality=20, subsampling=0, optimize=True)
    assert row["bpp"] == pytest.approx(8 * (tmp_path / "b.jpg").stat().st_size / (33 * 17), abs=1e-6)
    difference = np.asarray(source).astype(float) - np.asarray(Image.open(tmp_path / "b.jpg"))
    assert row["psnr_db"] == pytest.approx(10 * math.log10(255**2 / np.mean(difference**2)), abs=1e-6)
    assert row["dataset"] == "mine"
    assert "libjpeg-turbo" in row["version"]
    assert row["colour"] == "YCbCr 4:4:4, BT.601, full range, 8 bit"
    assert row["ms_ssim"] == ""


def test_all_codecs_of_packages_run_and_the_programs_that_lack_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert anchors(save_photos(tmp_path / "mine", 1), tmp_path / "out.csv") == 0
    printed = capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "out.csv")["codec"]) == {
        "hevc",
        "av1",
        "jpegxl",
        "webp",
        "jpeg2000",
        "jpeg",
    }
    assert "not run       bpg: needs bpgenc: put it on PATH, or name it with --bpgenc PATH" in printed
    assert "BD-rate       none: the curves that are shipped were measured on kodak" in printed
    assert f"--anchor {tmp_path / 'out.csv'}:hevc" in " ".join(printed.split())


def test_the_programs_of_the_user_run_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_photos(tmp_path / "mine", 2)
    bpgenc, encoder = write_bpg(tmp_path / "bpg"), write_vtm(tmp_path / "vtm")
    named = [
        "--bpgenc",
        str(bpgenc),
        "--vtm-encoder",
        str(encoder),
        "--vtm-cfg",
        str(tmp_path / "vtm/intra.cfg"),
    ]
    grids = ["--settings", "vtm=47,37,27", "--settings", "bpg=37,47"]
    assert anchors(folder, tmp_path / "out.csv", "--codecs", "bpg,vtm", *named, *grids) == 1
    frame = pd.read_csv(tmp_path / "out.csv")
    assert set(frame["setting"]) == {"QP=47", "QP=37", "QP=27"}
    assert frame["version"].str.contains("VTM 9.1; EncoderApp SHA-256 ").all()
    # The stand-in for BPG loses nothing: no PSNR, and therefore no point.
    printed = capsys.readouterr().out
    assert "bpg q=37: a comes back exactly: its PSNR is infinite" in " ".join(printed.split())


def test_a_second_run_measures_nothing_and_writes_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_photos(tmp_path / "mine", 2)
    bpgenc = write_vtm(tmp_path / "vtm")
    named = ["--codecs", "vtm", "--vtm-encoder", str(bpgenc), "--vtm-cfg", str(tmp_path / "vtm/intra.cfg")]
    named += ["--settings", "vtm=47,37"]
    assert anchors(folder, tmp_path / "1.csv", *named) == 0
    calls = len((tmp_path / "vtm" / "calls").read_text().splitlines())
    assert anchors(folder, tmp_path / "2.csv", *named) == 0
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    assert len((tmp_path / "vtm" / "calls").read_text().splitlines()) == calls + 1  # asked for its version
    assert "vtm: 0 measured, 4 known from before" in capsys.readouterr().err
    Image.fromarray(photo(48, 40, seed=9)).save(folder / "a.png")  # same name, other pixels
    assert anchors(folder, tmp_path / "3.csv", *named) == 0
    assert "vtm: 2 measured" in capsys.readouterr().err
    (tmp_path / "vtm/intra.cfg").write_text("InternalBitDepth : 8\n")  # same name, other configuration
    assert anchors(folder, tmp_path / "4.csv", *named) == 0
    assert "vtm: 4 measured" in capsys.readouterr().err


def test_damaged_entries_are_measured_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_photos(tmp_path / "mine", 2)
    given = ["--codecs", "jpeg", "--settings", "jpeg=20,60"]
    assert anchors(folder, tmp_path / "1.csv", *given) == 0
    files = entries(tmp_path)
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:-9])
    changed = json.loads(files[1].read_text())
    files[1].write_text(json.dumps({**changed, "size_bytes": changed["size_bytes"] - 1}))
    files[2].write_bytes(b"\xff\x00")
    assert anchors(folder, tmp_path / "2.csv", *given) == 0
    assert "jpeg: 3 measured in 0 s, 1 known from before" in capsys.readouterr().err
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    assert all(json.loads(file.read_text())["checksum"] for file in files)


def test_a_setting_that_lacks_an_image_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_photos(tmp_path / "mine", 2)
    encoder = write_vtm(tmp_path / "vtm")
    # Fails on the small image at one setting alone.
    text = encoder.read_text().replace("coarse =", "assert (width, step) != (33, 5), 'too small'\ncoarse =")
    encoder.write_text(text)
    named = ["--codecs", "vtm", "--vtm-encoder", str(encoder), "--vtm-cfg", str(tmp_path / "vtm/intra.cfg")]
    assert anchors(folder, tmp_path / "out.csv", *named, "--settings", "vtm=47,37") == 1
    captured = capsys.readouterr()
    assert "vtm, b, QP=37: EncoderApp failed with exit status 1: AssertionError: too small\n" in captured.err
    assert "vtm QP=37: failed on 1 of 2 images, b: EncoderApp failed" in " ".join(captured.out.split())
    assert set(pd.read_csv(tmp_path / "out.csv")["setting"]) == {"QP=47"}
    (tmp_path / "vtm" / "mode").write_text("exit")
    assert anchors(folder, tmp_path / "none.csv", *named, "--settings", "vtm=20") == 2
    assert "error: no setting is complete" in capsys.readouterr().err
    assert not (tmp_path / "none.csv").exists()


def test_shipped_names_and_commands_take_the_file(tmp_path: Path) -> None:
    from analysis.anchors import load_anchor

    out = tmp_path / "out.csv"
    grid = ["--settings", "jpeg=10,30,50,70,90", "--settings", "webp=10,30,50,70"]
    folder = save_photos(tmp_path / "mine", 2, sizes=((96, 80),))
    assert anchors(folder, out, "--codecs", "jpeg,webp", *grid) == 0
    anchor = load_anchor(f"{out}:jpeg")
    frame = pd.read_csv(out)
    jpeg = frame[frame["codec"] == "jpeg"].groupby("setting")[["bpp", "psnr_db"]].mean().sort_values("bpp")
    assert anchor.curve.bpp == pytest.approx(tuple(jpeg["bpp"]))
    assert anchor.curve.psnr_db == pytest.approx(tuple(jpeg["psnr_db"]))
    assert anchor.dataset == "mine"


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["--codecs", "jpeg,bgp"], "--codecs 'bgp': is not known; known: bpg, vtm, hevc"),
        (["--codecs", "bpg"], "bpg: needs bpgenc: put it on PATH"),
        (["--codecs", "jpeg", "--settings", "webp=1"], "--settings webp=1: needs CODEC=VALUE,VALUE"),
        (["--codecs", "jpeg", "--settings", "jpeg=1,x"], "--settings jpeg=1,x: the values must be numbers"),
        (["--codecs", "jpeg", "--settings", "jpeg=5", "--settings", "jpeg=6"], "a codec has several grids"),
        (["--codecs", "jpeg", "--settings", "jpeg="], "--settings jpeg=: the values must be numbers"),
        (["--jobs", "0"], "--jobs 0: must be from 1 to 1024"),
        (["-o", "out.json"], "--out out.json: must be the name of a .csv file"),
        (["--cache", "/proc/nowhere"], "/proc/nowhere: the cache cannot be made"),
        (["--dataset", "kodak"], "--dataset kodak: these are not the 24 Kodak images"),
    ],
)
def test_mistakes_are_one_line(
    given: list[str], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_photos(tmp_path / "mine", 1)
    assert anchors(folder, tmp_path / "out.csv", *given) == 2
    captured = capsys.readouterr().err
    assert match in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def stalled_run(tmp_path: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """A run over 4 images that has measured 2 and waits for the third; and its command."""
    folder = save_photos(tmp_path / "mine", 4)
    encoder = write_vtm(tmp_path / "vtm")
    (tmp_path / "vtm" / "mode").write_text("stall")
    command = [sys.executable, "-m", "analysis", "anchors", str(folder), "--codecs", "vtm", "--jobs", "1"]
    command += ["--vtm-encoder", str(encoder), "--vtm-cfg", str(tmp_path / "vtm/intra.cfg")]
    command += ["--settings", "vtm=37", "-o", str(tmp_path / "out.csv")]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(entries(tmp_path)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, command


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_was_measured_before_an_interruption_stays(how: signal.Signals, tmp_path: Path) -> None:
    process, command = stalled_run(tmp_path)
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert len(entries(tmp_path)) == 2
    assert not (tmp_path / "out.csv").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted before any setting was complete" in out
        assert "Traceback" not in err
    (tmp_path / "vtm" / "mode").unlink()
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert "vtm: 2 measured" in again.stderr
    assert "2 known from before" in again.stderr
    assert len(read_points(tmp_path / "out.csv")) == 4


def test_neither_torch_nor_matplotlib_nor_pillow_is_imported_for_help() -> None:
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['anchors', '--help'])\nexcept SystemExit: pass\n"
        "import analysis.codecs.report, analysis.codecs.registry\n"
        "print(sorted({'torch', 'matplotlib', 'PIL', 'pillow_heif'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


def test_without_pillow_the_way_out_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_photos(tmp_path / "mine", 1)
    for name in ("PIL", "PIL.Image", "PIL.features", "pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, name, None)
    assert anchors(folder, tmp_path / "out.csv", "--codecs", "jpeg") == 2
    assert capsys.readouterr().err == "error: jpeg: needs pillow: pip install 'rdc[all]'\n"
    assert anchors(folder, tmp_path / "out.csv") == 2
    assert "no codec can run here: bpg needs bpgenc" in capsys.readouterr().err
    write_vtm(tmp_path / "vtm")
    named = ["--vtm-encoder", str(tmp_path / "vtm/EncoderApp"), "--vtm-cfg", str(tmp_path / "vtm/intra.cfg")]
    assert anchors(folder, tmp_path / "out.csv", "--codecs", "vtm", *named) == 2
    assert capsys.readouterr().err == "error: reading images needs pillow: pip install 'rdc[all]'\n"
