"""ELIC and SwinT transforms: published sizes of every part, CompressAI's weights, sensible starts."""

from __future__ import annotations

from functools import partial
from typing import Any

import compressai.models
import pytest
import torch
from torch import Tensor, nn

import conf
from rdc.checkpoint import compressai_names, turned_convolutions
from rdc.complexity import count
from rdc.errors import UserError
from rdc.models.codec import build
from rdc.models.layers.graph import reference_graph
from rdc.models.layers.residual import Attention, ResidualUnit
from rdc.models.layers.wavelet import start_as_wavelet
from rdc.models.transform import elic
from rdc.spec import Depth, ModelSpec, component, parse, parse_model
from tests.rdc.shared import psnr_db, smooth_image

SWIN_HYPER = {"name": "swint"}
HYPER_OF_E = {"name": "conv", "analysis_channels": [96, 128, 128], "z_bias": False}
HYPER_OF_F = {"name": "conv", "analysis_channels": [256, 256, 128], "z_bias": False}
NARROW_SWIN = {"name": "swint", "channels": [192, 192]}
HYPER_OF_ELIC = {"name": "conv", "analysis_channels": [192, 192, 192], "synthesis_channels": [192, 288]}
SMALL_SWIN = {"name": "swint", "channels": [96, 128]}

# depth, transform, hyper transform, parameters in M of g_a, g_s, h_a and h_s (None: not listed), and kFLOP/px
# (2 per MAC, 512x768) of h_s and of g_s: sums over the published layers, rounded to three and two digits.
PARTS: list[tuple[str, str, dict[str, Any], tuple[float, ...] | None, tuple[float, float]]] = [
    ("rdc_a", "elic", SWIN_HYPER, (10.717, 10.716, 1.701, 1.864), (2.87, 885.26)),
    ("rdc_b", "elic", SWIN_HYPER, (8.927, 8.927, 1.701, 1.864), (2.87, 478.54)),
    ("rdc_c", "elic", SWIN_HYPER, (4.776, 4.776, 1.701, 1.864), (2.87, 240.02)),
    ("rdc_d", "elic", SWIN_HYPER, (2.984, 2.984, 1.619, 1.700), (2.55, 236.59)),
    ("rdc_e", "swint", HYPER_OF_E, (4.369, 4.368, 0.994, 7.630), (29.60, 221.38)),
    ("rdc_f", "elic", HYPER_OF_F, (4.455, 4.455, 3.195, 7.630), (29.60, 170.13)),
    ("elic", "elic", HYPER_OF_ELIC, None, (10.93, 509.94)),
    ("swint_m", "swint", NARROW_SWIN, None, (5.63, 524.93)),
    ("swint_s", "swint", SMALL_SWIN, None, (1.52, 255.10)),
]


def parts(depth: Depth, transform: str, hyper: dict[str, Any], side_channels: int) -> dict[str, nn.Module]:
    """The four networks on the meta device."""
    codec, side = component("transform", transform), component("hyper_transform", hyper["name"])
    params, hyper_params = codec.Params(), parse(side.Params, hyper, where="hyper_transform")
    with torch.device("meta"):
        return {
            "g_a": codec.build_analysis(params, depth),
            "h_a": side.build_analysis(hyper_params, depth),
            "h_s": side.build_synthesis(hyper_params, depth, side_channels),
            "g_s": codec.build_synthesis(params, depth),
        }


@pytest.mark.parametrize(
    ("name", "transform", "hyper", "params_m", "kflop_per_px"), PARTS, ids=[row[0] for row in PARTS]
)
def test_published_sizes_of_every_part(
    name: str,
    transform: str,
    hyper: dict[str, Any],
    params_m: tuple[float, ...] | None,
    kflop_per_px: tuple[float, float],
) -> None:
    depth = parse(Depth, conf.compose([f"depth={name}"])["depth"], where="depth")
    # ELIC's h_s gives 2 N channels, all others' 2 M.
    side_channels = 2 * (depth.channels[-1] if name == "elic" else depth.latent_channels)
    made = parts(depth, transform, hyper, side_channels)
    if params_m is not None:
        got = [sum(p.numel() for p in made[part].parameters()) / 1e6 for part in ("g_a", "g_s", "h_a", "h_s")]
        assert got == pytest.approx(params_m, abs=6e-4)
    x = torch.empty(1, 3, 512, 768, device="meta")
    flop = {}
    with torch.no_grad(), reference_graph():
        y = made["g_a"](x)
        z = made["h_a"](y)
        for part, example in (("h_s", z), ("g_s", y)):
            flop[part] = count(partial(made[part], example), {}).flop["prior"]
        assert y.shape[1:] == (depth.latent_channels, 32, 48)
        assert made["h_s"](z).shape[1:] == (side_channels, 32, 48)
    got = [flop[part] / (512 * 768) / 1e3 for part in ("h_s", "g_s")]
    assert got == pytest.approx(kflop_per_px, abs=6e-3)


