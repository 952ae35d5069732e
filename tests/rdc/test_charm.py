"""The channel-wise autoregressive entropy model against its definition, its published sizes and causality."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc.complexity import count, fvcore_macs, measure, on_meta
from rdc.errors import UserError
from rdc.models.codec import build
from rdc.models.layers import coding
from rdc.models.layers.hyperprior import Pick, dry
from rdc.models.layers.stepwise import Stepwise
from rdc.spec import ModelSpec, parse_model
from tests.rdc.shared import coded_and_estimated, losses_at_a_high_rate

PAPER_2020: dict[str, Any] = {"kernels": [5, 5, 3], "hyper": "separate", "side": "whole", "lrp": "add"}
SWINT_CHARM: dict[str, Any] = {"widths": None, "support": 0, "side": "sliced", "lrp": "none"}
FORMS: dict[str, dict[str, Any]] = {"study": {}, "2020": PAPER_2020, "swint_charm": SWINT_CHARM}


def spec(
    channels: int = 192, latent_channels: int = 320, hyper_transform: Any = None, **charm: Any
) -> ModelSpec:
    return parse_model(
        {
            "transform": {"name": "conv"},
            "entropy_model": {"name": "charm", **charm},
            "hyper_transform": {"name": "conv", **(hyper_transform or {})},
            "depth": {"channels": [channels] * 3, "latent_channels": latent_channels},
            "gating": {"name": "none"},
            "rate_control": {"name": "none"},
        }
    )


def small(**charm: Any) -> Stepwise:
    """Four slices of three channels, the last two with the same context; weights far from their start."""
    torch.manual_seed(0)
    charm = {"slices": 4, "support": 2, "widths": [10, 8], **charm}
    model: Stepwise = build(spec(8, 12, **charm)).entropy_model
    with torch.no_grad():
        for net in context_of(model).slices:
            for name, parameter in net.named_parameters():
                parameter.add_(0.5 * parameter.abs().mean() * torch.randn_like(parameter))
                if name in ("mean.4.weight", "scale.4.weight"):
                    parameter.mul_(10)  # as loud as the other layers
    model.update(update_quantiles=True)
    return model.eval()


def context_of(model: Stepwise) -> Any:
    return model.context


def latent(batch: int = 1, height: int = 8, width: int = 12) -> Tensor:
    return 4 * torch.randn(batch, 12, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=list(FORMS.values()), ids=list(FORMS))
def model(request: pytest.FixtureRequest) -> Stepwise:
    return small(**{**request.param, **({"support": 2} if request.param.get("support", 1) else {})})


def by_definition(model: Stepwise, charm: dict[str, Any], y: Tensor, side: Tensor) -> dict[str, Tensor]:
    """Slice after slice, as the papers write it: concatenated lists, no shared steps."""
    if charm.get("side", "projected") == "projected":
        side = context_of(model).project(side)
    scale_features, mean_features = side[:, :12], side[:, 12:]
    finished: list[Tensor] = []
    means, scales = [], []
    for i, net in enumerate(context_of(model).slices):
        own = slice(None) if charm.get("side") == "whole" else slice(3 * i, 3 * i + 3)
        support = finished if charm.get("support") == 0 else finished[:2]
        mean_support = torch.cat([mean_features[:, own], *support], 1)
        scale_support = torch.cat([scale_features[:, own], *support], 1)
        means.append(net.mean(mean_support))
        scales.append(net.scale(scale_support))
        q = torch.round(y[:, 3 * i : 3 * i + 3] - means[-1]) + means[-1]
        lrp = charm.get("lrp", "conv")
        if lrp != "none":
            r = 0.5 * torch.tanh(net.lrp(torch.cat([mean_support, q], 1)))
            q = q + r if lrp == "add" else net.merge(torch.cat([q, r], 1))
        finished.append(q)
    return {"y_hat": torch.cat(finished, 1), "mean": torch.cat(means, 1), "scale": torch.cat(scales, 1)}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_walk_is_the_papers_loop(form: str) -> None:
    model = small(**FORMS[form])
    y, side = latent(), 3 * torch.randn(1, 24, 8, 12, generator=torch.Generator().manual_seed(2))
    walked = model.walk(side, lambda pick, mean, scale: torch.round(pick(y) - mean) + mean)
    expected = by_definition(model, FORMS[form], y, side)
    for name, value in expected.items():
        assert torch.allclose(getattr(walked, name), value, atol=1e-5), name
    assert walked.mean.std() > 0.3, "the networks are too quiet for this test to mean anything"


# Parameters in millions and kFLOP/px of the slice networks, by layer-by-layer sums: per slice
# k^2 (in w1 + w1 w2) + k3^2 w2 s multiply-accumulates for each of its networks, in = (s or M) + context
# (+ s for LRP), 25 2 s s for the merge and 2 2M s for the projections, at a stride of 16.
SIZES = [
    ({"widths": [256, 160]}, 320, 24.068160, 187.92),  # models A, B and C, D of the study
    ({}, 320, 19.135680, 149.40),
    ({}, 160, 13.213440, 103.14),
    (PAPER_2020, 320, 96.989440, 757.64),
    (SWINT_CHARM, 320, 7.892236, 61.6201875),
]


@pytest.mark.parametrize(("charm", "latent_channels", "params_m", "kflop_per_px"), SIZES)
def test_sizes_of_the_slice_networks(
    charm: Any, latent_channels: int, params_m: float, kflop_per_px: float
) -> None:
    part = measure(spec(latent_channels=latent_channels, **charm)).to_dict()["parts"]["context"]
    assert part["params"] == round(params_m * 1e6)
    assert part["decode_parity_kflop_per_px"] == pytest.approx(kflop_per_px, rel=1e-9)
    assert part["decode_executed_kflop_per_px"] == pytest.approx(kflop_per_px, rel=1e-9)
    assert part["encode_parity_kflop_per_px"] == pytest.approx(kflop_per_px, rel=1e-9)


def test_size_of_the_model_of_2020() -> None:
    """tensorflow/compression's ms2020: 113.98 M parameters, 962.25 kFLOP/px, of which 17.22 in h_s."""
    hyper = {"analysis_channels": [320, 256, 192], "synthesis_channels": [192, 256], "z_bias": False}
    described = measure(spec(hyper_transform=hyper, **PAPER_2020)).to_dict()
    assert described["params"]["total"] / 1e6 == pytest.approx(113.98, rel=0.005)
    assert described["decode"]["parity_kflop_per_px"] == pytest.approx(962.25, rel=0.005)
    assert described["parts"]["h_s"]["decode_parity_kflop_per_px"] == pytest.approx(17.22, rel=0.005)


