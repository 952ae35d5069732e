"""Optuna: the only file that knows it. It is imported when a search begins, never for a grid.

One driver asks and tells. The study lies in a journal file in the sweep's folder, or in a database, and
optuna-dashboard opens either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rdc.errors import UserError
from sweep.search.objectives import Objectives
from sweep.search.space import BRANCH, Axis, Choices, Params, Space
from sweep.tracking.address import redact, redact_value

JOURNAL_FILE = "optuna.journal"
State = Literal["RUNNING", "COMPLETE", "FAIL", "PRUNED", "WAITING"]
SamplerName = Literal["random", "nsga2", "tpe"]

_LOCK_HELD_S = 0.5  # at most: a lock of the journal is held for milliseconds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PastTrial:
    """A trial of the study, from this command or an earlier one."""

    number: int
    state: State
    params: Params
    values: tuple[float, ...] | None
    attrs: Mapping[str, Any]


class Study:
    """Ask and tell by trial numbers and plain values."""

    def __init__(self, study: Any, space: Space, *, where: str) -> None:
        self._study = study
        self._space = space
        self._where = where  # the storage, as it may be shown
        self._open: dict[int, Any] = {}  # number -> optuna.Trial, of those asked by this command
        self._popped: list[tuple[int, Params]] = []  # asked, and not yet handed out

    @property
    def name(self) -> str:
        return str(self._study.study_name)

    def history(self) -> list[PastTrial]:
        """All trials so far, in the order of their numbers."""
        return [
            PastTrial(
                number=t.number,
                state=t.state.name,
                params=dict(t.params),
                values=tuple(t.values) if t.values else None,
                attrs=dict(t.user_attrs),
            )
            for t in self._study.get_trials(deepcopy=False)
        ]

    def ask(self) -> tuple[int, Params]:
        """(number, parameters) that the sampler suggests; the trial is running until told of."""
        if self._popped:
            return self._popped.pop()
        with _quiet(), _stored(self._where):
            trial = self._study.ask()
            _ = trial.relative_params  # NSGA-II counts it to a generation; of a given point nobody would ask
            params = self._suggest(trial)
        self._open[trial.number] = trial
        return trial.number, params

    def ask_for(self, params: Params) -> int:
        """Open a trial of these very parameters."""
        with _stored(self._where):
            self._study.enqueue_trial(params)
        earlier = []
        while (asked := self.ask())[1] != params:  # somebody else has put a trial into the queue
            earlier.append(asked)
        self._popped += earlier
        return asked[0]

    def note(self, number: int, **attrs: Any) -> None:
        """Attach facts to a trial that this command has asked for; to older ones nothing can be added."""
        if number in self._open:
            with _stored(self._where):
                for key, value in attrs.items():
                    self._open[number].set_user_attr(key, value)

    def limit(self, number: int, violations: Mapping[str, float]) -> None:
        """How far a trial of this command is above each limit."""
        with _stored(self._where):
            for name, value in violations.items():
                self._open[number].set_constraint(name, value)

    def tell(self, number: int, values: Sequence[float]) -> None:
        """The trial's objectives. It must be running."""
        self._tell(number, values=list(values))

    def fail(self, number: int) -> None:
        """The trial has no values, and says nothing about its parameters."""
        self._tell(number, state="FAIL")

    def prune(self, number: int) -> None:
        """The trial was rejected or stopped early."""
        self._tell(number, state="PRUNED")

    def close(self) -> None:
        """Nothing more is asked: end what was taken from the queue and not handed out."""
        for number, _ in self._popped:
            self.fail(number)
        self._popped.clear()

    def _tell(self, number: int, *, values: list[float] | None = None, state: str | None = None) -> None:
        import optuna

        with _quiet(), _stored(self._where):
            try:
                self._study.tell(number, values, state=optuna.trial.TrialState[state] if state else None)
            except ValueError:
                if not self._study.get_trials(deepcopy=False)[number].state.is_finished():
                    raise
                raise UserError(
                    f"search.storage={self._where}: somebody else has ended trial {number} of study "
                    f"{self.name}; sweeps that share a storage need different names (name=...)"
                ) from None
        self._open.pop(number, None)

    def _suggest(self, trial: Any) -> Params:
        """The branch first, then what varies in it."""
        params: Params = {}
        if len(self._space.branches) > 1:
            names = [branch.name for branch in self._space.branches]
            params[BRANCH] = trial.suggest_categorical(BRANCH, names)
        for name, axis in self._space.axes_of(params).items():
            params[name] = _suggested(trial, name, axis)
        return params


