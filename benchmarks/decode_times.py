"""Decoding with the study's models A to G at their published sizes, beside its A100 figures.

    python benchmarks/decode_times.py                       # one thread, fp32 and bf16, about 15 minutes
    python benchmarks/decode_times.py --device cuda --height 1365 --width 2048

Each measurement is a process of its own, and models take turns. Weights are random, with the scales and the
values of y spread as trained models have them: log-normal over channels, one symbol in a thousand from a
Gaussian twenty times as wide. Times do not depend on weights otherwise.

whole     from a file's bytes to the image, entropy decoding and checksums included
entropy   the share of it that is spent outside of the networks
networks  h_s, context and g_s alone, as the study times its models
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Megapixels per second on an A100 without entropy coding: Minnen & Johnston, ICIP 2023, Table 1.
PUBLISHED_MP_PER_S = {
    "kodak": (9.9, 10.7, 10.8, 11.1, 31.5, 69.0, 95.9),
    "clic": (27.5, 35.3, 40.1, 43.4, 45.5, 131.6, 187.2),
}
MODELS = tuple(f"rdc_{letter}" for letter in "abcdefg")
LOG_SCALE_MEAN, LOG_SCALE_SPREAD = -2.0, 1.3
OUTLIERS, OUTLIER_WIDTH = 1e-3, 20


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: milliseconds of one model, and what its file holds."""
    import torch

    from conf import compose
    from rdc.bitstream import encode_image
    from rdc.checkpoint import model_hash
    from rdc.configured import model_of
    from rdc.machine import resolve_device, set_threads, synchronize
    from rdc.models.codec import build, pad
    from rdc.runtime import measure as measure_codec

    set_threads(options.threads)
    device = resolve_device(options.device)
    torch.manual_seed(0)
    codec = build(model_of(compose([f"model={name}"]))).eval()
    channels = codec.spec.depth.latent_channels
    scales = torch.exp(LOG_SCALE_SPREAD * torch.randn(channels) + LOG_SCALE_MEAN)
    codec.entropy_model.start_scales(scales)
    codec.update(force=True, update_quantiles=True)
    codec.set_transform_precision(options.precision)
    codec.to(device)

    def realistic(module: Any, inputs: Any, y: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        outlier = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < OUTLIERS
        return (scales[:, None, None] * drawn * (1 + (OUTLIER_WIDTH - 1) * outlier)).to(y)

    codec.g_a.register_forward_hook(realistic)
    x = torch.rand(1, 3, options.height, options.width, device=device)
    timing = measure_codec(codec, x, repeats=options.repeats, budget_s=float("inf"))
    height, width = codec.z_hw(options.height, options.width)
    z_hat = torch.zeros(1, codec.entropy_model.entropy_bottleneck.channels, height, width, device=device)
    with torch.no_grad():
        y_hat = codec.analysis(pad(x, codec.stride)[0])
        networks_s = []
        for _ in range(options.repeats + 1):
            synchronize(device)
            started = time.perf_counter()
            codec.decoder_networks(y_hat, z_hat)
            synchronize(device)
            networks_s.append(time.perf_counter() - started)
        coded_bytes = len(encode_image(codec, x, model_hash(codec)))
    return {
        "whole_ms": timing.decode.total_ms.median,
        "entropy_ms": timing.decode.entropy_ms.median,
        "networks_ms": 1000 * median(networks_s[1:]),
        "bpp": 8 * coded_bytes / (options.height * options.width),
        **{f"{part}_ms": value for part, value in timing.decode.parts_ms.items()},
    }


def run_process(name: str, options: argparse.Namespace, precision: str) -> dict[str, float]:
    passed_on = ("height", "width", "threads", "device", "repeats")
    settings = [f"--{key}={getattr(options, key)}" for key in passed_on]
    done = subprocess.run(
        [sys.executable, __file__, *settings, "--precisions", precision, "--one", name],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options.threads)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rounds: Sequence[Mapping[str, Mapping[str, Any]]], options: argparse.Namespace) -> str:
    """Markdown; medians over rounds, with ranges of the whole decode."""
    megapixels = options.height * options.width / 1e6
    heads = ("model", "precision", "whole ms", "range", "entropy", "networks ms", "MP/s", "bpp")
    published = PUBLISHED_MP_PER_S["kodak" if megapixels < 1 else "clic"]
    lines = [" | ".join((*heads, "A100 MP/s")), " | ".join(["---"] * (len(heads) + 1))]
    for precision in options.precisions:
        for name, theirs in zip(MODELS, published, strict=True):
            rows = [r[precision][name] for r in rounds if name in r[precision]]
            if not rows:
                continue
            whole = [row["whole_ms"] for row in rows]
            share = median(row["entropy_ms"] / row["whole_ms"] for row in rows)
            networks = median(row["networks_ms"] for row in rows)
            times = f"{median(whole):.0f} | {min(whole):.0f}-{max(whole):.0f} | {share:.1%} | {networks:.0f}"
            speed = f"{1000 * megapixels / networks:.3g}"
            lines.append(f"{name} | {precision} | {times} | {speed} | {rows[0]['bpp']:.2f} | {theirs}")
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="decodes per process, besides one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/decode_times.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        (options.precision,) = options.precisions
        print(json.dumps(measure(options.one, options)))
        return
    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device

    load_average = os.getloadavg()
    rounds = []
    for number in range(options.rounds):
        # Every other round in reverse, so that no model always follows the same one.
        order = options.models if number % 2 == 0 else options.models[::-1]
        rounds.append(
            {
                precision: {name: run_process(name, options, precision) for name in order}
                for precision in options.precisions
            }
        )
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    settings = {key: value for key, value in vars(options).items() if key not in ("out", "one")}
    atomic_write_json(
        options.out,
        {
            "settings": settings,
            "environment": environment(resolve_device(options.device)),
            "load_average": load_average,
            "rounds": rounds,
        },
    )
    print(table(rounds, options))
    print(f"{options.width}x{options.height} px, {options.threads} threads, {options.device}; {options.out}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
