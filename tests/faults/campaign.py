"""Kill what a sweep runs on, again and again, and see that nothing is lost, repeated or wrong.

    python -m tests.faults.campaign --seed 0 --faults 100           # make faults

The shipped command sweeps tiny real trainings as a subprocess. At random moments SIGKILL ends a trial, its
fork server, a Ray worker, the raylet, Ray's head, the driver, or the MLflow server, which comes back later.
Whenever the command ends, the same command is given again. A sweep that is through is followed by another
one in a new folder until enough faults have struck. All randomness comes from the seed; what a moment meets
does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.processes import MARKER, Family, kill
from tests.faults.tracker import TrackingServer

ROOT = Path(__file__).resolve().parent.parent.parent
# How often each kind is struck: mostly what dies most often.
WEIGHTS = {"trial": 6, "forkserver": 3, "worker": 3, "raylet": 2, "head": 2, "driver": 3, "tracker": 3}
FATAL = ("raylet", "head", "driver")  # the command ends with these
PAUSE_S = (0.5, 6.0)  # between two faults
TRACKER_AWAY_S = (0.5, 5.0)
ORPHANS_END_WITHIN_S = 10.0
COMMAND_LIMIT_S = 900.0
SWEEP = [
    "budget=smoke",
    "budget.precision=fp32",
    "budget.steps=300",
    "budget.checkpoint_every_s=0.5",
    "budget.fresh_decode_images=1",
    "cluster.slots=2",
    "time=false",
    "depth.channels=[8,8,8]",
    "space.axes={depth.latent_channels:[8,12],entropy_model:[scale_hyperprior,mean_scale_hyperprior]}",
    "lmbdas=[0.01,0.02]",
]
# What tells how a trial ran, and not what came out. The program itself may be edited during a long campaign.
OF_THE_RUN = {
    *("wall_s", "started_at", "ended_at", "resumed_at_steps", "attempt", "checksum"),
    *("peak_memory_mb", "peak_reserved_mb", "device_memory_mb", "git_revision", "git_dirty"),
}


class Violation(AssertionError):
    """Something was lost, repeated, left behind or wrong."""


class Campaign:
    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        faults: int,
        kinds: dict[str, int] = WEIGHTS,
        overrides: Sequence[str] = (),
    ) -> None:
        """overrides: of SWEEP, for a smaller one."""
        self._folder = folder
        self._random = random.Random(seed)
        self._left = faults
        self._kinds = kinds
        self._changes = overrides
        self._server = TrackingServer(folder / "tracker")
        self._finished: dict[Path, tuple[str, int]] = {}  # result.json -> digest, mtime
        self._interrupted: Counter[Path] = Counter()  # trial folder -> faults that met it with a checkpoint
        self.struck: Counter[str] = Counter()
        self.commands = 0
        self.resumes = 0

    def run(self) -> dict[str, Any]:
        """Counts of what was done; Violation names the first thing that is wrong."""
        started = time.monotonic()
        _write_images(self._folder / "images")
        self._server.start()
        try:
            self._through("undisturbed", disturbed=False)
            number = 0
            while self._left:
                number += 1
                self._through(f"disturbed{number}", disturbed=True)
                self._check_sweep(f"disturbed{number}")
        finally:
            self._server.stop()
        return {
            "faults": sum(self.struck.values()),
            "struck": dict(sorted(self.struck.items())),
            "sweeps": number,
            "commands": self.commands,
            "finished_results": len(self._finished),
            "resumes": self.resumes,
            "minutes": round((time.monotonic() - started) / 60, 1),
        }

    def _through(self, name: str, *, disturbed: bool) -> None:
        """Give the command until it ends well."""
        for _ in range(200):
            if self._command(name, disturbed=disturbed) == 0:
                return
        raise Violation(f"{name}: the same command does not come to an end")

    def _command(self, name: str, *, disturbed: bool) -> int:
        marker = uuid.uuid4().hex
        family = Family(marker)
        self.commands += 1
        with open(self._folder / f"{name}.log", "ab") as log:
            driver = subprocess.Popen(
                [sys.executable, "-m", "sweep", f"name={name}", *self._overrides()],
                env={
                    **os.environ,
                    MARKER: marker,
                    "OMP_NUM_THREADS": "1",
                    "RDC_CACHE": str(self._folder / "cache"),
                },
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        give_up_at = time.monotonic() + COMMAND_LIMIT_S
        pause_s = self._pause_s()
        while driver.poll() is None:
            family.alive()
            time.sleep(0.1)
            pause_s -= 0.1
            if disturbed and self._left and pause_s <= 0 and self._strike(name, family, driver):
                pause_s = self._pause_s()
            if time.monotonic() > give_up_at:
                driver.kill()
                raise Violation(f"{name}: the command hangs; see {name}.log")
        self._check_orphans(name, family)
        self._check_finished(name)
        self._server.start()
        return driver.returncode

    def _overrides(self) -> list[str]:
        images = self._folder / "images"
        places = [f"runs_dir={self._folder}/runs", f"data.train={images}/train", f"data.eval={images}/eval"]
        return [*SWEEP, *self._changes, *places, f"tracking.uri={self._server.uri}"]

    def _pause_s(self) -> float:
        return self._random.uniform(*PAUSE_S)

    def _strike(self, name: str, family: Family, driver: subprocess.Popen[bytes]) -> bool:
        """One fault, if there is something to strike."""
        (kind,) = self._random.choices(list(self._kinds), list(self._kinds.values()))
        if kind == "tracker":
            self._server.kill()
            self._server.start(after_s=self._random.uniform(*TRACKER_AWAY_S))
        else:
            targets = [p for p in family.of_kind(kind) if kind != "driver" or p.pid == driver.pid]
            if not targets:
                return False
            self._check_finished(name)
            if kind != "trial" or len(targets) == 1:
                self._note_interrupted(name)
            kill(self._random.choice(targets))
        self.struck[kind] += 1
        self._left -= 1
        return True

    def _note_interrupted(self, name: str) -> None:
        """Trials that are struck and have a checkpoint: their next attempt has to use it."""
        for folder in (self._folder / "runs" / name / "trials").glob("*"):
            if (folder / "resume.pt").exists() and not (folder / "result.json").exists():
                self._interrupted[folder] += 1

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
        runs = self._folder / "runs"
        expected, got = _results(runs / "undisturbed"), _results(runs / name)
        for spec_id, result in expected.items():
            if different := _differences(result, got.get(spec_id)):
                raise Violation(f"{name}: trial {spec_id} differs from the undisturbed one: {different}")
        if got.keys() != expected.keys():
            raise Violation(f"{name}: has trials {sorted(got)} and undisturbed {sorted(expected)}")
        for folder in (runs / name / "trials").iterdir():
            resumed = json.loads((folder / "result.json").read_bytes())["training"]["resumed_at_steps"]
            if any(step <= 0 for step in resumed) or (self._interrupted[folder] and not resumed):
                raise Violation(f"{folder}: was interrupted with a checkpoint, and resumed at {resumed}")
            self.resumes += len(resumed)
        if problem := self._server.problem_with(name, set(expected)):
            raise Violation(f"{name}: {problem}")


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
    numbers = np.random.default_rng(0)
    for name in ("train/a", "train/b", "train/c", "train/d", "eval/e", "eval/f"):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = np.kron(numbers.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(smooth).save(path)


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
        report = Campaign(folder, seed=options.seed, faults=options.faults).run()
    except Violation as violation:
        print(f"VIOLATION {violation}\n{folder} is kept", file=sys.stderr)
        return 1
    print(json.dumps({"seed": options.seed, **report}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
