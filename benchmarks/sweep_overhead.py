"""What the machinery of a sweep costs: 40 trials whose body sleeps 1 s, on 2 slots, through all that ships.

The driver, Ray slots, fork servers, trial files, MLflow (SQLite) and the final report are the real ones; only
the job's entry is another. Bar: first start to last record in MLflow within 1.25 times the ideal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BAR = 1.25


def sleep_trial(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Job entry: a trial's files without its work."""
    from rdc.files import append_jsonl, atomic_write_json
    from rdc.result import RESULT_FILE

    folder = Path(payload["run"]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    started_at = time.time()
    for step in range(10, 101, 10):
        time.sleep(float(os.environ["SLEEP_S"]) / 10)
        point = {"train/loss": 1 / step, "train/bpp": 0.5, "train/psnr_db": 30.0}
        append_jsonl(folder / "metrics.jsonl", {"step": step, "t": time.time(), **point})
    result = _result(payload["spec"], started_at)
    atomic_write_json(folder / RESULT_FILE, result)
    return result


def probe(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Job entry: a machine without measuring it."""
    return {"device_slug": "benchmark", "bf16_fast": False, "bf16_speedup": 1.0}


def _result(spec: Mapping[str, Any], started_at: float) -> dict[str, Any]:
    from rdc.result import SCHEMA_VERSION, architecture_label
    from rdc.spec import parse_trial

    trial = parse_trial(spec)
    rates = {"bpp": 0.5, "bpp_payload": 0.5, "bpp_estimated": 0.5, "rate_gap_pct": 0.0}
    quality = {"psnr_db": 30.0, "psnr_of_mean_mse_db": 30.0, "mse": 1e-3, "ms_ssim": 0.95, "ms_ssim_db": 13.0}
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "ok",
        "spec_id": trial.spec_id,
        "curve_id": trial.curve_id,
        "arch_id": trial.arch_id,
        "label": architecture_label(trial.model),
        "family": trial.model.family,
        "spec": dict(spec),
        "training": {"budget": "benchmark", "started_at": started_at, "ended_at": time.time()},
        "evaluation": {
            "dataset": "none",
            "dataset_hash": "0",
            "images": 1,
            **rates,
            **quality,
            "rd_loss": 1.5,
        },
        "complexity": {"decode": {"parity_kmac_per_px": 1.0, "parity_kflop_per_px": 2.0}},
        "warm_start": None,
        "error": None,
        "attempt": 1,
    }


@dataclasses.dataclass
class MlflowWatch:
    """When the tracker's own file first said that every trial's result is in MLflow."""

    folder: Path
    trials: int
    complete_at: float | None = None

    def run(self) -> None:
        from rdc.errors import UserError
        from sweep.tracking.state import read_state

        while self.complete_at is None:
            time.sleep(0.05)
            try:
                known = read_state(self.folder)
            except UserError:  # nothing is logged yet
                continue
            logged = sum(bool(trial.get("result")) for trial in known["trials"].values())
            if logged == self.trials:
                self.complete_at = time.time()


def measure(folder: Path, *, trials: int, slots: int, sleep_s: float) -> dict[str, float]:
    """Seconds: start-up (command to first trial), work (first start to last record), ideal."""
    import conf
    from sweep.driver import run_sweep
    from sweep.machines import Entries

    images = tiny_images(folder)
    overrides = [
        "name=overhead",
        f"runs_dir={folder / 'runs'}",
        "depth.channels=[8,8,8]",
        "depth.latent_channels=8",
        f"seeds=[{','.join(map(str, range(trials)))}]",
        f"data.train={images / 'train'}",
        f"data.eval={images / 'eval'}",
        f"tracking.uri=sqlite:///{folder / 'mlflow.db'}",
        f"cluster.slots={slots}",
        "time=false",
    ]
    sweep = folder / "runs" / "overhead"
    watch = MlflowWatch(sweep, trials)
    threading.Thread(target=watch.run, daemon=True).start()
    asked_at = time.time()
    entries = Entries(
        trial="sweep_overhead:sleep_trial",
        probe="sweep_overhead:probe",
        preload=("sweep.preload", "sweep_overhead"),
    )
    code = run_sweep(conf.compose(overrides), overrides=overrides, entries=entries)
    ended_at = time.time()
    jobs = [json.loads(line) for line in (sweep / "jobs.jsonl").read_text().splitlines()]
    first = min(job["started_at"] for job in jobs)
    last = max(job["ended_at"] for job in jobs)
    if code or len(jobs) != trials or watch.complete_at is None:
        raise SystemExit(
            f"the sweep went wrong (exit code {code}, {len(jobs)} jobs); see {sweep / 'driver.log'}"
        )
    return {
        "ideal_s": trials * sleep_s / slots,
        "start_up_s": first - asked_at,
        "last_job_s": last - first,
        "last_record_s": max(last, watch.complete_at) - first,
        "closing_s": ended_at - max(last, watch.complete_at),
    }


def tiny_images(folder: Path) -> Path:
    """A folder of images that are enough for trials without work."""
    """Folder of images that are enough for trials without work."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("train/1.png", "train/2.png", "eval/3.png"):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(path)
    return folder / "images"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--sleep-s", type=float, default=1.0)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    # Workers find this file, and how long to sleep, by their environment.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    os.environ["SLEEP_S"] = str(options.sleep_s)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RDC_CACHE"] = str(Path(folder) / "cache")
        found = measure(Path(folder), trials=options.trials, slots=options.slots, sleep_s=options.sleep_s)
    ratio = found["last_record_s"] / found["ideal_s"]
    bar = f"{ratio:.2f} of ideal, bar {BAR}"
    print(f"\n{options.trials} trials of {options.sleep_s:g} s on {options.slots} slots, s")
    print(f"  ideal                                 {found['ideal_s']:7.1f}")
    print(f"  first start to last job's end         {found['last_job_s']:7.1f}")
    print(f"  first start to last record in MLflow  {found['last_record_s']:7.1f}  {bar}")
    print(f"  start-up before (Ray, imports, data)  {found['start_up_s']:7.1f}")
    print(f"  closing after (report, tables, Ray)   {found['closing_s']:7.1f}")
    return int(ratio > BAR)


if __name__ == "__main__":
    sys.exit(main())
