"""Layers and components against slow definitions and by-hand numbers."""

from __future__ import annotations

import math
from typing import Any

import compressai.layers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import conf
from rdc.configured import model_of
from rdc.errors import UserError
from rdc.models.codec import Codec, build, crop, latent_hw, pad, padded_hw, padded_px_ratio
from rdc.models.layers import coding
from rdc.models.layers.conv import ImageDeconv, ResidualConv, conv, deconv
from rdc.models.layers.gdn import GDN, LowerBound
from rdc.models.layers.graph import reference_graph
from rdc.spec import ModelSpec, component_names, parse_model
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
    depth = {"channels": [8, 8, 16], "latent_channels": 24}
    separate = build(model("charm", depth=depth, entropy_model={"slices": 2, "hyper": "separate"}))
    for h_s in separate.entropy_model.h_s.children():
        widths = [layer.out_channels for layer in h_s if hasattr(layer, "out_channels")]
        assert widths == [16, 16, 24]


# What encoder and decoder must compute alike


STEPWISE: dict[str, dict[str, Any]] = {"charm": {"slices": 4, "support": 2, "widths": [12, 8]}}


def coder(name: str) -> Codec:
    """Any entropy model with tables, whose scales are spread over many rows."""
    torch.manual_seed(0)
    codec = build(model(name, entropy_model=STEPWISE.get(name, {})))
    with torch.no_grad():
        for parameter in codec.entropy_model.parameters():
            if parameter.ndim == 4:
                parameter.add_(0.5 * parameter.std() * torch.randn_like(parameter))
    codec.entropy_model.start_scales(torch.linspace(0.2, 3, 20))
    codec.update(force=True, update_quantiles=True)
    return codec


@pytest.mark.parametrize("name", component_names("entropy_model"))
def test_a_scale_across_one_border_is_refused_though_every_symbol_is_right(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last symbol of a stream: what is decoded with its table decides no other symbol."""
    entropy_model = coder(name).eval().entropy_model
    y = 3 * torch.randn(1, 20, 8, 12, generator=torch.Generator().manual_seed(1))
    # Zero is the likeliest symbol of any table, and the same one under the next.
    y[:, -1] = 0
    with torch.no_grad():
        coded = entropy_model.compress(y)
        z_hat = torch.round(entropy_model.h_a(entropy_model.hyper_input(y)) - entropy_model._medians())
        z_hat += entropy_model._medians()
        symbols, rows = entropy_model._symbols(y, z_hat)
    original, seen = entropy_model.rows, [0]

    def moved(scale: torch.Tensor) -> Any:
        """As on a device that computes another scale for the last symbol."""
        found = original(scale)
        seen[0] += found.size
        if seen[0] == y.numel():
            last = found.ravel()[-1:]
            scale = scale.clone()
            scale[(-1,) * scale.ndim] = coding.scale_levels()[int(last[0]) + 1]
            found = original(scale)
        return found

    monkeypatch.setattr(entropy_model, "rows", moved)
    with torch.no_grad():
        _, other_rows, other_symbols = entropy_model._decoded(coded["strings"][0][0], z_hat)
    assert (other_rows != rows).nonzero()[0].tolist() == [y.numel() - 1]
    assert np.array_equal(other_symbols, symbols)
    seen[0] = 0
    with pytest.raises(UserError, match="decoded symbols differ from the encoder's"):
        entropy_model.decompress(coded["strings"], coded["shape"], coded["symbols_crc32"])


@pytest.mark.parametrize("name", component_names("entropy_model"))
@pytest.mark.parametrize("training", [True, False])
def test_layers_whose_sums_depend_on_threads_code_on_one_in_every_mode(name: str, training: bool) -> None:
    codec = coder(name).train(training)
    exact = [codec.entropy_model.h_s]
    if name == "charm":
        exact.append(codec.entropy_model.context.project)
    if name == "space_channel":
        for group in codec.entropy_model.context.groups:
            exact += [group.spatial, group.aggregate[-1]]
    seen: list[int] = []
    for layer in exact:
        layer.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    x = torch.rand(1, 3, 65, 130, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        coded = codec.compress(x)
        codec.decompress(coded["strings"], coded["shape"], symbols_crc32=coded["symbols_crc32"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert len(seen) >= 2 * len(exact)
    assert set(seen) == {1}


# `charm` is the form of 2020, whose kernels no other preset has.
@pytest.mark.parametrize(
    ("preset", "width"), [("elic", 1), ("rdc_d", 1), ("joint_autoregressive", 1), ("charm", 0.125)]
)
@torch.no_grad()
def test_threads_change_no_sum(preset: str, width: float) -> None:
    """Each on one thread at a time; at these sizes, 1x1 layers on two threads add in another order."""
    spec = model_of(conf.compose([f"model={preset}", f"width={width}"]))
    entropy_model = build(spec).entropy_model
    threads = torch.get_num_threads()
    try:
        for size in ((2, 3), (3, 5)):
            z_hat = torch.randn(1, entropy_model.entropy_bottleneck.channels, *size).round()
            seen = []
            for torch_threads in (1, 2):
                torch.set_num_threads(torch_threads)
                with coding.reproducible():
                    side = entropy_model.side(z_hat)
                    walked = entropy_model.walk(side, lambda pick, mean, scale: mean.round() + mean)
                    seen.append([side, *walked])
            for one, two in zip(*seen, strict=True):
                assert torch.equal(one, two)
    finally:
        torch.set_num_threads(threads)
