"""Columns as objectives: their names checked, their values as costs, and the scale they are measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.errors import AnalysisError
from analysis.schema import column, objective_names

DEFAULT_OBJECTIVES = ("rd_loss", "kmac_per_px_dec")
# What an architecture costs spans orders of magnitude, and a tenth less is worth as much at any size.
LOG_PREFIXES = ("kmac_", "kflop_", "params_", "time_", "train_wall_", "peak_memory_")


def check_objectives(objectives: Sequence[str]) -> list[str]:
    """The names, if every one is a column with a direction."""
    known = objective_names()
    for name in objectives:
        if name not in known:
            raise AnalysisError(f"objective {name!r} is not known; objectives: {', '.join(known)}")
    if len(set(objectives)) < max(2, len(objectives)):
        raise AnalysisError(f"objectives {','.join(objectives)}: name at least two different ones")
    return list(objectives)


def sign(name: str) -> float:
    """What a value is multiplied with to become a cost: 1 where low is better, -1 where high is."""
    return 1.0 if column(name).better == "low" else -1.0


def costs(frame: pd.DataFrame, objectives: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n, k), every column low-is-better."""
    return frame[list(objectives)].to_numpy(dtype=np.float64) * [sign(name) for name in objectives]


def log_scaled(frame: pd.DataFrame, objectives: Sequence[str]) -> tuple[bool, ...]:
    """Which objectives are measured by their decimal logarithm: what is paid, if all of it is above 0."""
    return tuple(name.startswith(LOG_PREFIXES) and bool((frame[name] > 0).all()) for name in objectives)


def scaled(cost: npt.NDArray[np.float64], logs: Sequence[bool]) -> npt.NDArray[np.float64]:
    """(n, k) costs with log10 taken where `logs` says so; order and dominance stay as they are."""
    found = np.array(cost, dtype=np.float64)
    for k in np.flatnonzero(logs):
        found[:, k] = np.log10(found[:, k])
    return found
