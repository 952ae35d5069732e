"""Uneven groups of channels, each a chessboard in two steps (He et al., "ELIC", CVPR 2022)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.errors import UserError
from rdc.models.layers import coding
from rdc.models.layers.checkerboard import CheckerboardConv, anchors, board, others
from rdc.models.layers.conv import conv
from rdc.models.layers.graph import is_reference
from rdc.models.layers.hyperprior import Pick, arguments, check_prior_filters, start_bias
from rdc.models.layers.stepwise import Context, State, Step, Stepwise
from rdc.spec import Depth, ModelSpec, component
from rdc.width import apportioned, scaled_width, scaled_widths

PUBLISHED_GROUPS = (16, 16, 32, 64, 192)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The defaults are the paper's, in the form of CompressAI's Elic2022Official.

    groups: channels of each group, in coding order; null: in the proportions of 16, 16, 32, 64, 192.
    context_widths: of the 5x5 layers by which a group sees those before it.
    side_channels: of h_s's output; null: twice the width of the transform's last stage.
    quantiser, indexing: see Hyperprior. prior_filters: hidden widths of z's cumulative distribution.
    """

    name: Literal["space_channel"] = "space_channel"
    groups: tuple[int, ...] | None = None
    context_widths: tuple[int, int] = (224, 128)
    side_channels: int | None = None
    quantiser: Literal["mixed", "noise"] = "mixed"
    indexing: Literal["nearest", "ceil"] = "nearest"
    prior_filters: tuple[int, ...] = (3, 3)

    def check(self, model: Any) -> None:
        """Needs groups that make up the latent, and a latent whose sides are even."""
        latent_channels = model.depth.latent_channels
        if self.groups is None and latent_channels < len(PUBLISHED_GROUPS):
            raise UserError(
                f"depth.latent_channels={latent_channels}: entropy_model=space_channel needs at least "
                f"{len(PUBLISHED_GROUPS)}, one per group; or set entropy_model.groups"
            )
        if self.groups is not None and (sum(self.groups) != latent_channels or min(self.groups) < 1):
            raise UserError(
                f"entropy_model.groups={list(self.groups)}: must be positive and sum to "
                f"depth.latent_channels={latent_channels}"
            )
        widths = (*self.context_widths, 1 if self.side_channels is None else self.side_channels)
        if min(widths) < 1:
            raise UserError(
                f"entropy_model.context_widths={list(self.context_widths)}, side_channels="
                f"{self.side_channels}: every width must be at least 1"
            )
        stride = component("hyper_transform", model.hyper_transform.name).STRIDE
        if stride % 2:
            raise UserError(
                f"hyper_transform={model.hyper_transform.name}: entropy_model=space_channel needs latents of "
                f"even height and width, which its stride of {stride} does not give"
            )
        check_prior_filters(self.prior_filters)

    @property
    def latent_multiple(self) -> int:
        """A scaled latent has at least a channel per group, and groups in the old proportions."""
        return len(self.groups or PUBLISHED_GROUPS)

    def scaled(self, factor: float, depth: Depth) -> Params:
        """Widths times factor (rdc.width), groups in proportion to the latent."""
        first, second = scaled_widths(self.context_widths, factor)
        return dataclasses.replace(
            self,
            groups=self.groups and apportioned(self.groups, depth.latent_channels),
            context_widths=(first, second),
            side_channels=self.side_channels and scaled_width(self.side_channels, factor),
        )


