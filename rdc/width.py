"""The width multiplier: a model with all its widths times one factor, and its shape kept.

Rounding: a width goes to the nearest multiple of 4, at least 4; one that is no multiple of 4 keeps the power
of two that divides it. The latent goes to a multiple of what the entropy model cuts it into. A factor of 1
is therefore the identity, and a larger factor never gives a smaller width.

Layers, blocks, kernels, windows, slices and the hidden widths of the prior on z stay. A component with widths
of its own has `scaled(factor, depth)`, depth being the scaled one. An entropy model that cuts the latent into
pieces says by `latent_multiple` into how many: equal ones must divide it, and of uneven ones each keeps at
least a channel, while `apportioned` keeps their proportions. A transform that may not have every width
chooses them by `scaled_depth(factor, depth, latent_multiple)`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rdc.errors import UserError

if TYPE_CHECKING:
    from rdc.spec import Depth, ModelSpec

SMALLEST, LARGEST = 0.05, 4.0
STEP = 4


def scale(model: ModelSpec, factor: float) -> ModelSpec:
    """The model with concrete widths, checked like any other. UserError where it or the factor is impossible.

    Ids hash the concrete widths: the factor itself is no part of a model.
    """
    if not SMALLEST <= factor <= LARGEST:
        raise UserError(f"width={factor:g}: must lie between {SMALLEST} and {LARGEST:g}")
    if factor == 1:
        return model
    multiple = int(getattr(model.entropy_model, "latent_multiple", 1))
    scaled_depth = getattr(model.transform, "scaled_depth", plain_depth)
    depth = scaled_depth(factor, model.depth, multiple)
    parts = {
        field.name: _scaled_params(getattr(model, field.name), factor, depth)
        for field in dataclasses.fields(model)
        if field.name != "depth"
    }
    scaled = dataclasses.replace(model, depth=depth, **parts)
    for part in parts.values():
        try:
            part.check(scaled)
        except UserError as error:
            raise UserError(f"width={factor:g}: {error}") from None
    return scaled


def plain_depth(factor: float, depth: Depth, latent_multiple: int) -> Depth:
    """Every width on its own, for a transform that may have any."""
    return dataclasses.replace(
        depth,
        channels=scaled_widths(depth.channels, factor),
        latent_channels=scaled_width(depth.latent_channels, factor, latent_multiple),
    )


def scaled_width(width: int, factor: float, multiple: int = 1) -> int:
    """A number of channels times factor, rounded; stays a multiple of `multiple`, and is at least that."""
    cut = multiple > 1 and width % multiple == 0
    step = math.lcm(multiple, math.gcd(width, 2)) if cut else math.gcd(width, STEP)
    # Not round(): it sends halves to the even neighbour.
    return max(-(-multiple // step), math.floor(width * factor / step + 0.5)) * step


def scaled_widths(widths: Iterable[int], factor: float) -> tuple[int, ...]:
    return tuple(scaled_width(width, factor) for width in widths)


def apportioned(shares: Sequence[int], total: int) -> tuple[int, ...]:
    """Whole numbers, at least 1 each, that sum to total in the proportions of shares (Sainte-Lague).

    shares that sum to total come back unchanged, and no part shrinks as total grows.
    """
    if total < len(shares):
        raise UserError(f"{total} channels cannot be cut into {len(shares)} groups")
    parts = [1] * len(shares)
    for _ in range(total - len(shares)):
        neediest = max(range(len(shares)), key=lambda i: shares[i] / (2 * parts[i] + 1))
        parts[neediest] += 1
    return tuple(parts)


def _scaled_params(params: Any, factor: float, depth: Depth) -> Any:
    return params.scaled(factor, depth) if hasattr(params, "scaled") else params
