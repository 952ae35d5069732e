"""Gates: what they decide, and that closed channels are neither computed nor read."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rdc.bitstream import encode_image
from rdc.checkpoint import load_model, model_hash, save_model
from rdc.errors import UserError
from rdc.evaluate import pixel_digest
from rdc.fresh_decode import decodes_alike
from rdc.gated_cost import CostMeter
from rdc.metrics import to_8bit
from rdc.models.codec import Codec, build
from rdc.models.layers.channels import mean_squares
from rdc.models.layers.conv import ImageDeconv, conv, deconv
from rdc.models.layers.gate import (
    EnergyGate,
    FixedGate,
    Gated,
    decisions,
    evaluated_by,
    gate_convolutions,
    gated_layers,
)
from rdc.spec import component_names, parse_model
from tests.rdc.shared import TINY_MODEL

TRANSFORMS = ("conv", "elic")
ENTROPY_MODELS = tuple(component_names("entropy_model"))


def config(gating: str | dict[str, Any], *, transform: str = "conv", **groups: Any) -> dict[str, Any]:
    own = {"name": gating} if isinstance(gating, str) else gating
    depth = {"channels": [16, 20, 24], "latent_channels": 40, "layers": [1, 0, 1]}
    return {**TINY_MODEL, "depth": depth, "transform": {"name": transform}, "gating": own, **groups}


def model(gating: str | dict[str, Any] = "ecg", **groups: Any) -> Codec:
    torch.manual_seed(0)
    codec = build(parse_model(config(gating, **groups)))
    codec.update(update_quantiles=True)
    return codec.eval()


def layers_of(codec: nn.Module) -> list[Any]:
    return list(gated_layers(codec).values())


def set_alpha(codec: nn.Module, value: float) -> None:
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if name.endswith("channel_gate.alpha"):
                parameter.fill_(value)


def picture(seed: int = 1, height_px: int = 64, width_px: int = 96, batch: int = 1) -> Tensor:
    """Blocks of noise, with each image at a contrast of its own, so that unlike channels are loud."""
    torch.manual_seed(seed)
    blocks = (
        torch.rand(batch, 3, height_px // 8, width_px // 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    )
    return (blocks * torch.linspace(1, 0.3, batch)[:, None, None, None] + 0.1).clamp(0, 1)


def gated_conv(kind: str, channels: int = 32, gate: Any = None) -> tuple[Any, nn.Module]:
    """(a gated layer, the plain one with the same weights)."""
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {
        "conv": conv(channels, 24),
        "conv of stride 1": conv(channels, 24, kernel=3, stride=1),
        "1x1": conv(channels, 24, kernel=1, stride=1),
        "deconv": deconv(channels, 24),
        "image": ImageDeconv(channels),
    }
    plain = made[kind]
    parent = nn.Sequential(plain)
    gate_convolutions(parent, gate or (EnergyGate))
    return next(iter(gated_layers(parent).values())).eval(), plain.eval()


KINDS = ("conv", "conv of stride 1", "1x1", "deconv", "image")
FORMATS = (torch.contiguous_format, torch.channels_last)


# The same network until a threshold is learned


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
@pytest.mark.parametrize("alpha", [0.0, float("-inf")])
def test_without_thresholds_it_is_the_ungated_network_bit_for_bit(
    transform: str, entropy_model: str, alpha: float
) -> None:
    groups = {"transform": transform, "entropy_model": {"name": entropy_model}}
    plain, gated = model("none", **groups), model("ecg", **groups)
    set_alpha(gated, alpha)
    x = picture()
    for path in ("masked", "gathered"):
        with torch.no_grad(), evaluated_by(path):
            y = plain.analysis(x)
            assert torch.equal(gated.analysis(x), y), path
            assert torch.equal(gated.synthesis(y), plain.synthesis(y)), path
            assert torch.equal(gated(x)["x_hat"], plain(x)["x_hat"]), path
            assert gated.compress(x)["strings"] == plain.compress(x)["strings"], path


def test_without_thresholds_training_takes_the_same_step() -> None:
    plain, gated = model("none").train(), model("ecg").train()
    for codec in (plain, gated):
        torch.manual_seed(3)
        out = codec(picture(batch=2))
        (out["x_hat"].square().mean() - out["likelihoods"]["y"].log2().mean()).backward()
    own = dict(gated.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(own[name], parameter), name
        if parameter.grad is not None:
            assert torch.equal(own[name].grad, parameter.grad), name  # type: ignore[arg-type]


def test_only_gates_are_additions_to_the_ungated_network() -> None:
    for transform in TRANSFORMS:
        plain, gated = model("none", transform=transform), model("ecg", transform=transform)
        added = set(gated.state_dict()) - set(plain.state_dict())
        assert added == {key for key in gated.state_dict() if Codec.is_addition(key)} != set()
        assert not any(Codec.is_addition(key) for key in plain.state_dict())


# What is gated


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_convolution_but_that_of_the_image_is_gated(transform: str) -> None:
    codec = model(transform=transform)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    for part in (codec.g_a, codec.g_s, codec.entropy_model.h_a):
        for name, layer in part.named_modules():
            if isinstance(layer, kinds):
                assert isinstance(layer, Gated) == (layer.in_channels != 3), name
    assert not gated_layers(codec.entropy_model.h_s)


def test_parts_choose_what_is_gated() -> None:
    codec = model({"name": "ecg", "parts": ["g_s"]})
    assert set(name.split(".")[0] for name in gated_layers(codec)) == {"g_s"}


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (
            {"transform": {"name": "swint"}},
            r"gating=ecg: g_a/g_s of transform=swint cannot be gated \(its linear layers\); choose "
            r"transform=conv or elic; or leave it out with gating.parts=\[h_a\]",
        ),
        (
            {"hyper_transform": {"name": "swint"}},
            r"gating=ecg: h_a of hyper_transform=swint cannot be gated \(its linear layers\); choose "
            r"hyper_transform=conv; or leave it out with gating.parts=\[g_a,g_s\]",
        ),
        ({"gating": {"name": "ecg", "parts": ["h_s"]}}, "gating.parts.0='h_s': input should be 'g_a'"),
        ({"gating": {"name": "ecg", "parts": ["g_a", "g_a"]}}, "name g_a, g_s and h_a once each"),
        ({"gating": {"name": "ecg", "parts": []}}, r"gating.parts=\[\]: name"),
        (
            {"gating": {"name": "ecg", "alpha_target": float("nan")}},
            "gating.alpha_target=nan: must be a finite",
        ),
        ({"gating": {"name": "ecg", "gamma": -1.0}}, "gating.gamma=-1.0: must be at least 0"),
        ({"gating": {"name": "ecg", "neighbours": 4}}, "gating.neighbours.*=4: input should be 3 or 5"),
        ({"gating": {"name": "static", "keep": 0.0}}, "gating.keep=0.0: must be greater than 0"),
        ({"gating": {"name": "static", "keep": 1.5}}, "gating.keep=1.5: it is a share, at most 1"),
        (
            {"gating": {"name": "static", "channels": [4, 0]}},
            r"gating.channels=\[4, 0\]: every layer must keep",
        ),
    ],
)
def test_what_cannot_be_gated_is_refused_by_name(groups: dict[str, Any], text: str) -> None:
    asked = {**config("ecg"), **groups}
    if asked["transform"]["name"] == "swint" or asked["hyper_transform"]["name"] == "swint":
        asked["depth"] = {"channels": [32, 32, 32], "latent_channels": 32, "layers": [1, 1, 1, 1]}
        if asked["transform"]["name"] != "swint":
            asked["depth"]["layers"] = [1, 1, 1]
    with pytest.raises(UserError, match=text):
        parse_model(asked)


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        ([4, 4], r"gating.channels has 2 entries; the model has 9 gated layers: h_a.0 of 40, .*g_s.0 of 40"),
        ([4, 4, 999, 4, 4, 4, 4, 4, 4], "gating.channels: 999 for h_a.4, which has 24 channels"),
    ],
)
def test_channels_that_are_not_those_of_the_layers_are_refused_when_a_model_is_built(
    channels: list[int], text: str
) -> None:
    """In the order of the network, not of parts: the third is of h_a."""
    with pytest.raises(UserError, match=text):
        model({"name": "static", "parts": ["g_s", "h_a"], "channels": channels})


# What a gate decides

energies_ = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(0, 1e4, width=32))


references = st.sampled_from([None, 3, 5])  # the whole layer, or so many neighbours


def gate_with(
    energies: np.ndarray, alpha: float | np.ndarray, neighbours: int | None = None
) -> tuple[EnergyGate, Tensor]:
    """(gate, (1, C, 1, 1) activations of these energies)."""
    gate = EnergyGate(len(energies), neighbours=neighbours)
    with torch.no_grad():
        gate.alpha.copy_(torch.as_tensor(np.broadcast_to(alpha, energies.shape).copy()))
    return gate, torch.from_numpy(np.sqrt(energies))[None, :, None, None]


@given(energies_, st.floats(0, 3), st.floats(0, 2), references)
@settings(max_examples=60, deadline=None)
def test_a_larger_alpha_never_opens_a_channel(
    energies: np.ndarray, alpha: float, more: float, neighbours: int | None
) -> None:
    few, x = gate_with(energies, alpha + more, neighbours)
    many, _ = gate_with(energies, alpha, neighbours)
    assert bool((few.decide(x)[0] <= many.decide(x)[0]).all())


@given(energies_, st.floats(0.01, 3), st.integers(-6, 6), references)
@settings(max_examples=60, deadline=None)
def test_loudness_changes_no_decision(
    energies: np.ndarray, alpha: float, power: int, neighbours: int | None
) -> None:
    gate, x = gate_with(np.where(energies < 1e-3, 0, energies), alpha, neighbours)
    margins = gate._margin(gate.decide(x)[1])
    decided = margins.abs() > 1e-4  # logarithms round
    quiet, loud = (gate.decide(x * factor)[0] for factor in (1.0, 2.0**power))
    assert torch.equal(quiet[decided], loud[decided])


@given(energies_, st.floats(-1, 3), references)
@settings(max_examples=60, deadline=None)
def test_training_and_evaluation_decide_alike(
    energies: np.ndarray, alpha: float, neighbours: int | None
) -> None:
    gate, x = gate_with(energies, alpha, neighbours)
    assert torch.equal(gate(x) > 0, gate.decide(x)[0])
    assert set(gate(x).unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("neighbours", [None, 3])
@given(channels=st.integers(1, 30), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_threshold_is_alpha_times_a_mean_energy(neighbours: int | None, channels: int, seed: int) -> None:
    """An oracle in plain loops: the geometric mean of all, or (e_(c-1) + e_c + e_(c+1)) / 3, ends again."""
    random = np.random.default_rng(seed)
    x = torch.from_numpy(random.normal(size=(1, channels, 3, 5)).astype(np.float32))
    alpha = random.uniform(-0.5, 2, channels).astype(np.float32)
    gate = EnergyGate(channels, neighbours=neighbours)
    with torch.no_grad():
        gate.alpha.copy_(torch.from_numpy(alpha))
    e = [float((x[0, c].double() ** 2).mean()) for c in range(channels)]
    opened = gate.decide(x)[0][0]
    for c in range(channels):
        reference = (e[max(c - 1, 0)] + e[c] + e[min(c + 1, channels - 1)]) / 3
        if neighbours is None:
            reference = math.prod(e) ** (1 / channels)
        if abs(e[c] - alpha[c] * reference) > 1e-3 * reference:
            assert bool(opened[c]) == (alpha[c] <= 0 or e[c] > alpha[c] * reference)


def test_the_whole_layer_as_reference_keeps_its_strongest_channels() -> None:
    """Falling energies, as those of a wavelet's bands: neighbours are alike, strong or weak."""
    energies = np.exp(-np.arange(16.0)).astype(np.float32)
    gate, x = gate_with(energies, 1.0)
    assert gate.decide(x)[0][0].tolist() == [True] * 8 + [False] * 8
    local, _ = gate_with(energies, 1.0, 3)
    assert not local.decide(x)[0][0, 1:15].any()  # convex: below the mean of its neighbours everywhere


