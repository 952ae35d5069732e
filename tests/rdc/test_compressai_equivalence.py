"""CompressAI's own models, loaded here, must give the same numbers and the same bytes."""

from __future__ import annotations

from typing import Any

import compressai.models
import pytest
import torch

import conf
from rdc.checkpoint import load_compressai_state_dict
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.spec import COMPONENT_GROUPS, parse_model

REFERENCES = {
    "scale_hyperprior": compressai.models.ScaleHyperprior,
    "mean_scale_hyperprior": compressai.models.MeanScaleHyperprior,
}
N, M = 24, 36


def ours(preset: str, *overrides: str) -> Codec:
    config = conf.compose(
        [f"model={preset}", f"depth.channels=[{N},{N},{N}]", f"depth.latent_channels={M}", *overrides]
    )
    return build(parse_model({group: config[group] for group in (*COMPONENT_GROUPS, "depth")})).eval()


def reference(preset: str) -> Any:
    """Random weights, louder than an initialisation's, so that latents spread over many symbols."""
    torch.manual_seed(3)
    model = REFERENCES[preset](N, M)
    with torch.no_grad():
        model.g_a[6].weight.mul_(250)
        model.g_s[0].weight.mul_(0.01)
        for hyper in (model.h_a, model.h_s):
            for parameter in hyper.parameters():
                parameter.mul_(2.5)
        for norm in (model.g_a[1], model.g_s[1]):
            norm.gamma.add_(0.02 * torch.rand_like(norm.gamma))
            norm.beta.add_(0.2 * torch.rand_like(norm.beta))
    model.update(force=True)
    return model.eval()


@pytest.fixture(params=REFERENCES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Codec]:
    theirs, codec = reference(request.param), ours(request.param, "entropy_model.indexing=ceil")
    load_compressai_state_dict(codec, theirs.state_dict())
    return theirs, codec


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_reconstruction_and_likelihoods_agree(pair: tuple[Any, Codec], x: torch.Tensor) -> None:
    theirs, codec = pair
    expected, got = theirs(x), codec(x)
    assert codec.analysis(x).round().unique().numel() >= 50
    # Measured 0 on x86 with torch 2.15; the bound leaves room for other convolution kernels.
    assert (expected["x_hat"] - got["x_hat"]).abs().max() <= 1e-5
    for latent in ("y", "z"):
        assert (expected["likelihoods"][latent] - got["likelihoods"][latent]).abs().max() <= 1e-5


def test_bytes_agree_with_its_index_rule(pair: tuple[Any, Codec], x: torch.Tensor) -> None:
    theirs, codec = pair
    expected, got = theirs.compress(x), codec.compress(x)
    assert len(expected["strings"][0][0]) > 1000
    assert got["strings"] == expected["strings"]
    assert tuple(got["shape"]) == tuple(expected["shape"])
    decoded = codec.decompress(expected["strings"], expected["shape"])["x_hat"]
    assert (decoded - theirs.decompress(expected["strings"], expected["shape"])["x_hat"]).abs().max() <= 1e-5


@pytest.mark.parametrize("preset", REFERENCES)
def test_tables_built_here_are_its_tables(preset: str) -> None:
    theirs, codec = reference(preset), ours(preset)
    load_compressai_state_dict(codec, theirs.state_dict())
    codec.update(force=True)
    own = codec.state_dict()
    for key, expected in theirs.state_dict().items():
        if Codec.is_table(key):
            assert torch.equal(own[f"entropy_model.{key}"], expected), key


def test_older_names_load(pair: tuple[Any, Codec]) -> None:
    theirs, codec = pair
    old = {}
    for key, value in theirs.state_dict().items():
        for new_name, old_name in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
            key = key.replace(f"entropy_bottleneck.{new_name}", f"entropy_bottleneck.{old_name}")
        old[f"module.{key}"] = value
    assert "module.entropy_bottleneck._matrix0" in old
    fresh = build(codec.spec)
    load_compressai_state_dict(fresh, old)
    for key, value in codec.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


def test_weights_of_another_size_are_refused() -> None:
    with pytest.raises(UserError, match=r"the CompressAI state dict: does not fit .* needs \[36, 24, 5, 5\]"):
        load_compressai_state_dict(
            ours("scale_hyperprior"), compressai.models.ScaleHyperprior(24, 40).state_dict()
        )


def test_auxiliary_losses_agree(pair: tuple[Any, Codec]) -> None:
    theirs, codec = pair
    assert codec.aux_loss().item() == pytest.approx(theirs.aux_loss().item(), rel=1e-6)
