"""A search without trainings: architectures that cost nothing, run by a simulated cluster in any order."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rdc.files import write_sealed
from rdc.result import RUNG_FILE
from rdc.spec import TrialSpec
from sweep.plan import PlannedTrial
from sweep.search.asked import Architecture, Refused
from sweep.search.objectives import Objectives, check_objectives
from sweep.search.rungs import Rungs, RungsRecord
from sweep.search.search import Search
from sweep.search.space import Params, Point, Space, read_branches
from sweep.search.study import PastTrial
from tests.sweep.test_plan import plan_of

STEPS = 100
# Two families that share no axis. At 8 channels the norm makes no difference: two points, one architecture.
SPACE = Space(
    read_branches(
        [
            {
                "transform": ["conv"],
                "depth.latent_channels": [8, 16, 24, 32],
                "transform.norm": ["gdn", "gdn1"],
            },
            {"transform": ["swint"], "transform.window": [2, 4, 8], "transform.head_dim": [8, 16]},
        ],
        None,
    )
)


ARCHITECTURES = 13  # of 14 points


class World:
    """What lies in the sweep's folder, and survives a driver. folder: for rung.json files."""

    def __init__(
        self, folder: Path, *, seeds: int = 1, refuse: Callable[[Point], bool] = lambda p: False
    ) -> None:
        self.folder = folder
        self.results: dict[str, dict[str, Any]] = {}
        self.finished_runs: Counter[str] = Counter()
        self.reached: dict[str, int] = {}  # spec_id -> step of its checkpoint
        self.interrupted_at: dict[str, int] = {}  # the same, where no pause was wanted
        self.timed: dict[str, float] = {}
        self.untimable: set[str] = set()
        self._seeds = seeds
        self._refuse = refuse
        self._chosen: dict[Point, Architecture] = {}

    def choose(self, point: Point) -> Architecture | Refused:
        if self._refuse(point):
            return Refused("impossible")
        if "depth.latent_channels=8" in point:
            point = point[:2]
        if point not in self._chosen:
            number = len(self._chosen)
            trials = tuple(trial(self.folder, 1000 * number + seed) for seed in range(self._seeds))
            costs = {"kmac_per_px_dec": 1.0 + number, "params_m": 1.0}
            self._chosen[point] = Architecture(arch_id=f"arch{number}", label="x", trials=trials, costs=costs)
        return self._chosen[point]

    def read(self, planned: PlannedTrial) -> dict[str, Any] | None:
        found = self.results.get(planned.spec_id)
        return None if found is None or found["status"] == "failed" else found

    def recall(self, spec_id: str) -> PlannedTrial | None:
        known = [t for a in self._chosen.values() for t in a.trials]
        return next((t for t in known if t.spec_id == spec_id), None)

    def time(self) -> None:
        """Every architecture that is trained, unless it cannot be timed."""
        for planned in (architecture.trials[0] for architecture in self._chosen.values()):
            if self.read(planned) and planned.spec_id not in self.untimable:
                self.timed[planned.spec_id] = float(planned.spec.seed)

    def times(self, planned: PlannedTrial) -> dict[str, float] | None:
        found = self.timed.get(planned.spec_id)
        return None if found is None else {"time_dec_total_ms": found}

    def run(self, planned: PlannedTrial, *, fails: bool = False) -> dict[str, Any]:
        """Train to the trial's end or to its stop; returns what the driver would tell."""
        spec_id = planned.spec_id
        goal = max(planned.stop_at_step or STEPS, self.interrupted_at.pop(spec_id, 0))
        assert goal > self.reached.get(spec_id, 0), f"{spec_id} has been at step {self.reached[spec_id]}"
        self.reached[spec_id] = goal
        quality = float(np.random.default_rng(planned.spec.seed).random())
        if goal < STEPS:
            rung = {"spec_id": spec_id, "step": goal, "val_rd_loss": quality + 1 / goal}
            planned.folder.mkdir(parents=True, exist_ok=True)
            write_sealed(planned.folder / RUNG_FILE, rung)
            return {"status": "paused", "step": goal}
        self.finished_runs[spec_id] += 1
        self.reached[spec_id] = 0 if fails else STEPS
        self.results[spec_id] = {
            "status": "failed" if fails else "ok",
            "error": None,
            "evaluation": {"rd_loss": quality, "bpp": 0.5, "psnr_db": 30.0, "dataset": "x", "images": 1},
        }
        return self.results[spec_id]


