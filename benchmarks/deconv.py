"""A transposed 5x5 convolution of stride 2 beside two equal rewrites, at the sizes that codecs have.

    python benchmarks/deconv.py                             # one thread, fp32 and bf16, about 3 minutes
    python benchmarks/deconv.py --passes forward training --device cuda

Contestants hold the same weights, in channels_last memory, and take turns; a rewrite makes its kernels anew
from the weights at every call, as a layer would. Each time is the mean over calls that take `--least-ms`
together. "of library": time over the library's in the same round; under 1 the rewrite is faster.

library  nn.ConvTranspose2d
four     four convolutions of stride 1 (3x3, 3x2, 2x3 and 2x2), one per position in the 2x2 block of an output
shuffle  a 3x3 convolution to four times the channels and a pixel shuffle, for 1.44 times the products
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
# (in, out, height and width of the input) for an image of 512x768 pixels.
CASES = (
    (128, 3, 256, 384),
    (192, 3, 256, 384),
    (128, 128, 128, 192),
    (320, 192, 32, 48),
)
CONTESTANTS = ("library", "four", "shuffle")
PASSES = ("forward", "training")


def library(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """(B, in, h, w) -> (B, out, 2 h, 2 w), as the other two."""
    out: Tensor = layer(x)
    return out


def four(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    import torch
    import torch.nn.functional as F

    taps = layer.weight.flip(2, 3).transpose(0, 1)  # even outputs meet taps 4, 2, 0; odd ones 3, 1
    parts = {}
    for row, column in itertools.product((0, 1), repeat=2):
        kernel = taps[:, :, row::2, column::2]
        # Two taps and a border of one give a row too many, the first.
        parts[row, column] = F.conv2d(x, kernel, layer.bias, padding=1)[..., row:, column:]
    (batch, channels, height, width), first = parts[0, 0].shape, parts[0, 0]
    size = (batch, channels, 2 * height, 2 * width)
    out = torch.empty(size, dtype=first.dtype, device=first.device, memory_format=torch.channels_last)
    for (row, column), part in parts.items():
        out[..., row::2, column::2] = part
    return out


def shuffle(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    import torch.nn.functional as F

    assert layer.bias is not None, "a bias is the default"
    # As rdc.models.layers.conv.ImageDeconv, for any number of output channels.
    taps = F.pad(layer.weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
    kernel = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
    return F.pixel_shuffle(F.conv2d(x, kernel, layer.bias.repeat_interleave(4), padding=1), 2)


FORMS: dict[str, Callable[[nn.ConvTranspose2d, Tensor], Tensor]] = {
    "library": library,
    "four": four,
    "shuffle": shuffle,
}


def steps_of(case: Sequence[int], which: str, precision: str, device: str) -> dict[str, Callable[[], None]]:
    """One call of each contestant. Asserts that all three give the same numbers."""
    import torch

    from rdc.models.layers.conv import deconv

    in_channels, out_channels, height, width = case
    layer = deconv(in_channels, out_channels).to(device)
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(1, in_channels, height, width, device=device).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = library(layer, x)
        for name, form in FORMS.items():
            error = (form(layer, x) - expected).abs().max().item()
            assert error < 1e-3, f"{name} is off by {error} where values have a spread of 1"
    x.requires_grad_(which == "training")

    def step(form: Callable[[nn.ConvTranspose2d, Tensor], Tensor]) -> None:
        with (
            torch.set_grad_enabled(which == "training"),
            torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"),
        ):
            out = form(layer, x)
        if which == "training":
            out.sum().backward()

    return {name: functools.partial(step, form) for name, form in FORMS.items()}


def elapsed_ms(step: Callable[[], None], calls: int, device: str) -> float:
    """Per call."""
    import torch

    from rdc.machine import synchronize

    synchronize(torch.device(device))
    started = time.perf_counter()
    for _ in range(calls):
        step()
    synchronize(torch.device(device))
    return 1000 * (time.perf_counter() - started) / calls


def measure(steps: Mapping[str, Callable[[], None]], options: argparse.Namespace) -> list[dict[str, float]]:
    """Milliseconds per call of each contestant, round by round."""
    for step in steps.values():
        elapsed_ms(step, 2, options.device)  # chooses and compiles kernels
    once_ms = {name: elapsed_ms(step, 1, options.device) for name, step in steps.items()}
    calls = {name: math.ceil(options.least_ms / ms) for name, ms in once_ms.items()}
    rounds = []
    for number in range(options.rounds):
        # Every other round in reverse, so that no contestant always follows the same one.
        order = CONTESTANTS if number % 2 == 0 else CONTESTANTS[::-1]
        rounds.append({name: elapsed_ms(steps[name], calls[name], options.device) for name in order})
    return rounds


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def summarise(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """rounds: {contestant: ms} each -> spreads of the times and of what they are of the library's."""
    return {
        name: {
            "ms": spread([r[name] for r in rounds]),
            "of_library": spread([r[name] / r["library"] for r in rounds]),
        }
        for name in CONTESTANTS
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown; medians, ranges of what a rewrite takes of the library's time."""
    heads = ("layer", "pass", "precision", "library ms", "four ms", "of library", "shuffle ms", "of library")
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for case, row in results.items():
        cells = [*case.split(", "), f"{row['library']['ms']['median']:.2f}"]
        for name in CONTESTANTS[1:]:
            share = row[name]["of_library"]
            cells += [
                f"{row[name]['ms']['median']:.2f}",
                f"{share['median']:.2f} ({share['min']:.2f}-{share['max']:.2f})",
            ]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--least-ms", type=float, default=50, help="per contestant and round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=["forward"])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/deconv.json"))
    options = parser.parse_args()
    import torch

    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device, set_threads

    set_threads(options.threads)
    torch.manual_seed(0)
    options.device = resolve_device(options.device).type
    load_average = os.getloadavg()
    raw = {}
    for case, which, precision in itertools.product(CASES, options.passes, options.precisions):
        in_channels, out_channels, height, width = case
        name = f"{in_channels} to {out_channels} at {height}x{width}, {which}, {precision}"
        raw[name] = measure(steps_of(case, which, precision, options.device), options)
        print(name, file=sys.stderr, flush=True)
    results = {name: summarise(rounds) for name, rounds in raw.items()}
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    atomic_write_json(
        options.out,
        {
            "settings": settings,
            "environment": environment(torch.device(options.device)),
            "load_average": load_average,
            "results": results,
            "rounds": raw,
        },
    )
    print(table(results))
    print(f"{options.threads} threads, {options.device}; {options.out}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
