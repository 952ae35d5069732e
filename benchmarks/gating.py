"""What gates save in time: gated convolutions and whole transforms beside the best ungated form of each.

    python benchmarks/gating.py                             # one thread, fp32, about 5 minutes
    python benchmarks/gating.py --models conv_192 --rounds 15
    python benchmarks/gating.py --device cuda

The layers are the product's (rdc/models/layers/gate.py), on what reaches them from a random image through
random weights. Each timed call decides from the energies of its input; thresholds are set so that exactly
the wanted share opens, spread over the channels. Energies, comparison, indices and gathers are inside. Dense
contestants compute the whole convolution; the fastest of them is what a speed-up refers to:

product     the ungated layer as the codec runs it; other: in the other memory format
library     the layer's convolution by torch, in channels_last memory (where the product's is another)
prepacked   the library's, with weights that were brought into its inner layout before (CPU)
four        a 5x5 deconvolution of stride 2 as four convolutions of stride 1, kernels made before
shuffle     the same as one 3x3 convolution to four times the channels and an interleaving, kernel made before

masked: closed channels are multiplied by zero, half of them open. gathered: they are not read. gate: what
energies, comparison, indices and gathers take of the gathered time. Contestants take turns in random order;
a speed-up is the median of those of single rounds. Times are CPU times of the thread where one thread
computes, else wall-clock. Mean speed-ups are geometric, weighted with the layers' multiply-accumulates.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "conv_128": ("model=mean_scale_hyperprior", "depth=n128"),  # (N, M) = (128, 192)
    "conv_192": ("model=mean_scale_hyperprior", "depth=n192"),  # (192, 320)
    "elic": ("model=elic",),
}
PARTS = ("g_a", "h_a", "g_s")
SPARSITIES = (0.5, 0.6, 0.67)
WIDE = 128  # channels in and out from which on a convolution counts as wide
Step = Callable[[], Any]


def rearranged(layer: nn.ConvTranspose2d) -> dict[str, Callable[[Tensor], Tensor]]:
    """Two equal forms of a 5x5 deconvolution of stride 2, in channels_last memory. Kernels are made here."""
    import torch
    import torch.nn.functional as F

    assert layer.bias is not None, "a bias is the default"
    bias, channels_last = layer.bias, torch.channels_last
    taps = layer.weight.flip(2, 3).transpose(0, 1)  # even outputs meet taps 4, 2, 0; odd ones 3, 1
    phases = [(row, column) for row in (0, 1) for column in (0, 1)]
    kernels = {
        (row, column): taps[:, :, row::2, column::2].contiguous(memory_format=channels_last)
        for row, column in phases
    }
    # A first tap of zero makes all four kernels 3x3.
    padded = [F.pad(kernels[row, column], (column, 0, row, 0)) for row, column in phases]
    stacked, repeated = torch.cat(padded).contiguous(memory_format=channels_last), bias.repeat(4)

    def four(x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        size = (batch, layer.out_channels, 2 * height, 2 * width)
        out = x.new_empty(size).contiguous(memory_format=channels_last)
        for (row, column), kernel in kernels.items():
            # Two taps and a border of one give a row too many, the first.
            part = F.conv2d(x, kernel, bias, padding=1)[..., row:, column:]
            out[..., row::2, column::2] = part
        return out

    def shuffle(x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        out = F.conv2d(x, stacked, repeated, padding=1).permute(0, 2, 3, 1)
        rows = out.reshape(batch, height, width, 2, 2 * layer.out_channels).transpose(2, 3)
        return rows.reshape(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)

    return {"four": four, "shuffle": shuffle}


def prepacked(layer: nn.Conv2d, x: Tensor) -> Step | None:
    """The convolution with weights in oneDNN's layout; None where torch has no such operator."""
    import torch

    operators = torch.ops.mkldnn
    if x.device.type != "cpu" or not hasattr(operators, "_reorder_convolution_weight"):
        return None
    settings = (list(layer.padding), list(layer.stride), [1, 1], 1)
    weight = operators._reorder_convolution_weight(layer.weight, *settings, list(x.shape))
    rest: tuple[Any, ...] = (layer.bias, *settings, "none", [], "")
    return functools.partial(operators._convolution_pointwise, x, weight, *rest)


