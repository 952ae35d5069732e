"""The codec that a trial begins with: random weights, a wavelet, trained weights, or given ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rdc.checkpoint import load_model
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.models.layers.wavelet import start_as_wavelet
from rdc.spec import RunSettings, TrialSpec, arch_id
from rdc.zoo import load_external


def starting_codec(spec: TrialSpec, run: RunSettings, device: torch.device) -> Codec:
    """On the device, in the trial's precision.

    UserError if weights that it has to start from are missing or others than planned.
    """
    torch.manual_seed(spec.seed)
    codec = _fresh(spec, run) if spec.weights is None else _given(spec, run).eval()
    codec.set_transform_precision(spec.precision)
    return codec.to(device)


def _fresh(spec: TrialSpec, run: RunSettings) -> Codec:
    """What the trial trains."""
    codec = build(spec.model)
    if spec.warm_start is not None:
        path = _checkpoint(run, "starts from trained weights")
        _load_warm_start(codec, path, sha256=spec.warm_start.checkpoint_sha256)
    elif spec.recipe.initialisation == "wavelet":
        start_as_wavelet(codec)
    return codec


def _given(spec: TrialSpec, run: RunSettings) -> Codec:
    """What the trial only measures, coding tables included."""
    path = _checkpoint(run, "measures given weights")
    if spec.external is not None:
        codec = build(spec.model)
        load_external(codec, spec.external, path)
        return codec
    assert spec.weights is not None, "called where weights are given"
    codec = _load_planned(path, sha256=spec.weights.checkpoint_sha256)
    if arch_id(codec.spec) != spec.arch_id:
        raise UserError(f"{path}: holds another architecture than the trial that is to measure it")
    return codec


def _checkpoint(run: RunSettings, purpose: str) -> Path:
    if run.warm_start_checkpoint is None:
        raise UserError(f"run.warm_start_checkpoint is missing: the trial {purpose}")
    return Path(run.warm_start_checkpoint)


def _load_planned(path: Path, *, sha256: str) -> Codec:
    """UserError unless the file is the very one that the trial was planned with."""
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
    if found != sha256:
        raise UserError(
            f"{path}: is not the checkpoint that this trial was planned to start from; plan it anew"
        )
    return load_model(path)[0]


def _load_warm_start(codec: Codec, path: Path, *, sha256: str) -> None:
    """All parameters; of the buffers those of gates, as coding tables and constants are the codec's own."""
    trained = _load_planned(path, sha256=sha256)
    own, weights = dict(codec.named_parameters()), dict(trained.named_parameters())
    trouble = misfit(codec, own, weights)
    if trouble is not None:
        raise UserError(f"{path}: holds another architecture than the trial: {trouble}")
    kept = {name: buffer for name, buffer in trained.named_buffers() if codec.is_addition(name)}
    buffers = dict(codec.named_buffers())
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)
        for name in kept.keys() & buffers.keys():
            buffers[name].copy_(kept[name])


def misfit(codec: Codec, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Why weights are no start for a model, in a few words; None if they are.

    Only what starts as the identity (`Codec.is_addition`) may be missing among the given ones. own, given: by
    name; the shapes alone are looked at.
    """
    for name in own:
        if name not in given and not codec.is_addition(name):
            return f"{name} is missing"
    for name, tensor in given.items():
        if name not in own:
            return f"{name} is no part of the trial's model"
        if own[name].shape != tensor.shape:
            return f"{name} has shape {list(tensor.shape)}, the trial's model needs {list(own[name].shape)}"
    return None
