"""Synthetic results that look like a real sweep's: plausible numbers, nothing was trained.

python tests/analysis/synthetic_results.py FOLDER writes a sweep folder to look at;
with a second argument, also the results table of that sweep to that file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTHS = (32, 48, 64, 96, 128, 192)
ENTROPY_MODELS = ("scale_hyperprior", "mean_scale_hyperprior")
# Transform, entropy model, hyper-transform: the cheapest and worst first; ELIC with CHARM and SwinT is best.
FAMILIES = (
    ("conv", "scale_hyperprior", "conv"),
    ("conv", "mean_scale_hyperprior", "conv"),
    ("conv", "charm", "conv"),
    ("swint", "mean_scale_hyperprior", "swint"),
    ("swint", "charm", "swint"),
    ("elic", "charm", "conv"),
    ("elic", "charm", "swint"),
)
# Component -> factor of the work, dB gained, and how much slower per operation than stacked convolutions on
# the first and on the second device: so operations do not rank times, and devices do not agree.
_PARTS = {
    "conv": (1.0, 0.0, 1.0, 1.0),
    "elic": (2.2, 0.62, 1.15, 0.8),
    "swint": (1.3, 0.34, 2.1, 2.6),
    "charm": (1.5, 0.45, 1.25, 1.9),
    "swint-hyper": (1.03, 0.12, 1.05, 1.2),
}
SIZES_PX = {"kodak": (512, 768), "clic": (1365, 2048)}
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
    hyper_transform: str = "conv",
    penalty: float = 0.0,
    gating: dict[str, Any] | None = None,
    open_share: float = 0.5,
    stage: str | None = None,
) -> dict[str, Any]:
    """A result.json: wider is better and dearer, the mean-scale model is better and a little dearer.

    gating: of the model, {"name": ...}; its gates then leave open_share of the channels open.
    """
    recipe = {**QUICK, "steps": steps}
    model = {
        "transform": {"name": transform},
        "entropy_model": {"name": entropy_model},
        "hyper_transform": {"name": hyper_transform},
        "depth": {"channels": [width] * 3, "latent_channels": 3 * width // 2, "layers": [0, 0, 0]},
        "gating": gating or {"name": "none"},
        "rate_control": {"name": "none"},
    }
    arch = _hash("arch", model)
    curve = _hash("curve", arch, recipe, precision, warm_start)
    spec_id = _hash("spec", curve, lmbda, seed, dataset)
    mean_scale = entropy_model != "scale_hyperprior"
    parts = _parts_of(transform, entropy_model, hyper_transform)
    named_hyper = f" {hyper_transform}-hyper" * (hyper_transform != "conv")
    called = {"scale_hyperprior": "scale", "mean_scale_hyperprior": "mean-scale"}
    kmac = (93.7 if mean_scale else 90.1) * (width / 128) ** 1.8 + (4.0 if mean_scale else 2.4)
    quality = math.log2(width / 32) * 0.32 + (0.35 if mean_scale else 0.0) + 0.2 * math.log10(steps / 500)
    quality += 0.1 * _noise("quality", arch, seed, steps) - penalty
    for work, gain_db, *_ in parts:
        kmac, quality = kmac * work, quality + gain_db
    bpp = 0.36 * (lmbda / 0.013) ** 0.8 * (1 - 0.05 * quality)
    psnr_db = 30.4 + 2.9 * math.log2(lmbda / 0.013) * 0.8 + quality
    mse = 10 ** (-psnr_db / 10) * (1.06 if images > 1 else 1.0)
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
        "label": f"{transform} {width}-{width}-{width}/{3 * width // 2} "
        f"{called.get(entropy_model, entropy_model)}{named_hyper}",
        "family": f"{transform}/{entropy_model}/{hyper_transform}",
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
            "ms_ssim_db": -10 * math.log10(1 - ms_ssim) + (0.2 if images > 1 else 0.0),
            "rd_loss": bpp + lmbda * 255**2 * mse,
            "padded_px_ratio": 1.0,
            "fresh_decode": {"images": 2, "identical": True},
            "precision": precision,
            "wall_s": 9.0,
            "per_image": _per_image(arch, dataset, images, lmbda, bpp, psnr_db, mse, ms_ssim),
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
        "stage": stage,
        "error": None,
        "attempt": 1,
    }
    if gating:
        tree["label"] += f" {gating['name']}"
        _add_gates(tree, gating["name"], open_share)
    if status == "failed":
        tree |= {"evaluation": None, "complexity": None, "training": None}
        tree["error"] = {
            "class": "FloatingPointError",
            "message": "loss is not finite, three times",
            "log": "log.txt",
        }
    return tree


def _parts_of(
    transform: str, entropy_model: str, hyper_transform: str
) -> list[tuple[float, float, float, float]]:
    """What differs from stacked convolutions with a hyperprior."""
    names = (transform, entropy_model, f"{hyper_transform}-hyper")
    return [_PARTS[name] for name in names if name in _PARTS]


def _per_image(
    arch: str,
    dataset: str,
    images: int,
    lmbda: float,
    bpp: float,
    psnr_db: float,
    mse: float,
    ms_ssim: float,
) -> list[dict[str, Any]]:
    """Scores whose means are the stated ones: images differ much, architectures on one image little."""
    names = [
        f"kodim{n:02}.png" if dataset == "kodak" else f"{dataset}{n:03}.png" for n in range(1, images + 1)
    ]
    hard = [_noise("image", dataset, name) for name in names]  # costs bits and loses dB
    own = [_noise("own", arch, dataset, name) for name in names]
    rates = [math.exp(1.1 * h + 0.04 * o) for h, o in zip(hard, own, strict=True)]
    psnr_offset_db = spread_db([-h + 0.05 * o for h, o in zip(hard, own, strict=True)], 1.06)
    ssim_offset_db = spread_db([-h - 0.05 * o for h, o in zip(hard, own, strict=True)], 10**0.02)
    height_px, width_px = SIZES_PX.get(dataset, (512, 768))
    shortfall = 10 ** (0.02 if images > 1 else 0.0)
    scores = []
    for n, name in enumerate(names):
        image_bpp = bpp * rates[n] * images / sum(rates)
        image_psnr_db = psnr_db + psnr_offset_db[n]
        image_mse = 10 ** (-image_psnr_db / 10)
        scores.append(
            {
                "name": name,
                "width_px": width_px,
                "height_px": height_px,
                "bpp": image_bpp,
                "bpp_payload": image_bpp - 0.0006,
                "bpp_estimated": image_bpp - 0.0011,
                "psnr_db": image_psnr_db,
                "mse": image_mse,
                "ms_ssim": 1 - (1 - ms_ssim) * 10 ** (-ssim_offset_db[n] / 10) / shortfall,
                "rd_loss": image_bpp + lmbda * 255**2 * image_mse,
            }
        )
    return scores


def spread_db(values: Sequence[float], factor: float) -> list[float]:
    """The values, shifted and scaled: mean 0, and mean of 10^(-value/10) equal to `factor` (1 for one value).

    So the mean of the images' MSE is `factor` times the MSE of their mean PSNR.
    """
    mean = math.fsum(values) / len(values)
    centred = tuple(value - mean for value in values)
    return [_scale(centred, factor) * value for value in centred] if len(values) > 1 else [0.0]


@functools.cache
def _scale(centred: tuple[float, ...], factor: float) -> float:
    """Newton's method on the log of the mean, which is convex in the scale: it comes down from above."""
    scale = 100.0
    for _ in range(60):
        terms = [10 ** (-scale * value / 10) for value in centred]
        excess = math.log(math.fsum(terms) / len(terms) / factor)
        slope = math.fsum(-v / 10 * math.log(10) * t for v, t in zip(centred, terms, strict=True))
        step = excess / (slope / math.fsum(terms))
        scale -= step
        if abs(step) < 1e-14 * scale:
            break
    return scale


