"""`python -m rdc time`: time models in all the settings that are asked for, and append to a runtime table."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rdc.checkpoint import model_spec, read_metadata
from rdc.complexity import HEIGHT_PX, WIDTH_PX, Complexity, measure
from rdc.data import read_rgb
from rdc.errors import UserError
from rdc.machine import allocator_env, device_slug, resolve_device, thread_env
from rdc.processes import package_path
from rdc.runtime_table import Setting, append, check_writable, read_settings
from rdc.spec import ModelSpec, arch_id, to_plain

NAMED_SIZES = {"kodak": (512, 768), "clic": (1365, 2048)}
PRECISIONS = ("fp32", "bf16")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
# Models that take turns. More hide a drift of the machine better, but are all in memory at once, and lost
# together when the command is stopped.
GROUP = 8
BUSY_CPUS = 0.2  # of other processes: from here on times are worse than the machine's
BUSY_LOAD = 0.5


@dataclasses.dataclass(frozen=True)
class TimedModel:
    """weights: 'random', or 'trained' and the trial that they are from."""

    name: str
    spec: ModelSpec
    checkpoint: Path | None = None
    weights: str = "random"


@dataclasses.dataclass(frozen=True)
class TimedSize:
    """An image size, with a photo of it or without one."""

    height_px: int
    width_px: int
    photo: str | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """All combinations are measured. again: also those that the table has already."""

    device: str
    threads: tuple[int, ...]
    precisions: tuple[str, ...]
    sizes: tuple[TimedSize, ...]
    repeats: int
    decode_only: bool
    again: bool

    def __post_init__(self) -> None:
        for name, values in (("--threads", self.threads), ("--repeats", (self.repeats,))):
            for value in values:
                if not 1 <= value <= 1024:
                    raise UserError(f"{name} {value}: must lie between 1 and 1024")
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise UserError(f"--precision {precision}: is not known; known: {', '.join(PRECISIONS)}")


def from_checkpoint(path: Path) -> TimedModel:
    """UserError for what is no checkpoint."""
    metadata = read_metadata(path)
    weights = f"trained {metadata['extra'].get('spec_id', 'elsewhere')}"
    return TimedModel("checkpoint", model_spec(metadata, path), path, weights)


def parse_sizes(texts: Sequence[str]) -> tuple[TimedSize, ...]:
    """HEIGHTxWIDTH, kodak, clic, image files, or folders of them; of several photos of one size the first."""
    sizes: dict[tuple[int, int], TimedSize] = {}
    for text in texts:
        for size in _sizes_of(text):
            sizes.setdefault((size.height_px, size.width_px), size)
    return tuple(sizes.values())


def _sizes_of(text: str) -> Iterator[TimedSize]:
    if text in NAMED_SIZES:
        yield TimedSize(*NAMED_SIZES[text])
        return
    sides = text.lower().split("x")
    if len(sides) == 2 and all(side.isdecimal() for side in sides):
        height, width = map(int, sides)
        if min(height, width) < 1:
            raise UserError(f"--images {text}: both sides must be at least 1")
        yield TimedSize(height, width)
        return
    path = Path(text)
    if not path.exists():
        raise UserError(
            f"--images {text}: must be {', '.join(NAMED_SIZES)}, HEIGHTxWIDTH, an image file or a folder"
        )
    photos = [path]
    if path.is_dir():
        photos = sorted(inside for inside in path.iterdir() if inside.suffix.lower() in IMAGE_ENDINGS)
    if not photos:
        raise UserError(f"--images {text}: the folder holds no image ({', '.join(IMAGE_ENDINGS)})")
    for photo in photos:
        height, width = read_rgb(photo).shape[:2]
        yield TimedSize(height, width, str(photo))


def time_models(models: Sequence[TimedModel], settings: Settings, table: Path) -> None:
    """Measure what the table lacks, row by row; a repeated command goes on where this one was stopped.

    UserError for a table that cannot be appended to, before anything is measured, and at the end if a model
    could not be measured in some setting.
    """
    _check_gated(models, settings)
    device = resolve_device(settings.device)
    known = read_settings(table)
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        _say(f"warning: load average {load:.1f}: other processes run here, and slow down what is timed")
    run = _Run(models, settings, table, str(device), device_slug(device), load)
    lacking = run.missing(set() if settings.again else known)
    if lacking:
        check_writable(table)
    every = len(models) * len(settings.threads) * len(settings.precisions) * len(settings.sizes)
    print(
        f"{len(lacking)} of {every} measurements to make on {device_slug(device)}; table {table}", flush=True
    )
    try:
        for threads, of_threads in itertools.groupby(lacking, key=lambda wanted: wanted.threads):
            run.in_threads(threads, list(of_threads))
    except KeyboardInterrupt:
        raise UserError(f"stopped; the same command goes on, with what {table} lacks") from None
    if run.failed:
        raise UserError(
            f"{run.failed} of {len(lacking)} measurements failed, as said above; the others are in {table}"
        )
    print(f"{table}: complete; compare with `python -m analysis runtime {table}`")


def _check_gated(models: Sequence[TimedModel], settings: Settings) -> None:
    """UserError where gates would decide by what no user codes."""
    for model in models:
        if model.spec.gating.name == "none":
            continue
        if model.checkpoint is None:
            raise UserError(
                f"--models {model.name}: gating={model.spec.gating.name} closes no channel before it is "
                "trained; time a trained one with --checkpoints"
            )
        for size in settings.sizes:
            if size.photo is None and model.spec.gating.name != "static":
                raise UserError(
                    f"{model.checkpoint}: which channels its gates close, and so its time, depends on the "
                    f"image; name photos with --images, in place of {size.height_px}x{size.width_px} alone"
                )


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """One measurement to make."""

    model: TimedModel
    threads: int
    precision: str
    size: TimedSize


@dataclasses.dataclass
class _Run:
    models: Sequence[TimedModel]
    settings: Settings
    table: Path
    device: str
    slug: str
    load_average: float
    failed: int = 0

    def missing(self, known: set[Setting]) -> list[_Wanted]:
        """In the order in which they are made: models in the inner loop, numbers of threads in the outer."""
        found, seen = [], set(known)
        settings = self.settings
        for threads, precision, size, model in itertools.product(
            dict.fromkeys(settings.threads), dict.fromkeys(settings.precisions), settings.sizes, self.models
        ):
            px = size.height_px, size.width_px
            setting = Setting(arch_id(model.spec), model.weights, self.slug, threads, precision, *px)
            if setting not in seen:
                seen.add(setting)
                found.append(_Wanted(model, threads, precision, size))
        return found

    def in_threads(self, threads: int, lacking: list[_Wanted]) -> None:
        """Groups of models of one precision and size, one after the other, in a process of their own."""
        alike = itertools.groupby(lacking, key=lambda wanted: (wanted.precision, wanted.size))
        groups = [group for _, same in alike for group in _chunks(list(same))]
        worker: _Worker | None = None
        try:
            for group in groups:
                left = {index: (wanted, self._task(index, wanted)) for index, wanted in enumerate(group)}
                left = {index: pair for index, pair in left.items() if pair[1] is not None}
                while left:
                    if worker is None or not worker.is_alive():
                        worker = _Worker(threads)
                    at = self._group(worker, left)
                    if at is None:
                        break
                    # The process died: of this model, or of its share of the memory.
                    self._fail(left.pop(at)[0], worker.last_words())
        finally:
            if worker:
                worker.end()

    def _group(self, worker: _Worker, left: dict[int, tuple[_Wanted, dict[str, Any] | None]]) -> int | None:
        """Send a group, take its answers out of `left`; the index of the model that the process died of."""
        at = next(iter(left))
        for answer in worker.ask([task for _, task in left.values()]):
            at = answer.get("index", answer.get("begin", at))
            if "row" in answer:
                self._store(left.pop(at)[0], answer["row"])
            elif "failed" in answer:
                self._fail(left.pop(at)[0], answer["failed"])
            elif "done" in answer:
                return None
        return at if at in left else next(iter(left), None)

    def _task(self, index: int, wanted: _Wanted) -> dict[str, Any] | None:
        """What the worker needs to know; None if the model cannot be counted at this size."""
        model, size = wanted.model, wanted.size
        try:
            published = _complexity(model.spec, HEIGHT_PX, WIDTH_PX)
            steps = _complexity(model.spec, size.height_px, size.width_px).serial_steps["decode"]
        except UserError as error:
            self._fail(wanted, str(error))
            return None
        return {
            "index": index,
            "name": model.name,
            "model": to_plain(model.spec),
            "weights": model.weights,
            "checkpoint": str(model.checkpoint) if model.checkpoint else None,
            "image": size.photo,
            "height_px": size.height_px,
            "width_px": size.width_px,
            "device": self.device,
            "threads": wanted.threads,
            "precision": wanted.precision,
            "repeats": self.settings.repeats,
            "decode_only": self.settings.decode_only,
            "cost": {
                "kflop_per_px_dec": 2 * published.kmac_per_px("decode"),
                "params_m": sum(published.params.values()) / 1e6,
                "serial_steps_dec": sum(steps.values()),
            },
        }

    def _store(self, wanted: _Wanted, row: dict[str, Any]) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        append(self.table, row | {"measured_at": now, "load_average": self.load_average})
        spread = f"{row['dec_net_q25_ms']:.4g}-{row['dec_net_q75_ms']:.4g}"
        times = f"decode {row['dec_net_ms']:.4g} ms ({spread}), roofline {row['roofline_ms']:.4g}"
        line = f"{_named(wanted)}: {times}"
        if (row.get("others_cpus") or 0) > BUSY_CPUS:
            line += f"; other processes kept {row['others_cpus']:.1f} CPUs busy"
        print(line, flush=True)

    def _fail(self, wanted: _Wanted, cause: str) -> None:
        self.failed += 1
        _say(f"{_named(wanted)}: not timed ({cause})")


class _Worker:
    """A process of rdc.time_worker."""

    def __init__(self, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rdc.time_worker", str(os.getpid()), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **allocator_env(), **thread_env(threads), "PYTHONPATH": package_path()},
        )

    def ask(self, tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        """Its answers; they end without {"done": true} if it dies."""
        assert self._process.stdin is not None, "is a pipe"
        assert self._process.stdout is not None, "is a pipe"
        try:
            self._process.stdin.write(json.dumps(tasks) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return
        for line in self._process.stdout:
            answer = json.loads(line)
            yield answer
            if "done" in answer:
                return

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        """Why it died."""
        status = self._process.wait()
        if status == -9:
            return "its process was killed, as Linux does where memory runs out"
        return f"its process ended with status {status}"

    def end(self) -> None:
        """Now: it only waits for the next group, or nobody wants its answer any more."""
        self._process.kill()
        self._process.wait()


@functools.lru_cache(maxsize=512)
def _complexity(spec: ModelSpec, height_px: int, width_px: int) -> Complexity:
    return measure(spec, height_px, width_px)


def _chunks(wanted: list[_Wanted]) -> list[list[_Wanted]]:
    return [wanted[start : start + GROUP] for start in range(0, len(wanted), GROUP)]


def _named(wanted: _Wanted) -> str:
    size, model = wanted.size, wanted.model
    name = model.name if model.checkpoint is None else str(model.checkpoint)
    return f"{name}, {wanted.threads} threads, {wanted.precision}, {size.height_px}x{size.width_px}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
