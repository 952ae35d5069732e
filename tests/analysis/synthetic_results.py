"""Synthetic results that look like a real sweep's: plausible numbers, nothing was trained.

python tests/analysis/synthetic_results.py FOLDER writes a sweep folder to look at;
with a second argument, also the results table of that sweep to that file.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

WIDTHS = (32, 48, 64, 96, 128, 192)
ENTROPY_MODELS = ("scale_hyperprior", "mean_scale_hyperprior")
QUICK = {"steps": 500, "batch_size": 8, "crop_px": 128, "learning_rate": 1e-3, "schedule": "cosine"}


def _hash(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _noise(*content: Any) -> float:
    """Repeatable number in [-0.5, 0.5)."""
    return int(_hash(*content), 16) / 16**12 - 0.5


def result(
    width: int = 64,
    entropy_model: str = "scale_hyperprior",
    *,
    lmbda: float = 0.013,
    seed: int = 0,
    status: str = "ok",
    budget: str = "quick",
    steps: int = 500,
    dataset: str = "kodak",
    images: int = 24,
    precision: str = "bf16",
    warm_start: dict[str, Any] | None = None,
    transform: str = "conv",
    penalty: float = 0.0,
) -> dict[str, Any]:
    """A result.json: wider is better and dearer, the mean-scale model is better and a little dearer."""
    recipe = {**QUICK, "steps": steps}
    model = {
        "transform": {"name": transform},
        "entropy_model": {"name": entropy_model},
        "hyper_transform": {"name": "conv"},
        "depth": {"channels": [width] * 3, "latent_channels": 3 * width // 2, "layers": [0, 0, 0]},
        "gating": {"name": "none"},
        "rate_control": {"name": "none"},
    }
    arch = _hash("arch", model)
    curve = _hash("curve", arch, recipe, precision, warm_start)
    spec_id = _hash("spec", curve, lmbda, seed, dataset)
    mean_scale = entropy_model == "mean_scale_hyperprior"
    kmac = (93.7 if mean_scale else 90.1) * (width / 128) ** 1.8 + (4.0 if mean_scale else 2.4)
    quality = math.log2(width / 32) * 0.32 + (0.35 if mean_scale else 0.0) + 0.2 * math.log10(steps / 500)
    quality += 0.1 * _noise("quality", arch, seed, steps) - penalty
    bpp = 0.36 * (lmbda / 0.013) ** 0.8 * (1 - 0.05 * quality)
    psnr_db = 30.4 + 2.9 * math.log2(lmbda / 0.013) * 0.8 + quality
    mse = 10 ** (-psnr_db / 10) * 1.06
    ms_ssim = 1 - 0.04 * 2 ** (-(psnr_db - 30) / 3)
    kmac_enc = 1.15 * kmac
    params = int(12.8e6 * (width / 192) ** 2)
    started = 1_780_000_000.0 + 30 * width
    tree: dict[str, Any] = {
        "schema_version": 1,
        "status": status,
        "spec_id": spec_id,
        "curve_id": curve,
        "arch_id": arch,
        "label": f"{transform} {width}-{width}-{width}/{3 * width // 2} {'mean-' * mean_scale}scale",
        "family": f"{transform}/{entropy_model}/conv",
        "spec": {
            "model": model,
            "recipe": recipe,
            "precision": precision,
            "lmbda": lmbda,
            "seed": seed,
            "train_data": "a1b2c3d4e5f6",
            "eval_data": _hash(dataset),
            "warm_start": warm_start,
        },
        "training": {
            "budget": budget,
            "steps": steps,
            "batch_size": 8,
            "micro_batch": 8,
            "crop_px": 128,
            "images_seen": 8 * steps,
            "wall_s": 20.0 + 0.4 * width,
            "started_at": started,
            "ended_at": started + 20.0 + 0.4 * width,
            "node": "synthetic",
            "device": "cpu:synthetic",
            "threads": 1,
            "precision": precision,
            "percent_of_paper_steps": 100 * steps / 2_000_000,
            "percent_of_paper_pixels": 100 * steps * 8 * 128**2 / (2_000_000 * 32 * 256**2),
            "val_rd_loss": bpp + lmbda * 255**2 * mse * 0.9,
            "val_images": 12,
            "rd_loss_slope_per_1k_steps": -0.31 + 0.1 * _noise("slope", spec_id),
            "rollbacks": [],
            "resumed_at_steps": [],
            "peak_memory_mb": 600.0 + 2.5 * width,
        },
        "evaluation": {
            "dataset": dataset,
            "dataset_hash": _hash(dataset),
            "images": images,
            "bpp": bpp,
            "bpp_payload": bpp - 0.0006,
            "bpp_estimated": bpp - 0.0011,
            "rate_gap_pct": 0.05 / (bpp - 0.0011),
            "psnr_db": psnr_db,
            "psnr_of_mean_mse_db": -10 * math.log10(mse),
            "mse": mse,
            "ms_ssim": ms_ssim,
            "ms_ssim_db": -10 * math.log10(1 - ms_ssim) + 0.2,
            "rd_loss": bpp + lmbda * 255**2 * mse,
            "padded_px_ratio": 1.0,
            "fresh_decode": {"images": 2, "identical": True},
            "precision": precision,
            "wall_s": 9.0,
            "per_image": [],
        },
        "complexity": {
            "image_px": [512, 768],
            "counter": "parity",
            "decode": _counts(kmac),
            "encode": _counts(kmac_enc),
            "params": {"total": params, "total_without_g_a": int(0.7 * params)},
        },
        "data": {
            "train": {
                "name": "packaged",
                "source": "photos inside installed Python packages and seeded synthetic scenes",
                "images": 240,
                "content_hash": "a1b2c3d4e5f6",
            },
            "eval": {
                "name": dataset,
                "source": f"synthetic numbers for {dataset}",
                "images": images,
                "content_hash": _hash(dataset),
            },
        },
        "environment": {"torch": "2.8", "git_revision": "0000000", "semantics_version": 1, "device": "cpu"},
        "warm_start": warm_start,
        "error": None,
        "attempt": 1,
    }
    if status == "failed":
        tree |= {"evaluation": None, "complexity": None, "training": None}
        tree["error"] = {
            "class": "FloatingPointError",
            "message": "loss is not finite, three times",
            "log": "log.txt",
        }
    return tree


def _counts(kmac: float) -> dict[str, float]:
    return {
        "parity_kmac_per_px": kmac,
        "parity_kflop_per_px": 2 * kmac,
        "executed_kmac_per_px": 1.01 * kmac,
        "executed_kflop_per_px": 2.02 * kmac,
        "elementwise_kop_per_px": 0.3,
    }


def timing(
    tree: dict[str, Any], *, device_slug: str = "cpu-synthetic", factor: float = 1.0
) -> dict[str, Any]:
    """The timing JSON of a result's architecture: a fixed part, and one that grows with the work."""
    kmac = tree["complexity"]["decode"]["parity_kmac_per_px"]
    network_ms = factor * (25 + 1.9 * kmac * (1 + 0.3 * _noise("time", tree["arch_id"])))

    def stage(median: float) -> dict[str, float]:
        return {"median": median, "q25": 0.97 * median, "q75": 1.05 * median}

    stages = {
        "network_ms": stage(network_ms),
        "entropy_ms": stage(38.0),
        "total_ms": stage(network_ms + 38.0),
    }
    return {
        "schema_version": 1,
        "arch_id": tree["arch_id"],
        "label": tree["label"],
        "family": tree["family"],
        "device": device_slug.replace("-", ":"),
        "device_slug": device_slug,
        "threads": 1,
        "precision": "bf16",
        "image_px": [512, 768],
        "node": "synthetic",
        "alone": True,
        "repeats": 5,
        "decode": stages,
        "encode": stages,
    }