GATED_LAYERS = ("g_a.2", "g_a.4", "g_a.6", "h_a.0", "h_a.2", "g_s.0", "g_s.2", "g_s.4", "g_s.6")
CONV_SHARE = 0.9  # of a direction's work, all of it gated; the rest are norms


def _add_gates(tree: dict[str, Any], name: str, open_share: float) -> None:
    """What the gates of a trial left, in evaluation.gating and in the scores of the images.

    Of the closed channels a fifth is zero anyway. Images differ by up to 5 % of the convolutions, in pairs
    that cancel, static masks not at all.
    """
    evaluation, images = tree["evaluation"], tree["evaluation"]["per_image"]
    swing = 0.0 if name == "static" else 0.05
    swings = [swing * (-1) ** n * (n + 1 < len(images) or len(images) % 2 == 0) for n in range(len(images))]
    found: dict[str, Any] = {"images": len(images)}
    for direction in ("encode", "decode"):
        dense = tree["complexity"][direction]["executed_kmac_per_px"]
        counts = [dense * (1 - CONV_SHARE + CONV_SHARE * open_share * (1 + swing)) for swing in swings]
        mean = math.fsum(counts) / len(counts)
        std = math.sqrt(math.fsum((count - mean) ** 2 for count in counts) / len(counts))
        spread = {"mean": mean, "std": std, "min": min(counts), "max": max(counts)}
        found |= {f"{direction}_kmac_per_px": spread, f"{direction}_kmac_per_px_by_masks": spread}
        found[f"dense_{direction}_kmac_per_px"] = dense
        found[f"conv_{direction}_kmac_per_px"] = mean - (1 - CONV_SHARE) * dense
        found[f"dense_conv_{direction}_kmac_per_px"] = CONV_SHARE * dense
        for image, count in zip(images, counts, strict=True):
            image[f"{direction}_kmac_per_px"] = count
    known, closed = name != "static", 1 - open_share
    found["sparsity"] = closed
    found["natural_sparsity"] = 0.2 * closed if known else None
    found["learned_sparsity"] = 0.8 * closed if known else None
    width = tree["spec"]["model"]["depth"]["channels"][0]
    found["layers"] = [
        {
            "name": layer,
            "in_channels": width,
            "open": open_share * width * (1 + 0.1 * math.sin(n)),
            "open_std": swing * width if known else 0.0,
            "natural_zero": 0.2 * closed if known else None,
            "macs_share": 1 / len(GATED_LAYERS),
        }
        for n, layer in enumerate(GATED_LAYERS)
    ]
    evaluation["gating"] = found


