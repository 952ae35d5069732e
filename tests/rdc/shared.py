"""What several test files need."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from compressai.entropy_models import GaussianConditional
from torch import Tensor, nn

from rdc.complexity import count, fvcore_macs
from rdc.models.codec import Codec, build
from rdc.models.layers import coding
from rdc.models.layers.graph import reference_graph
from rdc.models.layers.hyperprior import Hyperprior, Pick, dry
from rdc.spec import COMPONENT_GROUPS, ModelSpec, component, component_names

# The smallest codec with all parts, for parse_model.
TINY_MODEL: dict[str, dict[str, Any]] = {
    "transform": {"name": "conv"},
    "entropy_model": {"name": "mean_scale_hyperprior"},
    "hyper_transform": {"name": "conv"},
    "depth": {"channels": [8, 8, 8], "latent_channels": 12},
    "gating": {"name": "none"},
    "rate_control": {"name": "none"},
}

# Of a result: what a clock or the memory of a process decides, and the record of an interruption itself.
MEASURED = {
    "started_at", "ended_at", "wall_s", "peak_memory_mb", "peak_reserved_mb", "resumed_at_steps", "attempt",
    "checksum", "git_revision", "git_dirty",  # the latter change where somebody commits meanwhile
}  # fmt: skip


# Of each kind that adds to any model, what its tests pair it with: all that it touches, and one of the rest.
PAIRED_WITH = {
    "gating": {"entropy_model": "mean_scale_hyperprior", "hyper_transform": "conv", "rate_control": "none"},
    "rate_control": {"transform": "conv", "hyper_transform": "conv", "gating": "none"},
}


def refusal(
    transform: str, entropy_model: str, hyper_transform: str, gating: str = "none", rate_control: str = "none"
) -> str | None:
    """Why these components, with their defaults, refuse each other; None where they are legal together.

    The only rules: cheng2020 has one entropy model and a hyper-transform of its own, which no other has;
    gates stand in front of convolutions.
    """
    if transform == "cheng2020":
        if hyper_transform != "cheng2020":
            return (
                f"hyper_transform={hyper_transform}: transform=cheng2020 comes with "
                "hyper_transform=cheng2020 only"
            )
        if entropy_model != "joint_autoregressive":
            return (
                f"entropy_model={entropy_model}: transform=cheng2020 comes with "
                "entropy_model=joint_autoregressive only"
            )
    elif hyper_transform == "cheng2020":
        return f"transform={transform}: hyper_transform=cheng2020 needs transform=cheng2020"
    if gating == "none":
        return None
    if transform not in ("conv", "elic"):
        why = "its linear layers" if transform == "swint" else "its layers"
        return (
            f"gating={gating}: g_a/g_s of transform={transform} cannot be gated ({why}); choose "
            "transform=conv or elic; or leave it out with gating.parts=[h_a]"
        )
    if hyper_transform != "conv":
        return (
            f"gating={gating}: h_a of hyper_transform={hyper_transform} cannot be gated (its linear layers); "
            "choose hyper_transform=conv; or leave it out with gating.parts=[g_a,g_s]"
        )
    return None


def combinations(depth: Mapping[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Every combination of components with their defaults, as what `parse_model` takes.

    depth: for all transforms but those that name another EXAMPLE_DEPTH.
    """
    found = {}
    for names in itertools.product(*(component_names(group) for group in COMPONENT_GROUPS)):
        groups = {group: {"name": name} for group, name in zip(COMPONENT_GROUPS, names, strict=True)}
        own_depth = getattr(component("transform", names[0]), "EXAMPLE_DEPTH", depth)
        found[names] = {**groups, "depth": own_depth}
    return found


