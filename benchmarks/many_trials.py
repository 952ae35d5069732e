"""What thousands of trials cost the driver: deciding what is left to run, and memory while they come and go.

Results as large as real ones are written for a plan, and read as the driver reads them; then trials without
work run inline. Bars: the decision within 5 s, and 16 MB of growth from the hundredth trial to the last.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DECISION_BAR_S = 5.0
GROWTH_BAR_MB = 16.0
_memory_mb: list[float] = []


def no_op(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Job entry: a trial's result without its work; notes what this process, the driver's, takes."""
    from rdc.result import write_result
    from rdc.spec import parse_trial

    _memory_mb.append(resident_mb())
    return write_result(Path(payload["run"]["folder"]), result_of(parse_trial(payload["spec"])))


def probe(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Job entry: a machine without measuring it."""
    return {"device_slug": "benchmark", "bf16_fast": False, "bf16_speedup": 1.0}


def result_of(spec: Any) -> dict[str, Any]:
    """As large as the result of a trial on 24 images."""
    from rdc.result import identity

    numbers = {f"{name}_of_an_image": 0.123456789012345 + n for n, name in enumerate("abcdefghijkl")}
    images = [{"name": f"kodim{n:02}", **numbers} for n in range(24)]
    scores = {"bpp": 0.5, "psnr_db": 30.0, "mse": 1e-3, "rd_loss": 1.5}
    evaluation = {"dataset": "none", "dataset_hash": "0", "images": 24, **scores, "per_image": images}
    counts = {
        f"{way}_{what}_per_px": 1.0
        for way in ("encode", "decode")
        for what in ("parity_kmac", "executed_kmac")
    }
    parts = {
        part: {"params": 1000, **counts}
        for part in ("g_a", "g_s", "h_a", "h_s", "context", "entropy_bottleneck")
    }
    return {
        **identity(spec),
        "status": "ok",
        "training": {"budget": "benchmark", "started_at": 0.0, "ended_at": 1.0},
        "evaluation": evaluation,
        "complexity": {"decode": {"parity_kmac_per_px": 1.0, "parity_kflop_per_px": 2.0}, "parts": parts},
        "environment": {f"package{n}": "1.2.3" for n in range(40)},
        "error": None,
        "attempt": 1,
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def overrides_of(folder: Path, seeds: int) -> list[str]:
    from benchmarks.sweep_overhead import tiny_images

    data = tiny_images(folder)
    return [
        "name=many",
        f"runs_dir={folder / 'runs'}",
        "budget=smoke",
        "budget.precision=fp32",
        "depth.channels=[8,8,8]",
        "depth.latent_channels=8",
        f"seeds=[{','.join(map(str, range(seeds)))}]",
        f"data.train={data / 'train'}",
        f"data.eval={data / 'eval'}",
        "tracking=none",
        "cluster=inline",
        "time=false",
    ]


def planned(overrides: Sequence[str]) -> Any:
    import conf
    from sweep.plan import choose_data, choose_models, make_plan
    from sweep.settings import read_settings

    config = conf.compose(overrides)
    settings = read_settings(config)
    data = choose_data(settings, lambda text: None)
    return make_plan(config, settings, choose_models(config, overrides, settings), data, "fp32")


def decision_s(folder: Path, trials: int) -> dict[str, float]:
    """Seconds from a plan of finished trials to knowing that nothing is left, and the plan's own."""
    from rdc.result import write_result
    from sweep.record import finished_result
    from sweep.search.source import Grid, summary

    overrides = overrides_of(folder, trials)
    started_s = time.perf_counter()
    plan = planned(overrides)
    plan_s = time.perf_counter() - started_s
    for trial in plan.trials:
        trial.folder.mkdir(parents=True)
        write_result(trial.folder, result_of(trial.spec))
    started_s = time.perf_counter()
    found = {t.spec_id: summary(result) for t in plan.trials if (result := finished_result(t)) is not None}
    left = Grid([trial for trial in plan.trials if trial.spec_id not in found])
    taken_s = time.perf_counter() - started_s
    assert left.done, "every trial was finished"
    size_kb = (plan.trials[0].folder / "result.json").stat().st_size / 1024
    return {"plan_s": plan_s, "decision_s": taken_s, "result_kb": size_kb}


def growth_mb(folder: Path, trials: int) -> dict[str, float]:
    """Resident memory of a driver while no-op trials run: at the hundredth and at the last."""
    import conf
    from sweep.driver import run_sweep
    from sweep.machines import Entries

    overrides = overrides_of(folder, trials)
    entries = Entries(trial="many_trials:no_op", probe="many_trials:probe")
    gc.collect()
    started_s = time.perf_counter()
    code = run_sweep(conf.compose(overrides), overrides=overrides, entries=entries)
    wall_s = time.perf_counter() - started_s
    if code or len(sys.modules["many_trials"]._memory_mb) != trials:
        raise SystemExit(f"the sweep went wrong (exit code {code})")
    memory = sys.modules["many_trials"]._memory_mb
    first = memory[min(99, trials - 1)]
    return {"first_mb": first, "last_mb": memory[-1], "growth_mb": memory[-1] - first, "wall_s": wall_s}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=1_000)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    from rdc.lean_import import lean_compressai

    lean_compressai()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RDC_CACHE"] = str(Path(folder) / "cache")
        decided = decision_s(Path(folder) / "finished", options.finished)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # a line per trial
            grown = growth_mb(Path(folder) / "running", options.trials)
    print(f"{options.finished} finished trials, results of {decided['result_kb']:.1f} KB")
    print(f"  plan them                     {decided['plan_s']:7.2f} s")
    print(f"  decide that nothing is left   {decided['decision_s']:7.2f} s  bar {DECISION_BAR_S:g}")
    print(f"{options.trials} trials without work, inline, in {grown['wall_s']:.0f} s")
    print(f"  memory at the hundredth       {grown['first_mb']:7.1f} MB")
    print(f"  memory at the last            {grown['last_mb']:7.1f} MB  growth bar {GROWTH_BAR_MB:g}")
    return int(decided["decision_s"] > DECISION_BAR_S or grown["growth_mb"] > GROWTH_BAR_MB)


if __name__ == "__main__":
    sys.exit(main())
