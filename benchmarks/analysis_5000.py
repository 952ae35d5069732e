"""What `frontier`, `bdrate` and `report` take on 5,000 trials, each in an interpreter of its own.

The trials are synthetic (tests/analysis/synthetic_results.py), as large as real ones: 24 per-image scores,
seven families, 2,499 architectures, 300 with curves of five lmbdas and 650 with three seeds, timings of two
devices. Read as a sweep folder, and as exported CSV tables. Rounds alternate between the two, so that a busy
moment hits both. CPU seconds stand beside wall time: on a machine that others use they say more.
Bar: the three commands together within 20 s.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BAR_S = 20.0
BARRED = ("frontier", "bdrate", "report")
# Not under the bar; what a user would run next.
OTHERS = ("table", "figures", "claims", "export")
LMBDAS = (0.0035, 0.0067, 0.025, 0.0483)
WIDTHS, CURVES, SEEDED, TIMED_OFTEN = 357, 300, 650, 250


def trials() -> Iterator[dict[str, Any]]:
    """5,000 results, one after the other."""
    from synthetic_results import FAMILIES, result

    count = 0
    for width in range(16, 16 + WIDTHS):
        for transform, entropy_model, hyper in FAMILIES:
            changes: dict[str, Any] = {"transform": transform, "hyper_transform": hyper}
            yield result(width, entropy_model, **changes)
            spread = count * 7919 % (WIDTHS * len(FAMILIES))  # so that all families and widths are among them
            if spread < CURVES:
                yield from (result(width, entropy_model, lmbda=lmbda, **changes) for lmbda in LMBDAS)
            if spread < SEEDED:
                yield from (result(width, entropy_model, seed=seed, **changes) for seed in (1, 2))
            count += 1
    yield result(40, status="failed", seed=9)


def write_sources(folder: Path) -> dict[str, Path]:
    """The sweep folder and the folder of CSV tables; analysis itself writes the second from the first."""
    from synthetic_results import timing, timings_of, write_sweep

    from analysis.load import read
    from analysis.tables import export

    made = list(trials())
    firsts = list({tree["arch_id"]: tree for tree in made if tree["complexity"]}.values())
    often = firsts[:: len(firsts) // TIMED_OFTEN]
    timings = [timing(tree) for tree in firsts if tree not in often] + timings_of(often)
    sweep = write_sweep(folder / "sweep", made, timings=timings)
    export(read(sweep), folder / "tables", "csv")
    print(f"{len(made):,} trials of {len(firsts):,} architectures, {len(timings):,} timings", flush=True)
    return {"sweep": sweep, "tables": folder / "tables"}


def command_s(name: str, source: Path, out: Path) -> tuple[float, float]:
    """Wall time and CPU time in seconds of one command in an interpreter of its own."""
    options = ["--format", "parquet"] if name == "export" else []
    out = out.with_suffix(".html") if name == "report" else out
    command = [sys.executable, "-m", "analysis", name, str(source), "-o", str(out), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every start compiles all libraries anew
    started_s, before_s = time.perf_counter(), children_cpu_s()
    done = subprocess.run(
        command, cwd=out.parent, env=environment, capture_output=True, text=True, check=False
    )
    taken_s = time.perf_counter() - started_s
    if done.returncode:
        raise SystemExit(f"{name} {source.name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return taken_s, children_cpu_s() - before_s


def children_cpu_s() -> float:
    """CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(OTHERS)}, which have no bar")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep sources and outputs there")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "analysis")]
    names = (*BARRED, *(OTHERS if options.all else ()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sources = write_sources(folder)
        taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for name in names:
                for kind, source in sources.items():
                    out = folder / f"{name}_of_{kind}"
                    taken.setdefault((name, kind), []).append(command_s(name, source, out))
    print(f"seconds of wall time, median of {options.rounds} rounds (worst; CPU seconds)")
    print(f"{'':10} {'sweep folder':>24} {'CSV tables':>24}")
    totals = dict.fromkeys(sources, 0.0)
    for name in names:
        cells = []
        for kind in sources:
            walls, cpus = zip(*taken[name, kind], strict=True)
            middle = statistics.median(walls)
            cells.append(f"{middle:7.2f} ({max(walls):6.2f}; {statistics.median(cpus):6.2f})")
            totals[kind] += middle if name in BARRED else 0.0
        print(f"{name:10} {cells[0]:>24} {cells[1]:>24}")
    print(f"{'all three':10} {totals['sweep']:8.2f} {'':15} {totals['tables']:8.2f} {'':15} bar {BAR_S:g}")
    return int(max(totals.values()) > BAR_S)


if __name__ == "__main__":
    sys.exit(main())
