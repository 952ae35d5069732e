"""python -m analysis runtime: several tables together, by hand-made times with known orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_results import grid, write_sweep
from test_runtimes import row, write

from analysis.__main__ import main
from analysis.errors import AnalysisError
from analysis.runtime_report import EVERY_MODEL, correlation_table, rank_table, roofline_table
from analysis.runtime_rows import gather

# kFLOP/px and milliseconds of eight models on a CPU: in order, but for the last two.
COSTS = (10, 20, 30, 40, 50, 60, 70, 80)
TIMES_MS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 7.0)


def table(path: Path, times_ms: tuple[float, ...] = TIMES_MS, **changes: Any) -> Path:
    rows = [
        row(
            arch_id=f"arch{number}",
            label=f"model {number}",
            family="conv/x/conv" if number < 4 else "elic/x/conv",
            kflop_per_px_dec=cost,
            dec_net_ms=time,
            dec_net_q25_ms=0.99 * time,
            dec_net_q75_ms=1.01 * time,
            compute_ms=0.5 * time,
            memory_ms=0.25 * time,
            serial_ms=0.05 * time,
            operators_dec=100,
            serial_steps_dec=10,
            **changes,
        )
        for number, (cost, time) in enumerate(zip(COSTS, times_ms, strict=True))
    ]
    return write(path, *rows)


def test_one_setting_over_all_models_and_by_family(tmp_path: Path) -> None:
    found = correlation_table(gather([str(table(tmp_path / "a.csv"))], published=False).rows)
    assert list(found["group"]) == [EVERY_MODEL, "conv/x/conv", "elic/x/conv"]
    every = found.iloc[0]
    assert (every["models"], every["pairs"], every["inversions"], every["clear_inversions"]) == (8, 28, 1, 1)
    assert every["kendall"] == pytest.approx(26 / 28)
    assert found.iloc[1]["kendall"] == 1
    assert every["setting"] == "cpu:Some CPU, 2 threads, fp32, 512x768"


def test_settings_that_differ_in_one_aspect_are_compared(tmp_path: Path) -> None:
    """On the second device model 0 is slower than 1 and 2: two pairs. The third differs in two aspects."""
    other = (3.5, *TIMES_MS[1:])
    paths = [
        table(tmp_path / "a.csv"),
        table(tmp_path / "b.csv", other, device="cuda:GPU", device_slug="cuda-gpu"),
        table(tmp_path / "c.csv", device="cuda:GPU", device_slug="cuda-gpu", threads=1),
    ]
    found = rank_table(gather([str(path) for path in paths], published=False).rows)
    assert set(found["differs"]) == {"device", "threads"}
    between = found[found["differs"] == "device"].set_index("label")
    assert len(between) == 8
    first = between.loc["model 0"]
    assert (first["rank_x"], first["rank_y"], first["inverted_with"]) == (1, 3, "model 1; model 2")
    assert (first["inversions"], first["clear_inversions"], first["pairs"]) == (2, 2, 28)
    assert between.loc["model 1", "inverted_with"] == "model 0"
    assert between.loc["model 7", "inverted_with"] == ""
    # Per megapixel, so that sizes can be compared: 1 ms for 512 x 768 pixels.
    assert first["ms_per_mp_x"] == pytest.approx(1 / 0.393216)


def test_within_their_quartiles_models_do_not_change_places(tmp_path: Path) -> None:
    close = (2.01, 2.0, *TIMES_MS[2:])
    paths = [table(tmp_path / "a.csv"), table(tmp_path / "b.csv", close, precision="bf16")]
    found = rank_table(gather([str(path) for path in paths], published=False).rows)
    assert set(found["inversions"]) == {1}
    assert set(found["clear_inversions"]) == {0}
    assert set(found["inverted_with"]) == {""}


def test_rooflines_stand_beside_the_measured_times(tmp_path: Path) -> None:
    found = roofline_table(gather([str(table(tmp_path / "a.csv"))], published=False).rows)
    assert list(found["predicted_ms"]) == pytest.approx([0.8 * time for time in TIMES_MS])
    assert list(found["error_pct"]) == pytest.approx([-20] * 8)
    assert set(found["bound_by"]) == {"arithmetic"}
    assert found["fitted_error_pct"].abs().max() < 1e-6


def test_the_published_speeds_stand_apart(tmp_path: Path) -> None:
    """A: 9.9 megapixels per second on an A100, 101.01 ms per megapixel."""
    times = gather([str(table(tmp_path / "a.csv"))], published=True)
    theirs = times.rows[times.rows["origin"] == "published"]
    assert len(theirs) == 28
    assert not set(theirs["arch_id"]) & set(times.rows[times.rows["origin"] == "measured"]["arch_id"])
    a = theirs[(theirs["setting"] == "A100 (published), Kodak") & (theirs["arch_id"] == "published-A")]
    assert a["ms_per_mp"].item() == pytest.approx(1000 / 9.9)
    ranks = rank_table(times.rows)
    assert ranks["setting_x"].str.contains("published").all(), "ours have no second setting"
    assert ranks["clear_inversions"].isna().all(), "no spread was published"
    assert any("Minnen & Johnston" in note for note in times.notes)


def test_the_later_source_counts(tmp_path: Path) -> None:
    slower = tuple(2 * time for time in TIMES_MS)
    paths = [str(table(tmp_path / "a.csv")), str(table(tmp_path / "b.csv", slower, weights="trained x"))]
    times = gather(paths, published=False)
    assert list(times.rows["dec_net_ms"]) == list(slower)
    assert any(
        note.startswith("8 timings are of a model and setting that come again") for note in times.notes
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["runtime", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_command_writes_three_tables_and_says_what_they_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid())
    paths = [table(tmp_path / "a.csv"), table(tmp_path / "b.csv", precision="bf16")]
    status, out, err = run(capsys, *paths, sweep, "--published", "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"runtime_correlation.csv", "runtime_ranks.csv", "roofline.csv"}
    for text in (
        "cpu:Some CPU, 2 threads, fp32, 512x768",
        "1 of 28 (1)",
        "8 models, 0 of 28 pairs change places",
        "every model keeps its rank",
        "median 20 %, largest 20 % of 8 models",
        "V100 (published), CLIC",
    ):
        assert text in " ".join(out.split()), text
    assert max(map(len, out.splitlines())) <= 126
    settings = pd.read_csv(tmp_path / "out" / "runtime_correlation.csv")["setting"]
    assert settings.nunique() > 6, "the sweep's timings are there too"


def test_few_models_are_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.csv", row(), row(arch_id="b", kflop_per_px_dec=200))
    status, out, _ = run(capsys, path, "-o", tmp_path / "out")
    assert status == 0
    found = pd.read_csv(tmp_path / "out" / "runtime_correlation.csv")
    assert found["note"].iloc[0] == "2 models; a correlation needs 4"
    assert found["kendall"].isna().all()
    assert "no roofline" in out


def test_published_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--published", "-o", tmp_path / "out")
    assert status == 0
    assert "A100 (published), Kodak" in out


def test_mistakes_are_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    cases = [
        (["none.csv"], "none.csv does not exist"),
        (["other.csv"], "other.csv: is no runtime table: it lacks table_version"),
        ([], "there is no sweep under runs"),
    ]
    for arguments, message in cases:
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (2, ""), arguments
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "runtime_analysis").exists()


def test_a_sweep_without_timings_is_told(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", grid())
    for path in (sweep / "timing").glob("*.json"):
        path.unlink()
    with pytest.raises(AnalysisError, match="sweep: holds no decode times; write a table with"):
        gather([str(sweep)], published=False)