@torch.no_grad()
def test_separate_syntheses_end_in_relus() -> None:
    """By the 2020 script; the halves are of different networks."""
    model = small(**PAPER_2020)
    side = model.side(torch.randn(1, 8, 2, 3))
    assert side.shape == (1, 24, 8, 12)
    assert side.min() == 0
    assert not torch.equal(side[:, :12], side[:, 12:])


def test_widths_of_swint_charm() -> None:
    """Those of the authors' log, as Nikolai10/SwinT-ChARM lists them."""
    context = on_meta(spec(**SWINT_CHARM)).entropy_model.context
    widths = [(net.mean[0].out_channels, net.scale[2].out_channels) for net in context.slices]
    assert [first for first, _ in widths] == [64, 64, 85, 106, 128, 149, 170, 192, 213, 234]
    assert [second for _, second in widths] == [32, 32, 42, 53, 64, 74, 85, 96, 106, 117]


def test_two_counters_agree(model: Stepwise) -> None:
    class Networks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, side: Tensor) -> Tensor:
            return torch.cat(self.model.walk(side, dry), 1)

    side = torch.zeros(1, 24, 8, 12)
    counted = count(lambda: model.walk(side, dry), {"context": model.context})
    assert counted.flop["context"] == 2 * fvcore_macs(Networks(), side)


