"""What the mathematics of frontiers costs on one core.

The non-dominated set of 1,000,000 points in three objectives, a third of them non-dominated: bar 2 s. Beside
it, in alternating rounds, a filter that compares each point with all others in numpy, and Optuna's, at a size
that they can take. Then `python -m analysis frontier` as a user starts
it, with figures and 1,000 bootstrap resamples, on a table of 5,000 trials, and its report on the same sweep,
read, with 24 scores per image: bar 5 s each, of the process's own time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
PARETO_BAR_S = 2.0
REPORT_BAR_S = 5.0
IMAGES = 24
Costs = npt.NDArray[np.float64]


def hard_points(count: int, objectives: int = 3, seed: int = 0) -> Costs:
    """A third on a plane, where none dominates another, the rest a little behind it, all in random order."""
    random = np.random.default_rng(seed)
    cost = random.dirichlet(np.ones(objectives), count)
    front = count // 3
    cost[front:] += random.uniform(1e-3, 0.5, (count - front, 1))
    return cost[random.permutation(count)]


def naive_mask(cost: Costs) -> npt.NDArray[np.bool_]:
    """Each point against all others."""
    found = np.empty(len(cost), dtype=bool)
    for row, point in enumerate(cost):
        found[row] = not ((cost <= point).all(axis=1) & (cost < point).any(axis=1)).any()
    return found


def optuna_mask(cost: Costs) -> npt.NDArray[np.bool_]:
    """Optuna's own, which it keeps to itself."""
    from optuna.study._multi_objective import _is_pareto_front

    return np.asarray(_is_pareto_front(cost, assume_unique_lexsorted=False))


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started_s = time.process_time()
    result = work()
    return time.process_time() - started_s, result


def compare_filters(small: int, rounds: int) -> dict[str, float]:
    """Median seconds of each filter on the same points, in alternating rounds."""
    from analysis.pareto import frontier_mask

    filters: dict[str, Callable[[Costs], Any]] = {
        "analysis.pareto": frontier_mask,
        "numpy, all pairs": naive_mask,
        "optuna": optuna_mask,
    }
    cost = hard_points(small)
    expected = naive_mask(cost)
    taken: dict[str, list[float]] = {name: [] for name in filters}
    for _ in range(rounds):
        for name, function in filters.items():
            taken_s, mask = seconds(lambda function=function: function(cost))  # type: ignore[misc]
            assert (mask == expected).all(), f"{name} finds another frontier"
            taken[name].append(taken_s)
    return {name: statistics.median(values) for name, values in taken.items()}


def write_results(folder: Path, trials: int) -> None:
    """A sweep whose loss falls with cost, with scores per image; otherwise as synthetic results are."""
    from synthetic_results import result, timing, write_sweep

    base = [
        result(width, model) for model in ("scale_hyperprior", "mean_scale_hyperprior") for width in (32, 96)
    ]
    random = np.random.default_rng(0)
    hard = np.exp(random.normal(0, 0.5, IMAGES))
    trees = []
    for n in range(trials):
        tree = json.loads(json.dumps(base[n % len(base)]))
        kmac = 10 ** random.uniform(0.5, 3)
        loss = 2.2 - 0.4 * np.log10(kmac) + abs(random.normal(0, 0.15))
        losses = hard * (1 + 0.03 * random.standard_normal(IMAGES))
        losses *= loss / losses.mean()
        for score, value in zip(tree["evaluation"]["per_image"], losses, strict=True):
            score["rd_loss"] = float(value)
        tree["evaluation"]["rd_loss"] = float(losses.mean())
        tree["complexity"]["decode"] |= {"parity_kmac_per_px": kmac, "parity_kflop_per_px": 2 * kmac}
        tree["training"]["ended_at"] += 60.0 * n
        tree |= {
            "arch_id": f"a{n:011d}",
            "curve_id": f"c{n:011d}",
            "spec_id": f"s{n:011d}",
            "label": f"arch {n}",
        }
        trees.append(tree)
    write_sweep(folder, trees, timings=[timing(tree) for tree in trees])


def command_s(table: Path, out: Path) -> dict[str, float]:
    """`python -m analysis frontier TABLE` in an interpreter of its own, one thread."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "analysis", "frontier", str(table), "-o", str(out)]
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"own_s": own_s, "wall_s": time.perf_counter() - started_s}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=5_000, help="points for the filters that are compared")
    parser.add_argument("--trials", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "analysis")]
    from analysis.frontier import report
    from analysis.load import read
    from analysis.pareto import dominators, frontier_mask

    cost = hard_points(options.points)
    masks = [seconds(lambda: frontier_mask(cost)) for _ in range(options.rounds)]
    pareto_s = statistics.median(taken for taken, _ in masks)
    filters = compare_filters(options.small, options.rounds)
    many = hard_points(100_000)
    dominators_s, _ = seconds(lambda: dominators(many, frontier_mask(many)))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_results(folder / "sweep", options.trials)
        read_s, source = seconds(lambda: read(folder / "sweep"))
        report_s, found = seconds(lambda: report(source, folder / "out", print_table=False))
        assert found.architectures["frontier_probability"].notna().all(), "the bootstrap did not run"
        commands = [command_s(folder / "out" / "trials.csv", folder / "again") for _ in range(options.rounds)]
    table_s = statistics.median(one["own_s"] for one in commands)
    wall_s = statistics.median(one["wall_s"] for one in commands)
    print(f"non-dominated set of {options.points:,} x 3, {100 * masks[0][1].mean():.0f} % of them on it")
    print(f"  analysis.pareto               {pareto_s:7.2f} s  bar {PARETO_BAR_S:g}")
    print(f"the same of {options.small:,} x 3, alternating, median of {options.rounds}")
    for name, taken_s in filters.items():
        print(f"  {name:<28}  {taken_s:7.4f} s")
    print(f"dominators of 100,000 x 3       {dominators_s:7.2f} s")
    print(f"{options.trials:,} trials, {IMAGES} scores per image, 1,000 resamples, figures, one core")
    print(f"  report of a source            {report_s:7.2f} s  bar {REPORT_BAR_S:g}")
    print(f"  reading it from its folder    {read_s:7.2f} s")
    print(f"  the command on its table      {table_s:7.2f} s  bar {REPORT_BAR_S:g}  (wall {wall_s:.2f} s)")
    return int(pareto_s > PARETO_BAR_S or max(report_s, table_s) > REPORT_BAR_S)


if __name__ == "__main__":
    sys.exit(main())
