"""The process that times models in one number of threads: `python -m rdc.time_worker`, told by its parent.

It reads one group of models per line from stdin, times them in turns, and answers on stdout, both in JSON:
{"begin": index} before it touches a model, {"row": ..., "index": ...} or {"failed": text, "index": ...} once
for each, {"done": true} after the group. A process for each number of threads, because thread pools keep the
size that they start with.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rdc.bitstream import decode_image, encode_image
from rdc.checkpoint import load_model, model_hash
from rdc.lean_import import lean_compressai
from rdc.machine import device_name, device_slug, environment, node_hash, set_threads, synchronize
from rdc.models.codec import Codec, build
from rdc.processes import die_with
from rdc.result import architecture_label
from rdc.runtime import Latents, random_latents, spread, timed, timed_image, watched_networks
from rdc.runtime_table import TABLE_VERSION
from rdc.spec import arch_id, parse_model
from rdc.speed import SpeedMeter
from rdc.work import Operation, operations

_STAGE_ROWS = ("dec_net", "enc_net", "dec_entropy", "dec_total", "enc_entropy", "enc_total")


@dataclasses.dataclass(frozen=True)
class Task:
    """One measurement, as plain JSON.

    model: plain form of its specification. cost: columns of the table that the parent counted. checkpoint:
    trained weights, None for random ones. image: a photo, None for a synthetic one.
    """

    index: int
    name: str
    model: dict[str, Any]
    weights: str
    checkpoint: str | None
    image: str | None
    height_px: int
    width_px: int
    device: str
    threads: int
    precision: str
    repeats: int
    decode_only: bool
    cost: dict[str, Any]


class Bench:
    """One model, built and ready to be timed pass by pass.

    Of random weights only the networks are timed: what they code is not what trained ones code.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.device = torch.device(task.device)
        self.seconds: dict[str, list[float]] = {stage: [] for stage in _STAGE_ROWS}
        self.operations: list[Operation] = []
        self.peak_memory_mb: float | None = None
        self.codec = _codec(task).eval().to(self.device)
        self.codec.set_transform_precision(task.precision)  # type: ignore[arg-type]
        self.x = timed_image(task.image, task.height_px, task.width_px).to(self.device)
        self.latents = self._latents()
        self.coded: bytes | None = None

    @torch.no_grad()
    def _latents(self) -> Latents:
        """Where gates decide by what they see, those of the image."""
        if self.codec.spec.gating.name != "none":
            y, z = self.codec.encoder_networks(self.x)
            return Latents(y.round(), z.round())
        latents = random_latents(self.codec, self.task.height_px, self.task.width_px)
        return Latents(*(latent.to(self.device) for latent in latents))

    @torch.no_grad()
    def warm_up(self) -> None:
        """The pass in which kernels are chosen, and in which the decoder's operators are counted."""
        self.operations = operations(self._decode_networks)
        if self.task.checkpoint or not self.task.decode_only:
            self._round()

    @torch.no_grad()
    def round(self) -> None:
        """Time everything once."""
        for stage, value in self._round().items():
            self.seconds[stage].append(value)

    def _round(self) -> dict[str, float]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        found = {"dec_net": self._elapsed_s(self._decode_networks)}
        if self.device.type == "cuda":
            self.peak_memory_mb = torch.cuda.max_memory_allocated(self.device) / 2**20
        if not self.task.decode_only:
            found["enc_net"] = self._elapsed_s(lambda: self.codec.encoder_networks(self.x))
        if self.task.checkpoint:
            found |= self._coded()
        return found

    def _decode_networks(self) -> None:
        self.codec.decoder_networks(*self.latents)

    def _coded(self) -> dict[str, float]:
        """Whole files: what is spent outside of the networks, and in all."""
        own_hash = model_hash(self.codec)
        rows: dict[str, dict[str, float]] = {}
        with watched_networks(self.codec, self.device) as inside_s:
            if self.coded is None or not self.task.decode_only:
                encode = partial(encode_image, self.codec, self.x, own_hash)
                self.coded, rows["enc"] = timed(encode, inside_s, self.device)
            decode = partial(decode_image, self.codec, self.coded, own_hash)
            _, rows["dec"] = timed(decode, inside_s, self.device)
        found: dict[str, float] = {}
        for short, row in rows.items():
            networks_s = sum(value for name, value in row.items() if name != "total")
            found |= {f"{short}_total": row["total"], f"{short}_entropy": row["total"] - networks_s}
        return found

    def _elapsed_s(self, work: Any) -> float:
        synchronize(self.device)
        started = time.perf_counter()
        work()
        synchronize(self.device)
        return time.perf_counter() - started

    def row(self, meter: SpeedMeter) -> dict[str, Any]:
        """Columns of the runtime table, besides those that are known to the parent or to the group."""
        task, spec = self.task, self.codec.spec
        speed = meter.of(self.operations)
        least = speed.roofline(self.operations)
        source_px = task.height_px * task.width_px
        made_of = environment(self.device)
        return {
            "table_version": TABLE_VERSION,
            "arch_id": arch_id(spec),
            "label": architecture_label(spec),
            "family": spec.family,
            "device": device_name(self.device),
            "device_slug": device_slug(self.device),
            "precision": task.precision,
            "weights": task.weights,
            "threads": task.threads,
            "height_px": task.height_px,
            "width_px": task.width_px,
            "model": task.name,
            "node": node_hash(),
            **{name: made_of[name] for name in ("cpu", "torch", "rdc", "git_revision")},
            "repeats": len(self.seconds["dec_net"]),
            **self._times(),
            **task.cost,
            "operators_dec": len(self.operations),
            "kflop_per_px_dec_executed": sum(op.flop for op in self.operations) / source_px / 1000,
            "bytes_per_px_dec": sum(op.bytes for op in self.operations) / source_px,
            "peak_memory_mb": self.peak_memory_mb,
            **{
                f"peak_{kind}_gflop_per_s": meter.flop_per_s(kind, task.threads) / 1e9
                for kind in {kind for kind, _ in speed.flop_per_s}
            },
            "bandwidth_gb_per_s": meter.bytes_per_s(task.threads) / 1e9,
            "launch_us": meter.launch_s("other", task.threads) * 1e6,
            "launch_convolution_us": meter.launch_s("convolution", task.threads) * 1e6,
            "compute_ms": least.compute_ms,
            "memory_ms": least.memory_ms,
            "serial_ms": least.serial_ms,
            "roofline_ms": least.total_ms,
        }

    def _times(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for stage, seconds in self.seconds.items():
            if seconds:
                times = spread(seconds)
                found |= {
                    f"{stage}_ms": times.median,
                    f"{stage}_q25_ms": times.q25,
                    f"{stage}_q75_ms": times.q75,
                }
        return found


def time_group(tasks: Sequence[Task], meter: SpeedMeter) -> Iterator[dict[str, Any]]:
    """Answers about a group, whose models take turns: what the machine does meanwhile hits them alike."""
    benches: list[Bench] = []
    for task in tasks:
        yield {"begin": task.index}
        try:
            bench = Bench(task)
            bench.warm_up()
            meter.of(bench.operations)  # now, not between the rounds
        except Exception as error:
            yield _failed(task, error)
        else:
            benches.append(bench)
    busy = BusyOthers()
    for number in range(max((task.repeats for task in tasks), default=0)):
        # Every other round in reverse, so that no model always follows the same one.
        for bench in benches[:: -1 if number % 2 else 1]:
            yield {"begin": bench.task.index}
            try:
                bench.round()
            except Exception as error:
                benches = [other for other in benches if other is not bench]
                yield _failed(bench.task, error)
    others_cpus = busy.cpus()
    for bench in benches:
        yield {"row": bench.row(meter) | {"others_cpus": others_cpus}, "index": bench.task.index}
    benches.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class BusyOthers:
    """CPUs that other processes keep busy, on average since this was made; None where Linux does not tell."""

    def __init__(self) -> None:
        self._busy_s, self._own_s, self._started = _busy_s(), _own_s(), time.monotonic()

    def cpus(self) -> float | None:
        """Not below 0, though the system counts in hundredths of a second."""
        busy_s, passed_s = _busy_s(), time.monotonic() - self._started
        if busy_s is None or self._busy_s is None or passed_s <= 0:
            return None
        return max(0.0, round((busy_s - self._busy_s - _own_s() + self._own_s) / passed_s, 3))


def _busy_s() -> float | None:
    """Seconds that all CPUs together have worked: user, nice, system, interrupts, and other guests."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / float(os.sysconf("SC_CLK_TCK"))


def _own_s() -> float:
    own = os.times()
    return own.user + own.system


def _codec(task: Task) -> Codec:
    if task.checkpoint is not None:
        return load_model(task.checkpoint)[0]
    torch.manual_seed(0)
    return build(parse_model(task.model))


def _failed(task: Task, error: Exception) -> dict[str, Any]:
    """In one line; what it held on the device is given back."""
    text = " ".join(str(error).split())
    answer = {"failed": f"{type(error).__name__}: {text[:200]}", "index": task.index}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return answer


def main() -> None:
    """Until stdin ends."""
    parent, threads = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    lean_compressai()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    set_threads(threads)
    meters: dict[str, SpeedMeter] = {}
    for line in sys.stdin:
        tasks = [Task(**plain) for plain in json.loads(line)]
        device = tasks[0].device
        meter = meters.setdefault(device, SpeedMeter(torch.device(device)))
        for answer in time_group(tasks, meter):
            print(json.dumps(answer, allow_nan=False), file=answers)
        print(json.dumps({"done": True}), file=answers)


if __name__ == "__main__":
    main()
