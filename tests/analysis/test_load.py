import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_results import grid, result, timing, write_sweep

from analysis.anchors import load_anchor
from analysis.bdrate import rate_saving_pct
from analysis.errors import AnalysisError
from analysis.load import load, read
from analysis.rows import trial_row
from analysis.schema import COLUMNS, read_path
from rdc.files import sealed, write_sealed


def test_a_sweep_gives_one_row_per_result_with_exact_numbers(tmp_path: Path) -> None:
    results = grid()
    frame = load(write_sweep(tmp_path / "s", results)).set_index("spec_id", drop=False)
    assert len(frame) == len(results) == 12
    for tree in results:
        row = frame.loc[tree["spec_id"]]
        for col in COLUMNS:
            stored = read_path(tree, col.path) if col.origin == "result" else None
            if isinstance(stored, float):
                assert row[col.name] == stored / col.divisor, col.name
            elif isinstance(stored, str):
                assert row[col.name] == stored, col.name
        assert row["time_dec_total_ms"] == timing(tree)["decode"]["total_ms"]["median"]


def test_savings_are_those_of_the_anchors(tmp_path: Path) -> None:
    tree = result()
    row = trial_row(tree)
    point = {"bpp": tree["evaluation"]["bpp"], "psnr_db": tree["evaluation"]["psnr_db"]}
    assert row["rate_saving_vs_bpg_pct"] == rate_saving_pct(load_anchor("bpg").curve, **point)
    assert row["rate_saving_vs_vtm_pct"] == rate_saving_pct(load_anchor("vtm").curve, **point)
    assert row["rate_saving_note"] == ""


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"dataset": "clic", "images": 41}, "bpg: anchor is on kodak, evaluation set is clic"),
        ({"images": 4}, "bpg: anchor is the mean over 24 Kodak images, evaluation has 4"),
        ({"penalty": 4.9}, "is below the range of vtm"),
        ({"status": "rate_mismatch"}, "status is rate_mismatch"),
    ],
)
def test_a_missing_saving_says_why(changes: dict[str, Any], note: str) -> None:
    row = trial_row(result(32, **changes))
    assert row["rate_saving_vs_vtm_pct"] is None
    assert note in row["rate_saving_note"]


def test_trials_trained_alike_share_a_budget_id() -> None:
    same = {
        trial_row(result(width, lmbda=lmbda))["budget_id"] for width in (32, 64) for lmbda in (0.01, 0.02)
    }
    others = {
        trial_row(result(**change))["budget_id"]
        for change in (
            {"steps": 600},
            {"precision": "fp32"},
            {"warm_start": {"spec_id": "x", "lmbda": 0.013}},
        )
    }
    assert len(same) == 1
    assert len(same | others) == 4


