"""How fast a machine is at what networks are made of: arithmetic, moving memory, starting an operator.

Measured with torch's own operators, as networks use them; no model is looked at. The fastest of a few rounds
counts: other processes can only slow a round down.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.machine import synchronize
from rdc.work import Operation, Roofline, roofline

ROUNDS = 5
_LAUNCHES = 200


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Large enough that a round takes milliseconds, and that no cache holds what is moved."""

    product: int  # rows and columns of the matrices
    convolution: tuple[int, int, int]  # channels, height, width
    moved: int  # elements of each tensor


_SIZES = {
    "cpu": _Sizes(product=1024, convolution=(192, 64, 96), moved=2**24),
    "cuda": _Sizes(product=8192, convolution=(256, 256, 384), moved=2**27),
}


@dataclasses.dataclass(frozen=True)
class Speed:
    """flop_per_s: by (kind, threads). bytes_per_s: by threads. launch_s: by (launch, threads)."""

    flop_per_s: dict[tuple[str, int], float]
    bytes_per_s: dict[int, float]
    launch_s: dict[tuple[str, int], float]

    def roofline(self, operations: Iterable[Operation]) -> Roofline:
        """Least time of these operators, one after the other, at this machine's speeds."""
        return roofline(
            operations,
            flop_per_s=self.flop_per_s,
            bytes_per_s=self.bytes_per_s,
            launch_s=self.launch_s,
        )


@dataclasses.dataclass
class SpeedMeter:
    """Measures what it is asked for, once each, in this process. sizes: None for those of the device."""

    device: torch.device
    sizes: _Sizes | None = None
    _known: dict[tuple[str, int], float] = dataclasses.field(default_factory=dict)

    def of(self, operations: Iterable[Operation]) -> Speed:
        """All that their roofline needs."""
        found = list(operations)
        kinds = sorted({(op.kind, op.threads) for op in found if op.flop})
        threads = sorted({op.threads for op in found})
        launches = sorted({(op.launch, op.threads) for op in found})
        return Speed(
            flop_per_s={(kind, count): self.flop_per_s(kind, count) for kind, count in kinds},
            bytes_per_s={count: self.bytes_per_s(count) for count in threads},
            launch_s={(kind, count): self.launch_s(kind, count) for kind, count in launches},
        )

    def flop_per_s(self, kind: str, threads: int) -> float:
        """kind: fp32, tf32 or bf16. The faster of a matrix product and a 3x3 convolution."""
        return self._once(kind, threads, lambda: self._peak(kind))

    def bytes_per_s(self, threads: int) -> float:
        """Of an addition into fresh memory, as residual connections have it: two reads and a write."""
        return self._once("bytes", threads, self._bytes_per_s)

    def launch_s(self, launch: str, threads: int) -> float:
        """With next to nothing to do: a 5x5 convolution; else the mean of a linear layer and an addition."""
        return self._once(f"launch of {launch}", threads, lambda: self._launch_s(launch))

    def _once(self, name: str, threads: int, measure: Callable[[], float]) -> float:
        if (name, threads) not in self._known:
            with _in_threads(threads), torch.no_grad():
                self._known[name, threads] = measure()
        return self._known[name, threads]

    @property
    def _of_device(self) -> _Sizes:
        return self.sizes or _SIZES.get(self.device.type, _SIZES["cpu"])

    def _peak(self, kind: str) -> float:
        sizes, dtype = self._of_device, torch.bfloat16 if kind == "bf16" else torch.float32
        matrix = torch.randn(sizes.product, sizes.product, device=self.device).to(dtype)
        channels, height, width = sizes.convolution
        last = torch.channels_last
        image = torch.randn(1, channels, height, width, device=self.device).to(dtype, memory_format=last)
        kernel = torch.randn(channels, channels, 3, 3, device=self.device).to(dtype, memory_format=last)
        with _tf32(kind == "tf32"):
            product_s = self._fastest_s(lambda: matrix @ matrix)
            convolution_s = self._fastest_s(lambda: F.conv2d(image, kernel, padding=1))
        # 2 FLOP per multiply-accumulate.
        return max(
            2 * sizes.product**3 / product_s,
            2 * 9 * channels**2 * height * width / convolution_s,
        )

    def _bytes_per_s(self) -> float:
        a, b = (torch.ones(self._of_device.moved, device=self.device) for _ in range(2))
        return 3 * a.numel() * a.element_size() / self._fastest_s(lambda: a + b)

    def _launch_s(self, launch: str) -> float:
        # Smaller kernels would take a path of torch's own, which networks' sizes never take.
        convolution = nn.Conv2d(8, 8, 5, padding=2).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        linear = nn.Linear(8, 8).to(self.device)
        start = torch.zeros((1, 8, 4, 4) if launch == "convolution" else (16, 8), device=self.device)

        def chain() -> Tensor:
            x = start
            for _ in range(_LAUNCHES // 2):
                x = convolution(convolution(x)) if launch == "convolution" else linear(x).add_(1)
            return x

        return self._fastest_s(chain) / _LAUNCHES

    def _fastest_s(self, work: Callable[[], Any]) -> float:
        times_s = []
        for measured in range(ROUNDS + 1):
            synchronize(self.device)
            started = time.perf_counter()
            work()
            synchronize(self.device)
            if measured:  # the first round chooses and compiles kernels
                times_s.append(time.perf_counter() - started)
        return min(times_s)


@contextlib.contextmanager
def _in_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=False, allow_tf32=allowed
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
