"""Synthetic results of a sweep of variable rate whose BD-rates, bytes and storage are known beforehand.

At rate k = 0 .. 7 (lmbda LMBDAS[k]) the mean file of a fixed-rate model has 10,000 2^k bytes and 25 + 2k dB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import synthetic_results

LMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)
# 25 evenly in log(lmbda), both ends among the eight.
CODES = tuple(LMBDAS[0] * (LMBDAS[-1] / LMBDAS[0]) ** (place / 24) for place in range(25))
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5)  # of the images' bytes; their mean is 1
STEPS = 400
PARAMS, MODULATOR_PARAMS = 1_000_000, 83_072
WIDTH_PX, HEIGHT_PX = 768, 512


def rate_place(lmbda: float) -> float:
    """k of an lmbda: whole at the eight, in between straight over log(lmbda)."""
    low = max(k for k in range(7) if LMBDAS[k] <= lmbda * (1 + 1e-12))
    share = math.log(lmbda / LMBDAS[low]) / math.log(LMBDAS[low + 1] / LMBDAS[low])
    return low + min(1.0, max(0.0, share))


def trial(
    lmbda: float,
    *,
    size: float = 1.0,
    steps: int = STEPS,
    stage: str = "fixed",
    variable: bool = False,
    measured: bool = False,
    entropy_model: str = "mean_scale_hyperprior",
    bytes_of: Callable[[int, int], int] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A result.json. size: of its files, times those of a fixed-rate model.

    bytes_of: (image, bytes that it would have) -> bytes that it has.
    """
    tree = synthetic_results.result(
        64, entropy_model, lmbda=lmbda, steps=steps, dataset="five", images=len(FACTORS), **changes
    )
    tree |= {"stage": stage, "budget_id": f"steps{steps}"}
    if variable:
        _make_variable(tree, lmbda, measured)
    if tree["evaluation"] is not None:
        params = PARAMS + variable * MODULATOR_PARAMS
        tree["complexity"]["params"] = {"total": params, "total_without_g_a": 700_000}
        _score(tree, lmbda, size, bytes_of or (lambda _, count: count))
    return tree


def _make_variable(tree: dict[str, Any], lmbda: float, measured: bool) -> None:
    tree["spec"]["model"]["rate_control"] = {"name": "modulator", "lmbdas": list(LMBDAS)}
    tree["label"] += " modulator"
    for name in ("arch_id", "curve_id"):
        tree[name] = "v" + tree[name][1:]
    # One curve whatever is measured on it.
    tree["spec_id"] = ("m" if measured else "v") + tree["spec_id"][1:]
    if measured:
        tree["spec"]["weights"] = {"spec_id": "parent", "checkpoint_sha256": "ab" * 32}
        del tree["training"]["wall_s"]
    if tree["evaluation"] is not None:
        share = math.log(lmbda / LMBDAS[0]) / math.log(LMBDAS[-1] / LMBDAS[0])
        tree["evaluation"]["lmbda_code"] = round(65535 * share)


def _score(tree: dict[str, Any], lmbda: float, size: float, bytes_of: Callable[[int, int], int]) -> None:
    place = rate_place(lmbda)
    psnr_db = 25 + 2 * place
    evaluation = tree["evaluation"]
    for image, (row, factor) in enumerate(zip(evaluation["per_image"], FACTORS, strict=True)):
        count = bytes_of(image, round(10_000 * size * factor * 2**place))
        row |= {
            "name": f"image{image}.png",
            "width_px": WIDTH_PX,
            "height_px": HEIGHT_PX,
            "bpp": 8 * count / (WIDTH_PX * HEIGHT_PX),
            "psnr_db": psnr_db + image - 2,
        }
    bpp = sum(row["bpp"] for row in evaluation["per_image"]) / len(FACTORS)
    evaluation |= {"bpp": bpp, "psnr_db": psnr_db, "rate_gap_pct": 0.1 * place}


def fixed(**changes: Any) -> list[dict[str, Any]]:
    """Eight fixed-rate models."""
    return [trial(lmbda, **changes) for lmbda in LMBDAS]


def fixed_short(**changes: Any) -> list[dict[str, Any]]:
    """Eight with an eighth of the steps and files of 1.375 times the size."""
    return [trial(lmbda, size=1.375, steps=STEPS // 8, stage="fixed_short", **changes) for lmbda in LMBDAS]


def variable(lmbdas: Sequence[float] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """One training at 0.013, measured at the others: files of 1.1 times the size of those of `fixed`."""
    others = sorted({*CODES, *LMBDAS} - {0.013}) if lmbdas is None else lmbdas
    own = {"size": 1.1, "variable": True, **changes}
    return [
        trial(0.013, stage="variable", **own),
        *(trial(lmbda, stage="codes", measured=True, **own) for lmbda in others),
    ]


def write(folder: Path, *parts: Sequence[dict[str, Any]]) -> Path:
    """A sweep folder with these results."""
    return synthetic_results.write_sweep(folder, [tree for part in parts for tree in part], timings=[])


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[1]), fixed(), fixed_short(), variable())
