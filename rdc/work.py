"""What a pass of networks makes a machine do, operator by operator: FLOP, bytes moved, launches.

Counted while the pass runs, on the built model: with the casts of a precision, in the form that really runs
and in as many threads as each operator has. With the speeds of a machine (rdc.speed) it gives the roofline
(Williams, Waterman & Patterson, CACM 2009) of that pass: no operator is faster than its arithmetic at the
machine's peak, nor than its bytes at the machine's bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

# Reserve memory and touch none of it.
_UNTOUCHED = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# Read of their first input only what comes out.
_PICKS = {"embedding", "gather", "index", "index_select"}
# Read nothing.
_FILLS = {
    "arange", "fill_", "full", "full_like", "new_full", "new_ones", "new_zeros", "ones", "ones_like",
    "zero_", "zeros", "zeros_like",
}  # fmt: skip


class Operation(NamedTuple):
    """One operator that ran. kind: of its arithmetic, 'fp32', 'tf32' or 'bf16'. threads: it could use."""

    name: str
    flop: int
    bytes: int
    kind: str
    threads: int

    @property
    def launch(self) -> str:
        """Which start-up cost it has: libraries prepare a convolution at length before they begin."""
        return "convolution" if "convolution" in self.name else "other"


class Roofline(NamedTuple):
    """Milliseconds of a pass, each operator's in one of the first two, whichever of its limits is lower."""

    compute_ms: float
    memory_ms: float
    serial_ms: float

    @property
    def total_ms(self) -> float:
        """As if operators ran one after the other, each at its limit and none before the one before it."""
        return sum(self)


def operations(run: Callable[[], Any]) -> list[Operation]:
    """Run something and list its operators, without views and reservations of memory, which move nothing."""
    with FlopCounterMode(display=False) as counter, _Ledger(counter) as ledger:
        run()
    return ledger.operations


def roofline(
    operations: Iterable[Operation],
    *,
    flop_per_s: Mapping[tuple[str, int], float],
    bytes_per_s: Mapping[int, float],
    launch_s: Mapping[tuple[str, int], float],
) -> Roofline:
    """The least time that a machine of these speeds needs, operator after operator.

    flop_per_s: by (kind, threads). bytes_per_s: by threads. launch_s: by (launch, threads).
    """
    compute_s = memory_s = serial_s = 0.0
    for operation in operations:
        arithmetic_s = operation.flop / flop_per_s[operation.kind, operation.threads] if operation.flop else 0
        transfer_s = operation.bytes / bytes_per_s[operation.threads]
        if arithmetic_s > transfer_s:
            compute_s += arithmetic_s
        else:
            memory_s += transfer_s
        serial_s += launch_s[operation.launch, operation.threads]
    return Roofline(1000 * compute_s, 1000 * memory_s, 1000 * serial_s)


class _Ledger(TorchDispatchMode):
    """Notes every operator before torch's counter sees it, and asks the counter what it made of it."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self._counter.get_total_flops()
        out = func(*args, **(kwargs or {}))
        flop = self._counter.get_total_flops() - before
        name = func.name().partition("::")[2].partition(".")[0]
        inputs, outputs = _tensors((args, kwargs)), _tensors(out)
        if flop or (outputs and name not in _UNTOUCHED and not _is_view(func, inputs, outputs)):
            moved = _bytes_moved(name, inputs, outputs)
            self.operations.append(Operation(name, flop, moved, _kind(name, inputs), torch.get_num_threads()))
        return out


def _tensors(values: Any) -> list[Tensor]:
    """Each once, in order."""
    return list({id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}.values())


def _is_view(func: Any, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    """Whether all that came out is memory that went in, unchanged."""
    known = {tensor.untyped_storage()._cdata for tensor in inputs}
    shared = all(tensor.untyped_storage()._cdata in known for tensor in outputs)
    return shared and not func._schema.is_mutable


def _bytes_moved(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """Every input read once and every output written once, as if nothing stayed in a cache."""
    written = sum(map(_bytes, outputs))
    if name in _FILLS:
        return written
    if name in _PICKS:
        return 2 * written + sum(map(_bytes, inputs[1:]))
    if name == "copy_":  # what was there before is not read
        return written + sum(map(_bytes, inputs[1:]))
    return written + sum(map(_bytes, inputs))


def _bytes(tensor: Tensor) -> int:
    """A repeated (expanded) element is one element."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _kind(name: str, inputs: list[Tensor]) -> str:
    if any(tensor.dtype == torch.bfloat16 for tensor in inputs):
        return "bf16"
    if inputs and inputs[0].device.type == "cuda":
        of_cudnn = "convolution" in name
        allowed = torch.backends.cudnn.allow_tf32 if of_cudnn else torch.backends.cuda.matmul.allow_tf32
        return "tf32" if allowed else "fp32"
    return "fp32"
