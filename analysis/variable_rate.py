"""Models of variable rate beside the fixed-rate models that they stand for: BD-rates, storage, training.

A model of variable rate is one curve: one training, measured at many lmbdas. Every curve of fixed-rate models
with the same networks on the same images is an arm that it is compared with, whatever the arm was trained.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.anchors import Anchor
from analysis.bdrate import Curve, bd_rate
from analysis.bdrate_images import ImageScores, RatePoint, Spread, per_image, spread
from analysis.curves import CURVE_COLUMNS, TrialCurve, trial_curves
from analysis.errors import AnalysisError
from analysis.load import Source
from analysis.variable_rate_bytes import ByteSteps, byte_steps
from analysis.variable_rate_published import saving_pct

# What a model of variable rate shares with the fixed-rate ones that it is compared with.
BASE = (
    "transform", "entropy_model", "hyper_transform", "channels", "latent_channels", "layers", "dataset_hash",
)  # fmt: skip
# Differences that a comparison must tell of.
_TOLD = {
    "train_data_hash": "training images",
    "batch_size": "batch sizes",
    "crop_px": "crop sizes",
    "precision": "precisions",
    "semantics_version": "versions of the code",
}
# The variable model's steps need not be a multiple of the arm's models: so much may its total differ.
SAME_TOTAL = 0.05

Role = Literal["each", "total", "other", "unknown"]
ROLE_TEXT: dict[Role, str] = {
    "each": "each trained for as many steps as the variable model",
    "total": "trained in total for as many steps as the variable model",
    "other": "trained for other numbers of steps",
    "unknown": "training not known",
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of all trainings behind a curve, those that they started from included, each once.

    trainings: how many of the curve's own. steps, images, wall_s: sums; NaN where a part is not known.
    steps_each: of one model, start included. per_seed: steps over the number of seeds.
    """

    trainings: int
    steps: float
    images: float
    wall_s: float
    steps_each: float
    per_seed: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """BD-rate of the variable model against an arm. points: of the variable model that went in.

    left_out: points that another one of their curve beats in rate and PSNR, as "NAME at lmbda L".
    refused: why there is no number. images_refused: why there is no spread over images.
    """

    points: int
    bd_rate_pct: float | None = None
    psnr_low_db: float | None = None
    psnr_high_db: float | None = None
    overlap_pct: float | None = None
    refused: str = ""
    images: Spread | None = None
    image_count: int = 0
    images_refused: str = ""
    left_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """Fixed-rate models. shared: against the variable model's points at the arm's lmbdas, all: at every one.

    params: of all its models together. saving_pct: of storage, by the variable model. missing: a line per
    lmbda that the variable model was trained for, or other arms have, and this one has not. note: what else
    differs from the variable model.
    """

    name: str
    role: Role
    curve: TrialCurve
    cost: Cost
    params: float
    saving_pct: float
    shared: Comparison
    every: Comparison
    missing: tuple[str, ...]
    note: str


@dataclasses.dataclass(frozen=True, eq=False)
class VariableModel:
    """One model of variable rate. trained: the lmbdas that it was trained for, () where not told.

    params: of the model. unused: a line per measured rate that is on no curve, with its status.
    """

    name: str
    curve: TrialCurve
    trained: tuple[float, ...]
    cost: Cost
    params: float
    steps: tuple[ByteSteps, ...]
    arms: tuple[Arm, ...]
    unused: tuple[str, ...]

    @property
    def entropy_model(self) -> str:
        return str(self.curve.values("entropy_model")[0])

    def arm(self, role: Role) -> Arm | None:
        return next((arm for arm in self.arms if arm.role == role), None)


def is_variable(frame: pd.DataFrame) -> pd.Series:
    """Of each trial whether its model is of variable rate."""
    return ~frame["rate_control"].isin(("", "none"))


