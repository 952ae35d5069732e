"""Pixel metrics against hand-computed numbers, and MS-SSIM against an independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytorch_msssim
import skimage.data
import skimage.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdc.metrics import (
    MS_SSIM_MIN_SIDE_PX,
    _blur,
    _ssim_terms,
    finite_or_none,
    ms_ssim,
    ms_ssim_db,
    mse,
    psnr_db,
    to_8bit,
)


def image(height_px: int = 192, width_px: int = 256) -> torch.Tensor:
    """A photo, (3, H, W) in [0, 1], on the 8-bit grid."""
    pixels = np.ascontiguousarray(skimage.data.astronaut()[:height_px, :width_px])
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def noisy(x: torch.Tensor, strength: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return to_8bit(x + strength * torch.randn(x.shape, generator=generator))


def test_psnr_of_an_error_of_one_grey_level() -> None:
    x = torch.zeros(1, 3, 4, 4)
    # 20 log10(255) = 48.1308 dB, by hand
    assert psnr_db(mse(x, x + 1 / 255)) == pytest.approx(48.1308, abs=1e-4)


def test_an_exact_image_has_infinite_psnr_which_json_gets_as_none() -> None:
    x = image()
    assert mse(x, x) == 0.0
    assert psnr_db(0.0) == math.inf
    assert finite_or_none(psnr_db(0.0)) is None
    assert finite_or_none(math.nan) is None
    assert finite_or_none(None) is None
    assert finite_or_none(31.5) == 31.5
    assert ms_ssim_db(1.0) == math.inf
    # -10 log10(0.05) = 13.0103 dB, by hand
    assert ms_ssim_db(0.95) == pytest.approx(13.0103, abs=1e-4)


@given(st.floats(-2, 3, width=32))
def test_pixels_are_clipped_and_rounded_to_the_nearest_of_256(value: float) -> None:
    got = float(to_8bit(torch.tensor(value)))
    levels = np.arange(256) / 255
    assert np.abs(levels - got).min() < 1e-6
    # Truncating instead would be off by up to a whole level.
    assert abs(got - min(max(value, 0.0), 1.0)) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("strength", [0.01, 0.05, 0.3])
def test_ms_ssim_equals_the_library_that_compressai_uses(strength: float) -> None:
    x = image()
    x_hat = noisy(x, strength)
    expected = pytorch_msssim.ms_ssim(x[None], x_hat[None], data_range=1.0).item()
    assert ms_ssim(x, x_hat) == pytest.approx(expected, abs=5e-6)


def test_one_scale_equals_scikit_image() -> None:
    x, x_hat = image()[0], noisy(image(), 0.05)[0]
    luminance, contrast = _ssim_terms(x, x_hat)
    _, expected = skimage.metrics.structural_similarity(
        x.double().numpy(),
        x_hat.double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    assert np.allclose((luminance * contrast).numpy(), expected[5:-5, 5:-5], atol=2e-4)


def test_the_window_keeps_a_constant_and_the_mean_of_a_ramp() -> None:
    assert torch.allclose(_blur(torch.full((20, 30), 0.3)), torch.full((10, 20), 0.3), atol=1e-6)
    ramp = torch.arange(30.0).expand(20, 30)
    assert torch.allclose(_blur(ramp), ramp[5:-5, 5:-5], atol=1e-4)


def test_ms_ssim_is_undefined_below_161_pixels_and_only_there() -> None:
    # Four halvings must leave an 11-pixel window: ceil(161 / 16) = 11, ceil(160 / 16) = 10.
    assert MS_SSIM_MIN_SIDE_PX == 161
    small, large = image(height_px=160, width_px=300), image(height_px=161, width_px=300)
    assert ms_ssim(small, noisy(small, 0.05)) is None
    value = ms_ssim(large, noisy(large, 0.05))
    assert value is not None
    assert 0 < value < 1


def test_ms_ssim_of_equal_images_is_one_and_falls_with_noise() -> None:
    x = image(height_px=201, width_px=177)
    values = [ms_ssim(x, noisy(x, strength)) for strength in (0.02, 0.05, 0.1)]
    assert ms_ssim(x, x) == pytest.approx(1.0, abs=1e-6)
    assert values == sorted(values, key=lambda value: -value if value is not None else 0)


def test_opposite_contrast_counts_as_nothing_not_as_a_complex_number() -> None:
    x = image()
    value = ms_ssim(x, 1 - x)
    assert value == pytest.approx(0.0, abs=1e-3)
