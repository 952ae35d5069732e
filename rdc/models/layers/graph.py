"""Which of two equal forms a layer runs: the published one, whose cost is compared, or a faster rewrite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_reference: ContextVar[bool] = ContextVar("reference_graph", default=False)


@contextlib.contextmanager
def reference_graph() -> Iterator[None]:
    """Inside, every layer runs the form in which its architecture was published."""
    token = _reference.set(True)
    try:
        yield
    finally:
        _reference.reset(token)


def is_reference() -> bool:
    """Whether layers must run their published form."""
    return _reference.get()
