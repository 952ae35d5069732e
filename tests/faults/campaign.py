"""Kill what a sweep runs on, again and again, and see that nothing is lost, repeated or wrong.

    python -m tests.faults.campaign --seed 0 --faults 100           # make faults

The shipped command sweeps tiny real trainings as a subprocess: a grid, then a search with rungs, then a grid,
each in a new folder, until enough faults have struck. A fault is a SIGKILL to a trial, its fork server, a Ray
worker, the raylet, Ray's head, the driver, or the MLflow server, which comes back later; or a SIGTERM to a
trial. Which one comes next, and how far into the life of what it strikes, comes from the seed. Whenever the
command ends, the same command is given again. What must hold is written as checks below; docs/faults.md tells
them in words.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from skimage import data as photos

from analysis.schema import COLUMNS
from tests.faults.processes import MARKER, Family, send
from tests.faults.study import problem_with_study
from tests.faults.tracker import TrackingServer

ROOT = Path(__file__).resolve().parent.parent.parent
# How often each kind strikes: mostly what dies most often. "preemption" is a SIGTERM to a trial.
WEIGHTS = {
    **{"trial": 6, "preemption": 2, "forkserver": 3, "worker": 3},
    **{"raylet": 2, "head": 2, "driver": 4, "tracker": 3},
}
# Seconds between the moment there is something to strike and the fault. The first trial of a command starts
# after about ten seconds.
SHORT_S, LONG_S = (0.0, 6.0), (0.0, 30.0)
WAIT_S = {kind: LONG_S if kind in ("raylet", "head", "driver") else SHORT_S for kind in WEIGHTS}
TRACKER_AWAY_S = (0.5, 5.0)
ORPHANS_END_WITHIN_S = 10.0
COMMAND_LIMIT_S = 900.0
SWEEP = [
    "budget=smoke",
    "budget.precision=fp32",
    "budget.steps=300",
    "budget.checkpoint_every_s=0.5",
    "budget.fresh_decode_images=1",
    "time=false",
    "entropy_model=scale_hyperprior",
    "space.axes={depth.latent_channels:[8,12],depth.channels:[[8,8,8],[12,12,12]]}",
]
GRID = ["lmbdas=[0.02,0.05]"]
SEARCH = ["lmbda=0.02", "search=nsga2", "search.trials=4", "search.population=2"]
RUNGS = ["search.rungs=[0.5]"]
# What tells how a trial ran, and not what came out. The program itself may be edited during a long campaign.
OF_THE_RUN = {
    *("wall_s", "started_at", "ended_at", "resumed_at_steps", "attempt", "checksum"),
    *("peak_memory_mb", "peak_reserved_mb", "device_memory_mb", "git_revision", "git_dirty"),
}
OF_THE_RUN_IN_TABLES = {"ended_at", "train_wall_s", "peak_memory_mb", "attempt", "git_revision"}


class Violation(AssertionError):
    """Something was lost, repeated, left behind or wrong."""


class Campaign:
    def __init__(
        self,
        folder: Path,
        faults: Sequence[str],
        *,
        seed: int,
        overrides: Sequence[str] = (),
        grid: Sequence[str] = GRID,
    ) -> None:
        """faults: kinds in the order in which they strike. overrides: of SWEEP, for smaller sweeps."""
        self._folder = folder
        self._faults = deque(faults)
        self._random = random.Random(seed)
        self._wait_s: float | None = None  # before the next fault, while there is something to strike
        self._common, self._grid = [*SWEEP, *overrides], list(grid)
        self._server = TrackingServer(folder / "tracker")
        self._finished: dict[Path, tuple[str, int]] = {}  # result.json -> digest, mtime
        # Trial folder -> when a fault first met it with a checkpoint.
        self._interrupted: dict[Path, float] = {}
        self.struck: Counter[str] = Counter()
        self.commands = 0
        self.resumes = 0

    def run(self) -> dict[str, Any]:
        """Counts of what was done; Violation names the first thing that is wrong."""
        started = time.monotonic()
        _write_images(self._folder / "images")
        self._server.start()
        sweeps: Counter[str] = Counter()
        try:
            self._through("undisturbed", [*self._grid, "cluster=inline"])
            while self._faults:
                kind = ("grid", "search")[sweeps.total() % 2]
                sweeps[kind] += 1
                name = f"{kind}{sweeps[kind]}"
                if kind == "grid":
                    self._through(name, self._grid)
                else:
                    self._through(name, [*SEARCH, *RUNGS])
                    self._through(name, SEARCH)  # trains what was stopped at the rung to its end
                self._check_sweep(name)
                print(f"{name} has come out as undisturbed; {len(self._faults)} faults to go", flush=True)
        finally:
            self._server.stop()
        return {
            "faults": self.struck.total(),
            "struck": dict(sorted(self.struck.items())),
            "sweeps": dict(sweeps),
            "commands": self.commands,
            "finished_results": len(self._finished),
            "resumes": self.resumes,
            "minutes": round((time.monotonic() - started) / 60, 1),
        }

    def _through(self, name: str, overrides: Sequence[str]) -> None:
        """Give the command until it ends well; the undisturbed one has to at once."""
        for _ in range(1 if name == "undisturbed" else 200):
            if self._command(name, overrides) == 0:
                return
        raise Violation(f"{name}: the same command does not come to an end; see {name}.log")

    def _command(self, name: str, overrides: Sequence[str]) -> int:
        marker = uuid.uuid4().hex
        family = Family(marker)
        self.commands += 1
        images = self._folder / "images"
        places = [f"runs_dir={self._folder}/runs", f"data.train={images}/train", f"data.eval={images}/eval"]
        places.append(f"tracking.uri={self._server.uri}")
        own = {MARKER: marker, "OMP_NUM_THREADS": "1", "RDC_CACHE": str(self._folder / "cache")}
        with open(self._folder / f"{name}.log", "ab") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "sweep", f"name={name}", *self._common, *places, *overrides],
                env={**os.environ, **own},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        give_up_at = time.monotonic() + COMMAND_LIMIT_S
        while driver.poll() is None:
            family.alive()
            time.sleep(0.1)
            if name != "undisturbed" and self._faults:
                self._strike_in_time(name, family, driver)
            if time.monotonic() > give_up_at:
                driver.kill()
                raise Violation(f"{name}: the command hangs; see {name}.log")
        self._check_orphans(name, family)
        self._check_finished(name)
        self._server.start()
        return driver.returncode

    def _strike_in_time(self, name: str, family: Family, driver: subprocess.Popen[bytes]) -> None:
        """The next fault, once there has been something to strike for as long as was drawn."""
        kind = self._faults[0]
        targets = family.of_kind("trial" if kind == "preemption" else kind)
        if kind == "driver":
            targets = [process for process in targets if process.pid == driver.pid]
        if not targets and kind != "tracker":
            return
        if self._wait_s is None:
            self._wait_s = self._random.uniform(*WAIT_S[kind])
        self._wait_s -= 0.1
        if self._wait_s > 0:
            return
        if kind == "tracker":
            self._server.kill()
            self._server.start(after_s=self._random.uniform(*TRACKER_AWAY_S))
        else:
            self._check_finished(name)
            if kind not in ("trial", "preemption") or len(targets) == 1:
                self._note_interrupted(name)
            send(signal.SIGTERM if kind == "preemption" else signal.SIGKILL, self._random.choice(targets))
        self.struck[self._faults.popleft()] += 1
        self._wait_s = None
        print(f"{self.struck.total():4d}  {name}: {kind}", flush=True)

    def _note_interrupted(self, name: str) -> None:
        """Trials that are struck and have a checkpoint: an attempt that begins later has to use it."""
        for folder in (self._folder / "runs" / name / "trials").glob("*"):
            if (folder / "resume.pt").exists() and not (folder / "result.json").exists():
                self._interrupted.setdefault(folder, time.time())

    # What must hold

    def _check_finished(self, name: str) -> None:
        """No finished result was ever touched again."""
        for path in (self._folder / "runs" / name / "trials").glob("*/result.json"):
            data = path.read_bytes()
            if json.loads(data)["status"] == "failed":
                continue
            now = (hashlib.sha256(data).hexdigest(), path.stat().st_mtime_ns)
            before = self._finished.setdefault(path, now)
            if now != before:
                raise Violation(f"{path}: a finished result was written again")

    def _check_orphans(self, name: str, family: Family) -> None:
        ends_at = time.monotonic() + ORPHANS_END_WITHIN_S
        while left := family.alive():
            if time.monotonic() > ends_at:
                raise Violation(f"{name}: still running: {[(p.pid, p.command[:80]) for p in left]}")
            time.sleep(0.2)

    def _check_sweep(self, name: str) -> None:
        sweep = self._folder / "runs" / name
        expected, got = _results(sweep.parent / "undisturbed"), _results(sweep)
        if not name.startswith("grid"):
            expected = {key: result for key, result in expected.items() if result["spec"]["lmbda"] == 0.02}
        if got.keys() != expected.keys():
            raise Violation(f"{name}: has trials {sorted(got)} and undisturbed {sorted(expected)}")
        for spec_id, result in expected.items():
            if different := _differences(result, got[spec_id]):
                raise Violation(f"{name}: trial {spec_id} differs from the undisturbed one: {different}")
        self._check_table(name, set(expected))
        for folder in (sweep / "trials").iterdir():
            training = json.loads((folder / "result.json").read_bytes())["training"]
            resumed = training["resumed_at_steps"]
            began_again = self._interrupted.get(folder, math.inf) < training["started_at"]
            if any(step <= 0 for step in resumed) or (began_again and not resumed):
                raise Violation(f"{folder}: was interrupted with a checkpoint, and resumed at {resumed}")
            self.resumes += len(resumed)
        problems = [self._server.problem_with(name, set(expected))]
        if not name.startswith("grid"):
            problems.append(problem_with_study(sweep, set(expected)))
        for problem in filter(None, problems):
            raise Violation(f"{name}: {problem}")

    def _check_table(self, name: str, spec_ids: set[str]) -> None:
        """The table of all trials, but its times, is the undisturbed one's to the digit."""
        timed = {column.name for column in COLUMNS if column.origin == "timing"}
        tables = []
        for sweep in ("undisturbed", name):
            table = pd.read_csv(self._folder / "runs" / sweep / "trials.csv", dtype=str).set_index("spec_id")
            table = table.drop(columns=(timed | OF_THE_RUN_IN_TABLES) & set(table.columns))
            tables.append(table.loc[sorted(spec_ids)])
        if not tables[0].equals(tables[1]):
            raise Violation(f"{name}: its table differs:\n{tables[0].compare(tables[1])}")


