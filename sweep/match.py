"""`match`: a model that costs what another trial's model has really cost, gates and all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rdc.configured import model_of
from rdc.errors import UserError
from rdc.spec import ModelSpec
from rdc.width import SMALLEST

Count = Callable[[ModelSpec], Mapping[str, Any]]  # rdc.complexity of a model, as in a result

_HALVINGS = 24  # to a factor known to 1e-7: of any sensible model no two widths change so close together


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What of a configuration is changed. note: how close the cost comes, where it is not exact."""

    width: float | None = None
    channels: tuple[int, ...] | None = None
    note: str = ""

    @property
    def overrides(self) -> tuple[str, ...]:
        """For the record."""
        if self.channels is not None:
            return (f"gating.channels=[{','.join(map(str, self.channels))}]",)
        return (f"width={self.width!r}",)  # rounded, it could be another model

    def applied(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if self.channels is None:
            return {**config, "width": self.width}
        return {**config, "gating": {**config["gating"], "channels": list(self.channels)}}


def fit(config: Mapping[str, Any], evaluation: Mapping[str, Any], count: Count, *, of: str) -> Fit:
    """config: of the model that is to cost as much. evaluation: of the trial that is matched, called `of`.

    A static mask keeps as many channels of each layer as were open on average; any other model becomes
    narrower as a whole. UserError where the trial does not say what its gates have cost.
    """
    gating = evaluation.get("gating")
    if not gating:
        raise UserError(f"{of} says nothing of what its gates cost; match a stage whose model has gates")
    if gating_of(config) == "static":
        return fit_channels(config, gating["layers"], of=of)
    wanted = sum(gating[f"{side}_kmac_per_px"]["mean"] for side in ("encode", "decode"))
    return fit_width(config, wanted / (evaluation.get("padded_px_ratio") or 1.0), count, of=of)


def fit_channels(config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], *, of: str) -> Fit:
    """As many channels per gated layer as were open there on average, at least one."""
    from rdc.complexity import on_meta
    from rdc.models.layers.gate import gated_layers

    opened = {layer["name"]: layer["open"] for layer in layers}
    names = list(gated_layers(on_meta(model_of(config))))
    if sorted(names) != sorted(opened):
        odd = sorted(set(names) ^ set(opened))
        raise UserError(
            f"{of} has gates elsewhere than this model ({odd[0]}); give both the same gating.parts"
        )
    return Fit(channels=tuple(max(1, _whole(opened[name])) for name in names))


def fit_width(config: Mapping[str, Any], wanted_kmac_per_px: float, count: Count, *, of: str) -> Fit:
    """The width up to that of the configuration whose executed operations come closest.

    wanted_kmac_per_px: of encoder and decoder together, per pixel that is coded.
    """

    def cost(width: float) -> float:
        return executed_kmac_per_px(count(model_of({**config, "width": width})))

    low, high = SMALLEST, float(config.get("width", 1.0))
    if cost(high) > wanted_kmac_per_px > cost(low):
        for _ in range(_HALVINGS):  # widths are whole numbers: in the end no model lies between the two
            middle = (low + high) / 2
            low, high = (middle, high) if cost(middle) <= wanted_kmac_per_px else (low, middle)
    width = min((high, low), key=lambda width: abs(cost(width) - wanted_kmac_per_px))
    found = cost(width)
    off_pct = 100 * (found / wanted_kmac_per_px - 1)
    return Fit(
        width=width,
        note=f"costs {found:.4g} kMAC/px, {of} {wanted_kmac_per_px:.4g}: {off_pct:+.1f} %",
    )


def executed_kmac_per_px(complexity: Mapping[str, Any]) -> float:
    """Of encoder and decoder together."""
    return float(sum(complexity[side]["executed_kmac_per_px"] for side in ("encode", "decode")))


def gating_of(config: Mapping[str, Any]) -> str:
    """The chosen gating; a model of CompressAI's zoo has no such group."""
    return str((config.get("gating") or {}).get("name", "none"))


def _whole(value: float) -> int:
    # Not round(): it sends halves to the even neighbour.
    return int(value + 0.5)