def test_rdc_f_by_hand() -> None:
    # Per unit and position 3.25 c^2 MACs, per attention block 20.5 c^2, per transposed 5x5 25 in out per
    # position of its input. g_s of 128, 128, 128 and M = 320 with one unit per stage, per pixel:
    # 20.5 320^2/256 + 25 320 128/256 + 3.25 128^2/64 + 25 128^2/64 + 20.5 128^2/16 + 3.25 128^2/16
    # + 25 128^2/16 + 3.25 128^2/4 + 25 128 3/4 = 85064.
    depth = Depth(channels=(128,) * 3, latent_channels=320, layers=(1, 1, 1))
    g_s = parts(depth, "elic", HYPER_OF_F, 640)["g_s"]
    with torch.no_grad(), reference_graph():
        flop = count(lambda: g_s(torch.empty(1, 320, 32, 48, device="meta")), {}).flop["prior"]
    assert flop / 2 / (512 * 768) == 85064


def test_layers_stand_in_the_published_order() -> None:
    depth = Depth(channels=(8, 12, 16), latent_channels=20, layers=(1, 3, 2))
    short = {"Conv2d": "C", "ImageDeconv": "D", "ResidualUnit": "r", "Attention": "A"}
    analysis = elic.build_analysis(elic.Params(), depth)
    synthesis = elic.build_synthesis(elic.Params(), depth)
    assert "".join(short[type(m).__name__] for m in analysis) == "CrCrrrACrrCA"
    assert "".join(short.get(type(m).__name__, "D") for m in synthesis) == "ADrrDArrrDrD"


def model(name: str, **changes: Any) -> ModelSpec:
    depths = {
        "elic": {"channels": [24, 24, 24], "latent_channels": 48, "layers": [1, 1, 1]},
        "swint": {"channels": [32, 32, 64], "latent_channels": 64, "layers": [2, 1, 1, 2]},
    }
    config: dict[str, Any] = {
        "transform": {"name": name},
        "entropy_model": {"name": "mean_scale_hyperprior"},
        "hyper_transform": {"name": "conv"},
        "depth": depths[name],
        "gating": {"name": "none"},
        "rate_control": {"name": "none"},
    }
    for group, values in changes.items():
        config[group] = {**config[group], **values}
    return parse_model(config)


# --- CompressAI's weights ---------------------------------------------------------------------------------


def loaded(part: nn.Module, weights: dict[str, Tensor], prefix: str) -> nn.Module:
    own = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
    part.load_state_dict(turned_convolutions(own, part.state_dict()))
    return part.eval()


@torch.no_grad()
def test_elic2022official_weights_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    theirs = compressai.models.Elic2022Official(N=24, M=36, groups=[4, 4, 8, 8, 12]).eval()
    weights = compressai_names(theirs.state_dict())
    depth = Depth(channels=(24, 24, 24), latent_channels=36, layers=(3, 3, 3))
    params = elic.Params(attention_relu=True)
    hyper = component("hyper_transform", "conv")
    hyper_params = hyper.Params(analysis_channels=(24, 24, 24), synthesis_channels=(24, 36))
    g_a = loaded(elic.build_analysis(params, depth), weights, "g_a.")
    g_s = loaded(elic.build_synthesis(params, depth), weights, "g_s.")
    h_a = loaded(hyper.build_analysis(hyper_params, depth), weights, "entropy_model.h_a.")
    h_s = loaded(hyper.build_synthesis(hyper_params, depth, 48), weights, "entropy_model.h_s.")
    x = torch.rand(2, 3, 64, 128)
    y = theirs.g_a(x)
    side = theirs.latent_codec.hyper
    z = side.h_a(y)
    # Measured at N=192, M=320: 0 for g_a and h_a, 7e-7 for g_s (its last layer is rewritten), 7e-9 for h_s.
    for got, expected in (
        (g_a(x), y),
        (g_s(y), theirs.g_s(y)),
        (h_a(y), z),
        (h_s(z), side.h_s(z)),
    ):
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1.0)
    without = loaded(elic.build_analysis(elic.Params(), depth), weights, "g_a.")
    assert (without(x) - y).abs().max() > 1e-2, "the ReLU must matter, or this test shows nothing"


