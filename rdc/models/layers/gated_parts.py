"""Which networks may be gated, for every kind of gating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rdc.errors import UserError

# Not h_s: both ends would have to decide alike to the last bit, or the decoder needs its masks. Not the
# context networks: the energy of a latent is not known before it is decoded.
GatedPart = Literal["g_a", "g_s", "h_a"]
_CONVOLUTIONS = {"transform": ("conv", "elic"), "hyper_transform": ("conv",)}


def check_parts(gating: str, parts: Sequence[GatedPart], model: Any) -> None:
    """UserError where a part is named twice, or computes with something else than convolutions."""
    if not parts or len(set(parts)) < len(parts):
        raise UserError(f"gating.parts={list(parts)}: name g_a, g_s and h_a once each, or some of them")
    for group, members in (("transform", ("g_a", "g_s")), ("hyper_transform", ("h_a",))):
        name, fitting = getattr(model, group).name, _CONVOLUTIONS[group]
        asked = [part for part in parts if part in members]
        if not asked or name in fitting:
            continue
        why = "its linear layers" if name == "swint" else "its layers"
        rest = [part for part in parts if part not in members]
        way_out = f"; or leave it out with gating.parts=[{','.join(rest)}]" if rest else ""
        raise UserError(
            f"gating={gating}: {'/'.join(asked)} of {group}={name} cannot be gated ({why}); "
            f"choose {group}={' or '.join(fitting)}{way_out}"
        )
