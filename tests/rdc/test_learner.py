"""One training step: schedules, the split of parameters, the average, exact restoring."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from rdc.learner import Learner, ema_decay, learning_rate
from rdc.models.codec import build
from rdc.spec import Recipe

COSINE = Recipe(
    steps=100,
    batch_size=4,
    crop_px=64,
    learning_rate=1e-3,
    schedule="cosine",
    final_learning_rate=1e-5,
    warmup_steps=10,
)


def learner_of(make_trial: Any, **changes: Any) -> Learner:
    spec, _ = make_trial(**changes)
    torch.manual_seed(spec.seed)
    codec = build(spec.model).train()
    codec.set_transform_precision(spec.precision)
    return Learner(codec, spec.recipe, lmbda=spec.lmbda, seed=spec.seed)


def batch(seed: int = 0, size: int = 2) -> torch.Tensor:
    return torch.rand(size, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.codec.named_parameters()}


def test_the_cosine_schedule_by_hand() -> None:
    assert learning_rate(COSINE, 0) == pytest.approx(1e-4)
    assert learning_rate(COSINE, 9) == pytest.approx(1e-3)
    assert learning_rate(COSINE, 10) == pytest.approx(1e-3)
    # Half way between 10 and 100: the mean of peak and end.
    assert learning_rate(COSINE, 55) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(COSINE, 99) == pytest.approx(1e-5, rel=0.05)


def test_the_constant_schedule_drops_once() -> None:
    recipe = dataclasses.replace(COSINE, schedule="constant_then_drop", warmup_steps=0, drop_at=0.9)
    assert {learning_rate(recipe, step) for step in range(90)} == {1e-3}
    assert {learning_rate(recipe, step) for step in range(90, 100)} == {1e-5}


def test_the_average_forgets_its_start() -> None:
    recipe = dataclasses.replace(COSINE, ema_decay=0.9)
    assert ema_decay(recipe, 0) == pytest.approx(0.1)
    assert ema_decay(recipe, 1000) == 0.9


def test_a_step_moves_weights_by_the_loss_and_quantiles_by_the_auxiliary_loss_alone(make_trial: Any) -> None:
    learner = learner_of(make_trial, aux_learning_rate=0.0)
    before = weights(learner)
    learner.update(batch(), 0)
    moved = {name for name, p in weights(learner).items() if not torch.equal(p, before[name])}
    still = set(before) - moved
    assert {name for name in before if name.endswith("quantiles")} <= still
    assert "g_a.0.weight" in moved
    assert "entropy_model.entropy_bottleneck.matrices.0" in moved

    learner = learner_of(make_trial)
    learner.rate_scale = 0.0
    before = weights(learner)
    learner.update(batch(), 0)
    moved = {name for name, p in weights(learner).items() if not torch.equal(p, before[name])}
    assert moved == {"entropy_model.entropy_bottleneck.quantiles"}


def test_statistics_are_those_of_the_batch(make_trial: Any) -> None:
    learner = learner_of(make_trial, rate_ramp_steps=10)
    loss, bpp, mse, distortion, aux_loss = learner.update(batch(), 0).tolist()
    assert distortion == pytest.approx(0.013 * 255**2 * mse, rel=1e-5)
    assert loss == pytest.approx(0.1 * bpp + distortion, rel=1e-5)
    assert bpp > 0
    assert aux_loss > 0


def test_micro_batches_add_up_to_the_batch(make_trial: Any) -> None:
    # Noise is drawn per pass, so only the distortion of the noise-free analysis can be compared: use the
    # gradient of a quantity without noise, the mean over parts weighted by their size.
    whole, parts = (learner_of(make_trial, batch_size=3) for _ in range(2))
    parts.micro_batch = 2
    one, other = (learner.update(batch(size=3), 0) for learner in (whole, parts))
    assert other[2].item() == pytest.approx(one[2].item(), rel=0.05)
    assert other[0].item() == pytest.approx(one[0].item(), rel=0.05)


def test_the_same_step_gives_the_same_weights_and_another_seed_does_not(make_trial: Any) -> None:
    first, second, other = (learner_of(make_trial) for _ in range(3))
    other.seed = 1
    for learner in (first, second, other):
        torch.rand(7)  # what the process drew before must not matter
        learner.update(batch(), 3)
    names = list(weights(first))
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in names)
    assert not all(torch.equal(weights(first)[name], weights(other)[name]) for name in names)


def test_restoring_is_exact_and_leaves_the_snapshot_alone(make_trial: Any) -> None:
    learner = learner_of(make_trial, ema_decay=0.9)
    for step in range(2):
        learner.update(batch(step), step)
    state = learner.state()
    learner.update(batch(2), 2)
    expected = weights(learner)
    for _ in range(2):
        learner.restore(state)
        learner.update(batch(2), 2)
        assert all(torch.equal(p, expected[name]) for name, p in weights(learner).items())


def test_the_averaged_codec_is_lent_and_taken_back(make_trial: Any) -> None:
    learner = learner_of(make_trial, ema_decay=0.9)
    for step in range(3):
        learner.update(batch(step), step)
    before = weights(learner)
    with learner.averaged() as codec:
        assert not codec.training
        assert not torch.equal(codec.get_parameter("g_a.0.weight"), before["g_a.0.weight"])
        with torch.no_grad():
            codec.entropy_model.entropy_bottleneck.quantiles.zero_()
    assert learner.codec.training
    assert all(torch.equal(p, before[name]) for name, p in weights(learner).items())


def test_the_average_follows_its_definition(make_trial: Any) -> None:
    learner = learner_of(make_trial, ema_decay=0.3)
    name = "g_a.0.weight"
    expected = weights(learner)[name]
    for step in range(4):
        learner.update(batch(step), step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(learner)[name]
    learner.adopt_average()
    assert torch.allclose(weights(learner)[name], expected, atol=1e-7)


def test_weight_decay_spares_biases_and_normalisation(make_trial: Any) -> None:
    learner = learner_of(make_trial, optimizer="adamw", weight_decay=0.1)
    decayed = {
        id(p): group["weight_decay"] for group in learner._optimizer.param_groups for p in group["params"]
    }
    by_name = {name: decayed[id(p)] for name, p in learner.codec.named_parameters() if id(p) in decayed}
    assert by_name["g_a.0.weight"] == 0.1
    assert by_name["g_a.0.bias"] == 0.0
    assert by_name["g_a.1.gamma"] == 0.0
    assert by_name["entropy_model.entropy_bottleneck.matrices.0"] == 0.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_the_loss_in_both_precisions(make_trial: Any, precision: str) -> None:
    learner = learner_of(make_trial, precision=precision, learning_rate=1e-2)
    # Dark images, while an untrained codec gives mid-grey.
    losses = [learner.update(0.3 * batch(), step)[0].item() for step in range(12)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_broken_weight_is_noticed(make_trial: Any) -> None:
    learner = learner_of(make_trial)
    assert learner.is_finite()
    with torch.no_grad():
        learner.codec.get_parameter("g_s.0.bias")[0] = float("nan")
    assert not learner.is_finite()
