"""Decoding with the joint autoregressive model beside CompressAI's: bytes to y_hat, and bytes to image.

    python benchmarks/latent_decoding.py                  # 5 rounds, about 5 minutes on one core

Both contestants hold the same weights and code the same latent, each in a stream of its own (CompressAI codes
positions in raster order). Every measurement is a process of its own; contestants take turns, so that a slow
minute of the machine meets all of them. Of two decodes per process the faster one counts. fp32.

The weights are random, with the scales of y set to a spread as trained models have it: log-normal over
channels, and varying with the context within a channel. One symbol in a thousand is drawn from a Gaussian
twenty times as wide, for escapes.

latent  from the strings to y_hat: z, h_s, context, symbols of y
whole   the same and g_s
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONTESTANTS = ("compressai", "rdc")
STAGES = ("latent", "whole")
KINDS = ("wall_s", "cpu_s")
CHANNELS, LATENT_CHANNELS = 192, 192
REPEATS = 2
OUTLIERS = 1e-3
ROOT = Path(__file__).resolve().parent.parent


def compressai_model() -> Any:
    """CompressAI's model with random weights whose scales and means are those of a plausible latent."""
    import torch
    from compressai.models import JointAutoregressiveHierarchicalPriors

    torch.manual_seed(0)
    net = JointAutoregressiveHierarchicalPriors(CHANNELS, LATENT_CHANNELS).eval()
    with torch.no_grad():
        *_, last = net.entropy_parameters
        last.bias[:LATENT_CHANNELS] = torch.exp(1.3 * torch.randn(LATENT_CHANNELS) - 1.5)
        last.bias[LATENT_CHANNELS:] = 0
    net.update(force=True)
    return net


def rdc_model(reference: Any) -> Any:
    from rdc.checkpoint import load_compressai_state_dict
    from rdc.models.codec import build
    from rdc.spec import parse_model
    from rdc.zoo import ZooModel

    codec = build(parse_model(ZooModel(name="mbt2018", quality=1).groups)).eval()
    load_compressai_state_dict(codec, reference.state_dict())
    return codec


