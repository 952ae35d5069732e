"""Gated models beside what they must beat: the rows of gating.csv, one per model, lmbda and stage.

A model is an architecture without gates. Its arms are told apart by what they are, not by the names of
stages: ungated trials without a start (base) and with one (control), those with gates (ecg, static), and
ungated ones of the same family but other widths (narrow, and narrow_tuned where they were trained further).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.bdrate import bd_rate
from analysis.bdrate_images import MIN_IMAGES
from analysis.claims.statistics import DRAWS, Quantity, image_draws
from analysis.comparable import average_seeds, measured_again
from analysis.curves import Curve
from analysis.errors import AnalysisError
from analysis.load import Source
from analysis.published import gating as published_gating
from analysis.settings import MIN_POINTS
from analysis.text import some

ROLES = ("base", "control", "ecg", "static", "narrow", "narrow_tuned")
NEEDED = (
    "label", "lmbda", "bpp", "psnr_db", "rd_loss", "gating", "family", "stage", "warm_start",
    "kmac_per_px_enc_executed", "kmac_per_px_dec_executed",
)  # fmt: skip
# What trials of one model must share to be set side by side.
_ALIKE = ("dataset_hash", "precision", "train_data_hash", "semantics_version")
_OURS = (
    "dataset", "eval_images", "budget", "steps", "percent_of_paper_steps", "bpp", "psnr_db", "rd_loss",
    "gating_sparsity", "gating_natural_sparsity", "gating_learned_sparsity",
    "gating_kmac_per_px_enc", "gating_kmac_per_px_enc_std", "gating_kmac_per_px_dec",
    "gating_kmac_per_px_dec_std", "gating_reduction_dec_masks", "gating_conv_reduction",
    "gating_conv_reduction_dec", "time_enc_net_ms", "time_dec_net_ms", "time_image",
)  # fmt: skip

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class GatingTable:
    """rows: as gating.csv. trials: those behind them, with model, role and arm. scores: of their images.

    points: the rows before they were compared. notes: what is missing, line by line. folder: the source's.
    """

    rows: pd.DataFrame
    points: pd.DataFrame
    trials: pd.DataFrame
    scores: Scores
    notes: tuple[str, ...]
    folder: Path

    def pair(self, spec_ids: str) -> tuple[dict[Hashable, Any], dict[Hashable, Any]] | None:
        """A row's point and its control; None where it has none."""
        point = self.points[self.points["spec_id"] == spec_ids].iloc[0].to_dict()
        control = control_of(self.points, point)
        return None if control is None else (point, control)


def gating_table(source: Source) -> GatingTable:
    """Raises AnalysisError if no good trial has gates."""
    source.require(NEEDED)
    arms, notes = _arms(source)
    scores = Scores(arms, source.images)
    points = _points(arms)
    rows = [_row(point, points, scores) for point in points.to_dict("records")]
    table = _with_published(_with_bd_rates(pd.DataFrame(rows)))
    notes += [*_uneven_seeds(arms), *scores.notes, *_missing(table)]
    return GatingTable(table, points, arms, scores, tuple(notes), source.folder)


class Scores:
    """Losses of the same images for every arm, and changes between arms with paired bootstrap intervals."""

    def __init__(self, arms: pd.DataFrame, images: pd.DataFrame) -> None:
        """arms: trials with model, lmbda and role; images: the columns of analysis.images."""
        self.notes: tuple[str, ...] = ()
        self._draws: dict[str, Floats] = {}
        self.images = 0
        wanted = images[images["spec_id"].isin(arms["spec_id"])]
        losses = wanted.drop_duplicates(["spec_id", "image"]).pivot(
            index="spec_id", columns="image", values="rd_loss"
        )
        whole = losses.dropna().index
        if len(whole) < len(arms) or len(losses.columns) < MIN_IMAGES:
            self.notes = (
                f"no intervals: they need the scores of the same {MIN_IMAGES} or more images for every trial",
            )
            return
        self.images = len(losses.columns)
        drawn = image_draws(losses.to_numpy(dtype=np.float64), DRAWS, np.random.default_rng(0))
        self._draws = dict(zip(losses.index, drawn.T, strict=True))

    def change_pct(self, one: Mapping[Hashable, Any], other: Mapping[Hashable, Any]) -> Quantity:
        """Of the mean rd_loss, seeds averaged: 100 (one / other - 1). Rows of `_points`."""
        estimate = 100 * (one["rd_loss"] / other["rd_loss"] - 1)
        if not self._draws:
            return Quantity("rd_loss", "%", estimate)
        mine, theirs = (self._mean(row) for row in (one, other))
        return Quantity("rd_loss", "%", estimate, 100 * (mine / theirs - 1), units=self.images)

    def _mean(self, row: Mapping[Hashable, Any]) -> Floats:
        return np.mean([self._draws[spec_id] for spec_id in str(row["spec_id"]).split(";")], axis=0)


