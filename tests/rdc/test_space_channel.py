"""ELIC's entropy model against CompressAI's, its published size and causality."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compressai.layers import CheckerboardMaskedConv2d
from compressai.models import Elic2022Official
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import conf
from rdc.checkpoint import load_compressai_state_dict
from rdc.complexity import count, fvcore_macs, measure, on_meta
from rdc.errors import UserError
from rdc.models.codec import build
from rdc.models.layers.checkerboard import CheckerboardConv, anchors, board, others
from rdc.models.layers.graph import reference_graph
from rdc.models.layers.hyperprior import Pick, dry
from rdc.models.layers.stepwise import Stepwise
from rdc.spec import COMPONENT_GROUPS, ModelSpec, parse_model
from tests.rdc.shared import coded_and_estimated, losses_at_a_high_rate

GROUPS = (2, 1, 4, 3, 5)


def spec(
    channels: int = 192, latent_channels: int = 320, hyper: Any = None, **space_channel: Any
) -> ModelSpec:
    return parse_model(
        {
            "transform": {"name": "conv"},
            "entropy_model": {"name": "space_channel", **space_channel},
            "hyper_transform": {"name": "conv", **(hyper or {})},
            "depth": {"channels": [channels] * 3, "latent_channels": latent_channels},
            "gating": {"name": "none"},
            "rate_control": {"name": "none"},
        }
    )


def loud(model: Any) -> Any:
    """Weights far from their start, so that every network's answer shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for group in groups_of(model):
            group.aggregate[-1].weight.mul_(10)
            for parameter in group.parameters():
                parameter.add_(0.3 * parameter.abs().mean() * torch.randn_like(parameter))
    model.update(update_quantiles=True)
    return model.eval()


def groups_of(model: Any) -> Any:
    return model.context.groups


@pytest.fixture
def model() -> Stepwise:
    torch.manual_seed(0)
    made: Stepwise = loud(build(spec(8, sum(GROUPS), groups=GROUPS, context_widths=[10, 8])).entropy_model)
    return made


def latent(batch: int = 1, height: int = 8, width: int = 12) -> Tensor:
    return 4 * torch.randn(batch, sum(GROUPS), height, width, generator=torch.Generator().manual_seed(1))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_a_board_is_its_two_halves(half_height: int, half_width: int, channels: int) -> None:
    y = torch.rand(2, channels, 2 * half_height, 2 * half_width)
    assert anchors(y).shape == others(y).shape == (2, channels, 2 * half_height, half_width)
    assert torch.equal(board(anchors(y), others(y)), y)


def test_anchors_are_where_row_and_column_are_both_even_or_both_odd() -> None:
    # Row in the tens, column in the units.
    y = 10 * torch.arange(4.0)[:, None] + torch.arange(4.0)
    assert anchors(y[None, None])[0, 0].tolist() == [[0, 2], [20, 22], [11, 13], [31, 33]]
    assert others(y[None, None])[0, 0].tolist() == [[1, 3], [21, 23], [10, 12], [30, 32]]


def test_the_fast_checkerboard_equals_compressais() -> None:
    torch.manual_seed(0)
    fast = CheckerboardConv(3, 4)
    published = CheckerboardMaskedConv2d(3, 4, kernel_size=5, padding=2)
    published.load_state_dict({**published.state_dict(), **fast.state_dict()})
    y = torch.randn(2, 3, 6, 10)
    y_anchors = board(anchors(y), torch.zeros_like(anchors(y)))
    inputs = [anchors(y).requires_grad_(), y_anchors.requires_grad_()]
    outputs = [fast(inputs[0]), others(published(inputs[1]))]
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-5
    assert torch.allclose(others(fast.dense(y)), outputs[1], atol=1e-5)
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    assert torch.allclose(inputs[0].grad, anchors(inputs[1].grad), atol=1e-4)
    mask = published.mask.bool()
    for weight in (fast.weight, published.weight):
        assert weight.grad is not None
    assert torch.allclose(fast.weight.grad[mask], published.weight.grad[mask], atol=1e-4)  # type: ignore[index]
    assert not fast.weight.grad[~mask].any()  # type: ignore[index]


