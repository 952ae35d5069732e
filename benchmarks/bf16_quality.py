"""What bf16 transforms cost in quality: the same training in fp32 and in bf16, step for step.

    python benchmarks/bf16_quality.py            # 1,000 steps each, about 6 minutes on two cores
    python benchmarks/bf16_quality.py --seeds 3

Both trainings see the same crops, the same noise and the same recipe, on small crops, where rounding weighs
most. Compared is rd_loss on the held-out validation images: estimated rate, 8-bit rounded pixels. The goal is
a difference within 1 %; the spread over seeds shows how much chance alone makes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "bf16")
GOAL_PCT = 1.0


def trained_rd_loss(options: argparse.Namespace, precision: str, seed: int, images: tuple[Any, Any]) -> float:
    """Validation rd_loss after options.steps steps with the product's own trainer."""
    import torch

    from conf import compose
    from rdc.models.codec import build
    from rdc.resume import MetricsLog
    from rdc.spec import COMPONENT_GROUPS, Recipe, RunSettings, TrialSpec, parse_model
    from rdc.train import train, validate

    config = compose([f"model={options.model}"])
    spec = TrialSpec(
        model=parse_model({group: config[group] for group in (*COMPONENT_GROUPS, "depth")}),
        recipe=Recipe(
            steps=options.steps,
            batch_size=8,
            crop_px=64,
            learning_rate=5e-4,
            schedule="cosine",
            final_learning_rate=1e-5,
            warmup_steps=50,
            ema_decay=0.99,
        ),
        precision=precision,  # type: ignore[arg-type]
        lmbda=0.013,
        seed=seed,
        train_data=images[0].images.content_hash,
        eval_data=images[1].images.content_hash,
    )
    torch.manual_seed(seed)
    codec = build(spec.model)
    with tempfile.TemporaryDirectory(prefix="rdc-bf16-") as folder:
        run = RunSettings(folder=folder, train_manifest="", eval_manifest="", checkpoint_every_s=1e9)
        metrics = MetricsLog(Path(folder))
        train(codec, spec, run, crops=images[0], validation=images[1], metrics=metrics)
    codec.update(force=True, update_quantiles=True)
    return validate(codec, images[1], spec.lmbda).rd_loss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="mean_scale_hyperprior")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/bf16_quality.json"))
    options = parser.parse_args()

    from conf import compose
    from rdc.data import PixelCache, resolve_train, split
    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device, set_threads

    set_threads(options.threads)
    train_set, validation_set = split(resolve_train(compose()["data"]), share=0.1)
    images = (PixelCache(train_set), PixelCache(validation_set))
    rows = []
    for seed in range(options.seeds):
        started_s = time.monotonic()
        losses = {precision: trained_rd_loss(options, precision, seed, images) for precision in PRECISIONS}
        difference_pct = 100 * (losses["bf16"] / losses["fp32"] - 1)
        rows.append({"seed": seed, **losses, "difference_pct": difference_pct})
        print(f"seed {seed}: {time.monotonic() - started_s:.0f} s", file=sys.stderr, flush=True)
    mean_pct = 100 * (sum(r["bf16"] for r in rows) / sum(r["fp32"] for r in rows) - 1)
    settings = {name: getattr(options, name) for name in ("steps", "seeds", "threads", "model")}
    atomic_write_json(
        options.out,
        {
            "settings": settings,
            "environment": environment(resolve_device("cpu")),
            "train_data": train_set.to_result(),
            "validation_data": validation_set.to_result(),
            "rounds": rows,
            "difference_pct": mean_pct,
        },
    )
    for row in rows:
        print(
            f"seed {row['seed']}: rd_loss fp32 {row['fp32']:.4f}, bf16 {row['bf16']:.4f}, "
            f"{row['difference_pct']:+.2f} %"
        )
    verdict = "within" if abs(mean_pct) <= GOAL_PCT else "beyond"
    print(f"bf16 against fp32, {options.steps} steps: {mean_pct:+.2f} %, {verdict} {GOAL_PCT:g} %")
    print(options.out)
    return 0 if abs(mean_pct) <= GOAL_PCT else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
