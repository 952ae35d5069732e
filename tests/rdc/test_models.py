"""Layers and components against slow definitions and by-hand numbers."""

from __future__ import annotations

import math
from typing import Any

import compressai.layers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rdc.errors import UserError
from rdc.models.codec import build, crop, latent_hw, pad, padded_hw, padded_px_ratio
from rdc.models.layers.conv import ImageDeconv, ResidualConv, conv, deconv
from rdc.models.layers.gdn import GDN, LowerBound
from rdc.models.layers.graph import reference_graph
from rdc.spec import ModelSpec, parse_model
from tests.rdc.shared import losses_at_a_high_rate


def model(name: str = "mean_scale_hyperprior", **changes: Any) -> ModelSpec:
    config: dict[str, Any] = {
        "transform": {"name": "conv"},
        "entropy_model": {"name": name},
        "hyper_transform": {"name": "conv"},
        "depth": {"channels": [8, 12, 16], "latent_channels": 20},
        "gating": {"name": "none"},
        "rate_control": {"name": "none"},
    }
    for group, values in changes.items():
        config[group] = {**config[group], **values}
    return parse_model(config)


@pytest.mark.parametrize(("power", "theirs"), [(1, compressai.layers.GDN1), (2, compressai.layers.GDN)])
@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_equals_compressai_with_gradients(power: Any, theirs: Any, inverse: bool) -> None:
    torch.manual_seed(0)
    expected, got = theirs(6, inverse=inverse), GDN(6, power=power, inverse=inverse)
    with torch.no_grad():
        expected.gamma.add_(0.3 * torch.randn(6, 6))  # some below the bound, where the gradient is special
        expected.beta.add_(0.5 * torch.randn(6))
        got.beta.copy_(expected.beta)
        got.gamma.copy_(expected.gamma)
    x = torch.randn(2, 6, 5, 7)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [expected(inputs[0]), got(inputs[1])]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    for one, other in ((inputs[0], inputs[1]), (expected.gamma, got.gamma), (expected.beta, got.beta)):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


def test_gdn_starts_as_compressai_does() -> None:
    expected, got = compressai.layers.GDN1(5), GDN(5, power=1)
    assert torch.equal(expected.beta, got.beta)
    assert torch.equal(expected.gamma, got.gamma)


def test_gdn_by_hand() -> None:
    # One channel, beta 1, gamma 0.1: |x| = 2 gives 2 / (1 + 0.1 * 2) = 1.6667, and 2 * 1.2 = 2.4 inverse.
    x = torch.full((1, 1, 1, 1), -2.0)
    assert GDN(1, power=1)(x).item() == pytest.approx(-1.6667, abs=1e-4)
    assert GDN(1, power=1, inverse=True)(x).item() == pytest.approx(-2.4, abs=1e-4)
    # Squares: sqrt(1 + 0.1 * 4) = 1.1832.
    assert GDN(1, power=2)(x).item() == pytest.approx(-2 / 1.1832, abs=1e-4)


def test_lower_bound_lets_only_helpful_gradients_through() -> None:
    x = torch.tensor([0.5, 0.5, 2.0, 2.0], requires_grad=True)
    LowerBound.apply(x, 1.0).backward(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert x.grad is not None
    # Below the bound a descent step must go up, which is what a negative gradient means.
    assert x.grad.tolist() == [-1.0, 0.0, -1.0, 1.0]


@pytest.mark.parametrize("layer", [conv(64, 32), conv(64, 32, kernel=3, stride=1), deconv(64, 32)])
def test_strided_layers_keep_the_variance(layer: nn.Module) -> None:
    torch.manual_seed(0)
    out = layer(torch.randn(2, 64, 32, 32))[..., 4:-4, 4:-4]
    assert out.var().item() == pytest.approx(1.0, rel=0.1)


def test_the_fast_last_layer_equals_the_published_one() -> None:
    torch.manual_seed(0)
    fast = ImageDeconv(16)
    published = nn.ConvTranspose2d(16, 3, 5, stride=2, padding=2, output_padding=1)
    published.load_state_dict(fast.state_dict())
    x = torch.randn(2, 16, 7, 9)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [fast(inputs[0]), published(inputs[1])]
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-5
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    gradients = ((inputs[0], inputs[1]), (fast.weight, published.weight), (fast.bias, published.bias))
    for one, other in gradients:
        assert one is not None
        assert other is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-3)  # type: ignore[arg-type]
    with reference_graph():
        assert torch.equal(fast(x), published(x))


def test_residual_layers_start_as_the_identity() -> None:
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(ResidualConv(4)(x), x)


def test_layers_are_mirrored() -> None:
    codec = build(model(depth={"layers": [2, 0, 1]}))
    kinds = [[type(layer).__name__ for layer in part.children()] for part in (codec.g_a, codec.g_s)]
    short = {"Conv2d": "C", "GDN": "N", "ResidualConv": "R"}
    forward = "".join(short[kind] for kind in kinds[0])
    backward = "".join(short.get(kind, "C") for kind in kinds[1])
    assert forward == "CNRRCNCNRC"
    assert backward == forward[::-1]


