"""What bf16 transforms cost in quality: the same training in fp32 and in bf16, step for step.

    python benchmarks/bf16_quality.py            # 1,000 steps each, about 5 minutes on two cores
    python benchmarks/bf16_quality.py --seeds 3

Both trainings follow the recipe of `budget=quick` on crops of 64 pixels, where rounding weighs most, and see
the same crops and the same noise. Compared is rd_loss on held-out crops of that size (estimated rate, 8-bit
rounded pixels), with the averaged weights that a trial would save. The goal is a difference within 1 %; the
spread over seeds shows how much chance alone makes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "bf16")
GOAL_PCT = 1.0
CROP_PX, BATCH = 64, 8
HELD_OUT_BATCHES, HELD_OUT_SEED = 128, 12345
LMBDA = 0.013


def trained_rd_loss(options: argparse.Namespace, precision: Any, seed: int, images: tuple[Any, Any]) -> float:
    """rd_loss on held-out crops after options.steps steps with the product's own trainer."""
    import torch

    from conf import compose
    from rdc.configured import model_of
    from rdc.models.codec import build
    from rdc.models.layers.wavelet import start_as_wavelet
    from rdc.resume import MetricsLog
    from rdc.spec import RunSettings, TrialSpec
    from rdc.train import train
    from sweep.settings import read_settings

    config = compose([f"model={options.model}", "budget=quick", *options.overrides])
    recipe = read_settings(config).budget.recipe
    recipe = dataclasses.replace(recipe, steps=options.steps, crop_px=CROP_PX, batch_size=BATCH)
    spec = TrialSpec(
        model=model_of(config),
        recipe=recipe,
        precision=precision,
        lmbda=LMBDA,
        seed=seed,
        train_data=images[0].images.content_hash,
        eval_data=images[1].images.content_hash,
    )
    torch.manual_seed(seed)
    codec = build(spec.model)
    if recipe.initialisation == "wavelet":
        start_as_wavelet(codec)
    with tempfile.TemporaryDirectory(prefix="rdc-bf16-") as folder:
        run = RunSettings(folder=folder, train_manifest="", eval_manifest="", checkpoint_every_s=1e9)
        metrics = MetricsLog(Path(folder))
        log = train(codec, spec, run, crops=images[0], validation=images[1], metrics=metrics)
    assert not log.rollbacks, f"the {precision} training diverged: {log.rollbacks}"
    codec.update(force=True, update_quantiles=True)
    return held_out_rd_loss(codec, images[1])


def held_out_rd_loss(codec: Any, images: Any) -> float:
    """Mean over HELD_OUT_BATCHES x BATCH crops, the same for every codec."""
    import torch

    from rdc.loss import bits, rd_loss
    from rdc.metrics import mse, to_8bit

    losses = []
    with torch.no_grad():
        for number in range(HELD_OUT_BATCHES):
            x = images.crops(number, BATCH, CROP_PX, HELD_OUT_SEED)
            output = codec.eval()(x)
            bpp = float(bits(output["likelihoods"])) / (BATCH * CROP_PX**2)
            losses.append(rd_loss(bpp, mse(x, to_8bit(output["x_hat"])), LMBDA))
    return sum(losses) / len(losses)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="mean_scale_hyperprior")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/bf16_quality.json"))
    parser.add_argument("overrides", nargs="*", help="further configuration, such as depth=n64")
    options = parser.parse_args()

    from conf import compose
    from rdc.data import PixelCache, resolve_train, split
    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device, set_threads

    set_threads(options.threads)
    train_set, held_out_set = split(resolve_train(compose()["data"]), share=0.1)
    images = (PixelCache(train_set), PixelCache(held_out_set))
    rows = []
    for seed in range(options.seeds):
        started_s = time.monotonic()
        losses = {precision: trained_rd_loss(options, precision, seed, images) for precision in PRECISIONS}
        rows.append({"seed": seed, **losses, "difference_pct": 100 * (losses["bf16"] / losses["fp32"] - 1)})
        elapsed_s = time.monotonic() - started_s
        print(
            f"seed {seed}: {rows[-1]['difference_pct']:+.2f} %, {elapsed_s:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    mean_pct = 100 * (sum(row["bf16"] for row in rows) / sum(row["fp32"] for row in rows) - 1)
    names = ("steps", "seeds", "threads", "model", "overrides")
    atomic_write_json(
        options.out,
        {
            "settings": {name: getattr(options, name) for name in names},
            "environment": environment(resolve_device("cpu")),
            "train_data": train_set.to_result(),
            "held_out_data": held_out_set.to_result(),
            "rounds": rows,
            "difference_pct": mean_pct,
        },
    )
    for row in rows:
        both = ", ".join(f"{precision} {row[precision]:.4f}" for precision in PRECISIONS)
        print(f"seed {row['seed']}: rd_loss {both}, {row['difference_pct']:+.2f} %")
    verdict = "within" if abs(mean_pct) <= GOAL_PCT else "beyond"
    print(f"bf16 against fp32, {options.steps} steps: {mean_pct:+.2f} %, {verdict} {GOAL_PCT:g} %")
    print(options.out)
    return 0 if abs(mean_pct) <= GOAL_PCT else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from rdc.lean_import import lean_compressai

    lean_compressai()
    sys.exit(main())