def test_a_sealed_result_is_read(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", grid())
    for path in folder.glob("trials/*/result.json"):
        write_sealed(path, json.loads(path.read_text()))
    source = read(folder)
    assert len(source.frame) == 12
    assert not source.problems


def test_damaged_results_are_named_and_the_others_used(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", grid())
    damaged = {
        "half": '{"schema_version": 1, "spec',
        "list": "[1, 2]",
        "future": json.dumps(result(33) | {"schema_version": 2}),
        "nameless": json.dumps(result(34) | {"label": ""}),
        "odd": json.dumps(result(35) | {"status": "fine"}),
        "texty": json.dumps(result(36) | {"attempt": "first"}),
        "flipped": json.dumps(sealed(result(37)) | {"lmbda": 0.5}),
        "listed": json.dumps(result(38) | {"evaluation": [1]}),
        "scoreless": json.dumps(_with_images(result(39), [1, 2])),
        "misscored": json.dumps(_with_images(result(40), [{"name": "a.png", "bpp": "half"}])),
    }
    for name, text in damaged.items():
        (folder / "trials" / name).mkdir()
        (folder / "trials" / name / "result.json").write_text(text)
    source = read(folder)
    assert len(source.frame) == 12
    assert len(source.problems) == len(damaged)
    reasons = {
        "half": "damaged",
        "list": "not a JSON object",
        "future": "version 2, this release reads up to 1; upgrade rdc",
        "nameless": "lacks label",
        "odd": "status 'fine'",
        "texty": "attempt is 'first', not a number",
        "flipped": "does not match its checksum",
        "listed": "has in evaluation what is no mapping: [1]",
        "scoreless": "evaluation.per_image that is no list of images with their scores",
        "misscored": "evaluation.per_image that is no list of images with their scores",
    }
    for name, reason in reasons.items():
        assert any(f"{name}/result.json" in p and reason in p for p in source.problems), name


def _with_images(tree: dict[str, Any], per_image: list[Any]) -> dict[str, Any]:
    return tree | {"evaluation": tree["evaluation"] | {"per_image": per_image}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"decode": "fast"}, "is no timing: its times, threads or size are something else"),
        ({"image_px": None}, "is no timing: its times, threads or size are something else"),
        ({"threads": "a"}, "is no timing: its times, threads or size are something else"),
        ({"decode": {"network_ms": {"median": -1}}}, "has dec_net_ms=-1, not a number that is not negative"),
    ],
)
def test_damaged_timings_are_named_and_the_others_used(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    results = [result(64), result(96)]
    folder = write_sweep(tmp_path / "s", results, timings=[timing(results[0])])
    (folder / "timing" / "bad.json").write_text(json.dumps(timing(results[1]) | change))
    source = read(folder)
    assert len(source.runtimes) == 1
    assert len(source.problems) == 1
    assert reason in source.problems[0]
    assert source.problems[0].endswith("; left out")


def test_planned_trials_without_result_are_counted(tmp_path: Path) -> None:
    assert read(write_sweep(tmp_path / "s", grid(), planned=3)).notes == (
        "3 of 15 planned trials have no result yet",
    )


def test_times_of_the_chosen_device(tmp_path: Path) -> None:
    results = grid()
    everyone = [timing(tree) for tree in results]
    some = [timing(tree, device_slug="cuda-fast", factor=0.1) for tree in results[:4]]
    folder = write_sweep(tmp_path / "s", results, timings=everyone + some)
    source = read(folder)
    assert source.frame["time_dec_total_ms"].notna().all()
    assert source.notes == (
        "time columns are those of cpu-synthetic__1t__bf16__512x768; "
        "also timed: cuda-fast__1t__bf16__512x768",
    )
    fast = load(folder, device="cuda-fast")
    assert fast["time_dec_total_ms"].notna().sum() == 4
    assert set(fast["time_device"]) == {"cuda:fast", ""}
    with pytest.raises(
        AnalysisError, match="--device tpu was not timed; timed: cpu-synthetic__1t__bf16__512x768, cuda-fast"
    ):
        load(folder, device="tpu")


def test_a_timing_of_a_trial_is_of_no_other_trial_of_its_architecture(tmp_path: Path) -> None:
    """What has gates is timed trial by trial, as its time depends on its weights."""
    first, second, untimed = (result(64, seed=seed) for seed in (0, 1, 2))
    plain = result(96)
    timings = [
        timing(first, factor=2.0) | {"spec_id": first["spec_id"]},
        timing(second) | {"spec_id": second["spec_id"]},
        timing(plain),
    ]
    source = read(write_sweep(tmp_path / "s", [first, second, untimed, plain], timings=timings))
    times = source.frame.set_index("spec_id")["time_dec_net_ms"]
    assert times[first["spec_id"]] == pytest.approx(2 * times[second["spec_id"]])
    assert pd.isna(times[untimed["spec_id"]])
    assert times[plain["spec_id"]] > 0
    # With all its channels it would cost what was counted, and was not so timed.
    counted = source.runtimes.groupby("arch_id")["kflop_per_px_dec"].count()
    assert (counted[first["arch_id"]], counted[plain["arch_id"]]) == (0, 1)


def test_a_table_reads_back_what_was_written(tmp_path: Path) -> None:
    frame = load(write_sweep(tmp_path / "s", [*grid(), result(40, status="failed")]))
    frame.to_csv(tmp_path / "t.csv", index=False)
    pd.testing.assert_frame_equal(load(tmp_path / "t.csv"), frame)


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,arch_id,spec_id,bpp\na,12e456789012,000000000012,0.5\n")
    row = load(tmp_path / "t.csv").iloc[0]
    assert (row["arch_id"], row["spec_id"]) == ("12e456789012", "000000000012")


def test_a_short_table_is_completed_and_keeps_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,lmbda,bpp,psnr_db,remark\nmine,0.013,0.5,32.0,good\n")
    row = load(tmp_path / "t.csv").iloc[0]
    assert (row["arch_id"], row["status"], row["spec_id"], row["remark"]) == ("mine", "ok", "row-1", "good")
    assert np.isnan(row["rate_saving_vs_bpg_pct"])
    assert "evaluation set is not named" in row["rate_saving_note"]


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = load(write_sweep(tmp_path / "s", grid()))
    frame.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(load(tmp_path / "t.parquet"), frame)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,bpp\nx,half\n", r"row 1: bpp='half' is not a number"),
        ("label,seed\nx,0\ny,1e999\n", r"row 2: seed='1e999' is not a whole number"),
        ("label,seed\nx,0.5\n", r"row 1: seed='0.5' is not a whole number"),
        ("label,time_alone\nx,perhaps\n", r"time_alone='perhaps' is neither True nor False"),
        ("label,bpp\n", "has no rows"),
        ("", "is not readable as CSV"),
        ("a,b\n1,2\n1,2,3\n", "is not readable as CSV: row 2 has 3 cells, the header has 2; commas separate"),
        ("a,b\n1,2\n1\n", "row 2 has 1 cells, the header has 2"),  # cut off
        ("a,b\n1,2,3\n", "row 1 has 3 cells, the header has 2"),  # not an index and two values
        ("label;bpp\nx;0,5\n", "semicolons separate its cells; save it with commas"),
        ("label\tbpp\nx\t0.5\n", "tabs separate its cells"),
        ("label,bpp,bpp\nx,1,2\n", "it has the column bpp twice; keep one"),
        ("label,bpp\nx,0.5\n\0\0", "it holds NUL bytes"),
        ('label,bpp\n"x,0.5\n', "line 2: unexpected end of data"),
        ("label,bpp\nx,inf\n", "row 1: bpp='inf' must be greater than 0 and finite"),
        ("spec_id,label,bpp\na,x,1\nb,x,1\na,x,1\n", "has the trial a twice; keep one row"),
        ("label,rd_loss\nx,0\n", "row 1: rd_loss='0' must be greater than 0"),
    ],
)
def test_what_is_no_table_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(AnalysisError, match=message):
        load(tmp_path / "t.csv")


