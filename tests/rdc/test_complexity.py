"""Published sizes, two independent counters, and operators that try to go uncounted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import conf
from rdc.complexity import count, fvcore_macs, measure
from rdc.configured import model_of
from rdc.errors import UserError
from rdc.spec import ModelSpec
from tests.rdc.shared import both_counts


def preset(*overrides: str) -> ModelSpec:
    return model_of(conf.compose(overrides))


# Parameters in millions and decode kFLOP/px (2 per MAC, 512x768), published for G (Minnen & Johnston, ICIP
# 2023, Table 1) and by layer-by-layer sums for the others; the bound is relative.
PUBLISHED = [
    (("model=rdc_g",), 12.8, 117.4, 0.005),
    (("model=scale_hyperprior",), 5.08, 87.08, 0.005),
    (("model=scale_hyperprior", "depth=n192"), 11.82, 193.96, 0.005),
    (("model=mean_scale_hyperprior",), 7.03, 95.13, 0.005),
    (("model=mean_scale_hyperprior", "depth=n192"), 17.56, 217.24, 0.005),
]


@pytest.mark.parametrize(("overrides", "params_m", "kflop_per_px", "bound"), PUBLISHED)
def test_published_sizes(overrides: Any, params_m: float, kflop_per_px: float, bound: float) -> None:
    described = measure(preset(*overrides)).to_dict()
    assert described["params"]["total"] / 1e6 == pytest.approx(params_m, rel=bound)
    assert described["decode"]["parity_kflop_per_px"] == pytest.approx(kflop_per_px, rel=bound)


def test_model_g_by_hand() -> None:
    # Per source pixel in MACs. A transposed 5x5 of stride 2 costs 25 in out per position of its input, GDN
    # costs n^2 per position of its output.
    # g_s: 25 (320 128 / 256 + 128 128 / 64 + 128 128 / 16 + 128 3 / 4) + 128^2 (1/64 + 1/16 + 1/4) = 43776.
    # h_s: 25 (128 320 / 4096 + 320 480 / 1024) + 9 480 640 / 256 = 14800.
    described = measure(preset("model=rdc_g")).to_dict()
    assert described["parts"]["g_s"]["decode_parity_kmac_per_px"] == pytest.approx(43.776, rel=1e-9)
    assert described["parts"]["h_s"]["decode_parity_kmac_per_px"] == pytest.approx(14.8, rel=1e-9)
    assert described["decode"]["parity_kflop_per_px"] == pytest.approx(117.152, rel=1e-9)
    # Run as a 3x3 to twelve channels and a pixel shuffle, the last layer takes 9 128 12 / 4 instead of
    # 25 128 3 / 4: 3456 for 2400.
    assert described["decode"]["executed_kmac_per_px"] == pytest.approx(58.576 + 1.056, rel=1e-9)
    # Biases 128/64 + 128/16 + 128/4 + 3, those of h_s 320/1024 + 480/256 + 640/256; GDN's offsets and
    # products 42 each.
    assert described["decode"]["elementwise_kop_per_px"] == pytest.approx(0.1336875, rel=1e-9)
    # h_a: 9 320 160 / 256 + 25 160 128 / 1024 + 25 128 128 / 4096 = 2400; the encoder runs h_s too.
    assert described["encode"]["parity_kmac_per_px"] == pytest.approx(43.776 + 2.4 + 14.8, rel=1e-9)


# Forms that no component has by default; the contract tests count the defaults.
@pytest.mark.parametrize(
    "overrides",
    [
        ("model=scale_hyperprior", "width=0.25"),  # GDN with squares
        ("model=charm", "width=0.1"),  # two h_s, all of their output to every slice, residual added
        ("model=conv_charm", "width=0.1"),  # all slices as context, no residual
        ("model=elic", "width=0.1"),
        ("model=compressai", "compressai.name=cheng2020-attn", "compressai.quality=1", "width=0.1"),
    ],
)
def test_two_counters_agree_to_the_integer(overrides: tuple[str, ...]) -> None:
    for part, (by_torch, by_fvcore) in both_counts(preset(*overrides), 128, 64).items():
        assert by_torch == by_fvcore > 0, part


def test_padding_is_paid_for_per_source_pixel() -> None:
    spec = preset("model=scale_hyperprior", "depth=n32")
    exact, odd = measure(spec, 64, 64), measure(spec, 64, 65)
    assert odd.kmac_per_px("decode") == pytest.approx(exact.kmac_per_px("decode") * 128 / 65)


def test_pricing_is_cheap() -> None:
    """A planner prices hundreds of models; nothing may be computed, whatever the image size."""
    spec = preset("model=rdc_g")
    measure(spec)
    started = time.process_time()
    measure(spec, 4096, 4096)
    assert time.process_time() - started < 1.0  # 0.06-0.15 s alone


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class Baddbmm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(x[0], x[0], x[0])


class Fft(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).real


class _MatrixProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x @ x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class Function(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _MatrixProduct.apply(x)
        return out


@torch.library.custom_op("rdctest::secret", mutates_args=())
def secret(x: Tensor) -> Tensor:
    return x @ x


@secret.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class CustomOperator(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return secret(x)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.norm(x), scale_factor=2.0, mode="bilinear").softmax(-1)


# (2, 8, 16, 16): two images, eight heads or channels, 16 tokens of 16 values.
X = torch.zeros(2, 8, 16, 16)
TOKEN_PRODUCT = 16**3  # MACs of one 16 x 16 by 16 x 16 product


def by_torch(module: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return count(lambda: module(x), {}, rest="all").flop["all"] // 2


def by_fvcore(module: nn.Module, x: Tensor) -> int:
    return fvcore_macs(module, x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (Attention(), 2 * 8 * 2 * TOKEN_PRODUCT),  # queries x keys, then weights x values
        (Baddbmm(), 8 * TOKEN_PRODUCT),
        (Function(), 2 * 8 * TOKEN_PRODUCT),
        (nn.Linear(16, 16, bias=False), 2 * 8 * 16 * 16 * 16),
        (nn.ConvTranspose2d(8, 4, 5, stride=2, groups=2), 2 * 16 * 16 * 25 * 8 * 2),
        (Bilinear(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_torch_counts_what_profilers_miss(module: nn.Module, macs: int, device: str) -> None:
    assert by_torch(module.to(device), X.to(device)) == macs


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (Attention(), 2 * 8 * 2 * TOKEN_PRODUCT),
        (Baddbmm(), 8 * TOKEN_PRODUCT),
        (nn.ConvTranspose2d(8, 4, 5, stride=2, groups=2), 2 * 16 * 16 * 25 * 8 * 2),
        (Bilinear(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_fvcore_counts_it_too(module: nn.Module, macs: int) -> None:
    assert by_fvcore(module, X) == macs


@pytest.mark.parametrize(
    ("counter", "module", "operator"),
    [
        (by_torch, Fft(), "aten::_fft_r2c is not counted"),
        (by_fvcore, Fft(), "aten::fft_rfft is not counted by fvcore"),
        (by_torch, CustomOperator(), "rdctest::secret is not counted"),
        (by_fvcore, CustomOperator(), "rdctest::secret is not counted by fvcore"),
        (by_fvcore, Function(), "prim::PythonOp._MatrixProduct is not counted by fvcore"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(
    counter: Callable[[nn.Module, Tensor], int], module: nn.Module, operator: str
) -> None:
    with pytest.raises(UserError, match=f"operator {operator}"):
        counter(module, X)


def test_counting_zero_is_an_error_by_name() -> None:
    torch.utils.flop_counter.register_flop_formula(torch.ops.rdctest.secret)(lambda *_, **__: 0)
    try:
        with pytest.raises(UserError, match="operator rdctest::secret was counted as zero operations"):
            by_torch(CustomOperator(), X)
    finally:
        del torch.utils.flop_counter.flop_registry[torch.ops.rdctest.secret]


def test_sdpa_by_hand() -> None:
    # 8 heads, 64 tokens, head dimension 24: 2 * 8 * 64 * 64 * 24 = 1.573 MMAC.
    x = torch.zeros(1, 8, 64, 24)
    assert by_torch(Attention(), x) == by_fvcore(Attention(), x) == 1_572_864


def test_transposed_convolution_by_hand() -> None:
    # 5x5 stride 2, 320 -> 192 on 32x32: 25 * 320 * 192 * 1024 = 1572.864 MMAC.
    layer = nn.ConvTranspose2d(320, 192, 5, stride=2, padding=2, output_padding=1).to("meta")
    assert by_torch(layer, torch.empty(1, 320, 32, 32, device="meta")) == 1_572_864_000