# --- starts -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("transform", "changes"),
    [
        ("elic", {}),
        ("elic", {"transform": {"attention_relu": True}}),
        ("swint", {}),
        ("swint", {"hyper_transform": {"name": "swint"}}),
    ],
)
def test_an_untrained_codec_already_reconstructs(
    transform: str, changes: dict[str, Any], precision: Any
) -> None:
    torch.manual_seed(0)
    codec = build(model(transform, **changes)).eval()
    codec.set_transform_precision(precision)
    x = smooth_image()
    random_db = psnr_db(x, codec(x)["x_hat"])
    start_as_wavelet(codec)
    assert random_db < 20 < 26 < psnr_db(x, codec(x)["x_hat"])


@torch.no_grad()
@pytest.mark.parametrize("transform", ["elic", "swint"])
def test_a_wavelet_start_is_linear_in_the_image(transform: str) -> None:
    """Without rounding, the pyramid of a brighter image is that of the image, brighter."""
    torch.manual_seed(0)
    codec = build(model(transform)).eval()
    start_as_wavelet(codec)
    x = smooth_image() - 0.5
    base, full, half = (codec.g_a(factor * x + 0.5) for factor in (0.0, 1.0, 0.5))
    error = (half - base) - 0.5 * (full - base)
    assert error.norm() < 0.02 * (full - base).norm()


def test_a_wavelet_start_without_blocks_is_refused() -> None:
    codec = build(model("swint", depth={"layers": [1, 0, 1, 1]}))
    with pytest.raises(UserError, match=r"wavelet: depth\.layers=\[.*\] leaves a stage of transform=swint"):
        start_as_wavelet(codec)


@torch.no_grad()
@pytest.mark.parametrize("transform", ["elic", "swint"])
def test_training_starts_near_mid_grey(transform: str) -> None:
    torch.manual_seed(0)
    x_hat = build(model(transform))(torch.rand(1, 3, 128, 128))["x_hat"]
    assert x_hat.mean().item() == pytest.approx(0.5, abs=0.05)
    assert x_hat.std().item() < 0.3


@torch.no_grad()
def test_residual_layers_start_small_and_become_linear() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 16, 8, 8)
    unit, attention = ResidualUnit(16), Attention(16)
    assert (unit(x) - x).std() < 0.2
    for layer in attention.modules():
        if isinstance(layer, ResidualUnit):
            assert layer.start_linear() == 1.0
    factor = attention.start_linear()
    assert torch.allclose(attention(x), factor * x, atol=1e-6)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "changes", "message"),
    [
        (
            "elic",
            {"depth": {"channels": [8, 8]}},
            r"depth\.channels=\[8, 8\]: transform=elic needs 3 entries",
        ),
        ("elic", {"depth": {"layers": [1] * 4}}, r"depth\.layers=\[1, 1, 1, 1\]: transform=elic needs 3"),
        ("elic", {"depth": {"channels": [8, 1, 8]}}, r"transform=elic needs at least 2 channels everywhere"),
        (
            "swint",
            {"depth": {"layers": [1] * 3}},
            r"depth\.layers=\[1, 1, 1\]: transform=swint needs 4 entries",
        ),
        ("swint", {"depth": {"channels": [32] * 4}}, r"transform=swint needs 3 entries, one per stage"),
        (
            "swint",
            {"depth": {"channels": [32, 48, 32]}},
            r"depth\.channels\[1\]=48: must be a multiple of transform\.head_dim=32",
        ),
        (
            "swint",
            {"depth": {"latent_channels": 80}},
            r"depth\.latent_channels=80: must be a multiple of transform\.head_dim=32",
        ),
        ("swint", {"transform": {"window": 0}}, r"transform\.window=0: must be at least 1"),
        (
            "elic",
            {"hyper_transform": {"name": "swint", "channels": [128, 100]}},
            r"hyper_transform\.channels\[1\]=100: must be a multiple of hyper_transform\.head_dim=32",
        ),
        (
            "elic",
            {"hyper_transform": {"name": "swint", "layers": [1, -1]}},
            r"hyper_transform\.layers=\[1, -1\]: every entry must be at least 0",
        ),
    ],
)
def test_impossible_models_are_one_clear_line(transform: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        model(transform, **changes)
    assert "\n" not in str(caught.value)
