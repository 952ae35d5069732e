"""Trials as rate-distortion curves and single points."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.bdrate import Curve
from analysis.comparable import average_seeds, distinct_labels, measured_again
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


@dataclasses.dataclass(frozen=True, eq=False)
class CurveTable:
    """The points of all curves, those of a curve below each other by rising rate."""

    frame: pd.DataFrame
    _lists: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    def values(self, name: str) -> list[Any]:
        """A whole column: picking thousands of cells out of a frame one by one takes seconds."""
        if name not in self._lists:
            self._lists[name] = self.frame[name].tolist()
        return self._lists[name]


@dataclasses.dataclass(frozen=True, eq=False)
class TrialCurve:
    """The trials of one architecture, trained alike and evaluated on one set, by rising rate.

    start, end: its rows of the table, one per lmbda, seeds averaged.
    """

    label: str
    arch_id: str
    curve_id: str
    budget_id: str
    dataset: str
    table: CurveTable
    start: int
    end: int

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        """Its part of the table, numbered from 0."""
        return self.table.frame.iloc[self.start : self.end].reset_index(drop=True)

    @property
    def is_curve(self) -> bool:
        return self.end - self.start >= MIN_POINTS

    def values(self, name: str) -> list[Any]:
        """One column of `rows`."""
        return self.table.values(name)[self.start : self.end]

    def single_points(self) -> list[TrialCurve]:
        """Each of its points by itself."""
        return [dataclasses.replace(self, start=row, end=row + 1) for row in range(self.start, self.end)]

    def curve(self) -> Curve:
        """Raises AnalysisError by name if the points are not monotone, or were not trained alike."""
        self.require_alike()
        return Curve(self.label, tuple(self.values("bpp")), tuple(self.values("psnr_db")))

    def require_alike(self) -> None:
        for name, noun in _ALIKE.items():
            values = [str(value) for value in self.values(name) if not pd.isna(value) and value != ""]
            if len(set(values)) > 1:
                raise AnalysisError(
                    f"curve {self.label!r} mixes {noun} ({', '.join(dict.fromkeys(values))}); "
                    "give trials that were not trained and evaluated alike another budget or dataset"
                )


def curve_points(frame: pd.DataFrame) -> pd.DataFrame:
    """All good trials with lmbda, rate and PSNR, seeds averaged; those alike in CURVE_KEY are one curve."""
    frame = distinct_labels(frame)
    finite = np.isfinite(frame[["lmbda", "bpp", "psnr_db"]].astype("float64")).all(axis=1)
    good = (frame["status"] == "ok") & finite & ~measured_again(frame)
    return average_seeds(frame[good], [*CURVE_KEY, "lmbda"])


def trial_curves(frame: pd.DataFrame) -> list[TrialCurve]:
    """The curves of `curve_points`, in the order of their first trials."""
    averaged = curve_points(frame)
    if averaged.empty:
        return []
    group = averaged.groupby(CURVE_KEY, sort=False, dropna=False).ngroup().to_numpy()
    order = np.lexsort([averaged["bpp"].to_numpy(), group])
    table = CurveTable(averaged.iloc[order].reset_index(drop=True))
    ends = (np.flatnonzero(np.diff(group[order], append=-1)) + 1).tolist()
    names = ("label", "arch_id", "curve_id", "budget_id", "dataset")
    labels, arch_ids, curve_ids, budget_ids, datasets = (table.values(name) for name in names)
    return [
        TrialCurve(
            labels[start],
            arch_ids[start],
            curve_ids[start],
            budget_ids[start],
            datasets[start],
            table,
            start,
            end,
        )
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def curve_names(curves: Sequence[TrialCurve]) -> list[str]:
    """Labels; where several curves share one, with what tells them apart: stage, budget, the start of an id.

    The same architecture in another budget, or from another start, is another curve. Single points have names
    among themselves.
    """
    names = [curve.label for curve in curves]
    for column, length in (("stage", None), ("budget", None), ("curve_id", 4)):
        more = [str(curve.values(column)[0])[:length] for curve in curves]
        sets = [(curve.values("dataset_hash")[0], curve.end - curve.start > 1) for curve in curves]
        places = list(zip(names, sets, strict=True))
        told: dict[Any, set[str]] = {place: set() for place in places}
        for place, own in zip(places, more, strict=True):
            told[place].add(own)
        names = [
            f"{place[0]}, {own}" if own and len(told[place]) > 1 else place[0]
            for place, own in zip(places, more, strict=True)
        ]
    return names


def rows_of(curves: Sequence[TrialCurve]) -> pd.DataFrame:
    """Their rows below each other, cut from each table at once: thousands of small frames take seconds."""
    tables = {id(curve.table): curve.table.frame for curve in curves}
    places: dict[int, list[int]] = {key: [] for key in tables}
    for curve in curves:
        places[id(curve.table)] += range(curve.start, curve.end)
    return pd.concat([frame.iloc[places[key]] for key, frame in tables.items()])