def gaussians(model: Stepwise, y: Tensor) -> tuple[Tensor, Tensor]:
    """(means, scales) by which y is coded."""
    side = torch.randn(1, 24, *y.shape[-2:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        _, mean, scale = model.walk(side, lambda pick, mean, scale: torch.round(pick(y) - mean) + mean)
    return mean, scale


@pytest.mark.parametrize("changed", range(4))
def test_no_slice_depends_on_itself_or_later_ones(model: Stepwise, changed: int) -> None:
    y = latent()
    other = y.clone()
    other[:, 3 * changed :] += 7 * torch.randn(1, 12 - 3 * changed, 8, 12)
    for one, two in zip(gaussians(model, y), gaussians(model, other), strict=True):
        assert torch.equal(one[:, : 3 * changed + 3], two[:, : 3 * changed + 3])
        if changed < 2:
            assert not torch.equal(one[:, 3 * changed + 3 :], two[:, 3 * changed + 3 :])


def test_support_ends_where_it_should() -> None:
    y = latent()
    other = y.clone()
    other[:, 6:9] += 5  # the third slice: within the support of the fourth only if that is unlimited
    for support, seen in ((2, False), (0, True), (3, True)):
        model = small(support=support)
        one, two = gaussians(model, y)[0], gaussians(model, other)[0]
        assert torch.equal(one[:, 9:], two[:, 9:]) != seen
    other = y.clone()
    other[:, 3:6] += 5
    model = small(support=2)
    assert not torch.equal(gaussians(model, y)[0][:, 9:], gaussians(model, other)[0][:, 9:])


@pytest.mark.parametrize(("support", "steps"), [(0, 10), (5, 6), (9, 10), (20, 10), (1, 2)])
def test_slices_with_the_same_context_share_a_step(support: int, steps: int) -> None:
    model = build(spec(8, 20, support=support, widths=[4, 4])).entropy_model.eval()
    visits = []

    def visit(pick: Pick, mean: Tensor, scale: Tensor) -> Tensor:
        visits.append(mean.shape[1])
        return mean

    model.walk(torch.zeros(1, 40, 4, 4), visit)
    assert model.serial_steps(4, 4) == steps == len(visits)
    assert sum(visits) == 20


@torch.no_grad()
def test_decoding_gives_what_evaluation_saw(model: Stepwise) -> None:
    y = latent(batch=2)
    seen = model(y)
    coded = model.compress(y)
    assert [len(strings) for strings in coded["strings"]] == [2, 2], "one stream for all slices, one for z"
    decoded = model.decompress(coded["strings"], coded["shape"], coded["symbols_crc32"])
    assert torch.equal(decoded, seen.y_hat)
    alone = model(y[1:])
    assert torch.equal(alone.y_hat, seen.y_hat[1:])
    assert torch.equal(alone.likelihoods["y"], seen.likelihoods["y"][1:])


@torch.no_grad()
def test_coded_bits_are_those_estimated() -> None:
    model = small(lrp="none")
    data, estimated = coded_and_estimated(model)
    # Quantisation of the scale costs up to 0.5 %, rounding at scales under 0.3 nothing that is expected.
    assert -0.005 < 8 * len(data) / estimated - 1 < 0.01
    assert len(data) > 2000


@pytest.mark.parametrize("kernels", [[1, 1, 1], [1, 3, 1], [3, 1, 3], [3, 3, 3], [5, 5, 3]])
@torch.no_grad()
def test_threads_change_no_sum_whatever_the_kernels(kernels: list[int]) -> None:
    """At sizes at which 1x1 layers on two threads add in another order."""
    torch.manual_seed(0)
    model = build(spec(64, 80, slices=2, support=1, kernels=kernels)).entropy_model
    threads = torch.get_num_threads()
    try:
        for size in ((8, 12), (12, 20)):
            side = torch.randn(1, 160, *size)
            seen = []
            for count_of_threads in (1, 2):
                torch.set_num_threads(count_of_threads)
                with coding.reproducible():
                    seen.append(model.walk(side, lambda pick, mean, scale: mean.round() + mean))
            assert all(torch.equal(one, two) for one, two in zip(*seen, strict=True))
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def test_another_network_is_refused(model: Stepwise) -> None:
    coded = model.compress(latent())
    other = copy.deepcopy(model)
    # One slice predicts other scales, as where a device rounds otherwise, only more so.
    context_of(other).slices[1].scale[-1].bias.add_(0.3)
    with pytest.raises(UserError, match="decoded symbols differ from the encoder's"):
        other.decompress(coded["strings"], coded["shape"], coded["symbols_crc32"])


def test_refinement_starts_without_influence() -> None:
    torch.manual_seed(0)
    model = build(spec(8, 20, widths=[4, 4])).entropy_model.eval()
    y = 5 * torch.randn(1, 20, 8, 8)
    with torch.no_grad():
        y_hat, mean, _ = model.walk(torch.randn(1, 40, 8, 8), lambda pick, mean, scale: pick(y))
    assert (y_hat - y).abs().max() < 0.01
    assert mean.abs().max() < 3


def test_scales_start_where_asked() -> None:
    model = small()
    scales = torch.linspace(0.3, 5, 12)
    model.start_scales(scales)
    with torch.no_grad():
        for net in context_of(model).slices:
            net.scale[-1].weight.zero_()
        _, _, scale = model.walk(torch.randn(1, 24, 8, 12), dry)
    assert torch.equal(scale, scales[None, :, None, None].expand_as(scale))


def test_a_fresh_model_has_live_scales() -> None:
    torch.manual_seed(0)
    model = build(spec(8, 20)).entropy_model
    scale = model.walk(model.h_s(torch.randn(1, 8, 4, 4)), dry).scale
    assert (scale > 0.11).float().mean() > 0.95


@pytest.mark.parametrize("quantiser", ["mixed", "noise"])
def test_what_training_sees_and_rates(quantiser: str) -> None:
    model = small(quantiser=quantiser, lrp="none").train()
    y = latent(batch=2).requires_grad_()
    side = torch.randn(2, 24, 8, 12)
    (first, likelihoods), (second, again) = model.estimate_y(y, side), model.estimate_y(y, side)
    assert not torch.equal(likelihoods, again), "the rate comes from noisy values"
    if quantiser == "mixed":
        assert torch.equal(first, second), "the networks must see rounded values"
        (gradient,) = torch.autograd.grad(first[:, :3].sum(), y)
        # Straight through for the first slice; what comes back through its mean cancels.
        assert torch.allclose(gradient[:, :3], torch.ones_like(gradient[:, :3]), atol=1e-5)
    else:
        assert (first - y).abs().max() <= 0.5
        assert not torch.equal(first, second)


@pytest.mark.parametrize("quantiser", ["mixed", "noise"])
def test_high_learning_rates_do_not_blow_up(quantiser: str) -> None:
    torch.manual_seed(0)
    codec = build(spec(8, 20, widths=[16, 12], quantiser=quantiser))
    losses = losses_at_a_high_rate(codec)
    assert max(losses) < 2 * losses[0]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("charm", "message"),
    [
        ({"slices": 7}, r"slices=7: depth\.latent_channels=320 does not divide into so many"),
        ({"slices": 0}, r"slices=0: depth"),
        ({"support": -1}, r"support=-1: must be at least 0"),
        ({"widths": [0, 8]}, r"widths=\[0, 8\]: every entry must be at least 1"),
        ({"kernels": [3, 4, 3]}, r"kernels=\[3, 4, 3\]: every entry must be odd"),
        ({"prior_filters": []}, r"prior_filters=\[\]: needs at least one width"),
        ({"lrp": "mul"}, r"lrp='mul': input should be 'none', 'add' or 'conv'"),
    ],
)
def test_impossible_models_are_one_clear_line(charm: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spec(**charm)