def _counts(kmac: float) -> dict[str, float]:
    return {
        "parity_kmac_per_px": kmac,
        "parity_kflop_per_px": 2 * kmac,
        "executed_kmac_per_px": 1.01 * kmac,
        "executed_kflop_per_px": 2.02 * kmac,
        "elementwise_kop_per_px": 0.3,
    }


def timing(
    tree: dict[str, Any],
    *,
    device_slug: str = "cpu-synthetic",
    factor: float = 1.0,
    image_px: tuple[int, int] = (512, 768),
    threads: int = 1,
    second: bool = False,
) -> dict[str, Any]:
    """The timing JSON of a result's architecture: a fixed part, and one that grows with the work.

    second: as a device that is slow at other components (_PARTS).
    """
    kmac = tree["complexity"]["decode"]["parity_kmac_per_px"]
    gates = (tree["evaluation"] or {}).get("gating")
    if gates:
        kmac *= gates["decode_kmac_per_px"]["mean"] / gates["dense_decode_kmac_per_px"]
    megapixels = image_px[0] * image_px[1] / (512 * 768)
    slow = (
        math.prod(part[3 if second else 2] for part in _parts_of(*tree["family"].split("/"))) / threads**0.8
    )
    network_ms = factor * (25 + 1.9 * kmac * megapixels * slow * (1 + 0.3 * _noise("time", tree["arch_id"])))
    entropy_ms = 38.0 * megapixels

    def stage(median: float) -> dict[str, float]:
        return {"median": median, "q25": 0.97 * median, "q75": 1.05 * median}

    stages = {
        "network_ms": stage(network_ms),
        "entropy_ms": stage(entropy_ms),
        "total_ms": stage(network_ms + entropy_ms),
    }
    return {
        "schema_version": 1,
        "arch_id": tree["arch_id"],
        **({"spec_id": tree["spec_id"], "image": "kodim01.png"} if gates else {}),
        "label": tree["label"],
        "family": tree["family"],
        "device": device_slug.replace("-", ":"),
        "device_slug": device_slug,
        "threads": threads,
        "precision": "bf16",
        "image_px": list(image_px),
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
        setting = (
            tree.get("spec_id", tree["arch_id"]),
            tree["device_slug"],
            f"{tree['threads']}t",
            tree["precision"],
        )
        size = "x".join(map(str, tree["image_px"]))
        (folder / "timing" / f"{'__'.join(setting)}__{size}.json").write_text(json.dumps(tree))
    extra = [{"spec_id": f"missing{n}"} for n in range(planned)]
    plan = {"trials": [{"spec_id": tree["spec_id"]} for tree in results] + extra}
    (folder / "sweep.json").write_text(json.dumps(plan))
    return folder


def grid(**changes: Any) -> list[dict[str, Any]]:
    """Twelve architectures: two entropy models at six widths."""
    return [result(width, model, **changes) for model in ENTROPY_MODELS for width in WIDTHS]


def families(widths: Sequence[int] = WIDTHS, **changes: Any) -> list[dict[str, Any]]:
    """Every family of the study at these widths."""
    return [
        result(width, entropy_model, transform=transform, hyper_transform=hyper, **changes)
        for transform, entropy_model, hyper in FAMILIES
        for width in widths
    ]


def timings_of(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each architecture once on two devices and two image sizes, and on the first with two threads."""
    found = {}
    for tree in results:
        if tree["complexity"] and tree["arch_id"] not in found:
            found[tree["arch_id"]] = [
                *(timing(tree, image_px=size) for size in SIZES_PX.values()),
                timing(tree, threads=2),
                *(
                    timing(tree, device_slug="gpu-synthetic", factor=0.06, image_px=size, second=True)
                    for size in SIZES_PX.values()
                ),
            ]
    return [tree for timings in found.values() for tree in timings]


def example() -> list[dict[str, Any]]:
    """What the committed example table holds: twelve architectures, two also as curves, one with gates and
    its control, and two mishaps."""
    curves = [
        result(width, "mean_scale_hyperprior", lmbda=lmbda, warm_start={"spec_id": "w", "lmbda": 0.013})
        for width in (64, 128)
        for lmbda in (0.0035, 0.0067, 0.013, 0.025, 0.0483)
    ]
    gated = [
        result(128, steps=250, stage=stage, gating=gating, warm_start={"spec_id": "b", "lmbda": 0.013})
        for stage, gating in (("control", None), ("ecg", {"name": "ecg", "alpha_target": 1.0}))
    ]
    mishaps = [result(40, status="failed"), result(80, status="rate_mismatch")]
    return [*grid(), *curves, *gated, *mishaps]


if __name__ == "__main__":
    made = write_sweep(Path(sys.argv[1]), example())
    if len(sys.argv) > 2:
        from analysis.frontier import write_report

        write_report(made, print_table=False)
        Path(sys.argv[2]).write_bytes((made / "trials.csv").read_bytes())
