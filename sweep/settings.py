"""The part of the configuration that is not a model: checked once, then frozen."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import conf
from rdc.configured import MODEL_KEYS
from rdc.errors import UserError
from rdc.spec import Recipe, check_run_numbers, parse, require_number, require_seed
from sweep.drain import parse_walltime
from sweep.search.objectives import Objectives, check_objectives
from sweep.search.space import Range, Space, read_branches
from sweep.stage import Stage, read_stages
from sweep.tracking.address import DATABASE_SCHEMES, redact_value, scheme

# What others check: rdc.configured, rdc.data and sweep.tracking.
_ELSEWHERE = {*MODEL_KEYS, "data", "tracking"}
# What the runs folder itself holds (sweep.tracking, sweep.ui, benchmarks).
_RESERVED_NAMES = ("mlflow.db", "mlartifacts", "mlflow-server.log", "benchmarks")
_RUN_FIELDS = (
    "precision",
    "validate_every",
    "log_every",
    "checkpoint_every_s",
    "fresh_decode_images",
    "ms_ssim",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TimingSettings:
    """One stopwatch setting for all architectures. height_px, width_px: the image that is coded."""

    threads: int
    repeats: int
    height_px: int
    width_px: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            require_number(f"cluster.timing.{field.name}", getattr(self, field.name), least=1)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSettings:
    """Where trials run; None lets the machines decide. walltime: seconds or "HH:MM:SS", None for no end."""

    name: Literal["ray", "inline"]
    address: str | None
    slots: int | None
    cpus_per_trial: int
    gpus_per_trial: float | None
    deadline_s: float | None
    timing: TimingSettings
    walltime: float | str | None = None

    def __post_init__(self) -> None:
        require_number("cluster.cpus_per_trial", self.cpus_per_trial, least=1)
        if self.slots is not None:
            require_number("cluster.slots", self.slots, least=1)
        if self.gpus_per_trial is not None:
            require_number("cluster.gpus_per_trial", self.gpus_per_trial, least=0)
            if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
                raise UserError(
                    f"cluster.gpus_per_trial={self.gpus_per_trial}: "
                    "must be a fraction up to 1, or a whole number"
                )
        if self.cpus_per_trial < self.processes_per_trial:
            raise UserError(
                f"cluster.gpus_per_trial={self.gpus_per_trial:g}: each GPU's process needs a processor; "
                f"cluster.cpus_per_trial={self.cpus_per_trial} is too few"
            )
        if self.deadline_s is not None:
            require_number("cluster.deadline_s", self.deadline_s, above=0)
        parse_walltime(self.walltime)

    @property
    def processes_per_trial(self) -> int:
        """Several GPUs train one trial by a process each (rdc.ddp)."""
        return max(1, int(self.gpus_per_trial or 1))

    @property
    def walltime_s(self) -> float | None:
        return parse_walltime(self.walltime)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PricingSettings:
    """The accelerator by whose hours `dry_run=true` prices a plan, and how much of its peak is reached."""

    gpu: str
    peak_tflops: float
    utilisation: float

    def __post_init__(self) -> None:
        require_number("pricing.peak_tflops", self.peak_tflops, above=0)
        require_number("pricing.utilisation", self.utilisation, above=0)
        if self.utilisation > 1:
            raise UserError(f"pricing.utilisation={self.utilisation}: it is a share, at most 1")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """How points are chosen from the space; all but the name is for searches, and a grid has no use for it.

    trials: distinct architectures. constraints: greatest allowed value of a cost. storage: None for the
    journal in the sweep's folder. population: of NSGA-II, and random trials before TPE. rungs: shares of
    budget.steps at which trainings pause; of those that reach one, the best 1/eta go on.
    """

    name: Literal["grid", "random", "nsga2", "tpe"]
    trials: int = 20
    seed: int = 0
    objectives: tuple[str, ...] = ("rd_loss", "kmac_per_px_dec")
    constraints: dict[str, float | None] = dataclasses.field(default_factory=dict)
    storage: str | None = None
    population: int | None = None
    rungs: tuple[float, ...] | None = None
    eta: float = 2.0

    def __post_init__(self) -> None:
        require_number("search.trials", self.trials, least=1)
        require_number("search.seed", self.seed, least=0)
        check_objectives(self.objectives, self.constraints)
        _check_storage(self.storage)
        if self.population is not None:
            require_number("search.population", self.population, least=2)
        require_number("search.eta", self.eta, above=1)
        for share in self.rungs or ():
            if not 0 < share < 1:
                raise UserError(
                    f"search.rungs: {share} is no share of the training; give numbers between 0 and 1"
                )
        if list(self.rungs or ()) != sorted(set(self.rungs or ())):
            raise UserError(f"search.rungs={list(self.rungs or ())}: each must be above the one before it")

    @property
    def is_grid(self) -> bool:
        return self.name == "grid"

    @property
    def wanted(self) -> Objectives:
        return check_objectives(self.objectives, self.constraints)

    @property
    def first_random(self) -> int:
        """The population: a quarter of the trials, so that there are generations, within the usual bounds."""
        return self.population or max(4, min(self.trials // 4, 50 if self.name == "nsga2" else 10))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SpaceSettings:
    """Architectures to try: `axes` (override key -> values or a range, every combination; a list of such
    mappings for families that do not share their axes) and `points` (lists of overrides)."""

    name: str
    axes: Any
    points: list[list[str]] | None

    def __post_init__(self) -> None:
        read_branches(self.axes, self.points)

    @property
    def space(self) -> Space:
        """What a search chooses from."""
        return Space(read_branches(self.axes, self.points))

    @property
    def point_overrides(self) -> list[list[str]]:
        """One list of overrides per architecture; without axes and points the composed model alone."""
        for branch in read_branches(self.axes, None):
            for key, axis in branch.axes.items():
                if isinstance(axis, Range):
                    raise UserError(
                        f"space.axes.{key}: search=grid needs a list of values; ranges are for search=nsga2, "
                        "tpe and random"
                    )
        grids = self.axes if isinstance(self.axes, list) else [self.axes] if self.axes else []
        points = [point for grid in grids for point in conf.grid(grid)]
        return [*points, *(self.points or [])] or [[]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BudgetSettings:
    """The recipe, and what of the budget does not enter a result's identity (rdc.spec.RunSettings)."""

    name: str
    recipe: Recipe
    precision: Literal["auto", "fp32", "bf16"]
    validate_every: int
    log_every: int
    checkpoint_every_s: float
    fresh_decode_images: int
    ms_ssim: bool

    def __post_init__(self) -> None:
        check_run_numbers(self)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One sweep. source, top: which finished sweep's frontier to train further (config keys from, top).

    stages: each after those that it waits for; without any, every trial is on its own.
    """

    name: str
    folder: Path
    runs_dir: Path
    lmbdas: tuple[float, ...]
    seeds: tuple[int, ...]
    dry_run: bool
    time: bool
    source: str | None
    top: int | None
    budget: BudgetSettings
    space: SpaceSettings
    search: SearchSettings
    cluster: ClusterSettings
    pricing: PricingSettings
    data: Mapping[str, Any]
    stages: tuple[Stage, ...] = ()

    @property
    def every_lmbda(self) -> tuple[float, ...]:
        """Of all stages."""
        if not self.stages:
            return self.lmbdas
        return tuple(dict.fromkeys(lmbda for stage in self.stages for lmbda in stage.lmbdas))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _TopLevel:
    name: str
    runs_dir: str
    lmbda: float
    lmbdas: list[float] | None
    seed: int
    seeds: list[int] | None
    dry_run: bool
    time: bool
    top: int | None


def read_settings(config: Mapping[str, Any]) -> Settings:
    """The composed configuration, checked; UserError names the key, the value and what was expected."""
    fields = {key: value for key, value in config.items() if key not in _ELSEWHERE}
    groups = {key: fields.pop(key, None) for key in ("budget", "space", "search", "cluster", "pricing")}
    stages = fields.pop("stages", None)
    source = fields.pop("from", None)
    if source is not None and not isinstance(source, str):
        raise UserError(f"from={source!r}: must be the name of a finished sweep, or its folder")
    top = parse(_TopLevel, fields, where="")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", top.name):
        raise UserError(f"name={top.name!r}: it names a folder; use letters, digits, '-', '_' and '.'")
    if top.name in _RESERVED_NAMES:
        raise UserError(
            f"name={top.name}: the runs folder has a use of its own for that name; choose another"
        )
    for lmbda in _several("lmbdas", top.lmbdas, top.lmbda):
        require_number("lmbda", lmbda, above=0)
    for seed in _several("seeds", top.seeds, top.seed):
        require_seed(seed)
    if top.top is not None:
        require_number("top", top.top, least=1)
    if source is None and top.top is not None:
        raise UserError(f"top={top.top}: it needs from=SWEEP, a finished sweep to take architectures from")
    space = parse(SpaceSettings, groups["space"], where="space")
    search = parse(SearchSettings, groups["search"], where="search")
    if search.is_grid:
        _ = space.point_overrides
    else:
        _check_search(search, space, top, source)
    if source is not None and space.point_overrides != [[]]:
        raise UserError(f"from={source}: its architectures are trained, so space={space.name} has to be none")
    lmbdas = _several("lmbdas", top.lmbdas, top.lmbda)
    staged = read_stages(stages, lmbdas)
    if staged and source is not None:
        raise UserError(f"from={source}: stages start from trials of their own sweep; leave one of them out")
    if staged and not search.is_grid:
        raise UserError(f"search={search.name}: chooses single trials, no stages; use search=grid")
    runs_dir = Path(top.runs_dir).expanduser().resolve()
    return Settings(
        name=top.name,
        folder=runs_dir / top.name,
        runs_dir=runs_dir,
        lmbdas=lmbdas,
        seeds=_several("seeds", top.seeds, top.seed),
        dry_run=top.dry_run,
        time=top.time,
        source=source,
        top=top.top,
        budget=read_budget(groups["budget"]),
        space=space,
        search=search,
        cluster=parse(ClusterSettings, groups["cluster"], where="cluster"),
        pricing=parse(PricingSettings, groups["pricing"], where="pricing"),
        data=config.get("data") or {},
        stages=staged,
    )


def _check_search(search: SearchSettings, space: SpaceSettings, top: _TopLevel, source: str | None) -> None:
    """What only a grid can do."""
    if search.wanted.timed and not top.time:
        raise UserError(
            f"time=false: search.objectives holds {search.wanted.timed[0]}, which has to be measured"
        )
    if source is not None:
        raise UserError(
            f"search={search.name}: chooses from a space, from={source} has none; use search=grid"
        )
    if not space.space.branches:
        raise UserError(
            f"search={search.name}: space={space.name} holds nothing to choose from; name a space"
        )
    if len(_several("lmbdas", top.lmbdas, top.lmbda)) > 1:
        raise UserError(
            f"lmbdas={top.lmbdas}: search={search.name} compares architectures at one lmbda; train its best "
            "ones at several with +experiment=curves from=NAME"
        )


def _check_storage(storage: str | None) -> None:
    if storage is None:
        return
    if "://" not in storage or scheme(storage) not in DATABASE_SCHEMES:
        raise UserError(
            f"search.storage={redact_value(storage)}: expected sqlite:///FILE, "
            "postgresql://USER:PASSWORD@HOST/NAME or another database; null keeps it in the sweep's folder"
        )
    if storage.partition("://")[2].strip("/") in ("", ":memory:"):
        raise UserError(
            f"search.storage={storage}: a study in memory is lost with the command; name a file "
            "(sqlite:///FILE) or a database; null keeps it in the sweep's folder"
        )


def read_budget(config: Any) -> BudgetSettings:
    """The group `budget` of a composed configuration."""
    if not isinstance(config, Mapping):
        raise UserError(f"budget={config!r}: choose one with budget=NAME")
    fields = dict(config)
    name = fields.pop("name", "")
    run = {key: fields.pop(key) for key in _RUN_FIELDS if key in fields}
    recipe = parse(Recipe, fields, where="budget")
    return parse(BudgetSettings, {"name": name, "recipe": recipe, **run}, where="budget")


def _several(key: str, values: list[Any] | None, single: Any) -> tuple[Any, ...]:
    if values is None:
        return (single,)
    if not values:
        raise UserError(f"{key}=[]: give at least one value, or null for {key.rstrip('s')}={single}")
    return tuple(dict.fromkeys(values))
