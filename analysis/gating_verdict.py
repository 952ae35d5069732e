"""Does a gate per image beat a fixed mask, or a narrower network, that costs as much? In words, per model."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.statistics import Quantity
from analysis.gating_table import GatingTable

# Whoever costs up to this much more or less costs as much.
EQUAL_COST = 0.05
RIVALS = {"static": "a fixed mask", "narrow_tuned": "a narrower network"}
Point = Mapping[Hashable, Any]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One model's energy gates against one rival.

    change: of rd_loss in %, the mean over lmbdas; None where nothing could be compared, and `why` says why.
    cost_off_pct: by how much the dynamic side is dearer, the largest over the lmbdas by size.
    """

    model: str
    stage: str
    rival: str
    rival_role: str
    lmbdas: tuple[float, ...] = ()
    change: Quantity | None = None
    cost_off_pct: float = 0.0
    seeds: int = 1
    images: int = 0
    is_undertrained: bool = False
    why: str = ""

    @property
    def outcome(self) -> str:
        """better, worse, undecided, or unknown."""
        if self.change is None or not self.change.has_interval:
            return "unknown"
        low, high = self.change.interval()
        return "better" if high < 0 else "worse" if low > 0 else "undecided"


def verdicts(found: GatingTable) -> list[str]:
    """A sentence or two per model and rival; rivals that a model does not have are not named here."""
    return [sentence(verdict) for verdict in judged(found)]


def judged(found: GatingTable) -> list[Verdict]:
    every = []
    for _, group in found.points.groupby("model", sort=False):
        dynamic = group[group["role"] == "ecg"]
        for role in RIVALS:
            rivals = group[group["role"] == role]
            for rival in rivals["arm"].unique():
                if len(dynamic):
                    every.append(_judge(found, dynamic, rivals[rivals["arm"] == rival], role))
    return every


def _judge(found: GatingTable, dynamic: pd.DataFrame, rivals: pd.DataFrame, role: str) -> Verdict:
    """The stage of gates whose costs are nearest, at the lmbdas where they are equal."""
    label, rival = str(rivals["model_label"].iloc[0]), str(rivals["arm"].iloc[0])
    pairs = {str(arm): _pairs(group, rivals) for arm, group in dynamic.groupby("arm", sort=False)}
    pairs = {arm: found_pairs for arm, found_pairs in pairs.items() if found_pairs}
    if not pairs:
        return Verdict(label, "", rival, role, why="no lmbda has both")
    arm = min(pairs, key=lambda arm: float(np.mean([abs(np.log(_cost(*pair))) for pair in pairs[arm]])))
    equal = [pair for pair in pairs[arm] if abs(_cost(*pair) - 1) <= EQUAL_COST]
    if not equal:
        all_off = ", ".join(f"{100 * (_cost(*pair) - 1):+.0f} %" for pair in pairs[arm])
        return Verdict(label, arm, rival, role, why=f"they do not cost the same: {arm} {all_off}")
    changes = [found.scores.change_pct(*pair) for pair in equal]
    off = max((100 * (_cost(*pair) - 1) for pair in equal), key=abs)
    lmbdas = tuple(float(pair[0]["lmbda"]) for pair in equal)
    seeds = min(int(side["seeds"]) for pair in equal for side in pair)
    shares = [float(side["percent_of_paper_steps"]) for pair in equal for side in pair]
    return Verdict(
        model=label,
        stage=arm,
        rival=rival,
        rival_role=role,
        lmbdas=lmbdas,
        change=mean_of(changes),
        cost_off_pct=off,
        seeds=seeds,
        images=found.scores.images,
        is_undertrained=any(share < 100 for share in shares),
    )


def _pairs(dynamic: pd.DataFrame, rivals: pd.DataFrame) -> list[tuple[Point, Point]]:
    """(gates, rival) at every lmbda that both have."""
    theirs = {row["lmbda"]: row for row in rivals.to_dict("records")}
    return [(row, theirs[row["lmbda"]]) for row in dynamic.to_dict("records") if row["lmbda"] in theirs]


def _cost(dynamic: Point, rival: Point) -> float:
    return float(dynamic["kmac_per_px"] / rival["kmac_per_px"])


def mean_of(changes: Iterable[Quantity]) -> Quantity:
    """The mean of changes whose draws are of the same resampled images."""
    every = list(changes)
    estimate = float(np.mean([change.estimate for change in every]))
    draws = [change.draws for change in every if change.draws is not None]
    if len(draws) < len(every):
        return Quantity("rd_loss", "%", estimate)
    return Quantity("rd_loss", "%", estimate, np.mean(draws, axis=0), units=every[0].units)


_SAID = {
    "better": "the gate per image is better",
    "worse": "the gate per image is worse",
    "undecided": "undecided: the interval includes zero",
    "unknown": "not judged: there is no interval",
}


def sentence(verdict: Verdict) -> str:
    """What was found, on how much, and how sure it is."""
    against = f"{verdict.model}: gates per image against {RIVALS[verdict.rival_role]} ({verdict.rival})"
    if verdict.change is None:
        return f"{against}: not judged: {verdict.why}"
    low, high = verdict.change.interval()
    interval = "" if np.isnan(low) else f" ({low:+.2f}..{high:+.2f})"
    lmbdas = ", ".join(f"{lmbda:g}" for lmbda in verdict.lmbdas)
    seeds = "one training each" if verdict.seeds == 1 else f"{verdict.seeds} seeds each"
    said = (
        f"{against}: {verdict.stage} changes rd_loss by {verdict.change.estimate:+.2f} %{interval} at equal "
        f"cost (within {abs(verdict.cost_off_pct):.1f} %), lmbda {lmbdas}, {verdict.images or 'no'} images, "
        f"{seeds}: {_SAID[verdict.outcome]}"
    )
    return f"{said}; undertrained, which may change it" if verdict.is_undertrained else said