def _arms(source: Source) -> tuple[pd.DataFrame, list[str]]:
    """The good trials of gated models, with model (arch_id of the ungated one), role and arm."""
    frame, notes = source.frame, []
    bad = frame[frame["status"] != "ok"]
    if len(bad):
        notes.append(f"without good numbers, and left out: {some(dict.fromkeys(bad['label']))}")
    frame = frame[(frame["status"] == "ok") & ~measured_again(frame)].reset_index(drop=True)
    gated = ~frame["gating"].isin(["", "none"])
    if not gated.any():
        raise AnalysisError(
            f"{source.name} has no good trial with gates; `python -m sweep +experiment=gating` trains some"
        )
    frame = _with_roles(frame.assign(model=_models(frame, gated)), gated)
    odd = frame[(frame["role"] == "other") & (frame["stage"] != "")]
    if len(odd):
        notes.append(f"of no gated model, and left out: {some(dict.fromkeys(odd['label']))}")
    frame = frame[frame["role"] != "other"]
    arm = frame["stage"].where(frame["stage"] != "", frame["role"])
    return frame.assign(arm=arm), notes


def _models(frame: pd.DataFrame, gated: pd.Series) -> pd.Series:
    """arch_id of the ungated model behind every trial; '' where it is not known."""
    arch = dict(zip(frame["spec_id"], frame["arch_id"], strict=True))
    start = dict(zip(frame["spec_id"], frame["warm_start"], strict=True))
    is_gated = dict(zip(frame["spec_id"], gated, strict=True))
    models = []
    for spec_id in frame["spec_id"]:
        at, seen = spec_id, set()
        while start.get(at) in arch and at not in seen:
            seen.add(at)
            at = start[at]
        models.append("" if is_gated[at] else arch[at])
    twins = _twins(frame, gated)
    return pd.Series(
        [model or twin for model, twin in zip(models, twins, strict=True)], index=frame.index, dtype=object
    )


def _twins(frame: pd.DataFrame, gated: pd.Series) -> list[str]:
    """The only ungated architecture of the same family and widths; else the gated one stands for itself."""
    shapes = frame[["family", "channels", "latent_channels", "layers"]].astype(str).agg("/".join, axis=1)
    dense = frame[~gated].groupby(shapes[~gated])["arch_id"].unique()
    ungated = {str(shape): ids[0] for shape, ids in dense.items() if len(ids) == 1}
    return [str(ungated.get(shape, own)) for shape, own in zip(shapes, frame["arch_id"], strict=True)]


def _with_roles(frame: pd.DataFrame, gated: pd.Series) -> pd.DataFrame:
    """Add role: one of ROLES, the name of another gating, or 'other'. Narrow ones go to their model.

    Narrow is what the stages of a sweep trained beside the only gated model of its family.
    """
    of_gated = frame.loc[gated, "model"].unique()
    families = {
        family: models.iloc[0]
        for family, models in frame[gated].groupby("family")["model"]
        if models.nunique() == 1
    }
    tuned = frame["warm_start"] != ""
    is_dense = frame["model"].isin(of_gated)
    alone = frame["family"].map(families).fillna("")
    widths = frame[["channels", "latent_channels"]].astype(str).agg("/".join, axis=1)
    other_widths = widths != alone.map(dict(zip(frame.loc[gated, "model"], widths[gated], strict=True)))
    is_narrow = ~gated & ~is_dense & (frame["stage"] != "") & (alone != "") & other_widths
    roles = np.select(
        [gated, is_dense & tuned, is_dense, is_narrow & tuned, is_narrow],
        [frame["gating"], "control", "base", "narrow_tuned", "narrow"],
        "other",
    )
    return frame.assign(role=roles, model=frame["model"].mask(is_narrow, alone))