def dense_forms(layer: Any, x: Tensor) -> dict[str, Step]:
    """One call of each form that computes the whole convolution. Asserts that they give the same numbers."""
    import torch
    from torch import nn

    formats = (torch.channels_last, torch.contiguous_format)
    own, other = formats if x.is_contiguous(memory_format=torch.channels_last) else formats[::-1]
    moved = copy.deepcopy(layer).to(memory_format=other)
    xs = {own: x, other: x.contiguous(memory_format=other)}
    last = xs[torch.channels_last]
    transposed = isinstance(layer, nn.ConvTranspose2d)
    library = nn.ConvTranspose2d.forward if transposed else nn.Conv2d.forward
    in_last = layer if own == torch.channels_last else moved
    forms: dict[str, Step] = {
        "product": functools.partial(layer, x),
        "other": functools.partial(moved, xs[other]),
        "library": functools.partial(library, in_last, last),
    }
    if transposed and layer.kernel_size == (5, 5):
        forms |= {name: functools.partial(form, last) for name, form in rearranged(layer).items()}
    if not transposed and (form := prepacked(layer, last)) is not None:
        forms["prepacked"] = form
    expected = layer(x)
    for name, form in forms.items():
        error = (form() - expected).abs().max().item() / expected.abs().max().item()
        assert error < 1e-4, f"{name} is off by {error} of the largest value"
    return forms


def open_share(layer: Any, x: Tensor, sparsity: float) -> None:
    """Set a gated layer's thresholds so that x opens 1 - sparsity of its channels, spread over them."""
    import torch

    from rdc.models.layers.channels import mean_squares

    gate = layer.channel_gate
    energies = mean_squares(x)
    reference, (energies,) = gate._reference(energies)[0], energies
    alive = energies.nonzero()[:, 0]  # a silent channel is always closed
    wanted = min(round(len(energies) * (1 - sparsity)), len(alive))
    kept = alive[torch.linspace(0, len(alive) - 1, wanted).round().long()]
    ratio = energies / reference.clamp_min(1e-30)
    alpha = 2 * ratio + 1e-3
    alpha[kept] = ratio[kept] / 2
    gate.alpha.copy_(alpha)
    opened = int(gate.decide(x)[0].sum())
    assert opened == wanted, f"{opened} channels opened, not {wanted}"


def gated(part: nn.Module, x: Tensor, sparsity: float) -> nn.Module:
    """A copy of a network with gates that close this share of channels for x."""
    from rdc.models.layers.gate import EnergyGate, gate_convolutions, gated_layers

    out = copy.deepcopy(part).to(x.device)
    gate_convolutions(out, lambda channels: EnergyGate(channels).to(x.device))
    out.eval()
    # In the order of the network: what a layer sees depends on the gates before it.
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: open_share(layer, inputs[0], sparsity))
        for layer in gated_layers(out).values()
    ]
    out(x)
    for hook in hooks:
        hook.remove()
    return out


def gate_alone(layer: Any, x: Tensor) -> None:
    """What a gathered convolution does besides the convolution."""
    from torch import nn

    from rdc.models.layers.channels import select

    opened, _ = layer.channel_gate.decide(x)
    if not bool(opened.all()):
        channels = opened[0].nonzero()[:, 0]
        select(x, channels, 1)
        select(layer.weight, channels, 0 if isinstance(layer, nn.ConvTranspose2d) else 1)


def masked(layer: Any, x: Tensor) -> Tensor:
    from rdc.models.layers.gate import evaluated_by

    with evaluated_by("masked"):
        out: Tensor = layer(x)
    return out


def gated_forms(part: nn.Module, x: Tensor, *, alone: bool) -> dict[str, Step]:
    """Gathered at every sparsity and masked at the first; alone: a single layer, whose gate is timed too."""
    from torch import nn

    forms: dict[str, Step] = {}
    for sparsity in SPARSITIES:
        network = gated(nn.Sequential(part) if alone else part, x, sparsity)
        forms[f"gathered {sparsity}"] = functools.partial(network, x)
        if sparsity == SPARSITIES[0]:
            forms["masked"] = functools.partial(masked, network, x)
            if alone:
                forms["gate"] = functools.partial(gate_alone, next(network.children()), x)
    return forms


def clock(options: argparse.Namespace) -> Callable[[], float]:
    """CPU time where one thread does all the work: what others do on the machine is left out."""
    return time.thread_time if options.device == "cpu" and options.threads == 1 else time.perf_counter