def variable_models(source: Source) -> list[VariableModel]:
    """Every model of variable rate in the source, in the order of their first trials.

    Raises AnalysisError where there is none.
    """
    source.require(("rate_control", *CURVE_COLUMNS))
    frame = source.frame
    chosen = frame[is_variable(frame)]
    if chosen.empty:
        raise AnalysisError(
            f"{source.name} holds no model of variable rate; `python -m sweep +experiment=variable_rate` "
            "trains one, and the fixed-rate models to compare it with"
        )
    curves = trial_curves(frame)
    variable = [curve for curve in curves if curve.values("rate_control")[0] not in ("", "none")]
    if not variable:
        states = ", ".join(sorted(set(chosen["status"])))
        raise AnalysisError(
            f"{source.name}: no trial of variable rate has status ok with rate and PSNR (status: {states}); "
            "its log.txt says why"
        )
    fixed = [curve for curve in curves if curve.values("rate_control")[0] in ("", "none")]
    scores = ImageScores(source.images) if len(source.images) else None
    return [_model(curve, fixed, source, scores) for curve in variable]


def _model(
    curve: TrialCurve, fixed: Sequence[TrialCurve], source: Source, scores: ImageScores | None
) -> VariableModel:
    own = _base(curve)
    others = [other for other in fixed if _base(other) == own]
    trained = parse_lmbdas(str(curve.values("trained_lmbdas")[0]))
    lmbdas = sorted({*trained, *(lmbda for other in others for lmbda in other.values("lmbda"))})
    cost = training_cost(curve, source.frame)
    arms = [_arm(other, curve, cost, lmbdas, source.frame, scores) for other in others]
    names = [arm.name for arm in arms]
    arms = [
        dataclasses.replace(arm, name=f"{arm.name} #{arm.curve.curve_id[:4]}")
        if names.count(arm.name) > 1
        else arm
        for arm in arms
    ]
    order = list(ROLE_TEXT)
    trials = _trials_of(curve, source.frame)
    return VariableModel(
        name=curve.label,
        curve=curve,
        trained=trained,
        cost=cost,
        params=1e6 * float(curve.values("params_m")[0]),
        steps=byte_steps(trials, source.images),
        arms=tuple(sorted(arms, key=lambda arm: order.index(arm.role))),
        unused=tuple(
            f"lmbda {row['lmbda']:g}: {row['status']}"
            for row in trials[trials["status"] != "ok"].sort_values("lmbda").to_dict("records")
        ),
    )


def parse_lmbdas(joined: str) -> tuple[float, ...]:
    """'0.0018-0.0035' -> numbers, also where one is written as 1e-05."""
    return tuple(float(part) for part in re.split(r"(?<![eE])-", joined)) if joined else ()


def _base(curve: TrialCurve) -> tuple[str, ...]:
    return tuple(str(curve.values(name)[0]) for name in BASE)


def _trials_of(curve: TrialCurve, frame: pd.DataFrame) -> pd.DataFrame:
    """Every trial of a curve, whatever its status. One that failed knows neither images nor more."""
    key = {name: getattr(curve, name) for name in ("arch_id", "curve_id", "budget_id")}
    fits = functools.reduce(lambda a, b: a & b, ((frame[name] == value) for name, value in key.items()))
    same_images = frame["dataset_hash"].isin((curve.values("dataset_hash")[0], ""))
    return frame[fits & same_images]


# -------------------------------------------------------------------------------------------- training