def _points(arms: pd.DataFrame) -> pd.DataFrame:
    """One row per model, arm and lmbda, seeds averaged; AnalysisError if trials of a model are not alike."""
    for model, group in arms.groupby("model", sort=False):
        for name in _ALIKE:
            found = sorted({str(value) for value in group[name] if not pd.isna(value) and value != ""})
            if len(found) > 1:
                raise AnalysisError(
                    f"model {model}: its trials differ in {name} ({', '.join(found)}) and are no comparison; "
                    "keep those of one"
                )
    points = average_seeds(
        arms.assign(built=_built(arms)), ["model", "arm", "role", "lmbda", "built", "budget_id"]
    )
    repeated = points[points.duplicated(["model", "arm", "lmbda"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise AnalysisError(
            f"{first['arm']} at lmbda {first['lmbda']:g} stands for several trainings or models, such as "
            f"{first['label']}; name them by stages, or keep one"
        )
    order = {role: place for place, role in enumerate(ROLES)}
    rank = points["role"].map(lambda role: order.get(role, len(order)))
    cost = points["kmac_per_px_enc_executed"] + points["kmac_per_px_dec_executed"]
    points = points.assign(rank=rank, kmac_per_px=cost)
    names = dict(zip(arms["model"], arms["label"], strict=True))
    dense = points[points["role"].isin(["base", "control"])]
    names |= dict(zip(dense["model"], dense["label"], strict=True))
    points = points.assign(model_label=points["model"].map(names))
    return points.sort_values(
        ["family", "model", "lmbda", "rank", "kmac_per_px"], ascending=[True, True, True, True, False]
    ).reset_index(drop=True)


def _built(arms: pd.DataFrame) -> pd.Series:
    """What the seeds of an arm share: their architecture, or the stage that fitted one to every seed.

    A stage that matches another one's cost has a mask, or widths, of its own for each seed.
    """
    fitted = arms["role"].isin(["static", "narrow", "narrow_tuned"]) & (arms["stage"] != "")
    once = ~arms.duplicated(["model", "arm", "lmbda", "budget_id", "seed"], keep=False)
    return arms["arch_id"].mask(fitted & once, "fitted")


def one_of(points: pd.DataFrame, like: Mapping[Hashable, Any], role: str) -> dict[Hashable, Any] | None:
    """The point of that role beside another one: of its model, lmbda and, of a control, steps."""
    same = points[
        (points["model"] == like["model"]) & (points["lmbda"] == like["lmbda"]) & (points["role"] == role)
    ]
    if role == "control":
        same = same[same["steps"].astype("float64") == float(like["steps"] or np.nan)]
    return None if same.empty else same.iloc[0].to_dict()


def control_of(points: pd.DataFrame, point: Mapping[Hashable, Any]) -> dict[Hashable, Any] | None:
    """What the same training made of the ungated model: of gates that were there from the start, the base."""
    if point["role"] in ("base", "narrow"):
        return None
    if point["warm_start"] != "":
        return one_of(points, point, "control")
    base = one_of(points, point, "base")
    return base if base is not None and base["budget_id"] == point["budget_id"] else None


def _row(point: dict[Hashable, Any], points: pd.DataFrame, scores: Scores) -> dict[str, Any]:
    base, control = one_of(points, point, "base"), control_of(points, point)
    dense = control or base
    row = {
        "model": point["model_label"],
        "model_id": point["model"],
        "family": point["family"],
        "entropy_model": point["entropy_model"],
        "lmbda": point["lmbda"],
        "stage": point["arm"],
        "role": point["role"],
        "label": point["label"],
        "spec_ids": point["spec_id"],
        "seeds": point["seeds"],
        **{name: point.get(name) for name in _OURS},
        "kmac_per_px": point["kmac_per_px"],
        **_changes(point, control, base),
        **_reductions(point, dense),
        "speedup_enc": _ratio(dense, point, "time_enc_net_ms"),
        "speedup_dec": _ratio(dense, point, "time_dec_net_ms"),
    }
    if control is not None and point["role"] != "control":
        change = scores.change_pct(point, control)
        low, high = change.interval()
        row |= {"rd_loss_change_pct": change.estimate, "rd_loss_low_pct": low, "rd_loss_high_pct": high}
    else:
        row |= dict.fromkeys(("rd_loss_change_pct", "rd_loss_low_pct", "rd_loss_high_pct"))
    return row


def _changes(
    point: Mapping[Hashable, Any], control: Mapping[Hashable, Any] | None, base: Mapping[Hashable, Any] | None
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for other, of in (("", control), ("_vs_base", base)):
        known = of is not None and of["spec_id"] != point["spec_id"]
        found[f"psnr_drop{other}_pct"] = (
            100 * (of["psnr_db"] - point["psnr_db"]) / of["psnr_db"] if known and of is not None else None
        )
        found[f"bpp_change{other}_pct"] = (
            100 * (point["bpp"] / of["bpp"] - 1) if known and of is not None else None
        )
    return found


def _reductions(
    point: Mapping[Hashable, Any], dense: Mapping[Hashable, Any] | None
) -> dict[str, float | None]:
    """Of gates on the images that they saw; of other networks by what was counted of both."""
    if not pd.isna(point["gating_reduction"]):
        return {
            "reduction": point["gating_reduction"],
            "reduction_enc": point["gating_kmac_per_px_enc_dense"] / point["gating_kmac_per_px_enc"],
            "reduction_dec": point["gating_reduction_dec"],
        }
    return {
        "reduction": _ratio(dense, point, "kmac_per_px"),
        "reduction_enc": _ratio(dense, point, "kmac_per_px_enc_executed"),
        "reduction_dec": _ratio(dense, point, "kmac_per_px_dec_executed"),
    }


def _ratio(dense: Mapping[Hashable, Any] | None, point: Mapping[Hashable, Any], name: str) -> float | None:
    """How many times less than the ungated model; None where one of the two is not known."""
    if dense is None or pd.isna(dense.get(name)) or pd.isna(point.get(name)) or not point[name] > 0:
        return None
    return float(dense[name]) / float(point[name])


def _with_bd_rates(table: pd.DataFrame) -> pd.DataFrame:
    """BD-rate of each stage's curve over lmbdas against the control's in all its rows, or why none."""
    table = table.assign(bd_rate_pct=np.nan, bd_rate_note="")
    for (model, stage), group in table.groupby(["model_id", "stage"], sort=False):
        if group["role"].iloc[0] in ("base", "control", "narrow"):
            continue
        control = table[(table["model_id"] == model) & (table["role"] == "control")]
        control = control[control["lmbda"].isin(group["lmbda"])]
        value, note = _bd_rate(str(stage), group, control)
        table.loc[group.index, "bd_rate_pct"] = value
        table.loc[group.index, "bd_rate_note"] = note
    return table


def _bd_rate(stage: str, group: pd.DataFrame, control: pd.DataFrame) -> tuple[float, str]:
    if min(len(group), len(control)) < MIN_POINTS:
        points = min(len(group), len(control))
        return np.nan, f"{points} of the {MIN_POINTS} lmbdas that a BD-rate needs"
    try:
        anchor, test = (
            Curve(name, tuple(rows["bpp"]), tuple(rows["psnr_db"]))
            for name, rows in (("control", control), (stage, group))
        )
        return bd_rate(anchor, test).bd_rate_pct, ""
    except AnalysisError as error:
        return np.nan, str(error)


def _with_published(table: pd.DataFrame) -> pd.DataFrame:
    """The poster's row for the same kind of model and lmbda, beside the energy gates."""
    theirs = published_gating()
    drops, reductions = [], []
    for row in table.to_dict("records"):
        alike = theirs[
            (theirs["entropy_model"] == row["entropy_model"])
            & np.isclose(theirs["lmbda"], float(row["lmbda"]), rtol=1e-3)
            & (row["role"] == "ecg")
        ]
        drops.append(np.nan if alike.empty else float(alike["psnr_drop_pct"].iloc[0]))
        reductions.append(np.nan if alike.empty else float(alike["flop_reduction"].iloc[0]))
    return table.assign(published_psnr_drop_pct=drops, published_reduction=reductions)


def _uneven_seeds(arms: pd.DataFrame) -> list[str]:
    """The first lmbda at which arms of a model are means over different seeds, as where one had no luck."""
    for _, group in arms.groupby(["model", "lmbda"], sort=False):
        seeds = group.groupby("arm", sort=False)["seed"].agg(
            lambda found: ", ".join(f"{seed:g}" for seed in sorted(set(found)))
        )
        if seeds.nunique() > 1:
            told = "; ".join(f"{arm} of {found}" for arm, found in seeds.items())
            at = group["lmbda"].iloc[0]
            return [
                f"the same seeds for every stage: at lmbda {at:g} {told}. Where they differ, a change also "
                "holds what another seed changes"
            ]
    return []


def _missing(table: pd.DataFrame) -> list[str]:
    """What a sweep would need for a full comparison and does not have."""
    notes = []
    gated = table[table["role"].isin(["ecg", "static"])]
    lacking = gated[gated["rd_loss_change_pct"].isna()]
    if len(lacking):
        notes.append(
            f"no ungated control that was fine-tuned for as many steps, for {len(lacking)} of {len(gated)} "
            f"gated rows, such as {lacking['stage'].iloc[0]} at lmbda {lacking['lmbda'].iloc[0]:g}: what "
            "gating costs in quality is not told apart from what more training brings"
        )
    for role, said in (
        ("static", "no fixed mask (gating=static) to compare with"),
        ("narrow_tuned", "no narrower network that was trained as long to compare with"),
    ):
        models = set(table["model"]) - set(table.loc[table["role"] == role, "model"])
        if models:
            notes.append(f"{said}, for {', '.join(sorted(models))}")
    if table[["speedup_enc", "speedup_dec"]].loc[gated.index].isna().all(axis=None):
        notes.append("no wall-clock: gated trials or their control were not timed")
    return notes