def measure(forms: Mapping[str, Step], options: argparse.Namespace) -> list[dict[str, float]]:
    """Milliseconds per call of each contestant, round by round."""
    import torch

    from rdc.machine import synchronize

    now, device = clock(options), torch.device(options.device)

    def elapsed_ms(step: Step, calls: int) -> float:
        synchronize(device)
        started_s = now()
        for _ in range(calls):
            step()
        synchronize(device)
        return 1000 * (now() - started_s) / calls

    for step in forms.values():
        elapsed_ms(step, 2)  # chooses and compiles kernels
    calls = {name: math.ceil(options.least_ms / elapsed_ms(step, 1)) for name, step in forms.items()}
    rounds = []
    for number in range(options.rounds):
        order = random.Random(number).sample(sorted(forms), len(forms))
        rounds.append({name: elapsed_ms(forms[name], calls[name]) for name in order})
    return rounds


def summarise(rounds: Sequence[Mapping[str, float]], dense: Sequence[str]) -> dict[str, Any]:
    """rounds: {contestant: ms} each -> spreads of times, the best dense form, speed-ups over it."""
    ms = {name: spread([r[name] for r in rounds]) for name in rounds[0]}
    best = min(dense, key=lambda name: ms[name]["median"])
    rest = [name for name in ms if name not in dense and name != "gate"]
    speedup = {name: spread([r[best] / r[name] for r in rounds]) for name in rest}
    out: dict[str, Any] = {"best_dense": best, "ms": ms, "speedup": speedup}
    if "gate" in ms:
        out["gate_share"] = median(r["gate"] / r[f"gathered {SPARSITIES[0]}"] for r in rounds)
    return out


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def inputs_of(part: nn.Module, x: Tensor) -> dict[str, tuple[int, Any, Tensor]]:
    """Convolutions that may be gated: label -> (how many alike, the first of them, what reaches it)."""
    from torch import nn

    from rdc.models.layers.gate import IMAGE_CHANNELS

    found: dict[str, tuple[int, Any, Tensor]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        name = label(layer, inputs[0])
        count, first, seen = found[name] if name in found else (0, layer, inputs[0].clone())
        found[name] = (count + 1, first, seen)

    hooks = [
        layer.register_forward_pre_hook(note)
        for layer in part.modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.in_channels > IMAGE_CHANNELS
    ]
    part(x)
    for hook in hooks:
        hook.remove()
    return found


def label(layer: Any, x: Tensor) -> str:
    from torch import nn

    kind = "deconv" if isinstance(layer, nn.ConvTranspose2d) else "conv"
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    shape = f"{layer.in_channels} to {layer.out_channels}, {kernel}x{kernel}"
    return f"{kind} {shape}{f' stride {stride}' if stride > 1 else ''} at {x.shape[2]}x{x.shape[3]}"


def macs(layer: Any, x: Tensor) -> int:
    """Multiply-accumulates of the published form."""
    from torch import nn

    per_position = layer.in_channels * layer.out_channels * math.prod(layer.kernel_size)
    pixels = x.shape[2] * x.shape[3]
    if isinstance(layer, nn.ConvTranspose2d):
        return per_position * pixels
    return per_position * pixels // math.prod(layer.stride)


def measure_model(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: {"layers": {label: ...}, "transforms": {part: ...}} of one model."""
    import torch

    from conf import compose
    from rdc.configured import model_of
    from rdc.machine import set_threads
    from rdc.models.codec import build

    set_threads(options.threads)
    torch.manual_seed(0)
    codec = build(model_of(compose(list(MODELS[name])))).eval().to(options.device)
    image = torch.rand(1, 3, options.height, options.width, device=options.device)
    y = codec.analysis(image)
    format_of = {"g_a": torch.channels_last, "h_a": torch.contiguous_format, "g_s": torch.channels_last}
    inputs = {"g_a": image, "h_a": y, "g_s": y.round()}
    result: dict[str, Any] = {"layers": {}, "transforms": {}}
    for part_name in PARTS:
        part = codec.parts()[part_name]
        x = inputs[part_name].contiguous(memory_format=format_of[part_name])
        for title, (count, layer, seen) in inputs_of(part, x).items():
            dense = dense_forms(layer, seen)
            rounds = measure({**dense, **gated_forms(layer, seen, alone=True)}, options)
            result["layers"][f"{part_name}: {title}"] = {
                **summarise(rounds, list(dense)),
                "count": count,
                "macs": macs(layer, seen),
                "wide": min(layer.in_channels, layer.out_channels) >= WIDE,
            }
            print(f"{name} {part_name}: {title}", file=sys.stderr, flush=True)
        if part_name != "h_a":
            moved = copy.deepcopy(part).to(memory_format=torch.contiguous_format)
            forms = {
                "product": functools.partial(part, x),
                "other": functools.partial(moved, x.contiguous()),
            }
            rounds = measure({**forms, **gated_forms(part, x, alone=False)}, options)
            result["transforms"][part_name] = summarise(rounds, list(forms))
            print(f"{name} {part_name}", file=sys.stderr, flush=True)
    result["mean_speedup"] = {
        kind: {
            f"{s}": weighted_mean(list(result["layers"].values()), s, wide=kind == "wide") for s in SPARSITIES
        }
        for kind in ("wide", "all")
    }
    return result


def weighted_mean(layers: Sequence[Mapping[str, Any]], sparsity: float, *, wide: bool) -> float:
    """Geometric mean of speed-ups, weighted with multiply-accumulates; wide: of wide layers only."""
    rows = [row for row in layers if row["wide"] or not wide]
    weights = [row["macs"] * row["count"] for row in rows]
    logs = [math.log(row["speedup"][f"gathered {sparsity}"]["median"]) for row in rows]
    return math.exp(sum(w * log for w, log in zip(weights, logs, strict=True)) / sum(weights))


def run_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    from rdc.machine import allocator_env, thread_env

    # What glibc would do with large tensors otherwise takes more time than half a convolution.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_", "MKL_"))}
    environment |= {**allocator_env(), **thread_env(options.threads), "PYTHONPATH": str(ROOT)}
    passed_on = ("height", "width", "threads", "device", "rounds", "least_ms")
    settings = [f"--{key.replace('_', '-')}={getattr(options, key)}" for key in passed_on]
    done = subprocess.run(
        [sys.executable, __file__, *settings, "--one", name],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: layers, mean speed-ups, whole transforms."""
    gains = tuple(f"{s:.0%} closed" for s in SPARSITIES)
    half = f"gathered {SPARSITIES[0]}"
    heads = ("model", "layer", "GMAC", "best dense", "dense ms", "masked ms", "gathered ms", *gains, "gate")
    lines = markdown_row(heads) + markdown_row(["---"] * len(heads))
    for name, result in results.items():
        for title, row in result["layers"].items():
            times = f"{row['count']} x " if row["count"] > 1 else ""
            cells = [name, times + title, f"{row['macs'] / 1e9:.2f}", *times_and_gains(row, half)]
            lines += markdown_row([*cells, f"{row['gate_share']:.0%}"])
    heads = ("model", "mean of", *gains)
    lines += ["", *markdown_row(heads), *markdown_row(["---"] * len(heads))]
    for name, result in results.items():
        for kind, title in (
            ("wide", f"convolutions with {WIDE} or more channels in and out"),
            ("all", "all"),
        ):
            means = [f"{value:.2f}x" for value in result["mean_speedup"][kind].values()]
            lines += markdown_row([name, title, *means])
    heads = ("model", "transform", "best dense", "dense ms", "masked ms", "gathered ms", *gains)
    lines += ["", *markdown_row(heads), *markdown_row(["---"] * len(heads))]
    for name, result in results.items():
        for part, row in result["transforms"].items():
            lines += markdown_row([name, part, *times_and_gains(row, half)])
    return "\n".join(lines)


def times_and_gains(row: Mapping[str, Any], half: str) -> list[str]:
    times = [f"{row['ms'][arm]['median']:.2f}" for arm in (row["best_dense"], "masked", half)]
    gains = [row["speedup"][f"gathered {s}"] for s in SPARSITIES]
    ranges = [f"{gain['median']:.2f}x ({gain['min']:.2f}-{gain['max']:.2f})" for gain in gains]
    return [row["best_dense"], *times, *ranges]


def markdown_row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--least-ms", type=float, default=50, help="per contestant and round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/gating.json"))
    parser.add_argument("--one", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device

    options.device = resolve_device(options.device).type
    if options.one:
        with torch.no_grad():
            print(json.dumps(measure_model(options.one, options)))
        return
    load_average = os.getloadavg()
    results = {name: run_process(name, options) for name in options.models}
    settings = {key: value for key, value in vars(options).items() if key not in ("out", "one")}
    atomic_write_json(
        options.out,
        {
            "results": results,
            "settings": settings,
            "clock": "wall" if clock(options) is time.perf_counter else "cpu",
            "environment": environment(torch.device(options.device)),
            "load_average_at_start": load_average,
            "load_average_at_end": os.getloadavg(),
        },
    )
    print(tables(results))
    print(f"\nload average {load_average[0]:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
