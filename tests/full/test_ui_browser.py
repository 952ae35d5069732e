"""The prepared view in a real browser: its format is internal to MLflow, so only looking tells that it holds.

Needs Chromium (Debian: apt-get install chromium); a missing browser is a failure, not a skip.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.frontier import write_report
from sweep.tracking import open_tracker
from tests.sweep.synthetic_sweep import SyntheticSweep

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

TRIALS = 13
SETTINGS = {
    "name": "mlflow",
    "uri": None,
    "experiment": "rdc",
    "artifacts": None,
    "request_timeout_s": 30.0,
    "finish_timeout_s": 300.0,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ui") / "runs"
    sweep = SyntheticSweep(folder / "frontier", trials=TRIALS, steps=100, kodak=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = open_tracker(SETTINGS, sweep.folder, sweep.sweep)
    for number in range(TRIALS):
        sweep.write_trial(number, status="failed" if number == TRIALS - 1 else "ok")
        sweep.write_timing(number)
    write_report(sweep.folder, print_table=False)
    tracker.finish("FINISHED")
    return folder


@pytest.fixture(scope="module")
def addresses(runs: Path) -> Iterator[dict[str, str]]:
    """What `python -m sweep.ui` prints, while it runs; Ctrl-C must end it and its server."""
    command = [sys.executable, "-m", "sweep.ui", "--runs-dir", str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        found: dict[str, str] = {}
        for line in process.stdout:
            found.update(re.findall(r"^  (charts|table|report|plot) +(http\S+)$", line.rstrip()))
            if "Ctrl-C" in line:
                break
        yield found
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    port = int(re.findall(r":(\d+)/", found["charts"])[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "MLflow's server outlives the command"


def page(address: str, wanted: str, tmp_path: Path) -> str:
    """The page's document once `wanted` stands in it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert browser, "this test needs Chromium: install it (Debian: apt-get install chromium)"
    for attempt in range(4):
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += ["--disable-dev-shm-usage", f"--user-data-dir={tmp_path / f'profile{attempt}'}"]
        # The interface draws what the window shows: room for all sections at once.
        command += ["--window-size=2400,3000", f"--virtual-time-budget={20000 * 2**attempt}", "--dump-dom"]
        done = subprocess.run([*command, address], capture_output=True, text=True, timeout=300)
        if wanted in done.stdout:
            return html.unescape(done.stdout)
        time.sleep(2)
    raise AssertionError(f"{address} never showed {wanted!r}; it shows: {_text(done.stdout)[:2000]}")


def _text(document: str) -> str:
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", document, flags=re.S).split())


def labels_by_rd_loss(runs: Path) -> list[str]:
    sweep = SyntheticSweep(runs.parent / "again", trials=TRIALS)
    valid = sorted(sweep.trials[:-1], key=lambda trial: trial["rd_loss"])
    return [trial["label"] for trial in valid]


def test_the_charts_open_at_once(runs: Path, addresses: dict[str, str], tmp_path: Path) -> None:
    document = page(addresses["charts"], "parcoords", tmp_path)
    text = _text(document)
    assert "share key" not in text.lower(), "MLflow did not accept the view"
    titles = [
        "Quality against cost (rd_loss: lower is better) (4)",
        "cost/kflop_per_px_dec vs. eval/rd_loss",
        "eval/bpp vs. eval/psnr_db",
        "time/dec_total_ms vs. eval/rd_loss",
        "cost/kflop_per_px_dec vs. eval/rate_saving_vs_bpg_pct",
        "Parallel Coordinates",
        "Training curves (3)",
    ]
    positions = [text.find(title) for title in titles]
    assert -1 not in positions, dict(zip(titles, positions, strict=True))
    assert positions == sorted(positions)
    first_scatter = document.split('class="scatterlayer')[1]
    assert len(re.findall('<path class="point[ "]', first_scatter)) == TRIALS - 1, "one point per valid trial"
    names = [label for label in re.findall(r">(m?shp-[\d-]+)<", document) if label in labels_by_rd_loss(runs)]
    assert list(dict.fromkeys(names)) == labels_by_rd_loss(runs), "the list of runs is in order of rd_loss"


def test_the_table_has_the_right_columns_in_order(
    runs: Path, addresses: dict[str, str], tmp_path: Path
) -> None:
    document = page(addresses["table"], "time/dec_total_ms", tmp_path)
    text = _text(document)
    heads = ["frontier", "eval/rd_loss", "cost/kflop_per_px_dec", "eval/bpp", "eval/psnr_db"]
    heads += ["time/dec_total_ms", "cost/params_m", "eval/rate_saving_vs_bpg_pct", "entropy_model"]
    # The grid places the cells of its head by their style, in any order of the document.
    cells = re.findall(r'<div class="ag-header-cell[ "][^>]*>', document)
    places = {
        re.findall(r'col-id="(?:\w+\.)?`?([^"`]+)', cell)[0]: float(re.findall(r"left: ([\d.]+)px", cell)[0])
        for cell in cells
    }
    shown = [name for name in sorted(places, key=lambda name: places[name]) if name in heads]
    assert shown == heads, places
    rows = re.findall(r">(m?shp-[\d-]+(?:\+1)?)<", document)
    expected = [*labels_by_rd_loss(runs), "shp-32-48+1"]
    assert list(dict.fromkeys(rows)) == expected, "best first, the failed trial last"
    assert f"{TRIALS} matching runs" in text, "trials only, no parent run"


def test_the_report_begins_with_the_verdict(addresses: dict[str, str], tmp_path: Path) -> None:
    text = _text(page(addresses["report"], "trials gave a valid point", tmp_path))
    assert f"12 of {TRIALS} trials gave a valid point" in text
    assert "architecture kFLOP/px rd_loss bpp PSNR dB" in " ".join(text.replace("\u2003", " ").split())


def test_the_plot_is_shown(addresses: dict[str, str], tmp_path: Path) -> None:
    text = _text(page(addresses["plot"], "frontier_time.png", tmp_path))
    for name in ("frontier.csv", "trials.csv", "sweep.json"):
        assert name in text


def test_no_tracked_sweep_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweep.ui", "--runs-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}: no sweep in this folder was logged to MLflow")
    assert len(done.stderr.splitlines()) == 1
