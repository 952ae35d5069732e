"""Trials as rate-distortion curves and single points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from analysis.bdrate import Curve
from analysis.comparable import average_seeds, distinct_labels
from analysis.errors import AnalysisError
from analysis.settings import MIN_POINTS

# What a table needs so that its rows can be told apart and compared with anchors.
CURVE_COLUMNS = ("label", "lmbda", "bpp", "psnr_db", "dataset")
# What the points of one curve share.
CURVE_KEY = ["arch_id", "curve_id", "budget_id", "dataset_hash"]
# What they must share besides; tables from elsewhere may name a budget and mean several.
_ALIKE = {
    "steps": "training steps",
    "batch_size": "batch sizes",
    "crop_px": "crop sizes",
    "train_data_hash": "training images",
    "precision": "precisions",
    "eval_images": "numbers of evaluation images",
}


@dataclasses.dataclass(frozen=True)
class TrialCurve:
    """The trials of one architecture, trained alike and evaluated on one set, by rising rate.

    rows: one row per lmbda, seeds averaged.
    """

    label: str
    arch_id: str
    curve_id: str
    budget_id: str
    dataset: str
    rows: pd.DataFrame

    @property
    def is_curve(self) -> bool:
        return len(self.rows) >= MIN_POINTS

    def curve(self) -> Curve:
        """Raises AnalysisError by name if the points are not monotone, or were not trained alike."""
        self.require_alike()
        return Curve(self.label, tuple(self.rows["bpp"]), tuple(self.rows["psnr_db"]))

    def require_alike(self) -> None:
        for name, noun in _ALIKE.items():
            values = [str(value) for value in self.rows[name] if not pd.isna(value) and value != ""]
            if len(set(values)) > 1:
                raise AnalysisError(
                    f"curve {self.label!r} mixes {noun} ({', '.join(dict.fromkeys(values))}); "
                    "give trials that were not trained and evaluated alike another budget or dataset"
                )


def curve_points(frame: pd.DataFrame) -> pd.DataFrame:
    """All good trials with lmbda, rate and PSNR, seeds averaged; those alike in CURVE_KEY are one curve."""
    frame = distinct_labels(frame)
    finite = np.isfinite(frame[["lmbda", "bpp", "psnr_db"]].astype("float64")).all(axis=1)
    return average_seeds(frame[(frame["status"] == "ok") & finite], [*CURVE_KEY, "lmbda"])


def trial_curves(frame: pd.DataFrame) -> list[TrialCurve]:
    """The curves of `curve_points`, in the order of their first trials."""
    averaged = curve_points(frame)
    if averaged.empty:
        return []
    # Cut from one sorted table: sorting thousands of groups one by one takes seconds.
    group = averaged.groupby(CURVE_KEY, sort=False, dropna=False).ngroup().to_numpy()
    order = np.lexsort([averaged["bpp"].to_numpy(), group])
    ordered = averaged.iloc[order].reset_index(drop=True)
    ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1
    ids = list(zip(*(ordered[name].tolist() for name in (*CURVE_KEY, "label", "dataset")), strict=True))
    curves = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        arch_id, curve_id, budget_id, _, label, dataset = ids[start]
        rows = ordered.iloc[start:end].reset_index(drop=True)
        curves.append(TrialCurve(label, str(arch_id), str(curve_id), str(budget_id), dataset, rows))
    return curves