def _results(folder: Path) -> dict[str, Any]:
    """spec_id -> its result without what depends on time."""
    return {
        path.parent.name: _timeless(json.loads(path.read_bytes()))
        for path in folder.glob("trials/*/result.json")
    }


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(v) for key, v in value.items() if key not in OF_THE_RUN}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _differences(one: Any, other: Any, where: str = "result") -> list[str]:
    """The first leaves that are not equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        found = [_differences(one.get(key), other.get(key), f"{where}.{key}") for key in keys]
        return [text for texts in found for text in texts][:5]
    return [] if one == other else [f"{where}: {one} -> {other}"]


def _write_images(folder: Path) -> None:
    """Photos: on noise and flat blocks, coded and estimated rates of so small models differ too much."""
    one, other = photos.astronaut(), photos.coffee()
    parts = {"train/a": one[:256, :256], "train/b": one[256:, :256]}
    parts |= {"train/c": other[:256, :256], "train/d": other[144:, 344:]}
    parts |= {"eval/e": one[:256, 256:], "eval/f": other[:256, 256:512]}
    for name, pixels in parts.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def draw_faults(number: int, seed: int) -> list[str]:
    """Kinds by their weights; every kind is there once there are enough."""
    kinds = list(WEIGHTS) if number >= len(WEIGHTS) else []
    drawn = random.Random(seed)
    kinds += drawn.choices(list(WEIGHTS), list(WEIGHTS.values()), k=number - len(kinds))
    drawn.shuffle(kinds)
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where to work, new or empty; default: a temporary one")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="rdc-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        report = Campaign(folder, draw_faults(options.faults, options.seed), seed=options.seed).run()
    except Violation as violation:
        print(f"VIOLATION {violation}\n{folder} is kept", file=sys.stderr)
        return 1
    print(json.dumps({"seed": options.seed, **report}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
