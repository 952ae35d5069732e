"""The loss in CompressAI's convention, by hand."""

from __future__ import annotations

import pytest
import torch

from rdc.loss import bits, rate_weight, rd_loss, training_loss


def test_rd_loss_by_hand() -> None:
    # 0.5 + 0.013 * 65025 * 0.001 = 0.5 + 0.845325
    assert rd_loss(0.5, 0.001, 0.013) == pytest.approx(1.345325)
    assert rd_loss(0.5, 0.001, 0.013, rate_weight=0.2) == pytest.approx(0.945325)


def test_bits_are_per_source_pixel_of_the_batch() -> None:
    # y: 8 symbols of 1/4 = 16 bit, z: 2 symbols of 1/8 = 6 bit; 2 images of 4 x 4 pixels: 22 / 32 bpp.
    likelihoods = {"y": torch.full((2, 1, 2, 2), 0.25), "z": torch.full((2, 1, 1, 1), 0.125)}
    x = torch.zeros(2, 3, 4, 4)
    x_hat = torch.full_like(x, 0.1)
    assert bits(likelihoods).item() == pytest.approx(22.0)
    terms = training_loss({"x_hat": x_hat, "likelihoods": likelihoods}, x, 0.01)
    assert terms.bpp.item() == pytest.approx(22 / 32)
    assert terms.mse.item() == pytest.approx(0.01)
    assert terms.loss.item() == pytest.approx(22 / 32 + 0.01 * 65025 * 0.01, rel=1e-6)


def test_the_rate_weight_reaches_one_at_the_end_of_its_ramp() -> None:
    assert [rate_weight(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rate_weight(0, 0) == 1.0
