"""Decode times predicted from what was counted on models and measured on machines, against those measured.

The prediction is pure: arithmetic, memory and launches of every operator at the machine's speeds, which
`python -m rdc time` measured apart from all models and wrote beside each time; no number in it was chosen to
fit. The fitted one gives each of its three terms one factor for all models of a setting, not below 0, and
is judged on models that it was not fitted to.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pandas as pd

TERMS = ("compute_ms", "memory_ms", "serial_ms")
BOUNDS = {"compute_ms": "arithmetic", "memory_ms": "memory", "serial_ms": "launches"}
# Three factors from fewer models would say little about another one.
MIN_FITTED = 6

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Fit:
    """factors: of TERMS, not below 0. left_out_ms: each model's time from a fit to all others."""

    factors: tuple[float, float, float]
    left_out_ms: Array


def with_prediction(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that hold the terms, with predicted_ms, error_pct and bound_by added."""
    known = rows[rows[[*TERMS, "dec_net_ms"]].notna().all(axis=1)].copy()
    terms = known[list(TERMS)].astype("float64")
    known["predicted_ms"] = terms.sum(axis=1)
    known["error_pct"] = error_pct(known["predicted_ms"], known["dec_net_ms"])
    known["bound_by"] = terms.idxmax(axis=1).map(BOUNDS) if len(known) else pd.Series(dtype=object)
    return known


def error_pct(predicted_ms: pd.Series, measured_ms: pd.Series) -> pd.Series:
    """Of the measured time; -50: half of it was predicted."""
    return 100 * (predicted_ms / measured_ms - 1)


def fit(terms_ms: Array, measured_ms: Array) -> Fit | None:
    """terms_ms: (n, 3). Least squares of relative errors; None for fewer than MIN_FITTED models."""
    if len(measured_ms) < MIN_FITTED:
        return None
    left_out = [
        float(terms_ms[i] @ _factors(np.delete(terms_ms, i, 0), np.delete(measured_ms, i)))
        for i in range(len(measured_ms))
    ]
    a, b, c = map(float, _factors(terms_ms, measured_ms))
    return Fit((a, b, c), np.array(left_out))


def _factors(terms_ms: Array, measured_ms: Array) -> Array:
    from scipy.optimize import nnls

    # Divided by the time: a slow model is not to outweigh ten quick ones.
    factors: Array = nnls(terms_ms / measured_ms[:, None], np.ones(len(measured_ms)))[0]
    return factors