def open_study(
    *,
    name: str,
    folder: Path,
    storage: str | None,
    space: Space,
    objectives: Objectives,
    sampler: SamplerName,
    seed: int,
    population: int,
    about: Mapping[str, Any],
) -> Study:
    """Create the study or continue it; UserError says what is wrong with the storage, without its password.

    storage: None for the journal in the sweep's folder. seed: the sampler's is derived from it and from how
    many trials there are, or a restart would suggest the same points again. about: what the study asks, in
    plain words for whoever opens it.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / JOURNAL_FILE
    where = str(journal) if storage is None else redact_value(storage)
    directions: Any = list(objectives.directions)
    with _quiet(), _undamaged(journal) if storage is None else _explained(where):
        study = optuna.create_study(
            study_name=name,
            storage=_journal(journal) if storage is None else _database(storage),
            directions=directions,
            load_if_exists=True,
        )
        study.set_metric_names(list(objectives.names))
        for key, value in about.items():
            study.set_user_attr(key, value)
        count = len(study.get_trials(deepcopy=False))
        derived = int(np.random.SeedSequence([seed, count]).generate_state(1)[0])
        study.sampler = _sampler(sampler, space, derived, population)
    return Study(study, space, where=where)


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _mend(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _mend(path: Path) -> None:
    """Undo what a driver killed in the middle of writing left: half a line, and a lock without an owner."""
    lock = Path(f"{path}.lock")
    with contextlib.suppress(FileNotFoundError):
        before = lock.lstat().st_ino
        time.sleep(_LOCK_HELD_S)
        if lock.lstat().st_ino == before:
            lock.unlink()
    if path.exists() and (size := path.stat().st_size):
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read(size).rfind(b"\n") + 1)


def _database(storage: str) -> Any:
    from optuna.storages import RDBStorage

    # Before a connection of the pool is used it is tried: the server may have been restarted since.
    return RDBStorage(storage, engine_kwargs={"pool_pre_ping": True})


@contextlib.contextmanager
def _undamaged(journal: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"{journal}: is damaged ({type(error).__name__}); move it away, and the same command asks anew "
            "and trains nothing again"
        ) from None


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    """What a storage raises, as one line that says where and keeps the password to itself."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"search.storage={where}: needs the package {error.name}; install it with pip"
        ) from None
    except Exception as error:
        raise UserError(f"search.storage={where}: {_first_line(error)}") from None


@contextlib.contextmanager
def _stored(where: str) -> Iterator[None]:
    """What a storage raises in the middle of a search, and nothing that is a mistake of ours."""
    from optuna.exceptions import OptunaError

    try:
        yield
    except OptunaError as error:
        raise UserError(
            f"search.storage={where}: {_first_line(error)}; the same command goes on once it is back"
        ) from None


def _first_line(error: Exception) -> str:
    lines = redact(str(error)).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings that parts of it are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Choices):
        return CategoricalDistribution(list(axis.options))
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def _suggested(trial: Any, name: str, axis: Axis) -> Any:
    if isinstance(axis, Choices):
        return trial.suggest_categorical(name, list(axis.options))
    if axis.whole:
        return trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return trial.suggest_float(name, axis.low, axis.high, log=axis.log, step=axis.step)


def _sampler(name: SamplerName, space: Space, seed: int, population: int) -> Any:
    import optuna

    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "tpe":
        return _branched_tpe(seed, population)
    return _branched_nsga2(space, seed, population)


class _BranchesInTurn:
    """For samplers whose first trials are random: those take the branches in turn.

    Of a handful of them, chance would give most to one family and none to another.
    """

    first_random = 0

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        if name == BRANCH and trial.number < self.first_random:
            return distribution.choices[trial.number % len(distribution.choices)]
        return super().sample_independent(study, trial, name, distribution)  # type: ignore[misc]


def _branched_tpe(seed: int, population: int) -> Any:
    from optuna.samplers import TPESampler

    class BranchedTPE(_BranchesInTurn, TPESampler):
        first_random = population

    return BranchedTPE(
        seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=population
    )


def _branched_nsga2(space: Space, seed: int, population: int) -> Any:
    """NSGA-II that crosses parents inside a branch; Optuna's own evolves only what all trials share."""
    from optuna.samplers import NSGAIISampler

    random = np.random.default_rng(seed)
    axes = {name: axis for branch in space.parameters.values() for name, axis in branch.items()}
    searched = {name: _distribution(axis) for name, axis in axes.items()}
    if len(space.branches) > 1:
        searched[BRANCH] = _distribution(
            Choices(options={branch.name: (branch.name,) for branch in space.branches})
        )

    class BranchedNSGAII(_BranchesInTurn, NSGAIISampler):
        first_random = population

        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {name: found for name, found in searched.items() if not found.single()}

        def select_parent(self, study: Any, generation: int) -> list[Any]:
            """The best of the last generation and its parents, each architecture once."""
            pool = self.get_population(study, generation - 1) + self.get_parent_population(
                study, generation - 1
            )
            once = {json.dumps(t.params, sort_keys=True): t for t in reversed(pool)}
            return list(self._elite_population_selection_strategy(study, list(once.values())))

        def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
            parents = self.get_parent_population(study, self.get_trial_generation(study, trial))
            if not parents:
                return {}
            signs = [1.0 if direction.name == "MINIMIZE" else -1.0 for direction in study.directions]
            return child_params(parents, search_space, space, signs, random)

    return BranchedNSGAII(population_size=population, seed=seed)


def child_params(
    parents: Sequence[Any], search_space: Mapping[str, Any], space: Space, signs: Sequence[float], random: Any
) -> Params:
    """A child of two parents: the branch of one, and each of its axes from a parent that has it.

    What mutates is left out, and drawn at random. signs: 1 per objective to minimise, -1 to maximise.
    """
    first, second = (_tournament(parents, signs, random) for _ in range(2))
    child: Params = {}
    rate = 1 / max(1, len(space.axes_of(first.params)) + (len(space.branches) > 1))
    if len(space.branches) > 1:
        if random.random() < rate:
            return {}
        child[BRANCH] = first.params[BRANCH]
    for name in space.axes_of(child):
        owners = [parent for parent in (first, second) if name in parent.params]
        if name in search_space and owners and random.random() >= rate:
            child[name] = owners[int(random.integers(len(owners)))].params[name]
    return child


def _tournament(parents: Sequence[Any], signs: Sequence[float], random: Any) -> Any:
    """The better of two random parents, either one where neither dominates."""
    one, other = (parents[int(random.integers(len(parents)))] for _ in range(2))
    pairs = [(s * a, s * b) for s, a, b in zip(signs, one.values, other.values, strict=True)]
    return other if all(b <= a for a, b in pairs) and any(b < a for a, b in pairs) else one