def prepare(path: Path, height_px: int, width_px: int) -> dict[str, Any]:
    """Write each contestant's strings of one latent to `path`; returns what the latent looks like."""
    import torch

    reference = compressai_model()
    codec = rdc_model(reference)
    model = codec.entropy_model
    spread = reference.entropy_parameters[-1].bias.detach()[:LATENT_CHANNELS, None, None]
    y = spread * torch.randn(1, LATENT_CHANNELS, height_px // 16, width_px // 16)
    y = torch.where(torch.rand_like(y) < OUTLIERS, 20 * y, y)
    reference.g_a = torch.nn.Identity()
    decoded: list[torch.Tensor] = []
    reference.g_s.register_forward_pre_hook(lambda module, inputs: decoded.append(inputs[0]))
    with torch.no_grad():
        coded = {"compressai": reference.compress(y), "rdc": model.compress(y)}
        reference.decompress(coded["compressai"]["strings"], coded["compressai"]["shape"])
        decoded.append(model.decompress(coded["rdc"]["strings"], coded["rdc"]["shape"]))
        z_hat = torch.round(model.h_a(y) - model._medians()) + model._medians()
        symbols, rows = model._symbols(y, z_hat)
    differing = ((decoded[0] - decoded[1]).abs() > 1e-3).float().mean().item()
    assert differing < 1e-3, f"a share of {differing} of the decoded values differs"
    torch.save({name: (c["strings"], tuple(c["shape"])) for name, c in coded.items()}, path)
    gaussian = model.gaussian_conditional
    places = symbols - gaussian._offset.numpy()[rows]
    return {
        "bpp": {n: 8 * len(c["strings"][0][0]) / (height_px * width_px) for n, c in coded.items()},
        "differing_share": differing,
        "symbols": symbols.size,
        "nonzero_share": float((symbols != 0).mean()),
        "escapes": int(((places < 0) | (places >= gaussian._cdf_length.numpy()[rows] - 2)).sum()),
    }


def measure(contestant: str, path: Path, threads: int) -> dict[str, dict[str, float]]:
    """In a process of its own: wall and CPU seconds to y_hat and to x_hat, the faster of REPEATS decodes."""
    import torch

    torch.set_num_threads(threads)
    reference = compressai_model()
    model = reference if contestant == "compressai" else rdc_model(reference)
    strings, shape = torch.load(path, weights_only=True)[contestant]
    times: list[dict[str, float]] = []
    model.g_s.register_forward_pre_hook(lambda *_: times.append(now()))
    runs = []
    for _ in range(REPEATS):
        times.clear()
        times.append(now())
        with torch.no_grad():
            model.decompress(strings, shape)
        times.append(now())
        runs.append(times.copy())
    return {
        stage: {kind: min(run[end][kind] - run[0][kind] for run in runs) for kind in KINDS}
        for end, stage in enumerate(STAGES, 1)
    }


def now() -> dict[str, float]:
    return {"wall_s": time.perf_counter(), "cpu_s": time.process_time()}


def run_process(contestant: str, path: Path, threads: int) -> dict[str, dict[str, float]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, __file__, "--threads", str(threads), "--one", contestant, str(path)],
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return result


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """rounds: {contestant: {stage: {kind: seconds}}} each -> spreads, and speed-ups over CompressAI."""
    return {
        stage: {
            name: {
                kind: {
                    "time": spread([r[name][stage][kind] for r in rounds]),
                    "speedup": spread([r["compressai"][stage][kind] / r[name][stage][kind] for r in rounds]),
                }
                for kind in KINDS
            }
            for name in CONTESTANTS
        }
        for stage in STAGES
    }


def table(results: Mapping[str, Any]) -> str:
    lines = [f"{'stage':<8}{'contestant':<12}{'time':<6}{'ms':>9}  {'range':<15}{'speed-up':>9}  range"]
    for stage, contestants in results.items():
        for name, kinds in contestants.items():
            for kind, row in kinds.items():
                ms = {key: 1000 * value for key, value in row["time"].items()}
                gain = row["speedup"]
                ms_range = f"{ms['min']:.0f}-{ms['max']:.0f}"
                lines.append(
                    f"{stage:<8}{name:<12}{kind.removesuffix('_s'):<6}{ms['median']:>9.0f}  {ms_range:<15}"
                    f"{gain['median']:>8.1f}x  {gain['min']:.1f}-{gain['max']:.1f}"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--height", type=int, default=512, help="of the image, a multiple of 64")
    parser.add_argument("--width", type=int, default=768, help="of the image, a multiple of 64")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/latent_decoding.json"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        contestant, path = options.one
        print(json.dumps(measure(contestant, Path(path), options.threads)))
        return
    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device

    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder) / "streams.pt"
        latent = prepare(streams, options.height, options.width)
        rounds = []
        for number in range(options.rounds):
            # Every other round in reverse, so that no contestant always follows the same one.
            order = CONTESTANTS if number % 2 == 0 else CONTESTANTS[::-1]
            rounds.append({name: run_process(name, streams, options.threads) for name in order})
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    results = summarise(rounds)
    settings = {name: getattr(options, name) for name in ("rounds", "threads", "height", "width")}
    atomic_write_json(
        options.out,
        {
            "settings": settings,
            "latent": latent,
            "environment": environment(resolve_device("cpu")),
            "load_average": os.getloadavg(),
            "results": results,
            "rounds": rounds,
        },
    )
    print(table(results))
    size = f"{options.width}x{options.height} px, {CHANNELS}/{LATENT_CHANNELS} channels, fp32"
    contents = f"{latent['bpp']['rdc']:.2f} bpp, {latent['escapes']} escapes"
    print(f"{size}, {options.threads} threads; {contents}; {options.out}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
