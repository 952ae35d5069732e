"""Activation memory: the bytes of the tensors that are alive at one time while networks run.

Counted are the storages of all tensors that an operator has taken or made and that still exist, each once
however many views share it. Left out: weights and buffers, the workspace inside a kernel, the allocator's
rounding, and numpy arrays. It works without values, on the meta device, and counts what the program really
keeps: a tensor that a caller still holds is alive.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable

from torch import Tensor


class LiveBytes:
    """Told of every operator's inputs and outputs by `saw`; `now` is the number of bytes alive."""

    def __init__(self, left_out: Iterable[Tensor] = ()) -> None:
        self.now = 0
        self._left_out = {_storage(tensor) for tensor in left_out}
        self._tensors: dict[int, weakref.ref[Tensor]] = {}
        self._holders: dict[int, int] = defaultdict(int)  # storage -> tensors alive that share it

    def saw(self, values: object) -> None:
        """Count the tensors anywhere in lists, tuples and mappings, from now until they are freed."""
        if isinstance(values, Tensor):
            if id(values) not in self._tensors:
                self._add(values)
        elif isinstance(values, (list, tuple)):
            for value in values:
                self.saw(value)
        elif isinstance(values, dict):
            self.saw(list(values.values()))

    def _add(self, tensor: Tensor) -> None:
        storage = _storage(tensor)
        if storage in self._left_out:
            return
        key, size = id(tensor), tensor.untyped_storage().nbytes()

        def drop(_: object) -> None:
            del self._tensors[key]
            self._holders[storage] -= 1
            if not self._holders[storage]:
                del self._holders[storage]
                self.now -= size

        self._tensors[key] = weakref.ref(tensor, drop)
        if not self._holders[storage]:
            self.now += size
        self._holders[storage] += 1


def _storage(tensor: Tensor) -> int:
    """Names the storage as long as it exists; on the meta device there is no address to name it by."""
    return tensor.untyped_storage()._cdata