@torch.no_grad()
def test_the_whole_codec_agrees_with_compressais() -> None:
    """Its weights, louder than an initialisation's; groups of its state dict carry over to ours."""
    torch.manual_seed(3)
    groups = (2, 3, 4, 8, 23)
    theirs = Elic2022Official(24, 40, groups=groups)
    theirs.g_a[13].weight.mul_(30)
    for parameter in (*theirs.latent_codec["y"].parameters(), *theirs.latent_codec["hyper"].h_s.parameters()):
        parameter.mul_(1.7)
    theirs.update(force=True)
    widths = ["depth.channels=[24,24,24]", "depth.latent_channels=40", f"entropy_model.groups={list(groups)}"]
    config = conf.compose(["model=elic", *widths, "hyper_transform.synthesis_channels=[24,36]"])
    ours = build(parse_model({group: config[group] for group in (*COMPONENT_GROUPS, "depth")})).eval()
    load_compressai_state_dict(ours, theirs.state_dict())
    x = torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    expected, got = theirs.eval()(x), ours(x)
    assert got["y_hat"].round().unique().numel() >= 20
    assert got["likelihoods"]["y"].std() > 0.1
    # Measured 1.4e-6 and 1.8e-6 on x86: the same sums in another order.
    assert (expected["x_hat"] - got["x_hat"]).abs().max() <= 1e-5
    for name in ("y", "z"):
        assert (expected["likelihoods"][name] - got["likelihoods"][name]).abs().max() <= 1e-5
    coded = ours.compress(x)
    decoded = ours.decompress(coded["strings"], coded["shape"], coded["size"], coded["symbols_crc32"])
    assert torch.equal(decoded["y_hat"], got["y_hat"])


def test_size_of_the_published_context() -> None:
    """11.69 M parameters; 91.27 kFLOP/px dense, of which 16.6 spatial and 26.57 parameter aggregation.

    Run, the spatial part takes 18 products per position and pair of channels instead of 50, and half of the
    positions have no spatial context: 2g of their inputs are not multiplied by the width of the next layer.
    """
    hyper = {"synthesis_channels": [192, 288]}
    part = measure(spec(hyper=hyper)).to_dict()["parts"]["context"]
    assert part["params"] == 11_690_293
    assert part["decode_parity_kflop_per_px"] == pytest.approx(91.268, rel=1e-4)
    groups, widths = (16, 16, 32, 64, 192), (384, 384, 384, 469, 896)
    spared = 32 * sum(g * g * 2 for g in groups) / 2 + sum(g * w for g, w in zip(groups, widths, strict=True))
    executed = part["decode_parity_kflop_per_px"] - 2 * spared / 256 / 1000
    assert part["decode_executed_kflop_per_px"] == pytest.approx(executed, rel=1e-9)
    assert part["encode_executed_kflop_per_px"] == pytest.approx(executed, rel=1e-9)


def test_two_counters_agree(model: Stepwise) -> None:
    class Networks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, side: Tensor) -> Tensor:
            return torch.cat(self.model.walk(side, dry), 1)

    side = torch.zeros(1, 16, 8, 12)
    with reference_graph():
        counted = count(lambda: model.walk(side, dry), {"context": model.context})
        assert counted.flop["context"] == 2 * fvcore_macs(Networks(), side)


def test_groups_follow_the_latent() -> None:
    for latent_channels, expected in ((320, (16, 16, 32, 64, 192)), (160, (8, 8, 16, 32, 96))):
        context = on_meta(spec(latent_channels=latent_channels)).entropy_model.context
        assert tuple(group.channels for group in context.groups) == expected


