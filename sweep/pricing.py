"""What trials will cost, from operations counted on the built model and a stated throughput."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from rdc.spec import ModelSpec, Recipe
from sweep.plan import PlannedTrial
from sweep.record import finished_result

# A training step does the forward pass once and about twice that backward.
FORWARD_AND_BACKWARD = 3
# Share of the probe's convolution speed that a whole training step reached where both were measured; training
# also runs GDN, the rate, the optimiser and the evaluation, which the count leaves out.
_STEP_SHARE_OF_PROBE = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """kflop_per_px_dec: parity count. training_pflop: 10^15 operations of the whole training."""

    params: int
    kflop_per_px_dec: float
    training_pflop: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Training operations per second of one slot, and where that figure comes from."""

    gflop_per_s: float
    origin: str

    def seconds(self, price: Price) -> float:
        return price.training_pflop * 1e6 / self.gflop_per_s


class PriceList:
    """Prices of architectures; each is counted once."""

    def __init__(self) -> None:
        self._complexity: dict[ModelSpec, dict[str, Any]] = {}

    def price(self, model: ModelSpec, recipe: Recipe) -> Price:
        complexity = self.count(model)
        return Price(
            params=complexity["params"]["total"],
            kflop_per_px_dec=complexity["decode"]["parity_kflop_per_px"],
            training_pflop=training_pflop(complexity, recipe),
        )

    def count(self, model: ModelSpec) -> dict[str, Any]:
        """Operations and parameters (rdc.complexity) of the built model."""
        from rdc.complexity import measure

        if model not in self._complexity:
            self._complexity[model] = measure(model).to_dict()
        return self._complexity[model]


def training_pflop(complexity: dict[str, Any], recipe: Recipe) -> float:
    """Operations of the training in 10^15, from a result's or a count's `complexity`."""
    # Every part of the graph runs once in training, whichever of encoder and decoder runs it in coding.
    kmac_per_px = sum(
        max(part["encode_parity_kmac_per_px"], part["decode_parity_kmac_per_px"])
        for part in complexity["parts"].values()
    )
    pixels = recipe.steps * recipe.batch_size * recipe.crop_px**2
    return kmac_per_px * 2e3 * FORWARD_AND_BACKWARD * pixels / 1e15


def measured_throughput(trials: Sequence[PlannedTrial]) -> Throughput | None:
    """From this sweep's finished trials, if there are any."""
    done, seconds, count = 0.0, 0.0, 0
    for trial in trials:
        result = finished_result(trial)
        training = (result or {}).get("training") or {}
        if result is None or not training.get("wall_s") or training.get("resumed_at_steps"):
            continue
        done += training_pflop(result["complexity"], trial.spec.recipe)
        seconds += training["wall_s"]
        count += 1
    if not seconds:
        return None
    return Throughput(
        gflop_per_s=done * 1e6 / seconds, origin=f"measured on {count} finished trials of this sweep"
    )


def probed_throughput(precision: str) -> Throughput:
    """From a convolution of this machine, forward and backward, on one thread; about a second."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        speed = _convolution_gflop_per_s(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    finally:
        torch.set_num_threads(threads)
    return Throughput(
        gflop_per_s=speed * _STEP_SHARE_OF_PROBE,
        origin=f"a probe of this machine ({device.type}, one slot alone); rough, trials will tell better",
    )


def _convolution_gflop_per_s(device: Any, dtype: Any) -> float:
    import torch

    channels, side, batch = 128, 32, 4
    layer = torch.nn.Conv2d(channels, channels, 5, padding=2)
    layer = layer.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    x = torch.ones(batch, channels, side, side, device=device, dtype=dtype).to(
        memory_format=torch.channels_last
    )
    x.requires_grad_()
    flop = 2 * FORWARD_AND_BACKWARD * batch * side**2 * channels**2 * 25
    fastest_s = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        layer(x).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return flop / fastest_s / 1e9
