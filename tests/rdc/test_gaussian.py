"""The likelihood of y against CompressAI's, and its gradient where CompressAI's is zero."""

from collections.abc import Callable

import pytest
import torch
from compressai.entropy_models import GaussianConditional
from hypothesis import given
from hypothesis import strategies as st

from rdc.models.layers.gaussian import REACH, gaussian_likelihood

BOUNDS = {"scale_min": 0.11, "floor": 1e-9}


def compressai_likelihood(y: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    model = GaussianConditional(None, scale_bound=0.11)
    likelihood: torch.Tensor = model.likelihood_lower_bound(model._likelihood(y, scale, mean))
    return likelihood


def gradients(function: Callable[..., torch.Tensor], *values: torch.Tensor) -> list[torch.Tensor]:
    leaves = [value.clone().requires_grad_() for value in values]
    function(*leaves).log2().sum().neg().backward()
    grads = [leaf.grad for leaf in leaves]
    assert all(grad is not None for grad in grads)
    return [grad for grad in grads if grad is not None]


def ours(y: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return gaussian_likelihood(y, mean, scale, **BOUNDS)


@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0.3, 3.0, 30.0]))
def test_values_are_compressais(seed: int, spread: float) -> None:
    torch.manual_seed(seed)
    y, mean, scale = torch.randn(3, 2, 5, 4, 3).mul(spread).unbind()
    assert torch.equal(ours(y, mean, scale), compressai_likelihood(y, mean, scale))


@given(seed=st.integers(0, 2**31))
def test_gradients_are_compressais_within_reach(seed: int) -> None:
    torch.manual_seed(seed)
    scale = torch.rand(64) * 3 + 0.05  # some under the bound
    mean = torch.randn(64)
    # Up to four standard deviations, where fp32 differences of the CDF still hold four digits.
    y = mean + (torch.rand(64) * 2 - 1) * (4 * scale.clamp_min(0.11))
    expected = gradients(compressai_likelihood, y, mean, scale)
    for mine, theirs in zip(gradients(ours, y, mean, scale), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=2e-3)


def test_gradient_is_the_derivative_in_double_precision() -> None:
    torch.manual_seed(0)
    scale = (torch.rand(40, dtype=torch.double) * 2 + 0.2).requires_grad_()
    mean = torch.randn(40, dtype=torch.double, requires_grad=True)
    offset = (torch.rand(40, dtype=torch.double) * 2 - 1) * (0.9 * REACH) * scale.detach()
    y = (mean.detach() + offset).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *a: gaussian_likelihood(*a, scale_min=0.11, floor=1e-30), (y, mean, scale)
    )


@pytest.mark.parametrize("value", [2.0, 5.0, -40.0])
def test_a_hopeless_prediction_still_has_a_gradient(value: float) -> None:
    y, mean, scale = torch.tensor([value]), torch.zeros(1), torch.tensor([0.01])
    assert compressai_likelihood(y, mean, scale).item() == pytest.approx(1e-9)
    theirs = gradients(compressai_likelihood, y, mean, scale)
    assert max(float(gradient.abs()) for gradient in theirs) < 1e-25
    to_y, to_mean, to_scale = gradients(ours, y, mean, scale)
    assert float(to_scale) < 0, "a larger scale costs fewer bits"
    assert float(to_y) * value > 0, "a smaller symbol costs fewer bits"
    assert float(to_mean) == -float(to_y)
    assert all(gradient.isfinite().all() for gradient in (to_y, to_mean, to_scale))


def test_gradients_have_the_shapes_of_what_was_broadcast() -> None:
    y = torch.randn(2, 3, 4, 4)
    grads = gradients(ours, y, torch.zeros(()), torch.rand(1, 3, 1, 1) + 0.2)
    assert [gradient.shape for gradient in grads] == [y.shape, (), (1, 3, 1, 1)]


@pytest.mark.parametrize("scale", [10.0**exponent for exponent in range(3, 11)])
@pytest.mark.parametrize("value", [0.0, 2.0, 1e4, 1e8, -1e8])
def test_a_huge_scale_has_finite_gradients(scale: float, value: float) -> None:
    """The bin's mass is 0 in fp32 from scales of about 1e7 on."""
    y, mean, scales = torch.tensor([value]), torch.zeros(1), torch.tensor([scale])
    for gradient in gradients(ours, y, mean, scales):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1, "one bin's bits depend but weakly on either"