class Group(nn.Module):
    """Networks of one group. channel: sees the groups before; spatial: the anchors; aggregate: all, 1x1."""

    def __init__(self, channels: int, before: int, side_channels: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        if before:
            self.channel = _sequence((before, *widths, 2 * channels), kernel=5)
        self.spatial = CheckerboardConv(channels, 2 * channels)
        known = side_channels + (2 * channels if before else 0)
        self.aggregate = _sequence(_ramp(2 * channels + known, 2 * channels, side_channels), kernel=1)
        # Training starts from nearly constant predictions: a random guess costs more bits than none.
        with torch.no_grad():
            self.aggregate[-1].weight.mul_(0.1)  # type: ignore[operator]

    def gaussians(self, known: Tensor, spatial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mean, scale). known: channel context and side information; spatial is null for anchors."""
        first, *rest = self.aggregate
        with coding.exact():
            if spatial is None:
                # As with a spatial context of zeros, without multiplying them.
                out = F.conv2d(known, first.weight[:, 2 * self.channels :], first.bias)  # type: ignore[arg-type, index]
            else:
                out = first(torch.cat([spatial, known], 1))
            for layer in rest:
                out = layer(out)
        scale, mean = out.chunk(2, 1)  # the order of CompressAI's weights
        return mean, scale


@dataclasses.dataclass
class Halves:
    """What is kept from the anchors to the others.

    side: of h_s, at the anchors and at the others, for all groups. known: at the others of this group.
    mean, scale, q: of the anchors of this group.
    """

    side: tuple[Tensor, Tensor]
    known: Tensor = dataclasses.field(init=False)
    mean: Tensor = dataclasses.field(init=False)
    scale: Tensor = dataclasses.field(init=False)
    q: Tensor = dataclasses.field(init=False)


class SpaceChannelContext(Context):
    """All networks of the groups. Each group takes two steps: the anchors, then the others."""

    def __init__(self, groups: tuple[int, ...], side_channels: int, widths: tuple[int, int]) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            Group(channels, sum(groups[:i]), side_channels, widths) for i, channels in enumerate(groups)
        )

    def forward(self, state: State, q: Tensor | None) -> Step | None:
        """state.side: (B, side_channels, h, w), h and w even. q: (B, channels of the group, h, w / 2)."""
        if state.counting and is_reference():
            self._count_dense(state)
            return None
        number, is_second = divmod(state.step, 2)
        state.step += 1
        if is_second:
            return self._step_of_others(state, self._nets()[number], q)
        if q is None:
            state.pending = Halves((anchors(state.side), others(state.side)))
        else:
            state.y_hat.append(board(state.pending.q, q))
        return self._step_of_anchors(state, self._nets()[number]) if number < len(self.groups) else None

    def serial_steps(self) -> int:
        return 2 * len(self.groups)

    def start_scales(self, scales: Tensor) -> None:
        """By the networks that give them, which give them first."""
        nets = self._nets()
        for group, part in zip(nets, scales.split([net.channels for net in nets]), strict=True):
            start_bias(group.aggregate, part)

    def _nets(self) -> list[Group]:
        return list(self.groups)  # type: ignore[arg-type]

    def _step_of_anchors(self, state: State, group: Group) -> Step:
        kept: Halves = state.pending
        known, kept.known = kept.side
        if state.y_hat:
            context = group.channel(torch.cat(state.y_hat, 1))
            known = torch.cat([anchors(context), known], 1)
            kept.known = torch.cat([others(context), kept.known], 1)
        kept.mean, kept.scale = group.gaussians(known)
        return Step(_picks(anchors, *_span(state, group)), kept.mean, kept.scale)

    def _step_of_others(self, state: State, group: Group, q: Tensor | None) -> Step:
        kept: Halves = state.pending
        assert q is not None, "the anchors are decoded before the others"
        kept.q = q
        with coding.exact():
            spatial = group.spatial(q)
        mean, scale = group.gaussians(kept.known, spatial)
        state.mean.append(board(kept.mean, mean))
        state.scale.append(board(kept.scale, scale))
        return Step(_picks(others, *_span(state, group)), mean, scale)

    def _count_dense(self, state: State) -> None:
        """The published graph: every network once, everywhere. Nothing can be decoded that way."""
        for group in self._nets():
            known = state.side
            if state.y_hat:
                known = torch.cat([group.channel(torch.cat(state.y_hat, 1)), known], 1)
            q = known.new_zeros(known.shape[0], group.channels, *known.shape[-2:])
            mean, scale = group.gaussians(known, group.spatial.dense(q))
            state.y_hat.append(q)
            state.mean.append(mean)
            state.scale.append(scale)


def build(spec: ModelSpec) -> Stepwise:
    """The entropy model of a spec, with its hyper transforms and the networks of its groups."""
    params: Params = spec.entropy_model
    latent_channels = spec.depth.latent_channels
    groups = params.groups or apportioned(PUBLISHED_GROUPS, latent_channels)
    side_channels = params.side_channels or 2 * spec.depth.channels[-1]
    context = SpaceChannelContext(groups, side_channels, params.context_widths)
    model = Stepwise(context, **arguments(spec, side_channels))
    model.start_scales(torch.ones(latent_channels))
    return model


def _span(state: State, group: Group) -> tuple[int, int]:
    """First channel of the group that comes next, and of the one after it."""
    first = sum(piece.shape[1] for piece in state.y_hat)
    return first, first + group.channels


def _picks(half: Callable[[Tensor], Tensor], first: int, last: int) -> Pick:
    return lambda y: half(y[:, first:last])


def _ramp(in_channels: int, out_channels: int, least: int) -> tuple[int, int, int, int]:
    """Widths that fall evenly over three layers, the inner ones not under `least`."""
    first, second = ((in_channels * (3 - i) + out_channels * i) // 3 for i in (1, 2))
    return in_channels, max(first, least), max(second, least), out_channels


def _sequence(widths: tuple[int, ...], *, kernel: int) -> nn.Sequential:
    """Convolutions with ReLUs between them."""
    layers: list[nn.Module] = []
    for in_channels, out_channels in itertools.pairwise(widths):
        layers += [conv(in_channels, out_channels, kernel=kernel, stride=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])
