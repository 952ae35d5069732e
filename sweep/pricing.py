"""What trials will cost: operations counted on the built model, and speeds that were measured."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from rdc.spec import ModelSpec, Recipe
from sweep.plan import PlannedTrial, Precision
from sweep.record import finished_result

# A training step runs every network forward and backward, which costs twice as much; 2 FLOP per MAC.
_KFLOP_PER_KMAC = 2 * 3
_PROBED_MODELS = 3
_PROBE_PX = 4 * 128**2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """kflop_per_px_dec: parity count. training_kflop_per_px: of one step; training_px: of all steps."""

    params: int
    kflop_per_px_dec: float
    training_kflop_per_px: float
    training_px: int

    @property
    def training_pflop(self) -> float:
        """10^15 operations of the whole training."""
        return self.training_kflop_per_px * self.training_px / 1e12


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Training time of one slot as a line over a model's operations. origin: where the figures come from."""

    s_per_px: float
    s_per_kflop: float
    origin: str

    def seconds(self, price: Price) -> float:
        return price.training_px * (self.s_per_px + price.training_kflop_per_px * self.s_per_kflop)


class PriceList:
    """Prices of architectures; each is counted once."""

    def __init__(self) -> None:
        self._complexity: dict[ModelSpec, dict[str, Any]] = {}

    def price(self, model: ModelSpec, recipe: Recipe) -> Price:
        return price_of(self.count(model), recipe)

    def count(self, model: ModelSpec) -> dict[str, Any]:
        """Operations and parameters (rdc.complexity) of the built model."""
        from rdc.complexity import measure

        if model not in self._complexity:
            self._complexity[model] = measure(model).to_dict()
        return self._complexity[model]


def price_of(complexity: dict[str, Any], recipe: Recipe) -> Price:
    """complexity: as rdc.complexity counts it and as it stands in a result."""
    # Training runs every part once, also those that only one side runs in coding, and h_s not twice.
    kmac_per_px = sum(
        max(part["encode_parity_kmac_per_px"], part["decode_parity_kmac_per_px"])
        for part in complexity["parts"].values()
    )
    return Price(
        params=complexity["params"]["total"],
        kflop_per_px_dec=complexity["decode"]["parity_kflop_per_px"],
        training_kflop_per_px=kmac_per_px * _KFLOP_PER_KMAC,
        training_px=recipe.steps * recipe.batch_size * recipe.crop_px**2,
    )


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(intercept, slope), neither negative, of the least-squares line; proportional where that needs it.

    Where every x is 0, as of trials that train nothing, y is constant.
    """
    if not any(x):
        return float(np.mean(y)), 0.0
    if len(set(x)) > 1:
        slope, intercept = np.polyfit(x, y, 1)
        if slope >= 0 and intercept >= 0:
            return float(intercept), float(slope)
    return 0.0, float(np.dot(x, y) / np.dot(x, x))


def speed_of_finished(trials: Sequence[PlannedTrial]) -> Speed | None:
    """From this sweep's finished trials, if there are any."""
    found = []
    for trial in trials:
        result = finished_result(trial)
        training = (result or {}).get("training") or {}
        if result is not None and training.get("wall_s"):  # of all its steps, also after a resume
            price = price_of(result["complexity"], trial.spec.recipe)
            found.append((price.training_kflop_per_px, training["wall_s"] / price.training_px))
    if not found:
        return None
    return _speed(found, f"{len(found)} finished trials of this sweep")


def probed_speed(
    models: Sequence[ModelSpec], prices: PriceList, recipe: Recipe, precision: Precision
) -> Speed:
    """From a few training steps of the cheapest, the middle and the dearest model, on one thread; seconds."""
    if not models:
        return Speed(s_per_px=0.0, s_per_kflop=0.0, origin="none: nothing is to be trained")
    by_price = sorted(dict.fromkeys(models), key=lambda m: prices.price(m, recipe).training_kflop_per_px)
    places = np.linspace(0, len(by_price) - 1, min(_PROBED_MODELS, len(by_price))).round()
    found = []
    for model in (by_price[int(place)] for place in places):
        found.append((prices.price(model, recipe).training_kflop_per_px, _s_per_px(model, recipe, precision)))
    return _speed(found, "a few training steps here, one slot alone")


def _speed(found: Sequence[tuple[float, float]], origin: str) -> Speed:
    s_per_px, s_per_kflop = fit_line([x for x, _ in found], [y for _, y in found])
    return Speed(s_per_px=s_per_px, s_per_kflop=s_per_kflop, origin=origin)


def _s_per_px(model: ModelSpec, recipe: Recipe, precision: Precision) -> float:
    """Seconds per pixel of a training step, the faster of two after a first one; small batches on a CPU."""
    import torch

    from rdc.learner import Learner
    from rdc.machine import resolve_device, synchronize
    from rdc.models.codec import build

    device = resolve_device("auto")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        codec = build(model).to(device)
        codec.set_transform_precision(precision)
        learner = Learner(codec, recipe, lmbda=0.01, seed=0)
        crops = recipe.batch_size
        if device.type == "cpu":
            crops = max(1, min(crops, _PROBE_PX // recipe.crop_px**2))
        x = torch.rand(crops, 3, recipe.crop_px, recipe.crop_px, device=device)
        times_s = []
        for step in range(3):
            synchronize(device)
            started = time.perf_counter()
            learner.update(x, step)
            synchronize(device)
            times_s.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return min(times_s[1:]) / (crops * recipe.crop_px**2)
