"""The wavelet start: a codec that already codes before its first step."""

import pytest
import torch

from rdc.errors import UserError
from rdc.models.codec import build
from rdc.models.layers.wavelet import COLOURS, HAAR, PIXEL_VARIANCE, Band, _split, start_as_wavelet
from rdc.models.transform import conv
from rdc.spec import Depth, ModelSpec, component
from tests.rdc.shared import psnr_db, smooth_image

REFUSAL = r"transform=conv has no strided layers .* use budget\.initialisation=random"


def make_spec(entropy_model: str = "mean_scale_hyperprior", *, channels: int, latent: int) -> ModelSpec:
    return ModelSpec(
        transform=conv.Params(),
        entropy_model=component("entropy_model", entropy_model).Params(),
        hyper_transform=component("hyper_transform", "conv").Params(),
        depth=Depth(channels=(channels,) * 3, latent_channels=latent),
        gating=component("gating", "none").Params(),
        rate_control=component("rate_control", "none").Params(),
    )


def test_haar_and_colours_are_orthogonal() -> None:
    rows = HAAR.reshape(4, 4)
    assert torch.allclose(rows @ rows.T, torch.eye(4))
    gram = COLOURS @ COLOURS.T
    assert torch.equal(gram, torch.diag(gram.diagonal()))


def test_bands_share_the_variance_of_their_source() -> None:
    # (1+r)^2 + 2 (1-r^2) + (1-r)^2 = 4: an orthonormal transform of four pixels keeps their energy.
    assert sum(b.variance for b in _split([Band(0.06, 0.95)])) == pytest.approx(4 * 0.06)
    assert len(_split([Band(v, 0.9) for v in PIXEL_VARIANCE])) == 12


@pytest.mark.parametrize("entropy_model", ["scale_hyperprior", "mean_scale_hyperprior"])
def test_an_untrained_codec_already_reconstructs(entropy_model: str) -> None:
    torch.manual_seed(0)
    codec = build(make_spec(entropy_model, channels=24, latent=48)).eval()
    x = smooth_image()
    random_db = psnr_db(x, codec(x)["x_hat"].detach())
    start_as_wavelet(codec)
    wavelet_db = psnr_db(x, codec(x)["x_hat"].detach())
    assert random_db < 20 < 26 < wavelet_db


def test_the_scales_start_at_the_bands_expected_spread() -> None:
    codec = build(make_spec(channels=16, latent=32))
    start_as_wavelet(codec)
    bias = codec.entropy_model.h_s[-1].bias.detach()
    # Four levels of the luma low-pass band: 0.06 * (1.95^2)^4 = 12.54; its root times the gain of 3 is 10.62.
    assert float(bias[0]) == pytest.approx(10.62, abs=0.01)
    assert bool((bias[:32].diff() <= 0).all()), "bands come by falling variance"


def test_a_transform_without_strided_layers_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = build(make_spec(channels=8, latent=8))
    monkeypatch.delattr(conv, "strided_layers")
    with pytest.raises(
        UserError,
        match=REFUSAL,
    ):
        start_as_wavelet(codec)