def gaussians(model: Stepwise, y: Tensor) -> tuple[Tensor, Tensor]:
    """(means, scales) by which y is coded."""
    side = torch.randn(1, 16, *y.shape[-2:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        _, mean, scale = model.walk(side, lambda pick, mean, scale: torch.round(pick(y) - mean) + mean)
    return mean, scale


@pytest.mark.parametrize("group", range(5))
@pytest.mark.parametrize("changed", ["anchors", "others"])
def test_no_symbol_depends_on_itself_or_later_ones(model: Stepwise, group: int, changed: str) -> None:
    first, last = sum(GROUPS[:group]), sum(GROUPS[: group + 1])
    y = latent()
    other = y.clone()
    other[:, first:] += 7 * torch.randn_like(other[:, first:])
    if changed == "others":
        other[:, first:last] = board(anchors(y[:, first:last]), others(other[:, first:last]))
    for one, two in zip(gaussians(model, y), gaussians(model, other), strict=True):
        assert torch.equal(one[:, :first], two[:, :first])
        assert torch.equal(anchors(one[:, first:last]), anchors(two[:, first:last]))
        # Those between the anchors see them, and them alone, of their own group.
        assert torch.equal(others(one[:, first:last]), others(two[:, first:last])) == (changed == "others")
        if group < 4:
            assert not torch.equal(one[:, last:], two[:, last:])


def test_a_side_of_as_many_channels_as_the_latent_is_not_taken_for_scales_alone() -> None:
    """Twice the last stage's 10 is the latent's 20: h_s's open widths are M and 3M/2 as everywhere else."""
    h_s = on_meta(spec(10, 20)).entropy_model.h_s
    assert [layer.out_channels for layer in h_s if hasattr(layer, "out_channels")] == [20, 30, 20]


def test_two_steps_per_group(model: Stepwise) -> None:
    visits = []

    def visit(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
        visits.append(mean.shape[1:])
        return mean

    model.walk(torch.zeros(1, 16, 4, 8), visit)
    assert visits == [(channels, 4, 4) for channels in GROUPS for _ in range(2)]
    assert model.serial_steps(4, 8) == len(visits) == 10


@torch.no_grad()
def test_decoding_gives_what_evaluation_saw(model: Stepwise) -> None:
    y = latent(batch=2)
    seen = model(y)
    coded = model.compress(y)
    assert [len(strings) for strings in coded["strings"]] == [2, 2], "one stream for all groups, one for z"
    decoded = model.decompress(coded["strings"], coded["shape"], coded["symbols_crc32"])
    assert torch.equal(decoded, seen.y_hat)
    alone = model(y[1:])
    assert torch.equal(alone.y_hat, seen.y_hat[1:])
    assert torch.equal(alone.likelihoods["y"], seen.likelihoods["y"][1:])


@torch.no_grad()
def test_counting_on_the_reference_graph_leaves_coding_alone(model: Stepwise) -> None:
    y = latent()
    with reference_graph():
        coded = model.compress(y)
    assert coded["strings"] == model.compress(y)["strings"]


@torch.no_grad()
def test_coded_bits_are_those_estimated(model: Stepwise) -> None:
    data, estimated = coded_and_estimated(model)
    # Quantisation of the scale costs up to 0.5 %, rounding at scales under 0.3 nothing that is expected.
    assert -0.005 < 8 * len(data) / estimated - 1 < 0.01
    assert len(data) > 2000


@torch.no_grad()
def test_another_network_is_refused(model: Stepwise) -> None:
    coded = model.compress(latent())
    other = copy.deepcopy(model)
    groups_of(other)[1].spatial.bias.add_(0.3)
    with pytest.raises(UserError, match="decoded symbols differ from the encoder's"):
        other.decompress(coded["strings"], coded["shape"], coded["symbols_crc32"])


def test_scales_start_where_asked(model: Stepwise) -> None:
    scales = torch.linspace(0.3, 5, sum(GROUPS))
    model.start_scales(scales)
    with torch.no_grad():
        for group in groups_of(model):
            group.aggregate[-1].weight.zero_()
        _, _, scale = model.walk(torch.randn(1, 16, 8, 12), dry)
    assert torch.equal(scale, scales[None, :, None, None].expand_as(scale))


@pytest.mark.parametrize("quantiser", ["mixed", "noise"])
def test_what_training_sees_and_rates(quantiser: str) -> None:
    made = build(spec(8, sum(GROUPS), groups=GROUPS, context_widths=[4, 4], quantiser=quantiser))
    training = loud(made.entropy_model).train()
    y = latent(batch=2).requires_grad_()
    side = torch.randn(2, 16, 8, 12)
    (first, likelihoods), (second, again) = training.estimate_y(y, side), training.estimate_y(y, side)
    assert not torch.equal(likelihoods, again), "the rate comes from noisy values"
    if quantiser == "mixed":
        assert torch.equal(first, second), "the networks must see rounded values"
        (gradient,) = torch.autograd.grad(first.sum(), y)
        # Straight through; what comes back through the means cancels.
        assert torch.allclose(gradient, torch.ones_like(gradient), atol=1e-3)
    else:
        assert (first - y).abs().max() <= 0.5
        assert not torch.equal(first, second)


@pytest.mark.parametrize("quantiser", ["mixed", "noise"])
def test_high_learning_rates_do_not_blow_up(quantiser: str) -> None:
    torch.manual_seed(0)
    codec = build(spec(8, 20, context_widths=[16, 12], quantiser=quantiser))
    losses = losses_at_a_high_rate(codec)
    assert max(losses) < 2 * losses[0]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": [16, 16]}, r"groups=\[16, 16\]: must be positive and sum to depth\.latent_channels=320"),
        ({"groups": [0, 320]}, r"groups=\[0, 320\]: must be positive"),
        ({"latent_channels": 4}, r"latent_channels=4: entropy_model=space_channel needs at least 5"),
        ({"context_widths": [0, 8]}, r"context_widths=\[0, 8\], side_channels=None: every width"),
        ({"side_channels": -1}, r"side_channels=-1: every width"),
        ({"side_channels": 0}, r"side_channels=0: every width must be at least 1"),
        ({"prior_filters": []}, r"prior_filters=\[\]: needs at least one width"),
    ],
)
def test_impossible_models_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spec(**changes)
