"""Composed configuration -> the trials of a sweep, each checked and identified before any worker starts."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import conf
from rdc.configured import model_of, zoo_of
from rdc.errors import UserError
from rdc.result import trial_label
from rdc.spec import ExternalWeights, ModelSpec, RunSettings, TrialSpec, WarmStart, to_plain
from rdc.zoo import external_weights
from sweep.settings import BudgetSettings, Settings

Precision = Literal["fp32", "bf16"]
Say = Callable[[str], None]

DATA_FILES = {"train": "data_train.json", "validation": "data_val.json", "evaluation": "data_eval.json"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One architecture that the space asks for. point: the overrides that chose it.

    refusal: why it cannot be built; then model is None. warm_start: weights it starts from. weights: those it
    has, trained elsewhere at lmbda. checkpoint: the file of either.
    """

    point: tuple[str, ...]
    model: ModelSpec | None
    refusal: str | None = None
    warm_start: WarmStart | None = None
    checkpoint: str | None = None
    weights: ExternalWeights | None = None
    lmbda: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataSets:
    """The three image sets of a sweep (rdc.data.ImageSet)."""

    train: Any
    validation: Any
    evaluation: Any

    def save(self, folder: Path) -> None:
        """Write the manifests that the trials read."""
        for field, name in DATA_FILES.items():
            getattr(self, field).save(folder / name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One trial and where its files go. Its ids are hashed once: a plan of thousands asks for them often.

    stop_at_step: pause there, to be promoted or not; None trains to the end. stage, budget: of a sweep with
    stages; budget is None for the sweep's own. note: what the user should know about it.
    """

    spec: TrialSpec
    folder: Path
    point: tuple[str, ...]
    checkpoint: str | None
    stop_at_step: int | None = None
    stage: str | None = None
    budget: BudgetSettings | None = None
    note: str = ""

    @functools.cached_property
    def spec_id(self) -> str:
        return self.spec.spec_id

    @functools.cached_property
    def arch_id(self) -> str:
        return self.spec.arch_id

    @functools.cached_property
    def label(self) -> str:
        return trial_label(self.spec)

    def to_dict(self) -> dict[str, Any]:
        """The trial's entry in sweep.json."""
        return {
            "spec_id": self.spec_id,
            "curve_id": self.spec.curve_id,
            "arch_id": self.arch_id,
            "label": self.label,
            "family": self.spec.model.family,
            "overrides": list(self.point),
            "spec": self.spec.to_dict(),
            **({} if self.stage is None else {"stage": self.stage}),
            **({"note": self.note} if self.note else {}),
        }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """What one command runs. config: as composed, for the record. notes: what the user should know."""

    settings: Settings
    config: Mapping[str, Any]
    trials: tuple[PlannedTrial, ...]
    data: DataSets
    precision: Precision
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return self.settings.folder

    def with_trials(self, more: Sequence[PlannedTrial]) -> SweepPlan:
        """The plan of a search or of stages, when more trials are known."""
        known = {trial.spec_id for trial in self.trials}
        new = [trial for trial in more if trial.spec_id not in known]
        return dataclasses.replace(self, trials=(*self.trials, *new))

    def names(self) -> dict[str, str]:
        """spec_id -> what tells the trials of this plan apart, for lists."""
        architectures = {trial.label: set[str]() for trial in self.trials}
        for trial in self.trials:
            architectures[trial.label].add(trial.arch_id)
        names = {}
        for trial in self.trials:
            parts = [trial.label] if trial.stage is None else [f"{trial.stage}: {trial.label}"]
            if len(architectures[trial.label]) > 1:
                parts.append(f"#{trial.arch_id[:4]}")
            if len(self.settings.every_lmbda) > 1:
                parts.append(f"lmbda {trial.spec.lmbda:g}")
            if len(self.settings.seeds) > 1:
                parts.append(f"seed {trial.spec.seed}")
            names[trial.spec_id] = " ".join(parts)
        return names

    def run_settings(self, trial: PlannedTrial, *, device: str) -> RunSettings:
        """How the trial runs on this cluster."""
        budget = trial.budget or self.settings.budget
        manifests = {field: str(self.folder / name) for field, name in DATA_FILES.items()}
        return RunSettings(
            folder=str(trial.folder),
            train_manifest=manifests["train"],
            validation_manifest=manifests["validation"],
            eval_manifest=manifests["evaluation"],
            budget_name=budget.name,
            device="cuda" if device == "cuda" else "cpu",
            threads=self.settings.cluster.cpus_per_trial,
            processes=self.settings.cluster.processes_per_trial,
            validate_every=budget.validate_every,
            log_every=budget.log_every,
            checkpoint_every_s=budget.checkpoint_every_s,
            fresh_decode_images=budget.fresh_decode_images,
            ms_ssim=budget.ms_ssim,
            cache_gb=float(self.settings.data.get("cache_gb", 4.0)),
            warm_start_checkpoint=trial.checkpoint,
            stage=trial.stage or "",
            **({} if trial.stop_at_step is None else {"stop_at_step": trial.stop_at_step}),
        )


def choose_models(config: Mapping[str, Any], overrides: Sequence[str], settings: Settings) -> list[Candidate]:
    """The architectures of the space, checked, each once; impossible ones carry their refusal."""
    points = settings.space.point_overrides
    configs = [config] if points == [[]] else conf.compose_points(overrides, points)
    start = settings.budget.recipe.initialisation
    return [candidate_of(tuple(point), model, start) for point, model in zip(points, configs, strict=True)]


def require_possible(candidates: Sequence[Candidate]) -> None:
    """UserError naming the first point that cannot be built, before any worker starts."""
    for candidate in candidates:
        if candidate.refusal is not None:
            where = f"space point [{', '.join(candidate.point)}]: " if candidate.point else ""
            raise UserError(f"{where}{candidate.refusal}")


def choose_data(settings: Settings, say: Say) -> DataSets:
    """Resolve the images and refuse evaluation images among the training images."""
    from rdc.data import check_disjoint, resolve_eval, resolve_train, split

    say("looking for images")
    progress = _Reporter(say)
    evaluation = resolve_eval(settings.data, progress=progress)
    all_train = resolve_train(settings.data, progress=progress)
    check_disjoint(all_train, evaluation)
    train, validation = split(all_train, share=float(settings.data.get("validation_share", 0.05)))
    say(f"training on {len(train)} images ({train.source}), {len(validation)} held out for validation")
    say(f"evaluating on {len(evaluation)} images ({evaluation.source})")
    return DataSets(train=train, validation=validation, evaluation=evaluation)


def make_plan(
    config: Mapping[str, Any],
    settings: Settings,
    candidates: Sequence[Candidate],
    data: DataSets,
    precision: Precision,
) -> SweepPlan:
    """Every possible candidate at every lmbda and seed; trials of equal spec_id are one trial.

    Weights from elsewhere are measured once, at the lmbda that they were trained with.
    """
    trials: dict[str, PlannedTrial] = {}
    duplicates = 0
    for candidate in candidates:
        for trial in trials_of(settings, candidate, data, precision):
            duplicates += trial.spec_id in trials
            trials.setdefault(trial.spec_id, trial)
    notes = [f"{duplicates} of the planned trials are the same as others and run once"] if duplicates else []
    return SweepPlan(
        settings=settings,
        config=config,
        trials=tuple(trials.values()),
        data=data,
        precision=precision,
        notes=tuple(notes),
    )


def trials_of(
    settings: Settings, candidate: Candidate, data: DataSets, precision: Precision
) -> list[PlannedTrial]:
    """One trial per lmbda and seed; none of an impossible candidate."""
    if candidate.model is None:
        return []
    lmbdas, seeds = settings.lmbdas, settings.seeds
    if candidate.lmbda is not None:
        lmbdas, seeds = (candidate.lmbda,), (0,)
    return [
        _trial(settings, candidate, candidate.model, data, precision, lmbda, seed)
        for lmbda, seed in itertools.product(lmbdas, seeds)
    ]


def job_payload(plan: SweepPlan, trial: PlannedTrial, *, device: str) -> dict[str, Any]:
    """What rdc.trial:run_payload gets."""
    return {"spec": trial.spec.to_dict(), "run": to_plain(plan.run_settings(trial, device=device))}


def candidate_of(point: tuple[str, ...], config: Mapping[str, Any], initialisation: str) -> Candidate:
    """The architecture that a composed configuration describes, or why it cannot be built."""
    from rdc.models.layers.wavelet import check_wavelet

    try:
        model, zoo = model_of(config), zoo_of(config)
        weights = external_weights(zoo, model) if zoo else None
        if weights is None and initialisation == "wavelet":
            check_wavelet(model)
    except UserError as error:
        return Candidate(point=point, model=None, refusal=str(error))
    if zoo is None or weights is None:
        return Candidate(point=point, model=model)
    checkpoint = str(Path(str(zoo.checkpoint)).expanduser().resolve())
    return Candidate(point=point, model=model, weights=weights, checkpoint=checkpoint, lmbda=zoo.trade_off)


def _trial(
    settings: Settings,
    candidate: Candidate,
    model: ModelSpec,
    data: DataSets,
    precision: Precision,
    lmbda: float,
    seed: int,
) -> PlannedTrial:
    spec = TrialSpec(
        model=model,
        recipe=settings.budget.recipe,
        precision=precision if candidate.weights is None else "fp32",
        lmbda=lmbda,
        seed=seed,
        train_data=data.train.content_hash,
        eval_data=data.evaluation.content_hash,
        warm_start=candidate.warm_start,
        weights=candidate.weights,
    )
    folder = place_of(settings, spec)
    return PlannedTrial(spec=spec, folder=folder, point=candidate.point, checkpoint=candidate.checkpoint)


def place_of(settings: Settings, spec: TrialSpec) -> Path:
    """The trial's own folder."""
    return settings.folder / "trials" / spec.spec_id


class _Reporter:
    """Progress of long look-ups as a line now and then."""

    def __init__(self, say: Say, every: int = 4) -> None:
        self._say = say
        self._every = every
        self._last = -1

    def __call__(self, done: int, total: int, what: str) -> None:
        tenth = done * self._every // max(total, 1)
        if tenth != self._last and 0 < done < total:
            self._say(f"  {what}: {done} of {total}")
        self._last = tenth
