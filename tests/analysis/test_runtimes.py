"""Runtime tables as files: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.errors import AnalysisError
from analysis.runtimes import RUNTIME_COLUMNS, TABLE_COLUMNS, is_runtime_table, read_runtime_table


def row(**changes: Any) -> dict[str, Any]:
    values = {
        "table_version": 1, "arch_id": "12e45", "label": "a model, wide", "family": "elic/charm/swint",
        "device": "cpu:Some CPU", "device_slug": "cpu-some-cpu", "precision": "fp32", "weights": "random",
        "threads": 2, "height_px": 512, "width_px": 768, "kflop_per_px_dec": 100.5, "params_m": 1.25,
        "dec_net_ms": 20.5, "dec_net_q25_ms": 20.0, "dec_net_q75_ms": 21.0,
    }  # fmt: skip
    return values | changes


def write(path: Path, *rows: dict[str, Any]) -> Path:
    columns = [*TABLE_COLUMNS, *(name for name in rows[0] if name not in TABLE_COLUMNS)]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def test_every_column_has_its_type(tmp_path: Path) -> None:
    frame = read_runtime_table(write(tmp_path / "a.csv", row(), row(arch_id="0001", dec_net_ms=3)))
    assert list(frame) == list(TABLE_COLUMNS)
    assert set(RUNTIME_COLUMNS) <= set(frame)
    assert list(frame["arch_id"]) == ["12e45", "0001"], "ids are no numbers"
    assert frame.loc[0, "label"] == "a model, wide"
    assert frame.loc[0, "dec_net_q75_ms"] == 21.0
    assert frame["dec_entropy_ms"].isna().all()
    assert frame.loc[0, "git_revision"] == ""
    assert (str(frame["threads"].dtype), str(frame["roofline_ms"].dtype)) == ("Int64", "float64")


def test_the_younger_measurement_of_one_setting_counts(tmp_path: Path) -> None:
    rows = (row(dec_net_ms=1), row(threads=1, dec_net_ms=2), row(dec_net_ms=3))
    frame = read_runtime_table(write(tmp_path / "a.csv", *rows))
    assert list(frame["dec_net_ms"]) == [2, 3]


def test_a_runtime_table_is_told_from_others(tmp_path: Path) -> None:
    assert is_runtime_table(write(tmp_path / "a.csv", row()))
    (tmp_path / "b.csv").write_text("spec_id,bpp\nx,1\n")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("b.csv", "c.csv", "none.csv"):
        assert not is_runtime_table(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dec_net_ms": "fast"}, r"a\.csv, row 1: dec_net_ms='fast' is not a number that is not negative"),
        ({"dec_net_ms": "inf"}, r"row 1: dec_net_ms='inf' is not"),
        ({"dec_net_ms": 0}, r"row 1: dec_net_ms='0' is not"),
        ({"dec_net_ms": -1}, r"row 1: dec_net_ms='-1' is not"),
        ({"dec_net_ms": None}, r"row 1: dec_net_ms is empty; delete the row"),
        ({"threads": 1.5}, r"row 1: threads='1.5' is not a whole number"),
        ({"threads": 0}, r"row 1: threads='0' is not a number above 0"),
        ({"kflop_per_px_dec": 0}, r"row 1: kflop_per_px_dec='0' is not a number above 0"),
        ({"table_version": 2}, r"a\.csv: has table_version 2; this version reads 1"),
        ({"arch_id": ""}, r"row 1: arch_id is empty"),
    ],
)
def test_what_is_no_measurement_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=message) as caught:
        read_runtime_table(write(tmp_path / "a.csv", row(**change)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not readable as CSV"),
        (b"\xff\xfe\x00\x01", "is not readable as CSV"),
        (b"a,b\n1,2,3\n4,5,6,7\n", "is not readable as CSV"),
        (b"spec_id,bpp\nx,1\n", "is no runtime table: it lacks table_version, arch_id"),
        (",".join(TABLE_COLUMNS).encode() + b"\n", "has no rows"),
    ],
)
def test_other_files_are_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(AnalysisError, match=message) as caught:
        read_runtime_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"none\.csv: there is no such file"):
        read_runtime_table(tmp_path / "none.csv")
    with pytest.raises(AnalysisError, match="cannot be read"):
        read_runtime_table(tmp_path)
