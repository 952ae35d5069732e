"""What a composed configuration asks for, in one place: the groups of a model, and its width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdc.errors import UserError
from rdc.spec import COMPONENT_GROUPS, ModelSpec, parse_model
from rdc.width import scale

# Every key of the configuration that decides the model.
MODEL_KEYS = (*COMPONENT_GROUPS, "depth", "width")


def model_of(config: Mapping[str, Any]) -> ModelSpec:
    """The model of a composed configuration, `width` applied; UserError where it is impossible."""
    model = parse_model({group: config.get(group) for group in (*COMPONENT_GROUPS, "depth")})
    return scale(model, _width(config.get("width", 1.0)))


def _width(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"width={value!r}: must be a number, the factor on all widths of the model")
    return float(value)
