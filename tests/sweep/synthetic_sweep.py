"""A sweep folder without training: the files that trials write, with plausible numbers, in milliseconds.

The curves follow a power law and bigger models end lower, so that a chart of the folder looks like one of a
real sweep. Everything is a pure function of the trial's place in the list.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

START_T = 1_790_000_000.0  # unix time of the first trial's start; any
ENTROPY_MODELS = ("scale_hyperprior", "mean_scale_hyperprior")
ERROR = {"class": "MemoryError", "message": "12 GiB asked for, 8 GiB there", "log": "log.txt"}
PLAN_KEYS = ("spec_id", "curve_id", "arch_id", "label", "family", "spec")
WIDTHS = ((32, 48), (48, 64), (64, 96), (96, 128), (128, 192), (160, 224))


class SyntheticSweep:
    """trials: the plan in order; each `write_*` method adds files that a running sweep would have added."""

    def __init__(
        self,
        folder: Path,
        *,
        trials: int = 12,
        steps: int = 500,
        kodak: bool = False,
        start_t: float = START_T,
    ) -> None:
        """kodak: pretend that the evaluation set is Kodak, so that rate savings exist."""
        self.folder = folder
        self.steps = steps
        self.kodak = kodak
        self.start_t = start_t
        self.random = random.Random(0)
        self.trials = [self._plan(number) for number in range(trials)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.json").write_text(json.dumps(self.sweep, indent=2))

    @property
    def sweep(self) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "name": self.folder.name,
            "config": {
                "name": self.folder.name,
                "lmbda": 0.013,
                "budget": {"name": "quick", "steps": self.steps},
            },
            "trials": [{key: trial[key] for key in PLAN_KEYS} for trial in self.trials],
            "versions": {"rdc": "0.1.0", "torch": "2.15.0"},
            "git_revision": "62b781d5a3f0",
            "command": f"python -m sweep +experiment={self.folder.name}",
            "started_at": self.start_t,
        }

    def write_curve(
        self, number: int, *, first_step: int = 0, last_step: int | None = None, delay_s: float = 0.0
    ) -> None:
        """Append the lines for the steps in (first_step, last_step]; values depend on the step alone.

        delay_s: how much later than without an interruption.
        """
        trial = self.trials[number]
        last_step = self.steps if last_step is None else last_step
        rows = [_curve_row(trial, step, self.steps) for step in range(first_step + 10, last_step + 1, 10)]
        if last_step == self.steps:
            rows.append(
                {
                    "step": self.steps,
                    "t": trial["started_at"] + 60.0,
                    "val/rd_loss": trial["rd_loss"] * 1.01,
                    "val/bpp": trial["bpp"],
                    "val/psnr_db": trial["psnr_db"],
                }
            )
        for row in rows:
            row["t"] += delay_s
        folder = self.folder / "trials" / trial["spec_id"]
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "metrics.jsonl", "a") as file:
            if first_step == 0:
                file.write(json.dumps({"event": "phase", "phase": "train", "t": trial["started_at"]}) + "\n")
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def write_result(self, number: int, *, status: str = "ok", picture: bool = True) -> dict[str, Any]:
        trial = self.trials[number]
        folder = self.folder / "trials" / trial["spec_id"]
        folder.mkdir(parents=True, exist_ok=True)
        result = _result(trial, self.steps, status, kodak=self.kodak)
        (folder / "spec.json").write_text(json.dumps(trial["spec"]))
        (folder / "log.txt").write_text("a line of the trial's log\n")
        if picture and status != "failed":
            _write_picture(folder / "reconstructions.png", trial["label"])
        (folder / "result.json").write_text(json.dumps(result))
        return result

    def write_trial(self, number: int, *, status: str = "ok", picture: bool = True) -> dict[str, Any]:
        self.write_curve(number, last_step=self.steps if status == "ok" else self.steps // 2)
        return self.write_result(number, status=status, picture=picture)

    def write_timing(
        self, number: int, *, device: str = "cpu:EPYC 9554P", slug: str = "cpu-epyc-9554p"
    ) -> None:
        trial = self.trials[number]
        network_ms = 1.7 * trial["kmac_per_px"]
        timing = {
            "schema_version": 1,
            "arch_id": trial["arch_id"],
            "label": trial["label"],
            "family": trial["family"],
            "device": device,
            "device_slug": slug,
            "threads": 1,
            "precision": "fp32",
            "image_px": [512, 768],
            "node": "node0",
            "alone": True,
            "started_at": self.start_t,
            "ended_at": self.start_t + 9,
            "repeats": 5,
            "weights": f"trained {trial['spec_id']}",
            "environment": {},
            "decode": _stopwatch(network_ms, 24.3),
            "encode": _stopwatch(0.9 * network_ms, 19.1),
        }
        folder = self.folder / "timing"
        folder.mkdir(exist_ok=True)
        (folder / f"{trial['arch_id']}__{slug}__1t__fp32.json").write_text(json.dumps(timing))

    def _plan(self, number: int) -> dict[str, Any]:
        entropy_model = ENTROPY_MODELS[number % 2]
        channels, latent_channels = WIDTHS[(number // 2) % len(WIDTHS)]
        layers = [0, 0, number // (2 * len(WIDTHS))]
        kmac_per_px = 58.7 * (channels / 128) ** 2 * (1.03 if number % 2 else 1.0) + 2.0 * sum(layers)
        bpp = 0.46 + self.random.uniform(-0.02, 0.02)
        rd_loss = (
            1.05 + 0.55 * math.exp(-kmac_per_px / 12) - 0.03 * (number % 2) + self.random.uniform(0, 0.01)
        )
        mse = (rd_loss - bpp) / (0.013 * 255**2)
        spec = {
            "model": {
                "transform": {"name": "conv", "kernel": 5, "activation": "gdn"},
                "entropy_model": {"name": entropy_model},
                "hyper_transform": {"name": "conv", "channels": channels},
                "depth": {
                    "channels": [channels] * 3,
                    "latent_channels": latent_channels,
                    "layers": layers,
                },
                "gating": {"name": "none"},
                "rate_control": {"name": "none"},
            },
            "recipe": {"steps": self.steps, "batch_size": 8, "crop_px": 128, "learning_rate": 1e-3},
            "precision": "fp32",
            "lmbda": 0.013,
            "seed": 0,
            "train_data": "7c1d0fbe21aa",
            "eval_data": "9a0be1c3d4f5",
            "warm_start": None,
        }
        return {
            "spec_id": f"{0xABC000 + number:012x}",
            "curve_id": f"{0xCDE000 + number:012x}",
            "arch_id": f"{0xA0C000 + number:012x}",
            "label": f"{'ms' if number % 2 else 's'}hp-{channels}-{latent_channels}"
            + ("+1" if layers[2] else ""),
            "family": f"conv/{entropy_model}/conv",
            "spec": spec,
            "started_at": self.start_t + 31.0 * (number // 2),
            "kmac_per_px": kmac_per_px,
            "bpp": bpp,
            "rd_loss": rd_loss,
            "mse": mse,
            "psnr_db": -10 * math.log10(mse),
        }


def _curve_row(trial: dict[str, Any], step: int, steps: int) -> dict[str, Any]:
    noise = random.Random(f"{trial['spec_id']} {step}").gauss(0, 0.02)
    rd_loss = trial["rd_loss"] * (1 + 2.5 * (step / 10 + 1) ** -1.1 + noise)
    mse = (rd_loss - trial["bpp"]) / (0.013 * 255**2)
    return {
        "step": step,
        "t": trial["started_at"] + 60.0 * step / steps,
        "train/loss": rd_loss,
        "train/rd_loss": rd_loss,
        "train/bpp": trial["bpp"] * (1 + noise),
        "train/mse": mse,
        "train/psnr_db": -10 * math.log10(mse),
        "train/aux_loss": 30.0 * 0.99**step,
        "train/lr": 1e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
        "train/images_per_s": 31.5,
        "eta_s": 60.0 * (1 - step / steps),
    }


def _result(trial: dict[str, Any], steps: int, status: str, *, kodak: bool) -> dict[str, Any]:
    kmac_per_px = trial["kmac_per_px"]
    counts = {
        "parity_kmac_per_px": kmac_per_px,
        "parity_kflop_per_px": 2 * kmac_per_px,
        "executed_kmac_per_px": 1.02 * kmac_per_px,
        "executed_kflop_per_px": 2.04 * kmac_per_px,
        "elementwise_kop_per_px": 3.1,
    }
    head = {
        "schema_version": 1,
        "status": status,
        **{key: trial[key] for key in PLAN_KEYS},
        "warm_start": None,
        "error": ERROR if status == "failed" else None,
        "attempt": 1,
    }
    if status == "failed":
        return head
    eval_name = "kodak" if kodak else "packaged"
    evaluation = {
        "dataset": eval_name,
        "dataset_hash": trial["spec"]["eval_data"],
        "images": 24 if kodak else 6,
        "bpp": trial["bpp"],
        "bpp_payload": trial["bpp"] - 0.0006,
        "bpp_estimated": trial["bpp"] - 0.0012,
        "rate_gap_pct": 0.13,
        "psnr_db": trial["psnr_db"],
        "psnr_of_mean_mse_db": trial["psnr_db"] - 0.2,
        "mse": trial["mse"],
        "ms_ssim": 0.962,
        "ms_ssim_db": 14.41,
        "rd_loss": trial["rd_loss"],
        "padded_px_ratio": 1.021,
        "fresh_decode": {"images": 2, "identical": True},
        "precision": "fp32",
        "wall_s": 4.2,
        "per_image": [],
    }
    images = {"name": "synthetic", "source": "photos inside installed packages", "images": 40}
    return {
        **head,
        "training": {
            "budget": "quick",
            "steps": steps,
            "batch_size": 8,
            "micro_batch": 8,
            "crop_px": 128,
            "images_seen": 8 * steps,
            "wall_s": 61.3,
            "started_at": trial["started_at"],
            "ended_at": trial["started_at"] + 61.3,
            "node": "node0",
            "device": "cpu:EPYC 9554P",
            "threads": 1,
            "precision": "fp32",
            "percent_of_paper_steps": 100 * steps / 2e6,
            "percent_of_paper_pixels": 100 * steps * 8 * 128**2 / (2e6 * 32 * 256**2),
            "val_rd_loss": 1.01 * trial["rd_loss"],
            "val_images": 2,
            "rd_loss_slope_per_1k_steps": -0.21,
            "rollbacks": [],
            "resumed_at_steps": [],
            "peak_memory_mb": 812.4,
        },
        "evaluation": evaluation,
        "complexity": {
            "image_px": [512, 768],
            "counter": "fvcore",
            "decode": counts,
            "encode": counts,
            "params": {
                "total": int(2.1e5 * kmac_per_px**0.9),
                "total_without_g_a": int(1.4e5 * kmac_per_px**0.9),
            },
            "parts": {},
        },
        "data": {
            "train": {**images, "content_hash": trial["spec"]["train_data"]},
            "validation": {**images, "images": 2, "content_hash": "0e1f2a3b4c5d"},
            "eval": {
                **images,
                "name": eval_name,
                "images": 24 if kodak else 6,
                "content_hash": trial["spec"]["eval_data"],
            },
        },
        "environment": {
            "python": "3.11.9",
            "torch": "2.15.0",
            "compressai": "1.2.8",
            "rdc": "0.1.0",
            "semantics_version": 1,
            "git_revision": "62b781d5a3f0",
            "git_dirty": False,
            "device": "cpu:EPYC 9554P",
            "cpu": "EPYC 9554P",
            "node": "node0",
        },
    }


def _stopwatch(network_ms: float, entropy_ms: float) -> dict[str, Any]:
    def quartiles(value: float) -> dict[str, float]:
        return {"median": value, "q25": 0.98 * value, "q75": 1.03 * value}

    return {
        "network_ms": quartiles(network_ms),
        "entropy_ms": quartiles(entropy_ms),
        "total_ms": quartiles(network_ms + entropy_ms),
    }


def _write_picture(path: Path, label: str) -> None:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (320, 120), (40, 60, 90))
    ImageDraw.Draw(image).text((10, 50), f"reconstructions of {label}", fill=(255, 255, 255))
    image.save(path)