def test_a_binary_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe")
    with pytest.raises(AnalysisError, match="is not readable as CSV"):
        load(tmp_path / "t.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_table_in_another_encoding_is_refused_with_the_way_out(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("label,bpp\nÄ,0.5\n", encoding=encoding)
    with pytest.raises(AnalysisError, match=r"it is no UTF-8 text \(byte [0-9]+\); save it as CSV in UTF-8"):
        load(tmp_path / "t.csv")


def test_byte_order_marks_blank_lines_and_other_line_ends_are_taken(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbflabel,bpp\r\n12e45,0.5\r\n\r\n0012,0.6\r\n")
    assert load(tmp_path / "t.csv")[["label", "bpp"]].values.tolist() == [["12e45", 0.5], ["0012", 0.6]]


def test_sources_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        AnalysisError, match=r"no sweep under runs/; run `python -m sweep \+experiment=frontier` first"
    ):
        read()
    with pytest.raises(AnalysisError, match="nowhere does not exist; name a sweep folder"):
        read("nowhere")
    write_sweep(tmp_path / "runs" / "one", [])
    with pytest.raises(AnalysisError, match="sweep runs/one has no finished trial"):
        read()
    with pytest.raises(AnalysisError, match=r"runs is no sweep folder: .* it holds the sweeps one: name one"):
        read("runs")


def test_the_last_sweep_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(["newest", "middle", "oldest"]):
        folder = write_sweep(tmp_path / "runs" / name, [result()])
        os.utime(folder / "sweep.json", (1e9 - age, 1e9 - age))
    assert read().name == "newest"


def test_the_budget_id_is_what_the_result_says() -> None:
    tree = result()
    assert trial_row(tree | {"budget_id": "abcdef012345"})["budget_id"] == "abcdef012345"
    without = trial_row(tree)["budget_id"]
    # A result from before results said it: no id that newer code writes has this length.
    assert len(without) == 8


def test_times_of_different_image_sizes_are_never_mixed(tmp_path: Path) -> None:
    results = grid()
    small = [timing(tree, factor=0.1) | {"image_px": [64, 64]} for tree in results[:4]]
    folder = write_sweep(tmp_path / "s", results, timings=[timing(tree) for tree in results[3:]])
    for tree in small:
        (folder / "timing" / f"{tree['arch_id']}__64x64.json").write_text(json.dumps(tree))
    source = read(folder)
    assert set(source.frame["time_image_px"]) == {"512-768", ""}
    assert "also timed: cpu-synthetic__1t__bf16__64x64" in source.notes[0]
    chosen = load(folder, device="cpu-synthetic__1t__bf16__64x64")
    assert (chosen["time_image_px"] == "64-64").sum() == 4


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bpp", "0", "row 1: bpp='0' must be greater than 0"),
        ("bpp", "-0.2", "row 1: bpp='-0.2' must be greater than 0"),
        ("rd_loss", "-1", "row 1: rd_loss='-1' must be greater than 0 and finite"),
        ("kmac_per_px_dec", "-3", "row 1: kmac_per_px_dec='-3' must not be negative"),
    ],
)
def test_impossible_numbers_in_a_table_are_refused(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"label,{name}\nmine,{value}\n")
    with pytest.raises(AnalysisError, match=message):
        read(path)


def test_a_table_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    failed = result(40, status="failed")
    failed["error"] = {"class": "OSError", "message": "/srv/bob/kodak/1.png: gone\udcff; s3://me:pw@bucket"}
    good = result(48)
    good["data"] = {"eval": {"source": "24 images from /srv/bob/kodak"}}
    folder = write_sweep(tmp_path / "s", [good, failed])
    frame = load(folder)
    assert set(frame["error_message"]) == {"", "…/1.png: gone?; s3://***@bucket"}
    assert "24 images from …/kodak" in set(frame["eval_source"])
