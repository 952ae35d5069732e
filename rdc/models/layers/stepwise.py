"""Entropy models that go through y in a few steps, with networks between them."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdc.models.layers.hyperprior import Hyperprior, Pick, Visit, Walked, dry


class Step(NamedTuple):
    """Symbols that are coded together: where they are in y, and their Gaussians."""

    pick: Pick
    mean: Tensor
    scale: Tensor


@dataclasses.dataclass
class State:
    """How far a walk has come. y_hat, mean, scale: of the channels that are done, in pieces.

    counting: nothing will be coded, so that a network may run in its published form.
    pending: what a context keeps from one step for the next one.
    """

    side: Tensor
    counting: bool
    y_hat: list[Tensor] = dataclasses.field(default_factory=list)
    mean: list[Tensor] = dataclasses.field(default_factory=list)
    scale: list[Tensor] = dataclasses.field(default_factory=list)
    step: int = 0
    pending: Any = None


class Context(nn.Module, abc.ABC):
    """The networks that see side information and earlier symbols; called between the steps of a walk."""

    @abc.abstractmethod
    def forward(self, state: State, q: Tensor | None) -> Step | None:
        """Take the decoded values of the step before (none before the first), give the next step, if any."""

    @abc.abstractmethod
    def serial_steps(self) -> int:
        """Steps of a walk."""

    @abc.abstractmethod
    def start_scales(self, scales: Tensor) -> None:
        """As `Hyperprior.start_scales`."""


class Stepwise(Hyperprior):
    """y in a fixed number of steps, whose Gaussians a context makes of h_s's output and of earlier steps.

    Coding happens outside of the context's calls, so that its time is that of networks alone.
    """

    def __init__(self, context: Context, **options: Any) -> None:
        super().__init__(**options)
        self.context = context

    def walk(self, side: Tensor, visit: Visit) -> Walked:
        """Ask the context for one step after another."""
        state = State(side, counting=visit is dry)
        step = self.context(state, None)
        while step is not None:
            step = self.context(state, visit(*step))
        return Walked(torch.cat(state.y_hat, 1), torch.cat(state.mean, 1), torch.cat(state.scale, 1))

    def serial_steps(self, height: int, width: int) -> int:
        """The same for every size."""
        return self.context.serial_steps()

    def start_scales(self, scales: Tensor) -> None:
        self.context.start_scales(scales)

    def parts(self) -> dict[str, nn.Module]:
        return {**super().parts(), "context": self.context}
