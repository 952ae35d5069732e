"""Appending to a runtime table: nothing that is there is lost, doubled or overwritten."""

from __future__ import annotations

import csv
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest

from analysis.runtimes import TABLE_COLUMNS, TABLE_VERSION, is_runtime_table, read_runtime_table
from rdc import runtime_table
from rdc.errors import UserError
from rdc.files import locked
from rdc.runtime_table import COLUMNS, Setting, append, check_writable, read_settings


def row(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "table_version": 1, "arch_id": "12e45", "label": 'wide, "new"', "family": "elic/charm/swint",
        "device": "cpu:Some CPU", "device_slug": "cpu-some-cpu", "precision": "fp32", "weights": "random",
        "threads": 2, "height_px": 512, "width_px": 768, "kflop_per_px_dec": 0.1 + 0.2, "params_m": 1.25,
        "dec_net_ms": 20.5, "peak_memory_mb": None,
    }  # fmt: skip
    return values | changes


def test_both_packages_have_the_same_columns() -> None:
    assert (COLUMNS, runtime_table.TABLE_VERSION) == (TABLE_COLUMNS, TABLE_VERSION)


def test_rows_are_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "a" / "runtimes.csv"
    assert read_settings(path) == set()
    append(path, row())
    append(path, row(threads=1, label="two\nlines"))
    expected = Setting("12e45", "random", "cpu-some-cpu", 2, "fp32", 512, 768)
    assert read_settings(path) == {expected, expected._replace(threads=1)}
    frame = read_runtime_table(path)
    assert is_runtime_table(path)
    assert list(frame["label"]) == ['wide, "new"', "two lines"]
    assert frame.loc[0, "kflop_per_px_dec"] == 0.1 + 0.2, "the shortest form that reads back"
    assert frame["peak_memory_mb"].isna().all()


def test_what_is_there_stays_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, row())
    before = path.read_bytes()
    append(path, row())
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().count(b"\n") == 3


def append_many(path: Path, arch_id: str) -> None:
    for threads in range(1, 21):
        append(path, row(arch_id=arch_id, threads=threads))


def test_several_writers_do_not_mix_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, name)) for name in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_settings(path)) == 60
    with open(path, newline="") as file:
        assert [line[0] for line in csv.reader(file)] == ["table_version", *["1"] * 60]


def test_a_row_waits_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, row())
    before = path.read_bytes()
    with locked(path):
        writer = threading.Thread(target=append, args=(path, row(threads=1)))
        writer.start()
        writer.join(timeout=0.5)
        assert writer.is_alive(), "it wrote beside another writer"
        assert path.read_bytes() == before
    writer.join()
    assert len(read_settings(path)) == 2


def header() -> str:
    return ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-5], "its last row ends in the middle; delete that row"),
        (lambda text: text[:-1], "its last row ends in the middle"),
        (lambda text: text + "1,x\n", rf"row 2 has 2 of {len(COLUMNS)} cells; delete that row"),
        (lambda text: text.replace(",20.5,", ",?,"), r"row 1 has dec_net_ms='\?', not a number above 0"),
        (lambda text: text.replace(",20.5,", ",inf,"), r"row 1 has dec_net_ms='inf'"),
        (lambda text: text.replace("1,12e45", "2,12e45"), "row 1 has table_version '2', this version"),
        (lambda text: text.replace("launch_us,", "launch_s,"), "is a runtime table with other columns"),
        (lambda text: "spec_id,bpp\nx,1\n", "is no runtime table: it does not begin with table_version"),
        (lambda text: "\x00\x01", "is no runtime table"),
        (lambda text: text + '"', "is no runtime table"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_and_left(damage: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, row())
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    for use in (lambda: read_settings(path), lambda: append(path, row(threads=7))):
        with pytest.raises(UserError, match=message) as caught:
            use()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_no_text_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="is no runtime table"):
        append(path, row())
    with pytest.raises(UserError, match="cannot be read"):
        read_settings(tmp_path)
    path.write_bytes(b"")
    append(path, row())
    assert path.read_text().startswith(header()), "an empty file is a new table"


def test_our_own_mistakes_do_not_reach_the_table(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="speed is no column"):
        append(tmp_path / "a.csv", row(speed=1))
    with pytest.raises(AssertionError, match="nan is no measurement"):
        append(tmp_path / "a.csv", row(dec_net_ms=float("nan")))


def test_where_no_table_can_be_written_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"t\.csv: cannot be written \(.*\); name another table with -o"):
        check_writable(tmp_path / "file" / "t.csv")
    path = tmp_path / "new" / "t.csv"
    check_writable(path)
    append(path, row())
    data = path.read_bytes()
    check_writable(path)
    assert path.read_bytes() == data
