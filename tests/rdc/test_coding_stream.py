"""Decoding in steps: what one call decodes, any sequence of reads must decode, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdc.errors import UserError
from rdc.models.layers import coding
from tests.rdc.shared import gaussian_tables

SYMBOL = st.one_of(st.integers(-3, 3), st.integers(-3000, 3000), st.integers(-(2**24) + 1, 2**24 - 1))
PAIRS = st.lists(st.tuples(SYMBOL, st.integers(0, coding.SCALE_LEVELS - 1)), max_size=40)


def split_at(array: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return np.split(array, sorted(cut % (len(array) + 1) for cut in cuts))


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.lists(st.integers(0, 40), max_size=6))
def test_reads_of_any_size_give_back_every_symbol(pairs: list[tuple[int, int]], cuts: list[int]) -> None:
    """Empty reads, single symbols and escapes among them."""
    symbols = np.array([s for s, _ in pairs], dtype=np.int32)
    rows = np.array([r for _, r in pairs], dtype=np.int32)
    stream = coding.StreamDecoder(
        coding.encode(symbols, rows, gaussian_tables()), len(symbols), gaussian_tables()
    )
    parts = [stream.read(part) for part in split_at(rows, cuts)]
    assert np.array_equal(np.concatenate(parts), symbols)
    assert all(part.dtype == np.int32 for part in parts)


@pytest.mark.parametrize("symbol", [0, -1, 5, 2**24 - 1, -(2**24) + 1])
@pytest.mark.parametrize("row", [0, 63])
def test_a_stream_of_one_symbol(symbol: int, row: int) -> None:
    rows = np.array([[row]], dtype=np.int32)
    data = coding.encode(np.array([[symbol]], dtype=np.int32), rows, gaussian_tables())
    assert coding.StreamDecoder(data, 1, gaussian_tables()).read(rows).tolist() == [[symbol]]


def test_symbols_have_the_shape_of_their_rows_and_c_order() -> None:
    symbols = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    rows = np.full((4, 3, 2), 40, dtype=np.int32).T  # not contiguous
    data = coding.encode(symbols, rows, gaussian_tables())
    stream = coding.StreamDecoder(data, 24, gaussian_tables())
    assert np.array_equal(np.stack([stream.read(part) for part in rows]), symbols)


def test_more_symbols_than_were_coded_are_refused() -> None:
    rows = np.zeros(5, dtype=np.int32)
    data = coding.encode(rows, rows, gaussian_tables())
    stream = coding.StreamDecoder(data, 5, gaussian_tables())
    stream.read(rows[:3])
    with pytest.raises(AssertionError, match="3 symbols asked for, 2 are left"):
        stream.read(rows[:3])


@pytest.mark.parametrize("data", [b"", b"\0" * 4, b"\xff" * 328, bytes(range(256))])
def test_a_forged_stream_decodes_to_something_and_no_worse(data: bytes) -> None:
    rows = np.full(20, 63, dtype=np.int32)
    stream = coding.StreamDecoder(data, 40, gaussian_tables())
    assert stream.read(rows).shape == (20,)
    assert stream.read(rows % 3).shape == (20,)


def test_a_stream_longer_than_its_symbols_is_refused() -> None:
    with pytest.raises(UserError, match="a stream of 329 bytes holds 40 symbols, which take at most 328"):
        coding.StreamDecoder(bytes(329), 40, gaussian_tables())


def test_products_run_in_full_precision_where_both_ends_must_agree() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with coding.reproducible():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
