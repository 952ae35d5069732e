"""Gaussian per symbol of y, mean and scale from side information (Minnen et al., NeurIPS 2018)."""

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

    name: Literal["mean_scale_hyperprior"] = "mean_scale_hyperprior"
    quantiser: Literal["mixed", "noise"] = "mixed"
    indexing: Literal["nearest", "ceil"] = "nearest"
    prior_filters: tuple[int, ...] = (3, 3)

    def check(self, model: Any) -> None:
        """Fits every hyper transform; the prior needs at least one hidden layer."""
        check_prior_filters(self.prior_filters)


class MeanScaleHyperprior(OneStep):
    """h_s gives 2M channels: scales first, then means, the order of CompressAI's weights."""

    def split(self, side: Tensor) -> tuple[Tensor, Tensor]:
        scale, mean = side.chunk(2, 1)
        return mean, scale


def build(spec: ModelSpec) -> MeanScaleHyperprior:
    """The entropy model of a spec, with its hyper transforms."""
    model = MeanScaleHyperprior(**arguments(spec, 2 * spec.depth.latent_channels))
    model.start_scales(torch.ones(spec.depth.latent_channels))
    return model
