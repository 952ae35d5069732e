"""A synthetic sweep of gates with round numbers, so that every number of the report is known beforehand.

Losses of image i are those of the control, 1 + i / 10, times the factor of the arm. The ungated model runs
10 kMAC/px in either direction. Gates leave half of the channels open in nine tenths of that: 5.5 kMAC/px.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from synthetic_results import result, timing, write_sweep

IMAGES = 8
LMBDA = 0.013
ECG = {"name": "ecg", "alpha_target": 1.0}
# Stage -> rd_loss and bpp over those of the control, PSNR in dB, network times in ms.
ARMS = {
    "base": (1.1, 1.0, 29.4, 100.0),
    "control": (1.0, 1.0, 30.0, 100.0),
    "ecg_10": (1.02, 0.98, 29.7, 80.0),
    "static": (1.05, 1.0, 29.5, 75.0),
    "narrow": (1.2, 1.0, 29.0, 50.0),
    "narrow_tuned": (1.02, 1.0, 29.7, 50.0),
}


def trial(
    stage: str,
    start: dict[str, Any] | None = None,
    *,
    lmbda: float = LMBDA,
    factors: list[float] | None = None,
    narrow_kmac: float = 5.6,
    narrow_width: int = 96,
    keep: float = 0.5,
    model: str = "scale_hyperprior",
    **changes: Any,
) -> dict[str, Any]:
    """One arm. factors: per image, of the control's losses, instead of the arm's. keep: of the fixed mask."""
    factor, rate, psnr_db, _ = ARMS[stage]
    gating = {"ecg_10": ECG, "static": {"name": "static", "keep": keep}}.get(stage)
    is_narrow = stage.startswith("narrow")
    tree = result(
        narrow_width if is_narrow else 128,
        model,
        lmbda=lmbda,
        images=IMAGES,
        stage=stage,
        steps=500 if start is None else 250,
        gating=gating,
        warm_start=None if start is None else {"spec_id": start["spec_id"], "lmbda": lmbda},
        **changes,
    )
    kmac = narrow_kmac if is_narrow else 10.0
    for direction in ("encode", "decode"):
        tree["complexity"][direction] |= {"executed_kmac_per_px": kmac, "parity_kmac_per_px": 0.9 * kmac}
    _score(tree, factors or [factor] * IMAGES, rate * (lmbda / LMBDA) ** 0.8 / 2, psnr_db, lmbda)
    if gating:
        _gate(tree)
    return tree


def _score(tree: dict[str, Any], factors: list[float], bpp: float, psnr_db: float, lmbda: float) -> None:
    psnr_db += 3 * math.log2(lmbda / LMBDA)
    evaluation = tree["evaluation"]
    losses = [(1 + n / 10) * factor for n, factor in enumerate(factors)]
    for image, loss in zip(evaluation["per_image"], losses, strict=True):
        image |= {"rd_loss": loss, "bpp": bpp, "psnr_db": psnr_db}
    evaluation |= {"rd_loss": math.fsum(losses) / IMAGES, "bpp": bpp, "psnr_db": psnr_db}


def _gate(tree: dict[str, Any]) -> None:
    """The counts of `synthetic_results`, of 10 kMAC/px."""
    gates = tree["evaluation"]["gating"]
    scale = {way: 10.0 / gates[f"dense_{way}_kmac_per_px"] for way in ("encode", "decode")}
    for name, value in gates.items():
        way = next((way for way in scale if way in name), None)
        if way and isinstance(value, dict):
            gates[name] = {key: scale[way] * number for key, number in value.items()}
        elif way:
            gates[name] = scale[way] * value


def timing_of(tree: dict[str, Any]) -> dict[str, Any]:
    found = timing(tree)
    ms = ARMS.get(tree["stage"], ARMS["base"])[3]
    for way in ("encode", "decode"):
        found[way] = {**found[way], "network_ms": {"median": ms, "q25": ms, "q75": ms}}
    return found


def arms(*, lmbda: float = LMBDA, **changes: Any) -> dict[str, dict[str, Any]]:
    """All stages of one model at one lmbda. changes: of the narrow ones, or of the model."""
    base = trial("base", lmbda=lmbda, **changes)
    narrow = trial("narrow", lmbda=lmbda, **changes)
    found = {name: trial(name, base, lmbda=lmbda, **changes) for name in ("control", "ecg_10", "static")}
    tuned = trial("narrow_tuned", narrow, lmbda=lmbda, **changes)
    return {"base": base, **found, "narrow": narrow, "narrow_tuned": tuned}


def sweep(folder: Path, trees: list[dict[str, Any]], *, timed: bool = True) -> Path:
    """Control and base are of one architecture, and timed once."""
    timings = [timing_of(tree) for tree in trees if tree["stage"] != "control"] if timed else []
    return write_sweep(folder, trees, timings=timings)
