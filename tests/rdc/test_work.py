"""Operators, their FLOP and bytes, and the roofline made of them, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rdc.complexity import count, on_meta
from rdc.models.codec import build
from rdc.runtime import random_latents
from rdc.spec import COMPONENT_GROUPS, component_names, parse_model
from rdc.speed import SpeedMeter, _Sizes
from rdc.work import Operation, operations, roofline
from tests.rdc.shared import legal_combinations

DEPTH = {"channels": [8, 12, 16], "latent_channels": 20, "layers": [1, 0, 2]}
MODELS = legal_combinations(DEPTH)


def only(found: list[Operation]) -> Operation:
    assert len(found) == 1, found
    return found[0]


@torch.no_grad()
def test_a_convolution_by_hand() -> None:
    """3 -> 4 channels, 5x5, on 6x8 positions with padding 2.

    FLOP: 2 * (6 * 8 positions * 4 outputs * 3 inputs * 25 taps) = 28800. Bytes, 4 each: x 3*6*8 = 144,
    weights 4*3*25 = 300, bias 4, out 4*6*8 = 192; 640 elements.
    """
    layer = nn.Conv2d(3, 4, 5, padding=2)
    found = only(operations(lambda: layer(torch.ones(1, 3, 6, 8)))[-1:])
    assert (found.name, found.kind, found.launch) == ("convolution", "fp32", "convolution")
    assert (found.flop, found.bytes) == (28800, 4 * 640)


@torch.no_grad()
def test_a_product_by_hand() -> None:
    """(5, 7) @ (7, 3): 2*5*7*3 = 210 FLOP; 35 + 21 + 15 = 71 elements."""
    a, b = torch.ones(5, 7), torch.ones(7, 3)
    found = only(operations(lambda: a @ b))
    assert (found.flop, found.bytes, found.launch) == (210, 4 * 71, "other")
    assert only(operations(lambda: a.bfloat16() @ b.bfloat16())[2:]).bytes == 2 * 71


X = torch.arange(24.0).reshape(2, 3, 4)
MOVED = {
    # elements read and written, 4 bytes each
    "an addition": (lambda: X + X[0], 24 + 12 + 24),
    "a square reads its input once": (lambda: X * X, 24 + 24),
    "in place": (lambda: X.clone().relu_(), (24 + 24) + (24 + 24)),
    "a view moves nothing": (lambda: X.transpose(0, 1)[1:].reshape(2, 1, 8)[:, 0], None),
    "a copy where the view has no layout": (lambda: X.transpose(0, 1).contiguous(), 24 + 24),
    "concatenation": (lambda: torch.cat((X, X[:1])), 24 + 12 + 36),
    "a repeated element is one": (lambda: X + torch.ones(1).expand(2, 3, 4), 1 + 24 + 1 + 24),
    "memory that nobody writes": (lambda: torch.empty(7), 0),
    "filling": (lambda: torch.zeros(7), 7),
    "a copy does not read what it overwrites": (lambda: torch.empty(2, 3, 4).copy_(X), 24 + 24),
}


@pytest.mark.parametrize("name", [name for name, (_, expected) in MOVED.items() if expected is not None])
def test_elements_moved(name: str) -> None:
    run, expected = MOVED[name]
    assert expected is not None
    assert sum(op.bytes for op in operations(run)) == 4 * expected


def test_views_are_no_operators() -> None:
    assert operations(lambda: X[1:].flatten().view(3, 4)[None].expand(5, 3, 4).detach()) == []
    # Of the flattened transposed tensor a copy is needed: it is one operator, of 24 elements both ways.
    assert only(operations(lambda: X.transpose(0, 1).flatten())).bytes == 4 * 48


def test_picking_reads_what_it_picks() -> None:
    """3 of 1000 rows of 2: 6 elements read and written, 3 indexes of 8 bytes."""
    rows, at = torch.ones(1000, 2), torch.tensor([5, 0, 7])
    assert only(operations(lambda: rows.index_select(0, at))).bytes == 4 * 12 + 24


@torch.no_grad()
def test_autocast_shows_in_kinds_and_casts() -> None:
    layer, x = nn.Linear(8, 8), torch.ones(2, 8)

    def run() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y: torch.Tensor = layer(x)
            return y

    found = operations(run)
    (product,) = [op for op in found if op.flop]
    assert product.kind == "bf16"
    assert sum(op.name == "_to_copy" for op in found) == 3, "x, weight and bias"


def test_threads_are_those_of_the_operator() -> None:
    before = torch.get_num_threads()

    def run() -> None:
        for number in (1, 2):
            torch.set_num_threads(number)
            torch.add(X, X)

    try:
        assert [op.threads for op in operations(run)] == [1, 2]
    finally:
        torch.set_num_threads(before)


def test_a_roofline_by_hand() -> None:
    """At 1000 FLOP/s, 100 B/s (2 threads: 50 FLOP/s of bf16, 10 B/s) and 1 and 3 s per launch:

    the convolution: 4000 FLOP = 4 s of arithmetic over 200 B = 2 s; the addition: 300 B = 3 s; the bf16
    product: 100 FLOP = 2 s under 30 B = 3 s. Arithmetic binds 4 s, memory 3 + 3 s, launches 3 + 1 + 1 s.
    """
    found = roofline(
        [
            Operation("convolution", 4000, 200, "fp32", 1),
            Operation("add", 0, 300, "fp32", 1),
            Operation("mm", 100, 30, "bf16", 2),
        ],
        flop_per_s={("fp32", 1): 1000, ("bf16", 2): 50},
        bytes_per_s={1: 100, 2: 10},
        launch_s={("convolution", 1): 3, ("other", 1): 1, ("other", 2): 1},
    )
    assert found == (4000, 6000, 5000)
    assert found.total_ms == 15000


def covering() -> list[str]:
    """The first model with each component, so that a new one is tested unasked."""
    every = {(group, name) for group in COMPONENT_GROUPS for name in component_names(group)}
    chosen = []
    for key, model in MODELS.items():
        new = {(group, model[group]["name"]) for group in COMPONENT_GROUPS} & every
        if new:
            chosen.append(key)
            every -= new
    assert not every, f"no legal model has {every}"
    return chosen


@torch.no_grad()
@pytest.mark.parametrize("name", covering())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_flop_are_those_of_the_executed_count(name: str, precision: Any) -> None:
    """What ran is what rdc.complexity counts without values, for whatever components there are."""
    codec = build(parse_model(MODELS[name])).eval()
    codec.set_transform_precision(precision)
    height_px, width_px = 60, 130  # padded, and not by the same factor in both directions
    latents = random_latents(codec, height_px, width_px)
    found = operations(lambda: codec.decoder_networks(*latents))
    empty = on_meta(codec.spec)
    counted = count(lambda: empty.decoder_networks(*(part.to("meta") for part in latents)), empty.parts())
    assert sum(op.flop for op in found) == sum(counted.flop.values())
    weights = sum(p.numel() for part in ("h_s", "g_s") for p in codec.parts()[part].parameters())
    # No weight of the decoder is used without being read.
    assert sum(op.bytes for op in found) > 2 * weights
    assert len(found) >= codec.entropy_model.serial_steps(*latents.y_hat.shape[-2:])
    assert {op.kind for op in found if op.flop} == ({"fp32", "bf16"} if precision == "bf16" else {"fp32"})


@torch.no_grad()
@pytest.mark.parametrize("name", covering())
def test_random_latents_have_the_shapes_of_the_encoder(name: str) -> None:
    codec = on_meta(parse_model(MODELS[name]))
    y, z = codec.encoder_networks(torch.empty(1, 3, 60, 130, device="meta"))
    latents = random_latents(codec, 60, 130)
    assert (latents.y_hat.shape, latents.z_hat.shape) == (y.shape, z.shape)


def test_a_meter_measures_what_the_operators_need_once() -> None:
    sizes = _Sizes(product=16, convolution=(8, 4, 4), moved=64)
    meter = SpeedMeter(torch.device("cpu"), sizes)
    found = [Operation("convolution", 10, 10, "fp32", 1), Operation("add", 0, 10, "fp32", 2)]
    before = torch.get_num_threads()
    speed = meter.of(found)
    assert torch.get_num_threads() == before
    assert set(speed.flop_per_s) == {("fp32", 1)}
    assert set(speed.bytes_per_s) == {1, 2}
    assert set(speed.launch_s) == {("convolution", 1), ("other", 2)}
    assert min(*speed.flop_per_s.values(), *speed.bytes_per_s.values(), *speed.launch_s.values()) > 0
    assert meter.of(found) == speed, "measured twice"
    assert speed.roofline(found).total_ms > 0


def test_the_meter_counts_two_flop_per_multiply_add(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the product of 16x16 matrices takes 1 s and the convolution 8: 2*16^3 = 8192 FLOP/s.

    The convolution has 2 * 9 * 8^2 * 4 * 4 = 18432 FLOP, 2304 of them a second.
    """
    times_s = iter([1.0, 8.0, 0.5])
    monkeypatch.setattr(SpeedMeter, "_fastest_s", lambda self, work: work() is None or next(times_s))
    meter = SpeedMeter(torch.device("cpu"), _Sizes(product=16, convolution=(8, 4, 4), moved=64))
    assert meter.flop_per_s("fp32", 1) == 8192
    # Two reads and a write of 64 elements of 4 bytes in half a second.
    assert meter.bytes_per_s(1) == 3 * 64 * 4 / 0.5


def test_bias_is_read_where_there_is_one() -> None:
    x, kernel = torch.ones(1, 2, 3, 3), torch.ones(2, 2, 1, 1)
    without = only(operations(lambda: F.conv2d(x, kernel))).bytes
    assert only(operations(lambda: F.conv2d(x, kernel, X[0, 0, :2]))[-1:]).bytes == without + 8
