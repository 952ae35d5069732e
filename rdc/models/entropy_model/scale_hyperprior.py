"""Zero-mean Gaussian per symbol of y, its scale from side information (Balle et al., ICLR 2018)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from rdc.models.layers.hyperprior import OneStep, arguments, check_prior_filters
from rdc.spec import ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """quantiser, indexing: see Hyperprior. prior_filters: hidden widths of z's cumulative distribution."""

    name: Literal["scale_hyperprior"] = "scale_hyperprior"
    quantiser: Literal["mixed", "noise"] = "noise"
    indexing: Literal["nearest", "ceil"] = "nearest"
    prior_filters: tuple[int, ...] = (3, 3)

    def check(self, model: Any) -> None:
        """Fits every hyper transform; the prior needs at least one hidden layer."""
        check_prior_filters(self.prior_filters)


class ScaleHyperprior(OneStep):
    """h_a sees |y|; h_s gives one scale per symbol.

    The original ends h_s in a ReLU. The lower bound on the scale makes it redundant, and without it the
    gradient that would raise a scale again is not cut off.
    """

    def hyper_input(self, y: Tensor) -> Tensor:
        return y.abs()

    def split(self, side: Tensor) -> tuple[Tensor, Tensor]:
        return side.new_zeros(()), side


def build(spec: ModelSpec) -> ScaleHyperprior:
    """The entropy model of a spec, with its hyper transforms."""
    model = ScaleHyperprior(**arguments(spec, spec.depth.latent_channels, one_per_symbol=True))
    model.start_scales(torch.ones(spec.depth.latent_channels))
    return model
