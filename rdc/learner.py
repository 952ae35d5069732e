"""One training step and all that it changes: the weights, both optimisers, the average of the weights."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rdc.ddp import Alone
from rdc.loss import RateDistortion, rate_weight, training_loss
from rdc.memory import WAY_OUT, OutOfMemory, first_words, where_memory_ran_out
from rdc.models.codec import Codec
from rdc.spec import Recipe

STATISTICS = ("loss", "bpp", "mse", "distortion", "aux_loss")
_ADAM_BETAS = (0.9, 0.999)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Rate of the step with this number, counted from 0: a linear warm-up, then the recipe's schedule."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant_then_drop":
        return recipe.learning_rate if step < recipe.drop_at * recipe.steps else recipe.final_learning_rate
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return recipe.final_learning_rate + share * (recipe.learning_rate - recipe.final_learning_rate)


def ema_decay(recipe: Recipe, step: int) -> float:
    """Decay of the average after this step; smaller at first, so that the start is forgotten."""
    return min(recipe.ema_decay, (1 + step) / (10 + step))


class Learner:
    """The codec in training. rate_scale lowers the learning rate after a divergence.

    micro_batch: images per forward pass; gradients of several passes add up to those of the whole batch.
    team: the processes that share each batch; every one ends each step with the same weights.
    """

    def __init__(
        self, codec: Codec, recipe: Recipe, *, lmbda: float, seed: int, team: Alone | None = None
    ) -> None:
        self.codec = codec
        self.recipe = recipe
        self.lmbda = lmbda
        self.seed = seed
        self.rate_scale = 1.0
        self.micro_batch = recipe.batch_size
        self._team = team or Alone()
        quantiles = {name for name, _ in codec.named_parameters() if name.endswith("quantiles")}
        self._weights = {name: p for name, p in codec.named_parameters() if name not in quantiles}
        self._quantiles = {name: p for name, p in codec.named_parameters() if name in quantiles}
        thresholds = codec.gate_parameters()
        self._clipped = [p for name, p in self._weights.items() if name not in thresholds]
        self._device = next(codec.parameters()).device
        self._optimizer = _optimizer(codec, list(self._weights), recipe)
        self._aux_optimizer = torch.optim.Adam(
            self._quantiles.values(), lr=recipe.aux_learning_rate, betas=_ADAM_BETAS, fused=True
        )
        self._average = [p.detach().clone() for p in self._weights.values()] if recipe.ema_decay else []

    def update(self, x: Tensor, step: int) -> Tensor:
        """One step on x, (B, 3, H, W) in [0, 1]; returns STATISTICS as a tensor, without waiting for it.

        x: of a batch that a team shares, this process's images. step counts from 0 and, with the seed and the
        place of an image in the batch, decides the noise: a resumed run draws the same. An error of memory
        leaves everything as it was before the step, except OutOfMemory.
        """
        statistics = self._gradients(x, step)
        try:
            self._team.add_up([p.grad for p in self._parameters() if p.grad is not None], statistics)
            self._apply(step)
        except (MemoryError, RuntimeError) as error:
            place = where_memory_ran_out(error)
            if place is None:
                raise
            raise OutOfMemory(
                f"{place} memory ran out in the optimiser at step {step} ({first_words(error)}); {WAY_OUT}"
            ) from error
        return statistics

    def _gradients(self, x: Tensor, step: int) -> Tensor:
        """Put this process's part of the gradients into the parameters; returns its part of STATISTICS."""
        weight = rate_weight(step, self.recipe.rate_ramp_steps)
        batch_size, first = self._team.place(len(x), self.recipe.batch_size)
        self._optimizer.zero_grad(set_to_none=True)
        self._aux_optimizer.zero_grad(set_to_none=True)
        statistics = torch.zeros(len(STATISTICS), device=self._device)
        for part in x.split(self.micro_batch):
            self._seed_noise(step, first)
            terms = self._terms(part, step, first, weight)
            share = len(part) / batch_size
            (terms.loss * share).backward()
            statistics[:4] += torch.stack(terms).detach() * share
            first += len(part)
        if self._team.is_first:
            # These depend on no image: once for the team.
            aux_loss = self.codec.aux_loss()
            aux_loss.backward()
            statistics[4] = aux_loss.detach()
            penalty = self.codec.gate_penalty()
            if penalty is not None:
                penalty.backward()
                statistics[0] += penalty.detach()
        else:
            for p in self._quantiles.values():
                p.grad = torch.zeros_like(p)
        return statistics

    def _terms(self, x: Tensor, step: int, first: int, weight: float) -> RateDistortion:
        """Of images whose first has this place in the whole batch; variable rate: each with its own lmbda."""
        if self.codec.rate_control is None:
            return training_loss(self.codec(x), x, self.lmbda, rate_weight=weight)
        params = self.codec.spec.rate_control
        lmbdas = params.lmbdas_of_images(first, len(x), seed=self.seed, step=step)
        output = self.codec(x, [params.code_of(lmbda) for lmbda in lmbdas])
        return training_loss(output, x, lmbdas, rate_weight=weight)

    def _apply(self, step: int) -> None:
        nn.utils.clip_grad_norm_(self._clipped, self.recipe.grad_clip_norm, foreach=True)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group.get("rate_factor", 1.0)
        self._optimizer.step()
        self._aux_optimizer.step()
        if self._average:
            weights = [p.detach() for p in self._weights.values()]
            torch._foreach_lerp_(self._average, weights, 1.0 - ema_decay(self.recipe, step))

    def _parameters(self) -> list[nn.Parameter]:
        return [*self._weights.values(), *self._quantiles.values()]

    def learning_rate(self, step: int) -> float:
        return self.rate_scale * learning_rate(self.recipe, step)

    def is_finite(self) -> bool:
        """Whether every weight is a number; waits for the device."""
        norms = torch._foreach_norm([p.detach() for p in self._weights.values()])
        return bool(torch.stack(norms).isfinite().all())

    def state(self) -> dict[str, Any]:
        """A copy of all that `update` changes, as tensors and plain values only."""
        state = {
            "weights": {name: p.detach() for name, p in self.codec.named_parameters()},
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "aux_optimizer": self._aux_optimizer.state_dict(),
            "rate_scale": self.rate_scale,
            "micro_batch": self.micro_batch,
        }
        return copy.deepcopy(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Back to what `state` returned, which stays untouched."""
        state = copy.deepcopy(state)  # the optimisers keep the tensors that they are given
        _copy_weights(self.codec, state["weights"])
        for average, saved in zip(self._average, state["average"], strict=True):
            average.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._aux_optimizer.load_state_dict(state["aux_optimizer"])
        self.rate_scale = state["rate_scale"]
        self.micro_batch = state["micro_batch"]

    def adopt_average(self) -> None:
        """Put the averaged weights, if the recipe asks for them, into the codec for good."""
        if self._average:
            _copy_weights(self.codec, dict(zip(self._weights, self._average, strict=True)))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Codec]:
        """The codec as it would be saved now; whatever the block does to its weights is undone after it."""
        before = {name: p.detach().clone() for name, p in self.codec.named_parameters()}
        was_training = self.codec.training
        self.adopt_average()
        try:
            yield self.codec.eval()
        finally:
            _copy_weights(self.codec, before)
            self.codec.train(was_training)

    def _seed_noise(self, step: int, first: int) -> None:
        """first: place in the whole batch of the first image of a pass, whichever process runs it."""
        # torch keeps only 32 bits of a CPU seed, so all numbers are mixed into 32 bits.
        numbers = (self.seed, step, first) if first else (self.seed, step)
        mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
        if self._device.type == "cuda":
            torch.cuda.manual_seed(mixed)
        else:
            torch.default_generator.manual_seed(mixed)


def _optimizer(codec: Codec, names: list[str], recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay acts on the kernels of convolutions and linear layers only; gates have their own rate."""
    kernels = {
        id(layer.weight)
        for layer in codec.modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    }
    thresholds = codec.gate_parameters()
    parameters = [p for name, p in codec.named_parameters() if name in set(names) - set(thresholds)]
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    if not recipe.weight_decay and not thresholds:
        return kind(parameters, lr=recipe.learning_rate, betas=_ADAM_BETAS, weight_decay=0.0, fused=True)
    groups = [
        {"params": [p for p in parameters if id(p) in kernels], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if id(p) not in kernels], "weight_decay": 0.0},
    ]
    if thresholds:
        factor = codec.spec.gating.alpha_rate_factor
        groups.append({"params": list(thresholds.values()), "weight_decay": 0.0, "rate_factor": factor})
    return kind(groups, lr=recipe.learning_rate, betas=_ADAM_BETAS, fused=True)


@torch.no_grad()
def _copy_weights(codec: Codec, weights: dict[str, Tensor]) -> None:
    parameters = dict(codec.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
