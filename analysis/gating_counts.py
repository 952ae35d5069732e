"""What gates save: operations with all channels open over those that ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

# Reduction -> (the counts that it divides, by the names of their columns; those that it divides them by).
_COUNT = "gating_kmac_per_px_{}"
_RATIOS = {
    "gating_reduction": (("enc_dense", "dec_dense"), ("enc", "dec")),
    "gating_reduction_dec": (("dec_dense",), ("dec",)),
    "gating_reduction_dec_masks": (("dec_dense",), ("dec_masks",)),
    "gating_conv_reduction": (("enc_conv_dense", "dec_conv_dense"), ("enc_conv", "dec_conv")),
    "gating_conv_reduction_dec": (("dec_conv_dense",), ("dec_conv",)),
}


def reductions(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The columns of reductions from a row's counts; None where there are no gates.

    Each is a ratio of means over images, so that it says what the whole set cost.
    """
    return {name: _ratio(row, *sides) for name, sides in _RATIOS.items()}


def _ratio(row: Mapping[str, Any], above: tuple[str, ...], below: tuple[str, ...]) -> float | None:
    dense, ran = (_sum(row, side) for side in (above, below))
    return dense / ran if dense is not None and ran else None


def _sum(row: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    counts = [row.get(_COUNT.format(name)) for name in names]
    return None if any(map(pd.isna, counts)) else sum(float(count) for count in counts if count is not None)