def legal_combinations(depth: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Those that nothing may refuse, each by a name; unparsed, because a refusal here would fail no test.

    Gating and rate control not with everything, but as PAIRED_WITH says: tests of all take minutes.
    """
    legal = {n: config for n, config in combinations(depth).items() if refusal(*n) is None}
    return {
        "-".join(n): config
        for n, config in legal.items()
        if _is_tested(dict(zip(COMPONENT_GROUPS, n, strict=True)))
    }


def _is_tested(names: Mapping[str, str]) -> bool:
    added = [group for group in PAIRED_WITH if names[group] != "none"]
    return not added or any(PAIRED_WITH[group].items() <= names.items() for group in added)


def both_counts(spec: ModelSpec, height_px: int, width_px: int) -> dict[str, tuple[int, int]]:
    """(torch, fvcore) multiply-accumulates of each network of the reference graph; runs it on the CPU.

    The four transforms, and the context where the entropy model has one, in one pass over h_s's output.
    """
    codec = build(spec).eval()
    x = torch.zeros(1, 3, height_px, width_px)
    with torch.no_grad(), reference_graph():
        y, z = codec.encoder_networks(x)
        examples = {"g_a": x, "h_a": y, "h_s": z, "g_s": y}
        networks = {name: (codec.parts()[name], example) for name, example in examples.items()}
        if "context" in codec.parts():
            networks["context"] = (_Walk(codec.entropy_model), codec.entropy_model.side(z))
        if codec.rate_control is not None:
            networks["rate_control"] = (_Modulated(codec.rate_control), y)
        found = {}
        for name, (network, example) in networks.items():
            counted = count(functools.partial(network, example), {}, rest=name)
            found[name] = (counted.flop[name] // 2, fvcore_macs(network, example))
    return found


class _Modulated(nn.Module):
    """Rate control of one image, as a module of the latent alone."""

    def __init__(self, rate_control: nn.Module) -> None:
        super().__init__()
        self.rate_control = rate_control

    def forward(self, y: Tensor) -> Tensor:
        modulated: Tensor = self.rate_control(y, [0])
        return modulated


class _Walk(nn.Module):
    """All that a context does with h_s's output, as one module: fvcore traces nothing else."""

    def __init__(self, entropy_model: Hyperprior) -> None:
        super().__init__()
        self.entropy_model = entropy_model

    def forward(self, side: Tensor) -> Tensor:
        return torch.cat(self.entropy_model.walk(side, dry), 1)


def smooth_image(side_px: int = 128) -> Tensor:
    """Slow colour waves with an edge, (1, 3, side, side): what a low-pass pyramid keeps."""
    at = torch.arange(side_px) / side_px
    waves = [
        0.5 + 0.3 * torch.sin(2 * torch.pi * (a * at[:, None] + b * at)) for a, b in ((1, 2), (2, 1), (1, 1))
    ]
    x = torch.stack(waves)
    x[:, :, side_px // 2 :] *= 0.8
    return x[None]


def psnr_db(x: Tensor, x_hat: Tensor) -> float:
    return float(-10 * torch.log10((x - x_hat).square().mean()))


@functools.cache
def gaussian_tables() -> coding.Tables:
    model = GaussianConditional(None)
    coding.update_gaussian(model, force=True)
    return coding.tables_of(model)


def losses_at_a_high_rate(codec: Codec) -> list[float]:
    """The loss of 60 steps on blocks of noise, at thirty times the usual learning rate."""
    optimizer = torch.optim.Adam(codec.parameters(), 3e-3)
    x = torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    losses = []
    for _ in range(60):
        out = codec(x)
        bits = sum(-torch.log2(p).sum() for p in out["likelihoods"].values())
        loss = bits / x.shape[0] / 64**2 + 0.013 * 255**2 * (out["x_hat"] - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def coded_and_estimated(model: Hyperprior) -> tuple[bytes, float]:
    """(stream, estimated bits) of a y drawn from the model's own Gaussians. z has 8 channels."""
    z_hat = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(3)).round() + model._medians()
    side = model.h_s(z_hat)
    torch.manual_seed(4)

    def draw(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
        return mean + torch.round(scale.clamp_min(0.11) * torch.randn_like(mean))

    y = model.walk(side, draw).y_hat
    symbols, rows = model._symbols(y, z_hat)
    data = coding.encode(symbols, rows, coding.tables_of(model.gaussian_conditional))
    return data, -float(model.estimate_y(y, side)[1].log2().sum())


def lasting(value: Any) -> Any:
    """A result without what is measured: equal for equal trials, however often they were interrupted."""
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items() if key not in MEASURED}
    return [lasting(item) for item in value] if isinstance(value, list) else value