@pytest.mark.parametrize("silent", [0, 5, 16])
def test_silent_channels_close_first_and_alone(silent: int) -> None:
    energies = np.ones(16, dtype=np.float32)
    energies[:silent] = 0
    gate, x = gate_with(energies, 0.9)
    assert gate.decide(x)[0][0].tolist() == [False] * silent + [True] * (16 - silent)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_energy_is_the_mean_square_of_each_channel(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 5, 37, 41).to(memory_format=memory_format)
    expected = x.double().square().mean((2, 3)).float()
    torch.testing.assert_close(mean_squares(x), expected, rtol=1e-5, atol=0)


def test_alpha_gets_the_analytic_gradient_of_its_penalty_and_reaches_its_target() -> None:
    codec = model({"name": "ecg", "alpha_target": 0.8, "gamma": 3.0}).train()
    penalty = codec.gate_penalty()
    assert penalty is not None
    penalty.backward()
    for alpha in codec.gate_parameters().values():
        # d/da of gamma * mean (a - t)^2 at a = 0
        torch.testing.assert_close(alpha.grad, torch.full_like(alpha, 2 * 3.0 * (0 - 0.8) / alpha.numel()))
    optimizer = torch.optim.SGD(codec.gate_parameters().values(), lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        codec.gate_penalty().backward()  # type: ignore[union-attr]
        optimizer.step()
    for name, alpha in codec.gate_parameters().items():
        torch.testing.assert_close(alpha, torch.full_like(alpha, 0.8), msg=name)


@pytest.mark.parametrize("neighbours", [None, 3])
def test_distortion_alone_lowers_the_threshold_of_a_channel_that_is_needed(neighbours: int | None) -> None:
    layer, plain = gated_conv("conv of stride 1", 8, lambda n: EnergyGate(n, neighbours=neighbours))
    x = torch.randn(4, 8, 16, 16)
    set_alpha(layer, 0.99)
    layer.train()
    with torch.no_grad():
        wanted = plain(x)
    assert layer.channel_gate(x).mean() < 0.9
    loss = (layer(x) - wanted).square().mean()
    loss.backward()
    gradient = layer.channel_gate.alpha.grad
    assert gradient.isfinite().all()
    assert (gradient >= 0).all()
    assert (gradient > 0).any()
    if neighbours is not None:
        assert layer.channel_gate.kernel.grad.isfinite().all()
        assert layer.channel_gate.kernel.grad.any()


# Masked and gathered


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32])
def test_gathered_is_masked_up_to_rounding(kind: str, count: int, memory_format: torch.memory_format) -> None:
    layer, plain = gated_conv(kind, gate=FixedGate)
    opened = torch.zeros(32, dtype=torch.bool)
    opened[torch.randperm(32)[:count]] = True
    layer.channel_gate.opened.copy_(opened)
    layer.to(memory_format=memory_format)
    x = torch.randn(2, 32, 10, 12).to(memory_format=memory_format)
    with torch.no_grad():
        gathered = layer(x)
        with evaluated_by("masked"):
            masked = layer(x)
        expected = plain(x * opened[:, None, None])
    torch.testing.assert_close(gathered, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(masked, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_closed_channels_are_not_read(kind: str, memory_format: torch.memory_format) -> None:
    layer, _ = gated_conv(kind)
    set_alpha(layer, 1.0)
    layer.to(memory_format=memory_format)
    x = (torch.randn(1, 32, 10, 12) * torch.rand(32, 1, 1)).to(memory_format=memory_format)
    with torch.no_grad():
        before = layer(x)
        opened = layer.channel_gate.decide(x)[0][0]
        assert 8 < int(opened.sum()) < 24
        in_axis = 1 if isinstance(layer, nn.Conv2d) else 0
        layer.weight.index_fill_(in_axis, (~opened).nonzero()[:, 0], float("nan"))
        assert torch.equal(layer(x), before)
        with evaluated_by("masked"):
            assert layer(x).isnan().any(), "a product with zero hides nothing: the test would see it"


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_whole_codecs_read_no_closed_weight(transform: str) -> None:
    """NaN in the weights of what an image closes, in every gated layer of a codec at once."""
    codec = model(transform=transform)
    set_alpha(codec, 1.0)
    x = picture()
    with torch.no_grad(), decisions() as log:
        before = codec(x)["x_hat"]
    opened = {id(d.gate): d.opened[0] for d in log}
    poisoned = 0
    with torch.no_grad():
        for layer in layers_of(codec):
            closed = (~opened[id(layer.channel_gate)]).nonzero()[:, 0]
            layer.weight.index_fill_(1 if isinstance(layer, nn.Conv2d) else 0, closed, float("nan"))
            poisoned += len(closed)
        after = codec(x)["x_hat"]
    assert poisoned > 100
    assert torch.equal(after, before)


@pytest.mark.parametrize("alpha", [float("inf"), 1e30])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_closing_everything_leaves_the_biases(transform: str, alpha: float) -> None:
    codec = model(transform=transform)
    set_alpha(codec, alpha)
    with torch.no_grad():
        for path in ("masked", "gathered"):
            with evaluated_by(path):
                out = codec(picture())
            assert out["x_hat"].isfinite().all()
    layer, plain = gated_conv("deconv")
    set_alpha(layer, alpha)
    with torch.no_grad():
        x = torch.randn(1, 32, 5, 7)
        torch.testing.assert_close(layer(x), plain(torch.zeros_like(x)))


def test_images_are_gated_one_by_one() -> None:
    codec = model()
    set_alpha(codec, 1.0)
    x = torch.cat([picture(1), 1 - picture(2) ** 3])
    with torch.no_grad():
        with decisions() as log:
            y = codec.analysis(x)
        with decisions() as turned:
            codec.analysis(x.flip(0))
        alone = torch.cat([codec.analysis(one) for one in x.split(1)])
    assert any(not torch.equal(d.opened[0], d.opened[1]) for d in log), "both images close the same channels"
    for one, other in zip(log, turned, strict=True):
        assert torch.equal(one.opened.flip(0), other.opened)
    torch.testing.assert_close(y, alone, rtol=1e-4, atol=1e-5)


# Cost


@pytest.mark.parametrize(
    ("transform", "entropy_model", "images"),
    [("conv", name, 1 + (name == "mean_scale_hyperprior")) for name in ENTROPY_MODELS]
    + [("elic", "mean_scale_hyperprior", 1)],
)
def test_operators_and_masks_count_the_same_to_the_integer(
    transform: str, entropy_model: str, images: int
) -> None:
    codec = model(transform=transform, entropy_model={"name": entropy_model})
    set_alpha(codec, 1.0)
    meter = CostMeter(codec)
    for seed in range(1, 1 + images):
        x = picture(seed, 64 * seed)
        meter.next_image(*x.shape[2:])
        coded = meter.run("encode", functools.partial(codec.compress, x))
        meter.run("decode", functools.partial(codec.decompress, coded["strings"], coded["shape"]))
    section = meter.to_dict()
    assert section is not None
    for direction in ("encode", "decode"):
        rates = section[f"{direction}_kmac_per_px"]
        assert rates == section[f"{direction}_kmac_per_px_by_masks"]  # integers over the same pixels
        assert rates["mean"] < section[f"dense_{direction}_kmac_per_px"]
        saved = section[f"dense_{direction}_kmac_per_px"] - rates["mean"]
        saved_conv = section[f"dense_conv_{direction}_kmac_per_px"] - section[f"conv_{direction}_kmac_per_px"]
        assert saved_conv == pytest.approx(saved)
    assert 0 < section["sparsity"] < 1
    assert section["sparsity"] == pytest.approx(section["natural_sparsity"] + section["learned_sparsity"])
    assert sum(row["macs_share"] for row in section["layers"]) == pytest.approx(1)
    assert [row["name"] for row in section["layers"]] == list(gated_layers(codec))


def test_masking_saves_no_operation() -> None:
    """What would give away a gate that multiplies by zero."""
    codec = model()
    set_alpha(codec, 1.0)
    x = picture()

    def flop(path: str) -> int:
        with torch.no_grad(), evaluated_by(path), FlopCounterMode(display=False) as counter:  # type: ignore[arg-type]
            codec.analysis(x)
        return int(counter.get_total_flops())

    set_alpha(codec, 0.0)
    dense = flop("gathered")
    set_alpha(codec, 1.0)
    assert flop("masked") == dense
    assert flop("gathered") < 0.8 * dense


def test_channels_that_are_zero_are_told_from_those_that_a_threshold_closed() -> None:
    codec = model({"name": "ecg", "parts": ["g_s"]})
    set_alpha(codec, 1e-6)  # closes what is zero, and nothing else
    y_hat = torch.randn(1, 40, 4, 6)
    y_hat[:, ::4] = 0
    meter = CostMeter(codec)
    meter.next_image(64, 96)
    with torch.no_grad():
        meter.run("decode", lambda: codec.synthesis(y_hat))
    section = meter.to_dict()
    assert section is not None
    first = section["layers"][0]
    assert (first["name"], first["open"], first["natural_zero"]) == ("g_s.0", 30.0, 0.25)
    assert section["natural_sparsity"] == section["sparsity"] > 0
    assert section["learned_sparsity"] == 0


# Coding


@pytest.mark.parametrize("transform", ["conv", pytest.param("elic", marks=pytest.mark.full)])
def test_another_process_decodes_a_gated_model_to_the_same_pixels(transform: str, tmp_path: Path) -> None:
    codec = model(transform=transform)
    set_alpha(codec, 0.9)
    path = tmp_path / "model.safetensors"
    save_model(path, codec, extra={})
    x = picture(height_px=72, width_px=88)
    with torch.no_grad():
        data = encode_image(codec, x, model_hash(codec))
        x_hat = to_8bit(codec(x)["x_hat"].clamp(0, 1))
    threads = torch.get_num_threads()
    assert decodes_alike(path, [data], [pixel_digest(x_hat)], device="cpu", threads=threads) == (True, None)


def test_static_masks_are_saved_and_loaded(tmp_path: Path) -> None:
    codec = model("static")
    for layer in layers_of(codec):
        layer.channel_gate.opened[::2] = False
    save_model(tmp_path / "model.safetensors", codec, extra={})
    loaded, _ = load_model(tmp_path / "model.safetensors")
    for layer in layers_of(loaded):
        assert not layer.channel_gate.opened[::2].any()
        assert layer.channel_gate.opened[1::2].all()
