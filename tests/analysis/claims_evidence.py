"""Evidence with known truth for the tests of claims: losses, noise and decode times as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.statistics import DRAWS
from analysis.runtimes import runtime_frame

HYPER, CHARM = "mean_scale_hyperprior", "charm"


def arch(
    transform: str, entropy_model: str, hyper: str, cost: float, loss: float, width: int = 0, **more: Any
) -> dict[str, Any]:
    """A row of architectures; without a width, one of its own, so that it has no partner."""
    width = width or round(1000 * cost)
    return {
        "transform": transform,
        "entropy_model": entropy_model,
        "hyper_transform": hyper,
        "family": f"{transform}/{entropy_model}/{hyper}",
        "cost": cost,
        "loss": loss,
        "channels": f"{width}-{width}",
        "latent_channels": 192,
        "layers": "1-1-1",
        "seeds": 1,
        **more,
    }


def evidence(
    rows: Sequence[Mapping[str, Any]],
    *,
    noise: float = 0.005,
    images: int = 24,
    exact: bool = True,
    rng: int = 0,
    runtimes: pd.DataFrame | None = None,
    seed_sd: float = np.nan,
    seed_freedom: int = 0,
    draws: int = DRAWS,
) -> Evidence:
    """noise: sd of ln loss of an architecture on an image. exact: the mean over images is the stated loss.

    Images differ in difficulty by a factor of e, far more than architectures on one image.
    """
    table = pd.DataFrame(list(rows))
    table["arch_id"] = [f"a{place:03}" for place in range(len(table))]
    table["label"] = table["arch_id"] + " " + table["family"]
    times_of = runtime_frame() if runtimes is None else runtimes
    if not images:
        return Evidence("synthetic", table, "rd_loss", None, seed_sd, seed_freedom, times_of, draws=draws)
    random = np.random.default_rng(rng)
    hard = np.exp(random.uniform(-0.5, 0.5, size=images))
    own = np.exp(noise * random.standard_normal((len(table), images)))
    scores = table["loss"].to_numpy()[:, None] * hard / hard.mean() * own
    if exact:
        scores *= (table["loss"].to_numpy() / scores.mean(axis=1))[:, None]
    else:
        table["loss"] = scores.mean(axis=1)
    return Evidence(
        "synthetic",
        table,
        "rd_loss",
        scores,
        seed_sd,
        seed_freedom,
        times_of,
        draws=draws,
    )


def without_noise(of: Evidence) -> Evidence:
    """The same as a results table would hold it: no per-image scores."""
    return Evidence(of.name, of.architectures, of.measure, runtimes=of.runtimes)


def times(
    count: int,
    settings: Mapping[tuple[str, int], Callable[[int], float]],
    *,
    families: int = 4,
    spread: float = 0.01,
) -> pd.DataFrame:
    """Runtimes of `count` architectures of several families in turn; cost is 10, 20, ... kFLOP/px.

    settings: (device, height in px) -> decode time in ms of the k-th. spread: quartiles over the median.
    """
    return runtime_frame(
        {
            "arch_id": f"t{place:03}",
            "family": f"family{place % families}",
            "device": device,
            "device_slug": device,
            "precision": "bf16",
            "threads": 1,
            "height_px": height,
            "width_px": 3 * height // 2,
            "kflop_per_px_dec": 10.0 * (place + 1),
            "dec_net_ms": time_of(place),
            "dec_net_q25_ms": (1 - spread) * time_of(place),
            "dec_net_q75_ms": (1 + spread) * time_of(place),
        }
        for (device, height), time_of in settings.items()
        for place in range(count)
    )


def timed(count: int, settings: Mapping[tuple[str, int], Callable[[int], float]], **more: Any) -> Evidence:
    """Evidence of runtimes alone."""
    return evidence([arch("conv", HYPER, "conv", 1.0, 1.0)], runtimes=times(count, settings, **more))
