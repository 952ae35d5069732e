"""The fast search for a scale's table against the plain one, on every kind of float."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdc.models.layers import coding
from rdc.models.layers.scale_rows import rows

INDEXING = pytest.mark.parametrize("indexing", ["nearest", "ceil"])


def searched(scale: np.ndarray, indexing: str) -> np.ndarray:
    bounded = torch.from_numpy(scale).clamp_min(coding.SCALE_MIN)
    return torch.bucketize(bounded, coding.scale_bounds(indexing), out_int32=True).numpy()


@INDEXING
@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_any_scale(indexing: str, scales: list[float]) -> None:
    values = np.array(scales, dtype=np.float32)
    assert np.array_equal(rows(values, indexing), searched(values, indexing))


@INDEXING
def test_around_every_bound_level_and_cell(indexing: str) -> None:
    cells = (np.arange(0, 0x7F800000 >> 19, dtype=np.int32) << 19).view(np.float32)
    levels = np.array([*coding.scale_levels(), coding.SCALE_MIN], dtype=np.float32)
    marks = np.concatenate([coding.scale_bounds(indexing).numpy(), levels, cells])
    neighbours = [marks, np.nextafter(marks, np.float32(0)), np.nextafter(marks, np.float32(np.inf))]
    values = np.stack(neighbours).reshape(3, 1, -1)
    found = rows(values, indexing)
    assert found.shape == values.shape
    assert found.dtype == np.int32
    assert np.array_equal(found, searched(values, indexing))
    assert found.min() == 0
    assert found.max() == coding.SCALE_LEVELS - 1


@INDEXING
def test_not_a_number_stays_within_the_tables(indexing: str) -> None:
    values = np.array([np.nan, -np.nan, -np.inf, np.inf], dtype=np.float32)
    assert set(rows(values, indexing).tolist()) <= {0, coding.SCALE_LEVELS - 1}
