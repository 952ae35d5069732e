"""Cells of tables: whole columns at once give what one cell after the other gives."""

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import AnalysisError
from analysis.load import _parse, _parse_cell
from analysis.rows import rate_savings, rate_savings_of
from analysis.schema import column

PATH = Path("t.csv")

texts = st.one_of(
    st.floats().map(repr),
    st.floats(0.1, 10).map(repr),
    st.integers(-3, 10**17).map(str),
    st.sampled_from(["", "nan", "inf", "-inf", " 1.5 ", "1_0", "1e3", "-0.0", "x", "True", "1,5"]),
)
names = st.sampled_from(["psnr_db", "rd_loss", "bpp", "seed", "kmac_per_px_dec"])
columns = st.tuples(names, st.lists(texts, max_size=6))


def outcome(call: object) -> list[object] | str:
    """What came out, or what it said."""
    try:
        return [None if pd.isna(value) else value for value in call()]  # type: ignore[operator]
    except AnalysisError as error:
        return str(error)


@settings(max_examples=300)
@given(columns)
def test_columns_are_parsed_as_their_cells_are(pair: tuple[str, list[str]]) -> None:
    name, cells = pair
    values = pd.Series(cells, dtype=object, name=name)
    col = column(name)
    slow = outcome(lambda: [_parse_cell(cell, col, PATH, row) for row, cell in enumerate(cells, start=1)])
    assert outcome(lambda: _parse(values, PATH)) == slow


@settings(max_examples=100)
@given(st.lists(st.floats(0.1, 10, allow_nan=False), min_size=1))
def test_numbers_read_back_to_the_last_digit(numbers: list[float]) -> None:
    values = pd.Series([repr(number) for number in numbers], dtype=object, name="psnr_db")
    assert _parse(values, PATH).tolist() == numbers


rows = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(["ok", "failed", ""]),
            "bpp": st.sampled_from([0.1, 0.5, math.nan]),
            "psnr_db": st.sampled_from([20.0, 32.0, 35.5, 99.0, math.nan]),
            "dataset": st.sampled_from(["kodak", "clic", ""]),
            "eval_images": st.sampled_from([24, 3, None]),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(rows)
def test_savings_of_a_table_are_those_of_its_rows(rows: list[dict[str, object]]) -> None:
    frame = pd.DataFrame(rows, index=range(10, 10 + len(rows)))
    frame["eval_images"] = frame["eval_images"].astype("Int64")
    found = rate_savings_of(frame)
    assert list(found.index) == list(frame.index)
    for (_, values), row in zip(found.iterrows(), rows, strict=True):
        for name, expected in rate_savings(row).items():
            assert (pd.isna(values[name]) and expected is None) or values[name] == expected


def test_no_rows_have_no_savings() -> None:
    assert rate_savings_of(pd.DataFrame(columns=["bpp", "psnr_db"])).empty


def test_a_bad_cell_is_named() -> None:
    values = pd.Series(["1", "", "two"], dtype=object, name="bpp")
    with pytest.raises(AnalysisError, match=r"table t\.csv, row 3: bpp='two' is not a number"):
        _parse(values, PATH)
