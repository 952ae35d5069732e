"""No gating: every channel is computed."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    name: Literal["none"] = "none"

    def check(self, model: Any) -> None:
        """Fits every model."""


def install(params: Params, parts: Any) -> None:
    """Nothing to add."""
