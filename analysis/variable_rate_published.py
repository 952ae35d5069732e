"""What the storage of models of variable rate is compared with: published savings and their arithmetic.

Nothing here is a result of ours. `PUBLISHED_PCT` are the storage savings of one model of variable rate
against eight of fixed rate in Yin et al., "Universal Efficient Variable-rate Neural Image Compression",
ICASSP 2022. `COMPRESSAI` are the eight fixed-rate models of CompressAI's qualities 1 to 8, which are of two
widths, with the parameters that torch counts in compressai 1.2.8, buffers left out.
"""

from __future__ import annotations

import dataclasses

PUBLISHED_PCT = {
    "scale_hyperprior": 80.42,
    "mean_scale_hyperprior": 82.04,
    "joint_autoregressive": 83.07,
}


@dataclasses.dataclass(frozen=True)
class Widths:
    """models: how many of the eight have these widths. params: of each."""

    channels: int
    latent_channels: int
    models: int
    params: int


# Low qualities have the first widths, high ones the second.
COMPRESSAI = {
    "scale_hyperprior": (Widths(128, 192, 5, 5_075_843), Widths(192, 320, 3, 11_816_323)),
    "mean_scale_hyperprior": (Widths(128, 192, 4, 7_028_003), Widths(192, 320, 4, 17_561_699)),
    "joint_autoregressive": (Widths(192, 192, 4, 14_130_467), Widths(192, 320, 4, 25_504_596)),
}
MODULATOR_HIDDEN = 128


def modulator_params(latent_channels: int, hidden: int = MODULATOR_HIDDEN) -> int:
    """Of two networks, one for each side of the entropy model: 1 -> hidden -> latent_channels, biases too."""
    return 2 * ((1 + 1) * hidden + (hidden + 1) * latent_channels)


def compressai_saving_pct(entropy_model: str) -> float:
    """100 (1 - one wide model with a modulator / the sum of the eight fixed ones)."""
    widths = COMPRESSAI[entropy_model]
    wide = widths[-1]
    variable = wide.params + modulator_params(wide.latent_channels)
    return saving_pct(variable, sum(width.models * width.params for width in widths))


def saving_pct(variable: float, fixed: float) -> float:
    """variable, fixed: parameters of one model, and of all those that it stands for."""
    return 100 * (1 - variable / fixed)
