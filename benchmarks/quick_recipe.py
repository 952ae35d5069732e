"""What the quick recipe reaches, beside CompressAI's recipe on the same architecture in the same wall time.

    python benchmarks/quick_recipe.py                     # 3 seeds, about 8 minutes on two cores

Both train the mean-scale hyperprior at one width on one thread, each in a process of its own, and are judged
by rd_loss on held-out validation images (estimated rate, 8-bit rounded pixels), never on evaluation images.

quick       the recipe of `budget=quick`, as trials run it
compressai  CompressAI's model and the recipe of its example script, written anew here: fp32, random weights,
            Adam at 1e-4, batches of 16 crops of 256 pixels, as many steps as fit into the seconds of `quick`
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONTESTANTS = ("quick", "compressai")
CHANNELS, LATENT_CHANNELS = 48, 96
LMBDA = 0.013
ROOT = Path(__file__).resolve().parent.parent


def codec_and_images(seed: int) -> tuple[Any, Any, Any, Any]:
    """(codec in CompressAI's shape, quick recipe, training images, validation images)."""
    import torch

    from conf import compose
    from rdc.configured import model_of
    from rdc.data import PixelCache, resolve_train, split
    from rdc.models.codec import build
    from sweep.settings import read_settings

    widths = [
        f"depth.channels=[{CHANNELS},{CHANNELS},{CHANNELS}]",
        f"depth.latent_channels={LATENT_CHANNELS}",
    ]
    config = compose(["model=mean_scale_hyperprior", "budget=quick", *widths])
    recipe = read_settings(config).budget.recipe
    images = resolve_train(config["data"])
    training, validation = split(images, share=config["data"]["validation_share"])
    torch.manual_seed(seed)
    codec = build(model_of(config))
    cache_gb = config["data"]["cache_gb"]
    return codec, recipe, PixelCache(training, cache_gb=cache_gb), PixelCache(validation, cache_gb=cache_gb)


def train_quick(seed: int) -> dict[str, Any]:
    from rdc.machine import probe
    from rdc.models.layers.wavelet import start_as_wavelet
    from rdc.resume import MetricsLog
    from rdc.spec import RunSettings, TrialSpec
    from rdc.train import train

    codec, recipe, crops, validation = codec_and_images(seed)
    if recipe.initialisation == "wavelet":
        start_as_wavelet(codec)
    with tempfile.TemporaryDirectory() as folder:
        spec = TrialSpec(
            model=codec.spec,
            recipe=recipe,
            precision="bf16" if probe()["bf16_fast"] else "fp32",
            lmbda=LMBDA,
            seed=seed,
            train_data="benchmark",
            eval_data="benchmark",
        )
        run = RunSettings(folder=folder, train_manifest="", eval_manifest="", checkpoint_every_s=1e9)
        log = train(codec, spec, run, crops=crops, validation=validation, metrics=MetricsLog(Path(folder)))
    return {"seconds": log.wall_s, "steps": log.steps, **judge(codec, validation)}


def train_compressai(seed: int, seconds: float) -> dict[str, Any]:
    import torch
    from compressai.models import MeanScaleHyperprior

    from rdc.checkpoint import load_compressai_state_dict

    codec, _, crops, validation = codec_and_images(seed)
    net = MeanScaleHyperprior(CHANNELS, LATENT_CHANNELS).train()
    main = [p for name, p in net.named_parameters() if not name.endswith(".quantiles")]
    auxiliary = [p for name, p in net.named_parameters() if name.endswith(".quantiles")]
    optimizer, aux_optimizer = torch.optim.Adam(main, lr=1e-4), torch.optim.Adam(auxiliary, lr=1e-3)
    started_s, step = time.monotonic(), 0
    while time.monotonic() - started_s < seconds:
        x = crops.crops(step, 16, 256, seed)
        optimizer.zero_grad()
        aux_optimizer.zero_grad()
        out = net(x)
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        bpp = sum(-torch.log2(likelihood).sum() / pixels for likelihood in out["likelihoods"].values())
        (LMBDA * 255**2 * torch.nn.functional.mse_loss(out["x_hat"], x) + bpp).backward()
        torch.nn.utils.clip_grad_norm_(main, 1.0)
        optimizer.step()
        net.aux_loss().backward()
        aux_optimizer.step()
        step += 1
    load_compressai_state_dict(codec, net.state_dict())
    return {"seconds": time.monotonic() - started_s, "steps": step, **judge(codec, validation)}


def judge(codec: Any, validation: Any) -> dict[str, float]:
    from rdc.validation import validate

    codec.update(force=True, update_quantiles=True)
    result = validate(codec, validation, LMBDA)
    return {"rd_loss": result.rd_loss, "bpp": result.bpp, "psnr_db": result.psnr_db}


def run_process(contestant: str, seed: int, seconds: float) -> dict[str, Any]:
    from rdc.machine import allocator_env, thread_env

    environment = {**os.environ, **allocator_env(), **thread_env(1), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, "--one", contestant, str(seed), str(seconds)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rounds: list[dict[str, dict[str, Any]]]) -> str:
    lines = [f"{'recipe':<12}{'steps':>7}{'seconds':>9}{'rd_loss':>9}  {'range':<15}{'bpp':>7}{'PSNR dB':>9}"]
    for name in CONTESTANTS:
        rows = [one[name] for one in rounds]
        middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        losses = [row["rd_loss"] for row in rows]
        lines.append(
            f"{name:<12}{middle['steps']:>7.0f}{middle['seconds']:>9.0f}{middle['rd_loss']:>9.3f}  "
            f"{f'{min(losses):.3f}-{max(losses):.3f}':<15}{middle['bpp']:>7.3f}{middle['psnr_db']:>9.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/quick_recipe.json"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        contestant, seed, seconds = options.one
        trained = (
            train_quick(int(seed)) if contestant == "quick" else train_compressai(int(seed), float(seconds))
        )
        print(json.dumps(trained))
        return
    from rdc.files import atomic_write_json
    from rdc.machine import environment, resolve_device

    rounds = []
    for seed in range(options.seeds):
        quick = run_process("quick", seed, 0)
        rounds.append({"quick": quick, "compressai": run_process("compressai", seed, quick["seconds"])})
        print(f"seed {seed + 1} of {options.seeds}", file=sys.stderr, flush=True)
    atomic_write_json(options.out, {"environment": environment(resolve_device("cpu")), "rounds": rounds})
    print(table(rounds))
    print(f"raw figures: {options.out}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from rdc.lean_import import lean_compressai

    lean_compressai()
    main()
