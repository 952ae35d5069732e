"""The fast ways through channels_last memory give what torch's slow ones give."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.models.layers.channels import mean_squares, select
from rdc.models.layers.conv import conv, pointwise
from rdc.models.layers.gate import EnergyGate, gate_convolutions
from rdc.models.layers.gdn import GDN
from rdc.models.layers.pointwise import conv1x1

ROOT = Path(__file__).resolve().parents[2]
FORMATS = pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
# With 1, 1,023, 1,024 and 1,025 pixels per image, around the block in which squares are summed; and more.
SIZES = pytest.mark.parametrize("hw", [(1, 1), (33, 31), (32, 32), (25, 41), (48, 80)])


def drawn(*shape: int, memory_format: Any) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(shape).contiguous(memory_format=memory_format)


@FORMATS
@SIZES
@pytest.mark.parametrize("batch", [1, 3])
def test_mean_squares_is_the_mean_of_squares(memory_format: Any, hw: tuple[int, int], batch: int) -> None:
    x = drawn(batch, 7, *hw, memory_format=memory_format)
    expected = x.double().square().mean((2, 3))
    assert torch.allclose(mean_squares(x).double(), expected, rtol=1e-5)
    with torch.no_grad():
        assert torch.allclose(mean_squares(x.to(torch.bfloat16)).double(), expected, rtol=2e-2)


@FORMATS
def test_mean_squares_has_its_gradient(memory_format: Any) -> None:
    x = drawn(2, 5, 6, 4, memory_format=memory_format).requires_grad_()
    factors = torch.arange(10.0).view(2, 5)
    (mean_squares(x) * factors).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, 2 * x.detach() / 24 * factors[:, :, None, None], atol=1e-6)


@FORMATS
@SIZES
@pytest.mark.parametrize("dim", [0, 1])
def test_select_is_index_select_and_keeps_the_format(
    memory_format: Any, hw: tuple[int, int], dim: int
) -> None:
    x = drawn(6, 6, *hw, memory_format=memory_format)
    channels = torch.tensor([1, 2, 5])
    chosen = select(x, channels, dim)
    assert torch.equal(chosen, x.index_select(dim, channels))
    assert chosen.is_contiguous(memory_format=memory_format)


@FORMATS
@pytest.mark.parametrize("hw", [(1, 1), (3, 5), (8, 6), (4, 4)])
@pytest.mark.parametrize("batch", [0, 1, 2, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_conv1x1_is_a_convolution_with_its_gradients(
    memory_format: Any, hw: tuple[int, int], batch: int, bias: bool
) -> None:
    x = drawn(batch, 7, *hw, memory_format=memory_format)
    weight, offset = torch.randn(5, 7, 1, 1), torch.randn(5)
    given: list[Tensor] = [t.clone().requires_grad_() for t in ((x, weight, offset) if bias else (x, weight))]
    outputs, gradients = [], []
    for form in (F.conv2d, conv1x1):
        out = form(given[0], given[1], given[2] if bias else None)
        outputs.append(out)
        gradients.append(torch.autograd.grad((out * torch.arange(out.numel()).view(out.shape)).sum(), given))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
    assert outputs[0].stride() == outputs[1].stride()
    for expected, got in zip(*gradients, strict=True):
        assert torch.allclose(expected, got, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("inverse", [True, False])
def test_gdn_gives_in_evaluation_what_it_gives_in_training(power: Any, inverse: bool) -> None:
    layer = GDN(12, power=power, inverse=inverse)
    with torch.no_grad():
        layer.gamma.add_(0.1 * torch.rand(12, 12))
    x = drawn(1, 12, 8, 8, memory_format=torch.channels_last)
    trained = layer.train()(x)
    with torch.no_grad():
        assert torch.allclose(layer.eval()(x), trained, atol=1e-6)


def test_a_pointwise_layer_starts_as_a_convolution_of_1x1_does() -> None:
    torch.manual_seed(3)
    expected = conv(6, 4, kernel=1, stride=1)
    torch.manual_seed(3)
    layer = pointwise(6, 4)
    assert torch.equal(expected.weight, layer.weight)
    assert layer.state_dict().keys() == expected.state_dict().keys()


def test_a_gated_pointwise_layer_reads_no_closed_channel() -> None:
    plain = pointwise(6, 4)
    network = torch.nn.Sequential(plain).to(memory_format=torch.channels_last).eval()
    x = drawn(1, 6, 8, 4, memory_format=torch.channels_last)
    x[:, 2:4] *= 0.01
    expected = F.conv2d(x[:, [0, 1, 4, 5]], plain.weight[:, [0, 1, 4, 5]], plain.bias).detach()
    gate_convolutions(network, EnergyGate)
    layer: Any = network[0]
    with torch.no_grad():
        layer.channel_gate.alpha.fill_(0.2)
        layer.weight[:, 2:4] = torch.nan
        assert torch.allclose(network(x), expected, atol=1e-6)


@pytest.mark.parametrize("sparsity", [0.5, 0.67])
def test_the_benchmark_opens_the_share_that_it_names(sparsity: float) -> None:
    spec = importlib.util.spec_from_file_location("gating_bench", ROOT / "benchmarks" / "gating.py")
    assert spec is not None
    assert spec.loader is not None
    bench = sys.modules.setdefault("gating_bench", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(bench)
    network = nn.Sequential(conv(32, 16))
    gate_convolutions(network, EnergyGate)
    x = torch.randn(1, 32, 12, 16)
    layer: Any = network[0]
    with torch.no_grad():
        bench.open_share(layer, x, sparsity)
        assert int(layer.channel_gate.decide(x)[0].sum()) == round(32 * (1 - sparsity))
