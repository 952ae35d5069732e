"""One training over several processes: each takes a share of every batch, and all end each step alike.

The trial's own process only watches; `python -m rdc.ddp` is what it starts, once per share. The first of them
writes the trial's files, as a training in one process does. A process that dies therefore ends the trial with
one error, whatever the others wait for at that moment.

Noise is a function of the seed, the step and the place of an image in the batch. Two processes with batches
of 8 draw what one process draws that passes 4 images at a time.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdc.errors import UserError
from rdc.files import StorageError, atomic_write_json, read_json, storing
from rdc.memory import in_words, where_memory_ran_out
from rdc.preempt import StoppedEarly
from rdc.processes import die_with, package_path

_POLL_S = 0.1
_SETTLE_S = 1.0  # for the others to end too, so that the first cause is told from what it caused
_WAIT_LIMIT = datetime.timedelta(hours=2)  # the others wait while the first one validates or writes
_PLACES: tuple[str | None, ...] = (None, "host", "cuda")


class Alone:
    """The team of a training in one process."""

    is_first = True

    def share(self, batch_size: int) -> tuple[int, int]:
        """First image of a batch that is this process's, and the one after its last."""
        return 0, batch_size

    def place(self, images: int, batch_size: int) -> tuple[int, int]:
        """(images of the whole batch, place of this process's first one in it); images: how many it has."""
        return images, 0

    def add_up(self, gradients: Sequence[Tensor | None], statistics: Tensor) -> None:
        """Replace each by the sum over all processes, in place."""

    def ran_out(self, place: str) -> None:
        """Tell the others, at the next `agree`, which memory was too small here."""

    def agree(self, stop: bool, micro_batch: int) -> tuple[bool, int, str]:
        """(whether any wants to stop, the smallest micro_batch of all, which memory was too small)."""
        return stop, micro_batch, "host"


class Team(Alone):
    """This process's place among `size` that have called init_process_group."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self.is_first = rank == 0
        # Decisions go over the CPU, so that no step waits for its GPU.
        self._decisions: Any = torch.distributed.new_group(backend="gloo", timeout=_WAIT_LIMIT)
        self._ran_out = 0

    def share(self, batch_size: int) -> tuple[int, int]:
        return share_of(self._rank, self._size, batch_size)

    def place(self, images: int, batch_size: int) -> tuple[int, int]:
        return batch_size, self.share(batch_size)[0]

    def add_up(self, gradients: Sequence[Tensor | None], statistics: Tensor) -> None:
        parts = [part for part in (*gradients, statistics) if part is not None]
        flat = torch.cat([part.reshape(-1) for part in parts])
        with _contact():
            torch.distributed.all_reduce(flat)
        for part, total in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(total.view(part.shape))

    def ran_out(self, place: str) -> None:
        self._ran_out = max(self._ran_out, _PLACES.index(place))

    def agree(self, stop: bool, micro_batch: int) -> tuple[bool, int, str]:
        largest = torch.tensor([int(stop), -micro_batch, self._ran_out])
        with _contact():
            torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX, group=self._decisions)
        stop_any, minus_smallest, ran_out = largest.tolist()
        self._ran_out = 0
        return bool(stop_any), -minus_smallest, _PLACES[ran_out] or "host"


class ContactLost(RuntimeError):
    """Another process of the team does not answer; its own end says why."""


class TeamFailed(RuntimeError):
    """A training over several processes has failed. error_class: of the error that began it."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


def share_of(rank: int, size: int, batch_size: int) -> tuple[int, int]:
    """(first, end) of the images of a batch that process `rank` of `size` takes: equal but for one image."""
    return rank * batch_size // size, (rank + 1) * batch_size // size


def train_in_processes(
    payload: Mapping[str, Any], count: int, *, preempted: Callable[[], bool]
) -> dict[str, float]:
    """Train what the payload of a trial says in `count` processes; resume.pt then holds the end of it.

    Returns rdc.machine.memory_peaks_mb of the largest process. Raises StoppedEarly as training in one process
    does, StorageError, and TeamFailed for everything else.
    """
    with storing(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="rdc-ddp-") as folder:
        Path(folder, "payload.json").write_text(json.dumps(payload))
        with _started(Path(folder), count) as ranks:
            codes = _wait(ranks, preempted)
        reports = [_report(Path(folder), number) for number in range(count)]
    if any(codes):
        raise _failure(codes, reports)
    whole = [report for report in reports if report is not None]
    assert len(whole) == count, "a process that ends well has reported"
    if whole[0]["status"] != "finished":
        raise StoppedEarly(whole[0]["status"], **whole[0]["answer"])
    peaks = [name for name in whole[0] if name.endswith("_mb")]
    return {name: max(float(report[name]) for report in whole) for name in peaks}