def write_sweep(
    folder: Path,
    results: list[dict[str, Any]],
    *,
    timings: list[dict[str, Any]] | None = None,
    planned: int = 0,
) -> Path:
    """A sweep folder with these results; without `timings`, one timing per architecture that has a cost."""
    for tree in results:
        target = folder / "trials" / tree["spec_id"]
        target.mkdir(parents=True, exist_ok=True)
        (target / "result.json").write_text(json.dumps(tree))
    if timings is None:
        timings = [timing(tree) for tree in results if tree["complexity"]]
    (folder / "timing").mkdir(parents=True, exist_ok=True)
    for tree in timings:
        name = f"{tree['arch_id']}__{tree['device_slug']}__{tree['threads']}t__{tree['precision']}.json"
        (folder / "timing" / name).write_text(json.dumps(tree))
    extra = [{"spec_id": f"missing{n}"} for n in range(planned)]
    plan = {"trials": [{"spec_id": tree["spec_id"]} for tree in results] + extra}
    (folder / "sweep.json").write_text(json.dumps(plan))
    return folder


def grid(**changes: Any) -> list[dict[str, Any]]:
    """Twelve architectures: two entropy models at six widths."""
    return [result(width, model, **changes) for model in ENTROPY_MODELS for width in WIDTHS]


def example() -> list[dict[str, Any]]:
    """What the committed example table holds: twelve architectures, two also as curves, and two mishaps."""
    curves = [
        result(width, "mean_scale_hyperprior", lmbda=lmbda, warm_start={"spec_id": "w", "lmbda": 0.013})
        for width in (64, 128)
        for lmbda in (0.0035, 0.0067, 0.013, 0.025, 0.0483)
    ]
    mishaps = [result(40, status="failed"), result(80, status="rate_mismatch")]
    return [*grid(), *curves, *mishaps]


if __name__ == "__main__":
    made = write_sweep(Path(sys.argv[1]), example())
    if len(sys.argv) > 2:
        from analysis.frontier import write_report

        write_report(made, print_table=False)
        Path(sys.argv[2]).write_bytes((made / "trials.csv").read_bytes())
