"""A training step of this project beside CompressAI's example recipe, on the same model and batch.

    python benchmarks/train_step.py                       # 5 rounds, about 8 minutes on two cores
    python benchmarks/train_step.py --device cuda --model scale_hyperprior

Every measurement is a process of its own; contestants take turns, so that a slow minute of the machine meets
all of them. A step is forward, backward, both optimisers; the batch is in memory. Contestants:

compressai  CompressAI's model and the recipe of its example script, written anew here: fp32, NCHW, Adam for
            the weights and for the quantiles, gradient norm clipped to 1, the system's allocator settings
rdc-fp32    this project's trainer in fp32, allocator set as trials set it
rdc-bf16    the same with bf16 transforms, as trials use where the machine has it fast
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CONTESTANTS = ("compressai", "rdc-fp32", "rdc-bf16")
CASES = ((256, 8), (64, 16))  # crop side in pixels, batch
CHANNELS, LATENT_CHANNELS = 128, 192
LMBDA = 0.013
WARMUP_STEPS = 3
ROOT = Path(__file__).resolve().parent.parent


def compressai_step(model: str, crop_px: int, batch: int, device: str) -> Callable[[int], None]:
    import torch
    from compressai.models import MeanScaleHyperprior, ScaleHyperprior

    kinds = {"mean_scale_hyperprior": MeanScaleHyperprior, "scale_hyperprior": ScaleHyperprior}
    net = kinds[model](CHANNELS, LATENT_CHANNELS).to(device).train()
    main = [p for name, p in net.named_parameters() if not name.endswith(".quantiles")]
    auxiliary = [p for name, p in net.named_parameters() if name.endswith(".quantiles")]
    optimizer = torch.optim.Adam(main, lr=1e-4)
    aux_optimizer = torch.optim.Adam(auxiliary, lr=1e-3)
    x = torch.rand(batch, 3, crop_px, crop_px, device=device)
    pixels = batch * crop_px * crop_px

    def step(_: int) -> None:
        optimizer.zero_grad()
        aux_optimizer.zero_grad()
        out = net(x)
        bpp = sum(-torch.log2(likelihood).sum() / pixels for likelihood in out["likelihoods"].values())
        loss = LMBDA * 255**2 * torch.nn.functional.mse_loss(out["x_hat"], x) + bpp
        loss.backward()
        torch.nn.utils.clip_grad_norm_(main, 1.0)
        optimizer.step()
        aux_loss = net.aux_loss()
        aux_loss.backward()
        aux_optimizer.step()

    return step


def rdc_step(model: str, crop_px: int, batch: int, device: str, precision: str) -> Callable[[int], None]:
    import torch

    from conf import compose
    from rdc.configured import model_of
    from rdc.learner import Learner
    from rdc.models.codec import build
    from rdc.spec import Recipe

    config = compose([f"model={model}"])
    spec = model_of(config)
    assert (*spec.depth.channels, spec.depth.latent_channels) == (*(CHANNELS,) * 3, LATENT_CHANNELS), (
        spec.depth
    )
    codec = build(spec).to(device).train()
    codec.set_transform_precision(precision)  # type: ignore[arg-type]
    recipe = Recipe(
        steps=1_000_000,
        batch_size=batch,
        crop_px=crop_px,
        learning_rate=1e-4,
        schedule="constant_then_drop",
        final_learning_rate=1e-5,
    )
    learner = Learner(codec, recipe, lmbda=LMBDA, seed=0)
    x = torch.rand(batch, 3, crop_px, crop_px, device=device)
    return lambda step: learner.update(x, step)  # type: ignore[return-value]


def measure(contestant: str, options: argparse.Namespace, crop_px: int, batch: int) -> dict[str, Any]:
    """In a process of its own: seconds per step, wall and CPU, medians over options.steps."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if contestant == "compressai":
        step = compressai_step(options.model, crop_px, batch, options.device)
    else:
        step = rdc_step(options.model, crop_px, batch, options.device, contestant.removeprefix("rdc-"))
    cuda = options.device.startswith("cuda")
    wall_s, cpu_s = [], []
    for number in range(WARMUP_STEPS + options.steps):
        if cuda:
            torch.cuda.synchronize()
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        step(number)
        if cuda:
            torch.cuda.synchronize()
        if number >= WARMUP_STEPS:
            wall_s.append(time.perf_counter() - started_s)
            cpu_s.append(time.process_time() - started_cpu_s)
    return {"wall_s": statistics.median(wall_s), "cpu_s": statistics.median(cpu_s)}


def run_process(contestant: str, options: argparse.Namespace, crop_px: int, batch: int) -> dict[str, Any]:
    from rdc.machine import allocator_env

    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_", "MKL_"))}
    if contestant != "compressai":
        environment |= allocator_env()
    environment["PYTHONPATH"] = str(ROOT)
    arguments = [f"--{name}={getattr(options, name)}" for name in ("model", "device", "threads", "steps")]
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--one", contestant, str(crop_px), str(batch)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """rounds: {contestant: {wall_s, cpu_s}} each -> spreads, and speed-ups of each round over CompressAI."""
    out: dict[str, Any] = {}
    for name in CONTESTANTS:
        out[name] = {kind: spread([r[name][kind] for r in rounds]) for kind in ("wall_s", "cpu_s")}
        ratios = [r["compressai"]["wall_s"] / r[name]["wall_s"] for r in rounds]
        out[name]["speedup"] = spread(ratios)
    return out


def table(results: Mapping[str, Any]) -> str:
    lines = [
        f"{'crop x batch':<14}{'contestant':<12}{'ms per step':>12}  {'range':<15}{'speed-up':>9}  range"
    ]
    for case, contestants in results.items():
        for name, row in contestants.items():
            ms = {kind: 1000 * value for kind, value in row["wall_s"].items()}
            gain = row["speedup"]
            ms_range = f"{ms['min']:.0f}-{ms['max']:.0f}"
            lines.append(
                f"{case:<14}{name:<12}{ms['median']:>12.1f}  {ms_range:<15}{gain['median']:>8.2f}x  "
                f"{gain['min']:.2f}-{gain['max']:.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="measured steps per process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--model", default="mean_scale_hyperprior", choices=("mean_scale_hyperprior", "scale_hyperprior")
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/train_step.json"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        contestant, crop_px, batch = options.one
        print(json.dumps(measure(contestant, options, int(crop_px), int(batch))))
        return
    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device

    results, raw = {}, {}
    for crop_px, batch in CASES:
        rounds = []
        for number in range(options.rounds):
            # Every other round in reverse, so that no contestant always follows the same one.
            order = CONTESTANTS if number % 2 == 0 else CONTESTANTS[::-1]
            rounds.append({name: run_process(name, options, crop_px, batch) for name in order})
            print(f"{crop_px}x{batch}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        raw[f"{crop_px}x{batch}"] = rounds
        results[f"{crop_px}x{batch}"] = summarise(rounds)
    settings = {name: getattr(options, name) for name in ("rounds", "steps", "threads", "device", "model")}
    atomic_write_json(
        options.out,
        {
            "settings": settings,
            "environment": environment(resolve_device(options.device)),
            "load_average": os.getloadavg(),
            "results": results,
            "rounds": raw,
        },
    )
    print(table(results))
    size = f"{CHANNELS}/{LATENT_CHANNELS} channels"
    print(f"{options.model}, {size}, {options.threads} threads, {options.device}; {options.out}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from rdc.lean_import import lean_compressai

    lean_compressai()
    main()
