"""Checks that every transform made of stages shares."""

from __future__ import annotations

from rdc.errors import UserError
from rdc.spec import Depth


def check_stages(depth: Depth, *, transform: str, channels: int, layers: int) -> None:
    """UserError unless depth has this many widths and this many layer counts."""
    for field, values, needed in (("channels", depth.channels, channels), ("layers", depth.layers, layers)):
        if len(values) != needed:
            raise UserError(
                f"depth.{field}={list(values)}: transform={transform} needs {needed} entries, one per stage"
            )
