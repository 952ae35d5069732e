"""No rate control: one model per lmbda."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    name: Literal["none"] = "none"

    def check(self, model: Any) -> None:
        """Fits every model."""

    def check_lmbda(self, lmbda: float) -> None:
        """Any will do: it is what the model is trained for."""


def build(params: Params, latent_channels: int) -> None:
    """No network."""
