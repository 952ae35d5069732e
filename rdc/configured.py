"""What a composed configuration asks for, in one place: groups or a name of CompressAI's zoo, and a width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdc.errors import UserError
from rdc.spec import COMPONENT_GROUPS, ModelSpec, parse, parse_model
from rdc.width import scale
from rdc.zoo import ZooModel

_GROUPS = (*COMPONENT_GROUPS, "depth")
# Every key of the configuration that decides the model.
MODEL_KEYS = (*_GROUPS, "width", "compressai")


def model_of(config: Mapping[str, Any]) -> ModelSpec:
    """The model of a composed configuration, `width` applied; UserError where it is impossible."""
    zoo, width = zoo_of(config), _width(config.get("width", 1.0))
    if zoo is None:
        return scale(parse_model({group: config.get(group) for group in _GROUPS}), width)
    if zoo.checkpoint is not None and width != 1:
        raise UserError(f"width={width:g}: compressai.checkpoint={zoo.checkpoint} has the widths that it has")
    return scale(parse_model(zoo.groups), width)


def zoo_of(config: Mapping[str, Any]) -> ZooModel | None:
    """What model=compressai asks for; None for every other model."""
    if config.get("compressai") is None:
        return None
    zoo = parse(ZooModel, config["compressai"], where="compressai")
    for group in _GROUPS:
        if config.get(group) is not None:
            raise UserError(f"{group}: compressai.name={zoo.name} brings its own; leave one of them out")
    return zoo


def _width(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"width={value!r}: must be a number, the factor on all widths of the model")
    return float(value)
