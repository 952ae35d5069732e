"""The codec that a trial begins with: random weights, a wavelet, trained weights, or given ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from rdc.checkpoint import load_model
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.models.layers.wavelet import start_as_wavelet
from rdc.spec import RunSettings, TrialSpec
from rdc.zoo import load_external


def starting_codec(spec: TrialSpec, run: RunSettings, device: torch.device) -> Codec:
    """On the device; UserError if weights that it has to start from are missing or others than planned."""
    torch.manual_seed(spec.seed)
    codec = build(spec.model)
    warm_start, path = spec.warm_start, run.warm_start_checkpoint
    if spec.weights is not None:
        if path is None:
            raise UserError("run.warm_start_checkpoint is missing: the trial measures given weights")
        load_external(codec, spec.weights, path)
        return codec.to(device).eval()
    if warm_start is not None:
        if path is None:
            raise UserError("run.warm_start_checkpoint is missing: the trial starts from trained weights")
        _load_warm_start(codec, Path(path), sha256=warm_start.checkpoint_sha256)
    elif spec.recipe.initialisation == "wavelet":
        start_as_wavelet(codec)
    return codec.to(device)


def _load_warm_start(codec: Codec, path: Path, *, sha256: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
    if found != sha256:
        raise UserError(
            f"{path}: is not the checkpoint that this trial was planned to start from; plan it anew"
        )
    trained, _ = load_model(path)
    own = dict(codec.named_parameters())
    weights = dict(trained.named_parameters())
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in weights.items()}:
        raise UserError(
            f"{path}: holds another architecture than the trial; start from one of the same arch_id"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)