def test_training_starts_near_mid_grey() -> None:
    torch.manual_seed(0)
    x_hat = build(model())(torch.rand(1, 3, 128, 128))["x_hat"]
    assert x_hat.mean().item() == pytest.approx(0.5, abs=0.05)
    assert x_hat.std().item() < 0.2


@pytest.mark.parametrize("norm", ["gdn1", "gdn"])
@pytest.mark.parametrize("quantiser", ["mixed", "noise"])
def test_high_learning_rates_do_not_blow_up(norm: str, quantiser: str) -> None:
    torch.manual_seed(0)
    codec = build(model(transform={"norm": norm}, entropy_model={"quantiser": quantiser}))
    losses = losses_at_a_high_rate(codec)
    assert max(losses) < 2 * losses[0]
    assert losses[-1] < 0.6 * losses[0]


def test_mixed_quantiser_rates_noise_and_shows_rounding() -> None:
    torch.manual_seed(0)
    codec = build(model(entropy_model={"quantiser": "mixed"}))
    y = 3 * torch.randn(1, 20, 8, 8)
    side = codec.entropy_model
    first, second = side(y), side(y)
    assert torch.equal(first.y_hat, second.y_hat), "what the synthesis transform sees must not be noisy"
    assert not torch.equal(first.likelihoods["y"], second.likelihoods["y"])
    z_hat = (side.h_a(y) - side._medians()).round() + side._medians()
    mean, _ = side.split(side.h_s(z_hat))
    assert torch.allclose(first.y_hat, (y - mean).round() + mean, atol=1e-6)
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(side(y).y_hat.sum(), y)
    # Straight through for y; what comes back through the mean cancels.
    assert torch.allclose(gradient, torch.ones_like(y))


def test_noise_quantiser_adds_at_most_half() -> None:
    torch.manual_seed(0)
    codec = build(model(entropy_model={"quantiser": "noise"}))
    y = torch.randn(1, 20, 8, 8)
    noise = codec.entropy_model(y).y_hat - y
    assert noise.abs().max() <= 0.5
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.1)


@settings(deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from([16, 64, 256]))
def test_geometry_has_one_formula(height: int, width: int, stride: int) -> None:
    padded = padded_hw(height, width, stride=stride)
    assert padded == (math.ceil(height / stride) * stride, math.ceil(width / stride) * stride)
    assert latent_hw(height, width, stride=stride) == (padded[0] // stride, padded[1] // stride)
    assert padded_px_ratio(height, width, stride=stride) == padded[0] * padded[1] / (height * width)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_padding_repeats_the_last_row_and_column(height: int, width: int) -> None:
    x = torch.rand(1, 3, height, width)
    padded, size = pad(x, 64)
    assert padded.shape[-2:] == padded_hw(height, width, stride=64)
    assert torch.equal(crop(padded, size), x)
    assert torch.equal(
        padded[..., :width], torch.cat([x, *[x[..., -1:, :]] * (padded.shape[-2] - height)], -2)
    )
    assert (padded[..., width - 1 :] == padded[..., width - 1 : width]).all()


def test_latents_have_the_size_that_geometry_says() -> None:
    codec = build(model())
    y, z = codec.encoder_networks(torch.rand(1, 3, 65, 130))
    assert y.shape[-2:] == latent_hw(128, 192, stride=16)
    assert z.shape[-2:] == codec.z_hw(65, 130) == (2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": {"channels": [8, 8]}}, r"depth\.channels=\[8, 8\]: transform=conv needs 3 entries"),
        ({"depth": {"layers": [1]}}, r"depth\.layers=\[1\]: transform=conv needs 3 entries"),
        ({"transform": {"norm": "batch"}}, r"transform\.norm='batch': input should be 'gdn1' or 'gdn'"),
        (
            {"hyper_transform": {"analysis_channels": [8, 0, 8]}},
            r"analysis_channels=\[8, 0, 8\]: every entry",
        ),
        ({"entropy_model": {"prior_filters": []}}, r"prior_filters=\[\]: needs at least one width"),
        ({"entropy_model": {"prior_filters": [3, 0]}}, r"prior_filters=\[3, 0\]: every entry"),
    ],
)
def test_impossible_models_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        model(**changes)
    assert "\n" not in str(caught.value)


def test_widths_left_open_follow_the_depth() -> None:
    mean_scale = build(model(depth={"channels": [8, 8, 16], "latent_channels": 24}))
    widths = [layer.out_channels for layer in mean_scale.entropy_model.h_s if hasattr(layer, "out_channels")]
    assert widths == [24, 36, 48]  # M, 3M/2, 2M
    scale = build(model("scale_hyperprior", depth={"channels": [8, 8, 16], "latent_channels": 24}))
    widths = [layer.out_channels for layer in scale.entropy_model.h_s if hasattr(layer, "out_channels")]
    assert widths == [16, 16, 24]  # N, N, M
