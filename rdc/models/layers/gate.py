"""Gates in front of convolutions: input channels that carry little are left out of the sum.

A gated convolution has one meaning and two ways to compute it. Masked, in training: the closed channels are
multiplied by zero, which costs as much as the whole convolution and lets gradients reach the gate. Gathered,
in evaluation mode: only the open channels of activations and weights are read. On meta tensors, on the
reference graph and where every channel is open it is the plain convolution, bit for bit.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.models.layers.channels import mean_squares, select
from rdc.models.layers.conv import ImageDeconv
from rdc.models.layers.graph import is_reference
from rdc.models.layers.pointwise import PointwiseConv, conv1x1

IMAGE_CHANNELS = 3  # a convolution that sees the image itself is never gated
SLOPE = 4.0  # of the sigmoid whose derivative stands for that of the step
FLOOR = 1e-6  # of a layer's mean energy: what a silent channel counts in its geometric mean
_TINY = 1e-12

Path = Literal["masked", "gathered"]
_evaluated_by: ContextVar[Path] = ContextVar("evaluated_by", default="gathered")
_log: ContextVar[list[Decision] | None] = ContextVar("decisions", default=None)


class Step(torch.autograd.Function):
    """1 where margin > 0 or always_open, else 0; its gradient is that of a sigmoid of the margin."""

    @staticmethod
    def forward(ctx: Any, margin: Tensor, always_open: Tensor) -> Tensor:
        ctx.save_for_backward(margin)
        return ((margin > 0) | always_open).to(margin.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (margin,) = ctx.saved_tensors
        (grad,) = grad_outputs
        s = torch.sigmoid(SLOPE * margin)
        return grad * SLOPE * s * (1 - s), None


class Gate(nn.Module, abc.ABC):
    """Decides per image which channels a convolution sees."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) -> factors of 0 and 1, (B, C), with a gradient where the gate has one."""

    @abc.abstractmethod
    def decide(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x: (B, C, H, W) -> (open channels, (B, C) bool; their energies, if the decision needed them)."""


class EnergyGate(Gate):
    """Open where a channel's energy exceeds alpha times that of other channels (Yin et al., ICASSP 2022).

    th_c = alpha_c * r_c. r is the geometric mean of the energies of the whole layer, or, with a number of
    neighbours, sum_k w_k e_(c+k), with w a softmax. It is never negative, so that a larger alpha never opens
    a channel. alpha_c <= 0 keeps it open; the start, alpha = 0, is no gate at all. Open channels keep their
    values: nothing is rescaled.

    alpha: (channels,). kernel: the logits of w, over an odd number of neighbours; None without.
    """

    def __init__(self, channels: int, *, neighbours: int | None = None) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.kernel = None if neighbours is None else nn.Parameter(torch.zeros(neighbours))

    def forward(self, x: Tensor) -> Tensor:
        e = mean_squares(x)
        always_open = self.alpha <= 0
        # What cannot close takes no gradient to x: without thresholds training is the ungated network's.
        e = torch.where(always_open, e.detach(), e)
        gates: Tensor = Step.apply(self._margin(e), always_open)
        return gates

    def decide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        e = mean_squares(x)
        return (self._margin(e) > 0) | (self.alpha <= 0), e

    def _margin(self, e: Tensor) -> Tensor:
        """How far each energy is above its threshold, of the same size for loud and quiet layers."""
        reference = self._reference(e)
        return (e - self.alpha * reference) / (reference + _TINY)

    def _reference(self, e: Tensor) -> Tensor:
        """(B, C) -> (B, C) or (B, 1), in the unit of e."""
        if self.kernel is None:
            # Channels that are zero count as ones a million times below the mean, not as minus infinity.
            floor = FLOOR * e.mean(1, keepdim=True) + torch.finfo(e.dtype).tiny
            return (e + floor).log().mean(1, keepdim=True).exp()
        reach = self.kernel.numel() // 2
        padded = F.pad(e, (reach, reach), mode="replicate")
        return (padded.unfold(1, self.kernel.numel(), 1) * self.kernel.softmax(0)).sum(2)

    def extra_repr(self) -> str:
        return f"{self.alpha.numel()}, neighbours={None if self.kernel is None else self.kernel.numel()}"


class FixedGate(Gate):
    """The same open channels for every image, known before any."""

    opened: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("opened", torch.ones(channels, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        return self.opened.to(torch.float32).expand(len(x), -1)

    def decide(self, x: Tensor) -> tuple[Tensor, None]:
        return self.opened.expand(len(x), -1), None


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What one gate decided for one batch. macs_per_channel: of one open input channel, for one image."""

    gate: Gate
    opened: Tensor
    energies: Tensor | None
    macs_per_channel: int


@contextlib.contextmanager
def decisions() -> Iterator[list[Decision]]:
    """What the gates decide inside, in the order in which they are asked; evaluation mode only."""
    log: list[Decision] = []
    token = _log.set(log)
    try:
        yield log
    finally:
        _log.reset(token)


@contextlib.contextmanager
def evaluated_by(path: Path) -> Iterator[None]:
    """Which of the two ways evaluation mode takes inside; gathered elsewhere."""
    token = _evaluated_by.set(path)
    try:
        yield
    finally:
        _evaluated_by.reset(token)


class Gated(nn.Module, abc.ABC):
    """What gated convolutions share, in front of the class of convolution that each one is.

    They take over the parameters of the layer that they replace, and its names in a state dict.
    """

    channel_gate: Gate
    weight: Tensor
    bias: Tensor | None
    in_channels: int
    out_channels: int

    def __init__(self, layer: nn.Module, gate: Gate) -> None:
        self.__dict__.update(layer.__dict__)
        self._modules = {"channel_gate": gate}  # convolutions have none of their own

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        """As the convolution does, without the closed channels of x, (B, C, H, W)."""
        if x.is_meta or is_reference():
            return self._dense(x)
        if self.training:
            return self._dense(x * self.channel_gate(x)[:, :, None, None].to(x.dtype))
        opened, energies = self.channel_gate.decide(x)
        if (log := _log.get()) is not None:
            log.append(Decision(self.channel_gate, opened, energies, self._macs(x)))
        if _evaluated_by.get() == "masked":
            return self._dense(x * opened[:, :, None, None])
        if bool(opened.all()):
            return self._dense(x)
        images = zip(x.split(1), opened, strict=True)
        outs = [self._one_image(image, mask.nonzero()[:, 0]) for image, mask in images]
        return torch.cat(outs) if len(outs) > 1 else outs[0]  # even of one, torch makes a copy

    def _one_image(self, x: Tensor, channels: Tensor) -> Tensor:
        if channels.numel():
            return self._gathered(x, channels)
        out = x.new_zeros(1, self.out_channels, *self._out_hw(x))  # torch makes no sum over no channels
        return out if self.bias is None else out + self.bias.to(out.dtype)[:, None, None]

    def _dense(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x)
        return out

    @abc.abstractmethod
    def _gathered(self, x: Tensor, channels: Tensor) -> Tensor:
        """One image, of which only these channels are read."""

    @abc.abstractmethod
    def _out_hw(self, x: Tensor) -> tuple[int, int]:
        """Size of what comes out for x."""

    @abc.abstractmethod
    def _macs(self, x: Tensor) -> int:
        """Multiply-accumulates that one more open channel takes for one image of this size."""


class GatedConv2d(Gated, nn.Conv2d):
    def _gathered(self, x: Tensor, channels: Tensor) -> Tensor:
        x, weight = select(x, channels, 1), select(self.weight, channels, 1)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    def _out_hw(self, x: Tensor) -> tuple[int, int]:
        height, width = x.shape[2:]
        return -(-height // self.stride[0]), -(-width // self.stride[1])

    def _macs(self, x: Tensor) -> int:
        return self.out_channels * math.prod(self.kernel_size) * math.prod(self._out_hw(x))


class GatedPointwise(GatedConv2d, PointwiseConv):
    def _gathered(self, x: Tensor, channels: Tensor) -> Tensor:
        return conv1x1(select(x, channels, 1), select(self.weight, channels, 1), self.bias)


class GatedConvTranspose2d(Gated, nn.ConvTranspose2d):
    def _gathered(self, x: Tensor, channels: Tensor) -> Tensor:
        x, weight = select(x, channels, 1), select(self.weight, channels, 0)
        padding, more = self.padding, self.output_padding
        return F.conv_transpose2d(x, weight, self.bias, self.stride, padding, more)  # type: ignore[arg-type]

    def _out_hw(self, x: Tensor) -> tuple[int, int]:
        return x.shape[2] * self.stride[0], x.shape[3] * self.stride[1]

    def _macs(self, x: Tensor) -> int:
        return self.out_channels * math.prod(self.kernel_size) * x.shape[2] * x.shape[3]


class GatedImageDeconv(Gated, ImageDeconv):
    def _gathered(self, x: Tensor, channels: Tensor) -> Tensor:
        return self.computed(select(x, channels, 1), select(self.weight, channels, 0))

    def _out_hw(self, x: Tensor) -> tuple[int, int]:
        return 2 * x.shape[2], 2 * x.shape[3]

    def _macs(self, x: Tensor) -> int:
        return 9 * 4 * self.out_channels * x.shape[2] * x.shape[3]


_GATED: dict[type[nn.Module], Any] = {
    nn.Conv2d: GatedConv2d,
    PointwiseConv: GatedPointwise,
    nn.ConvTranspose2d: GatedConvTranspose2d,
    ImageDeconv: GatedImageDeconv,
}


def gate_convolutions(part: nn.Module, make: Callable[[int], Gate]) -> None:
    """Put `make(in_channels)`, a gate, before each convolution of a network that does not see the image."""
    for parent in list(part.modules()):
        for name, layer in list(parent.named_children()):
            gated = _GATED.get(type(layer))
            if gated is None:
                continue
            in_channels = int(layer.in_channels)  # type: ignore[arg-type]
            if in_channels > IMAGE_CHANNELS:
                setattr(parent, name, gated(layer, make(in_channels)))


def gated_layers(module: nn.Module) -> dict[str, Gated]:
    """name -> gated convolution, in the order of the network."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Gated)}
