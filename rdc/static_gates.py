"""Which channels gating=static keeps: those of most energy in the first crops that a training would draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rdc.data import PixelCache
from rdc.models.codec import Codec
from rdc.models.layers.channels import mean_squares
from rdc.models.layers.gate import FixedGate, gated_layers
from rdc.spec import TrialSpec

BATCHES = 8


def choose_static_channels(codec: Codec, spec: TrialSpec, crops: PixelCache) -> None:
    """Close the channels of a codec that starts to train; nothing to do for any other gating.

    A function of the start weights, the images and the seed: a training that is resumed chooses alike.
    """
    if spec.model.gating.name != "static":
        return
    device = next(codec.parameters()).device
    batches = (
        crops.crops(step, spec.recipe.batch_size, spec.recipe.crop_px, spec.seed) for step in range(BATCHES)
    )
    energies = mean_energies(codec, (batch.to(device) for batch in batches))
    counts = spec.model.gating.channels
    for number, (name, found) in enumerate(energies.items()):
        count = max(1, round(spec.model.gating.keep * found.numel())) if counts is None else counts[number]
        gate = codec.get_submodule(name).channel_gate
        assert isinstance(gate, FixedGate), f"{name} is gated by {gate}"
        gate.opened.zero_()[found.topk(count).indices] = True


@torch.no_grad()
def mean_energies(codec: Codec, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """name of each gated layer -> mean square of its input channels, over images of [0, 1]."""
    was_training = codec.training
    codec.eval()
    layers = gated_layers(codec)
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
    hooks = []
    for name, layer in layers.items():

        def note(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            sums[name] = sums[name] + mean_squares(inputs[0]).sum(0).cpu()

        hooks.append(layer.register_forward_pre_hook(note))
    images = 0
    try:
        for x in batches:
            y = codec.modulated(codec.analysis(x))
            codec.entropy_model.h_a(codec.entropy_model.hyper_input(y))
            codec.synthesis(codec.demodulated(y.round()))
            images += len(x)
    finally:
        for hook in hooks:
            hook.remove()
        codec.train(was_training)
    return {name: sums[name] / images for name in layers}