def training_cost(curve: TrialCurve, frame: pd.DataFrame) -> Cost:
    """What it took to train the models of a curve; measuring given weights again takes no training."""
    trials = _trials_of(curve, frame)
    own = trials[(trials["weights_sha256"] == "") & trials["steps"].notna()]
    if own.empty:
        return Cost(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    known = frame.drop_duplicates("spec_id").set_index("spec_id")
    chains = [_with_starts(spec_id, known) for spec_id in own["spec_id"]]
    together = list(dict.fromkeys(spec_id for chain in chains for spec_id in chain))
    steps = _sum([_steps(spec_id, known) for spec_id in together])
    return Cost(
        trainings=len(own),
        steps=steps,
        images=_sum([_steps(i, known) * _number(known, i, "batch_size") for i in together]),
        wall_s=_sum([_number(known, spec_id, "train_wall_s") for spec_id in together]),
        steps_each=float(np.median([_sum([_steps(i, known) for i in chain]) for chain in chains])),
        per_seed=steps / max(1, own["seed"].nunique()),
    )


def _with_starts(spec_id: str, known: pd.DataFrame) -> list[str]:
    """The trial, the one whose weights it started from, and so on."""
    chain = [spec_id]
    while chain[-1] in known.index:
        start = str(known.at[chain[-1], "warm_start"])
        if not start or start in chain:
            break
        chain.append(start)
    return chain


def _steps(spec_id: str, known: pd.DataFrame) -> float:
    return _number(known, spec_id, "steps")


def _number(known: pd.DataFrame, spec_id: str, name: str) -> float:
    value: Any = known.at[spec_id, name] if spec_id in known.index else None
    return math.nan if pd.isna(value) else float(value)


def _sum(values: Sequence[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan


def _role(arm: Cost, variable: Cost) -> Role:
    if not (math.isfinite(arm.steps) and math.isfinite(variable.steps)):
        return "unknown"
    if arm.steps_each == variable.steps_each:
        return "each"
    return "total" if math.isclose(arm.per_seed, variable.per_seed, rel_tol=SAME_TOTAL) else "other"


def work_kmac_per_px(curve: TrialCurve) -> tuple[float, float]:
    """(encode, decode): means over the points, NaN where not counted. With gates: what these leave."""
    rows = curve.rows
    return float(rows["kmac_per_px_enc"].mean()), float(rows["kmac_per_px_dec"].mean())


# ------------------------------------------------------------------------------------------------ arms


def _arm(
    curve: TrialCurve,
    variable: TrialCurve,
    variable_cost: Cost,
    lmbdas: Sequence[float],
    frame: pd.DataFrame,
    scores: ImageScores | None,
) -> Arm:
    cost = training_cost(curve, frame)
    params = 1e6 * math.fsum(curve.values("params_m"))
    at_its_lmbdas = _at(variable, curve.values("lmbda"))
    return Arm(
        name=str(curve.values("stage")[0]) or _name(curve, cost),
        role=_role(cost, variable_cost),
        curve=curve,
        cost=cost,
        params=params,
        saving_pct=saving_pct(1e6 * float(variable.values("params_m")[0]), params),
        shared=_compared(curve, variable, at_its_lmbdas, scores),
        every=_compared(curve, variable, range(len(variable.values("lmbda"))), scores),
        missing=_missing(curve, lmbdas, _trials_of(curve, frame)),
        note=_differences(curve, variable),
    )


def _name(curve: TrialCurve, cost: Cost) -> str:
    steps = "" if math.isnan(cost.steps_each) else f" {cost.steps_each:.0f} steps"
    return f"fixed{steps}"


def _at(variable: TrialCurve, lmbdas: Sequence[float]) -> list[int]:
    """Places of the variable model's points at these lmbdas."""
    wanted = set(lmbdas)
    return [place for place, lmbda in enumerate(variable.values("lmbda")) if lmbda in wanted]


def _missing(curve: TrialCurve, lmbdas: Sequence[float], trials: pd.DataFrame) -> tuple[str, ...]:
    lines = []
    for lmbda in sorted(set(lmbdas) - set(curve.values("lmbda"))):
        states = trials.loc[trials["lmbda"] == lmbda, "status"].tolist()
        lines.append(f"lmbda {lmbda:g}: {states[0] if states else 'no trial'}")
    return tuple(lines)


def _differences(curve: TrialCurve, variable: TrialCurve) -> str:
    differ = []
    for name, noun in _TOLD.items():
        values = [str(one.values(name)[0]) for one in (curve, variable)]
        if values[0] != values[1] and not {"", "<NA>", "nan"} & set(values):
            differ.append(f"{noun} ({values[0]} and {values[1]})")
    return f"other {', other '.join(differ)} than the variable model" if differ else ""


# --------------------------------------------------------------------------------------------- BD-rate


def _compared(
    arm: TrialCurve, variable: TrialCurve, places: Sequence[int], scores: ImageScores | None
) -> Comparison:
    """BD-rate of these points of the variable model, of means over the images and image by image.

    Points that others of their curve beat are left out: a codec would not be used there.
    """
    name = str(arm.values("stage")[0]) or "fixed"
    of_arm = range(len(arm.values("lmbda")))
    kept, better = _unbeaten(arm, of_arm), _unbeaten(variable, places)
    left_out = (*_at_lmbdas(name, arm, of_arm, kept), *_at_lmbdas("variable", variable, places, better))
    places = better
    found = Comparison(len(places), left_out=left_out)
    try:
        arm.require_alike()
        variable.require_alike()
        result = bd_rate(_curve(name, arm, kept), _curve("variable", variable, places))
    except AnalysisError as error:
        return dataclasses.replace(found, refused=str(error))
    found = dataclasses.replace(
        found,
        bd_rate_pct=result.bd_rate_pct,
        psnr_low_db=result.psnr_low_db,
        psnr_high_db=result.psnr_high_db,
        overlap_pct=100 * result.overlap,
    )
    try:
        changes = _of_images(arm, kept, variable, places, scores)
    except AnalysisError as error:
        return dataclasses.replace(found, images_refused=str(error))
    return dataclasses.replace(found, images=spread(changes), image_count=len(changes))


def _curve(name: str, curve: TrialCurve, places: Sequence[int] | None = None) -> Curve:
    chosen = range(len(curve.values("bpp"))) if places is None else places
    bpp, psnr_db = curve.values("bpp"), curve.values("psnr_db")
    if len(chosen) < 2:
        raise AnalysisError(f"curve {name!r} has {len(chosen)} points; BD-rate needs 4")
    return Curve(name, tuple(bpp[i] for i in chosen), tuple(psnr_db[i] for i in chosen))


def _unbeaten(curve: TrialCurve, places: Sequence[int]) -> list[int]:
    """The points that no other of these beats in rate and PSNR."""
    points = {i: (curve.values("bpp")[i], curve.values("psnr_db")[i]) for i in places}

    def beaten(i: int) -> bool:
        bpp, psnr_db = points[i]
        return any(b <= bpp and p >= psnr_db and (b, p) != (bpp, psnr_db) for b, p in points.values())

    return [i for i in places if not beaten(i)]


def _at_lmbdas(name: str, curve: TrialCurve, places: Sequence[int], kept: Sequence[int]) -> list[str]:
    """The points that were not kept."""
    return [f"{name} at lmbda {curve.values('lmbda')[i]:g}" for i in places if i not in kept]


def _of_images(
    arm: TrialCurve,
    kept: Sequence[int],
    variable: TrialCurve,
    places: Sequence[int],
    scores: ImageScores | None,
) -> list[float]:
    """One BD-rate per image, in per cent."""
    if scores is None:
        raise AnalysisError("the source holds no scores of single images")
    ours = scores.points("variable", [variable.values("spec_id")[i] for i in places])
    theirs = scores.points("fixed", [arm.values("spec_id")[i] for i in kept])

    def change(anchor: Curve, name: str, points: Sequence[RatePoint]) -> float:
        return bd_rate(anchor, _of_points(name, points)).bd_rate_pct

    found = per_image("variable", ours, _anchor(arm, kept, theirs), change).found
    return list(found.values())


def _anchor(arm: TrialCurve, kept: Sequence[int], points: dict[str, list[RatePoint]]) -> Anchor:
    images: dict[str, Curve] = {}
    odd: dict[str, str] = {}
    for image, of_image in points.items():
        try:
            images[image] = _of_points(f"fixed on {image}", of_image)
        except AnalysisError as error:
            odd[image] = str(error)
    return Anchor("fixed", "fixed", arm.dataset, _curve("fixed", arm, kept), "", "", "", "", "", images, odd)


def _of_points(name: str, points: Sequence[RatePoint]) -> Curve:
    return Curve(name, tuple(bpp for bpp, _ in points), tuple(psnr_db for _, psnr_db in points))
