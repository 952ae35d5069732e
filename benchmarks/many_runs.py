"""What following a sweep of many trials costs the driver: the tracker's start, a poll, and a record.

`python -m benchmarks.many_runs [--trials 10000]`. The trials' files are made up; MLflow is a real SQLite
store for the records, and left out for the start and the polls, where nothing is to be written.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sweep.tracking.client import Client, FoundRun  # noqa: E402
from sweep.tracking.mirror import Mirror  # noqa: E402
from tests.sweep.synthetic_sweep import SyntheticSweep  # noqa: E402


class NoServer(Client):
    """Takes everything and keeps nothing, so that what is left is our own work."""

    def __init__(self) -> None:
        super().__init__("http://nowhere", 1)
        self._runs = 0

    def connect(self) -> None:
        pass

    def is_active(self, run_id: str, experiment_id: str) -> bool:
        return True

    def experiment(self, name: str, artifacts: Any, tags: Any) -> str:
        return "1"

    def runs_tagged(self, experiment_id: str, tags: Any, *, status: str = "") -> list[FoundRun]:
        return []

    def create_run(self, experiment_id: str, name: str, tags: Any, start_ms: int) -> str:
        self._runs += 1
        return f"run{self._runs}"

    def log(self, run_id: str, points: Any = (), params: Any = None, tags: Any = None) -> None:
        pass

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return None

    def log_datasets(self, run_id: str, datasets: Any) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument(
        "--records", type=int, default=200, help="trials that end while the sweep is followed"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / "runs" / "many", options.trials, options.records)
    return 0


def measure(folder: Path, trials: int, records: int) -> None:
    sweep = SyntheticSweep(folder, trials=trials + records, steps=500)
    write(sweep, range(trials))
    record = sweep.sweep
    client = NoServer()
    mirror = mirror_of(client, folder, record)
    show("first record of an ended trial, our own part", 1000 / trials, lambda: mirror.sync(None))
    shown(folder)
    again = mirror_of(NoServer(), folder, record)
    show("start beside them, all known", 1000, lambda: again.sync(None))
    time.sleep(3.1)  # what has just changed is listed for a while
    show("a poll, nothing new (mean of 100)", 10, lambda: polls(again))
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    begun_ms = ended_ms = 0.0
    for number in range(trials, trials + records):
        sweep.write_curve(number)
        begun_ms += cpu_ms(lambda: again.sync(None)) / records
        sweep.write_result(number, picture=False)
        end(folder, sweep.trials[number]["spec_id"])
        ended_ms += cpu_ms(lambda: again.sync(None)) / records
    line("a poll in which a trial begins, a curve of 403 values", begun_ms)
    line("a poll in which a trial ends: its final record", ended_ms)
    grown_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - memory_mb
    print(f"{f'memory that following {records} more takes':<54} {grown_mb:9.1f} MiB")
    show("the end, all looked at once more", 1000, lambda: again.sync("FINISHED"))
    real_records(folder.parent / "real", records)


def real_records(folder: Path, records: int) -> None:
    """With a real store: one batched call, and everything."""
    sweep = SyntheticSweep(folder, trials=records, steps=500)
    write(sweep, range(records))
    client = Client(f"sqlite:///{folder.parent}/mlflow.db", 30)
    client.connect()
    spent: dict[str, float] = {}
    call = client._call

    def timed(method: str, *args: Any, **kwargs: Any) -> Any:
        started = time.thread_time()
        try:
            return call(method, *args, **kwargs)
        finally:
            spent[method] = spent.get(method, 0.0) + 1000 * (time.thread_time() - started) / records

    client._call = timed  # type: ignore[method-assign]
    whole = cpu_ms(lambda: mirror_of(client, folder, sweep.sweep).sync("FINISHED")) / records
    print(f"\nrecord of a trial in a real SQLite store, ms CPU: {whole:.2f} in all")
    for method, value in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {method:<28} {value:6.2f}")
    print(f"  {'ours':<28} {whole - sum(spent.values()):6.2f}")


def polls(mirror: Mirror) -> None:
    for _ in range(100):
        mirror.sync(None)


def write(sweep: SyntheticSweep, numbers: Any) -> None:
    for number in numbers:
        sweep.write_trial(number, picture=False)


def end(folder: Path, spec_id: str) -> None:
    with open(folder / "jobs.jsonl", "a") as file:
        file.write(json.dumps({"kind": "trial", "job": spec_id}) + "\n")


def mirror_of(client: Client, folder: Path, record: dict[str, Any]) -> Mirror:
    artifacts = folder.parent / "mlartifacts"
    return Mirror(client, experiment="rdc", artifacts=artifacts, folder=folder, sweep=record, say=print)


def shown(folder: Path) -> None:
    for name in ("tracking.json", "tracking.jsonl"):
        if (folder / name).exists():
            print(f"{name:<54} {(folder / name).stat().st_size / 2**20:9.1f} MiB")


def show(what: str, factor: float, work: Callable[[], object]) -> None:
    line(what, cpu_ms(work) * factor / 1000)


def line(what: str, value_ms: float) -> None:
    print(f"{what:<54} {value_ms:9.2f} ms CPU")


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return 1000 * (time.thread_time() - started)


if __name__ == "__main__":
    sys.exit(main())