@contextlib.contextmanager
def _started(folder: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes, none of which outlives the block. Each ends when its stdin does."""
    environment = {"GLOO_SOCKET_IFNAME": "lo", **os.environ, "PYTHONPATH": package_path()}
    ranks: list[subprocess.Popen[bytes]] = []
    # A SIGTERM to the whole process group is for the watcher, which tells the first of them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        try:
            for rank in range(count):
                command = [sys.executable, "-m", "rdc.ddp", str(folder), str(rank), str(count)]
                ranks.append(subprocess.Popen(command, stdin=subprocess.PIPE, env=environment))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield ranks
    finally:
        for process in ranks:
            process.kill()
        for process in ranks:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()


def _wait(ranks: Sequence[subprocess.Popen[bytes]], preempted: Callable[[], bool]) -> list[int | None]:
    """Until all have ended, or shortly after one has failed; exit codes, None of those still running."""
    told, give_up_at = False, float("inf")
    while time.monotonic() < give_up_at:
        codes = [rank.poll() for rank in ranks]
        if None not in codes:
            break
        if any(codes):
            give_up_at = min(give_up_at, time.monotonic() + _SETTLE_S)
        if preempted() and not told:
            told = True
            _tell(ranks[0])
        time.sleep(_POLL_S)
    return codes


def _tell(first: subprocess.Popen[bytes]) -> None:
    """Ask the team to stop after the step that it is at."""
    assert first.stdin is not None, "it is a pipe"
    with contextlib.suppress(OSError):
        first.stdin.write(b"stop\n")
        first.stdin.flush()


def _report(folder: Path, rank: int) -> dict[str, Any] | None:
    path = folder / f"report{rank}.json"
    report: dict[str, Any] | None = read_json(path) if path.exists() else None
    return report


def _failure(codes: Sequence[int | None], reports: Sequence[Mapping[str, Any] | None]) -> Exception:
    """The error that began it: one that a process told, else a death, last what the others saw of it."""
    told = [report for report in reports if report is not None and report["status"] == "failed"]
    for report in told:
        if report["class"] == StorageError.__name__:
            return StorageError(report["message"])
        if report["class"] != ContactLost.__name__:
            return TeamFailed(report["class"], report["message"])
    for rank, (code, found) in enumerate(zip(codes, reports, strict=True)):
        if code and found is None:
            return TeamFailed("ProcessLost", _death(rank, len(codes), code))
    return TeamFailed("ProcessLost", told[0]["message"])


def _death(rank: int, count: int, code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return (
        f"process {rank + 1} of the {count} that share this training {how} without a word, most often "
        "because memory ran out; the others were stopped, and the trial continues from its last checkpoint"
    )


@contextlib.contextmanager
def _contact() -> Iterator[None]:
    """What torch.distributed raises when another process is gone has many texts and no class."""
    try:
        yield
    except RuntimeError as error:
        if where_memory_ran_out(error) is not None:
            raise
        raise ContactLost(" ".join(str(error).split())[:200]) from error


# ------------------------------------------------------------------------------- in each of the processes


class _Listener:
    """Reads stdin: a line asks to stop at the next step, the end of it says that the watcher is gone."""

    def __init__(self) -> None:
        self.wanted = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while os.read(0, 64):
            self.wanted = True
        os._exit(1)


def _run_rank(folder: Path, rank: int, size: int, preempted: Callable[[], bool]) -> dict[str, Any]:
    """This process's part of the training; what to report of it."""
    from rdc.machine import memory_peaks_mb
    from rdc.trial import train_share

    payload = read_json(folder / "payload.json")
    on_gpu = payload["run"]["device"] == "cuda"
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=size,
        timeout=_WAIT_LIMIT,
    )
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        train_share(payload, Team(rank, size), device, preempted=preempted)
    except StoppedEarly as stopped:
        return {"status": stopped.status, "answer": stopped.answer}
    return {"status": "finished", **memory_peaks_mb(device)}


def main(arguments: Sequence[str]) -> int:
    """folder, rank, size -> exit code; folder/reportRANK.json says how it ended."""
    die_with(os.getppid())  # who is gone by now has closed our stdin
    listener = _Listener()
    folder, rank, size = Path(arguments[0]), int(arguments[1]), int(arguments[2])

    from rdc.lean_import import lean_compressai

    lean_compressai()
    code = 0
    try:
        report = _run_rank(folder, rank, size, lambda: listener.wanted)
    except Exception as error:
        import traceback

        print(f"process {rank + 1} of {size}:\n{traceback.format_exc()}", file=sys.stderr)
        kind, message = in_words(error)
        report = {"status": "failed", "class": kind, "message": message}
        code = 1
    with contextlib.suppress(OSError, UserError):
        atomic_write_json(folder / f"report{rank}.json", report)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    # `python -m` would otherwise leave the classes above a second time in rdc.ddp.
    from rdc import ddp

    os._exit(ddp.main(sys.argv[1:]))  # at their own end the libraries wait for processes that are gone
