"""Trials as rate-distortion curves and single points, and their BD-rates and rate savings against anchors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.anchors import Anchor
from analysis.bdrate import Curve, bd_rate, rate_saving_pct
from analysis.comparable import average_seeds, distinct_labels
from analysis.errors import AnalysisError
from analysis.rows import dataset_mismatch
from analysis.settings import MIN_POINTS, Settings

# What a table needs so that its rows can be told apart and compared with anchors.
CURVE_COLUMNS = ("label", "lmbda", "bpp", "psnr_db", "dataset")
# What the points of one curve share.
CURVE_KEY = ["arch_id", "curve_id", "budget_id", "dataset_hash"]


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
        """Raises AnalysisError by name if the points are not monotone."""
        return Curve(self.label, tuple(self.rows["bpp"]), tuple(self.rows["psnr_db"]))


def curve_points(frame: pd.DataFrame) -> pd.DataFrame:
    """All good trials with lmbda, rate and PSNR, seeds averaged; those alike in CURVE_KEY are one curve."""
    frame = distinct_labels(frame)
    finite = np.isfinite(frame[["lmbda", "bpp", "psnr_db"]].astype("float64")).all(axis=1)
    return average_seeds(frame[(frame["status"] == "ok") & finite], [*CURVE_KEY, "lmbda"])


def trial_curves(frame: pd.DataFrame) -> list[TrialCurve]:
    """All good trials with lmbda, rate and PSNR, grouped by curve_id, budget and evaluation set."""
    curves = []
    for (arch_id, curve_id, budget_id, _), group in curve_points(frame).groupby(CURVE_KEY, sort=False):
        rows = group.sort_values("bpp", kind="stable", ignore_index=True)
        first = rows.iloc[0]
        ids = {"arch_id": str(arch_id), "curve_id": str(curve_id), "budget_id": str(budget_id)}
        curves.append(TrialCurve(label=first["label"], dataset=first["dataset"], rows=rows, **ids))
    return curves


def compare(curves: Sequence[TrialCurve], anchors: Sequence[Anchor], settings: Settings) -> pd.DataFrame:
    """One row per curve or single point and anchor; `refused` says why a number is missing.

    Raises AnalysisError if nothing was evaluated on any anchor's images.
    """
    rows = []
    for curve in curves:
        for anchor in anchors:
            points = (
                [curve.rows] if curve.is_curve else [curve.rows.iloc[[n]] for n in range(len(curve.rows))]
            )
            rows += [_compare(curve, part, anchor, settings) for part in points]
    table = pd.DataFrame(rows)
    if table.empty:
        raise AnalysisError("no trial with status ok has bpp and psnr_db; there is nothing to compare")
    if (table["refused_for_dataset"]).all():
        raise AnalysisError(
            f"{table['refused'].iloc[0]}; name a curve measured on the same images with --anchor PATH.csv"
        )
    return table.drop(columns="refused_for_dataset")


def _compare(curve: TrialCurve, rows: pd.DataFrame, anchor: Anchor, settings: Settings) -> dict[str, object]:
    first = rows.iloc[0]
    found: dict[str, object] = {
        "kind": "curve" if curve.is_curve else "point",
        "label": curve.label,
        "family": first["family"],
        "arch_id": curve.arch_id,
        "curve_id": curve.curve_id,
        "budget": first["budget"],
        "budget_id": curve.budget_id,
        "warm_started": first["warm_start"] != "",
        "dataset": curve.dataset,
        "kflop_per_px_dec": first["kflop_per_px_dec"],
        "points": len(rows),
        "lmbdas": " ".join(f"{lmbda:g}" for lmbda in rows["lmbda"]),
        "bpp_low": rows["bpp"].min(),
        "bpp_high": rows["bpp"].max(),
        "psnr_low_db": rows["psnr_db"].min(),
        "psnr_high_db": rows["psnr_db"].max(),
        "anchor": anchor.name,
        "bd_rate_pct": None,
        "rate_saving_pct": None,
        "range_low_db": None,
        "range_high_db": None,
        "overlap_pct": None,
        "method": settings.method,
        "min_bpp": settings.min_bpp,
        "max_bpp": settings.max_bpp,
        "refused": "",
        "refused_for_dataset": False,
        "anchor_source": anchor.source,
    }
    mismatch = dataset_mismatch({str(key): value for key, value in first.items()}, anchor.dataset)
    if mismatch:
        return found | {"refused": f"{anchor.name}: {mismatch}", "refused_for_dataset": True}
    try:
        return found | (
            _bd_rate(curve, anchor, settings) if curve.is_curve else _saving(first, anchor, settings)
        )
    except AnalysisError as error:
        return found | {"refused": str(error)}


def _bd_rate(curve: TrialCurve, anchor: Anchor, settings: Settings) -> dict[str, object]:
    result = bd_rate(
        anchor.curve,
        curve.curve(),
        method=settings.method,
        min_bpp=settings.min_bpp,
        max_bpp=settings.max_bpp,
        min_overlap=settings.min_overlap,
    )
    return {
        "bd_rate_pct": result.bd_rate_pct,
        "range_low_db": result.psnr_low_db,
        "range_high_db": result.psnr_high_db,
        "overlap_pct": 100 * result.overlap,
    }


def _saving(row: pd.Series, anchor: Anchor, settings: Settings) -> dict[str, object]:
    saving = rate_saving_pct(anchor.curve, bpp=row["bpp"], psnr_db=row["psnr_db"], method=settings.method)
    return {"rate_saving_pct": saving}