def trial(folder: Path, seed: int) -> PlannedTrial:
    spec: TrialSpec = dataclasses.replace(_SPEC, seed=seed)
    return PlannedTrial(spec=spec, folder=folder / "trials" / spec.spec_id, point=(), checkpoint=None)


def objectives(limits: Mapping[str, float | None] | None = None) -> Objectives:
    return check_objectives(("rd_loss", "kmac_per_px_dec"), limits or {})


def search(
    world: World,
    study: Any,
    *,
    wanted: int,
    space: Space = SPACE,
    limits: Mapping[str, float | None] | None = None,
    rungs: Rungs | None = None,
    timed: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Search:
    """timed: by decode time instead of a cost."""
    return Search(
        study=study,
        space=space,
        objectives=check_objectives(("rd_loss", "time_dec_total_ms"), {}) if timed else objectives(limits),
        wanted=wanted,
        seed=0,
        choose=world.choose,
        read=world.read,
        times=world.times,
        recall=world.recall,
        rungs=rungs,
        record=RungsRecord(world.folder, "study"),
        say=say,
    )


def drive(
    source: Search, world: World, random: np.random.Generator, *, slots: int = 3, ends: int | None = None
) -> None:
    """Run trials on slots that finish in random order.

    ends: stop dead after so many trials have ended, the last of them unheard.
    """
    running: dict[str, PlannedTrial] = {}
    ended = 0
    while ends is None or ended < ends:
        for asked in source.ask(slots - len(running)):
            assert asked.spec_id not in running, "a trial in flight is not run twice"
            running[asked.spec_id] = asked
        if not running and source.wants_times:
            assert not source.done
            world.time()
            source.timed()
            continue
        if not running:
            assert source.done, "nothing runs and nothing is asked, so all must be done"
            source.close()
            return
        assert not source.done
        spec_id = list(running)[int(random.integers(len(running)))]
        result = world.run(running.pop(spec_id))
        if (ended := ended + 1) != ends:
            source.tell(spec_id, result)


class ListStudy:
    """A study whose suggestions are given, over and over."""

    def __init__(self, suggestions: Sequence[Params]) -> None:
        self._suggestions = list(suggestions)
        self.params: list[Params] = []
        self.states: list[str] = []
        self.values: list[tuple[float, ...] | None] = []
        self.attrs: list[dict[str, Any]] = []
        self.constraints: list[dict[str, float]] = []

    def history(self) -> list[PastTrial]:
        return [
            PastTrial(number=n, state=s, params=p, values=v, attrs=a)  # type: ignore[arg-type]
            for n, (s, p, v, a) in enumerate(
                zip(self.states, self.params, self.values, self.attrs, strict=True)
            )
        ]

    def ask(self) -> tuple[int, Params]:
        params = self._suggestions[len(self.params) % len(self._suggestions)]
        return self.ask_for(params), params

    def ask_for(self, params: Params) -> int:
        self.params.append(params)
        self.states.append("RUNNING")
        self.values.append(None)
        self.attrs.append({})
        self.constraints.append({})
        return len(self.params) - 1

    def note(self, number: int, **attrs: Any) -> None:
        self.attrs[number] |= attrs

    def limit(self, number: int, violations: Mapping[str, float]) -> None:
        self.constraints[number] |= violations

    def tell(self, number: int, values: Sequence[float]) -> None:
        self._end(number, "COMPLETE")
        self.values[number] = tuple(values)

    def fail(self, number: int) -> None:
        self._end(number, "FAIL")

    def prune(self, number: int) -> None:
        self._end(number, "PRUNED")

    def close(self) -> None: ...

    def _end(self, number: int, state: str) -> None:
        assert self.states[number] == "RUNNING", f"trial {number} has ended as {self.states[number]}"
        self.states[number] = state


class Killed(Exception):
    """The driver's end."""


class Mortal:
    """A study whose driver dies at one of its calls: before anything of it is stored, or right after."""

    def __init__(self, study: ListStudy, *, call: int, after: bool) -> None:
        self._study, self._left, self._after = study, call, after

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._study, name)

        def called(*args: Any, **attrs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            answer = method(*args, **attrs)
            if self._left == 0:
                raise Killed
            return answer

        return called


def own_trials(history: Sequence[PastTrial]) -> dict[str, list[str]]:
    """arch_id -> states of its trials in the study, without suggestions that were answered."""
    found: dict[str, list[str]] = {}
    for past in history:
        if "dup_of" not in past.attrs and "rejected" not in past.attrs:
            found.setdefault(str(past.attrs.get("arch_id")), []).append(past.state)
    return found


_SPEC = plan_of(["depth=n32"]).trials[0].spec
