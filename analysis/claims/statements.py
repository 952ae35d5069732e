"""The study's nine statements, in our words: what each needs, how it is tested, and the test itself.

Source: Minnen & Johnston, "Advancing the Rate-Distortion-Computation Frontier for Neural Image Compression",
ICIP 2023: its Table 1, Figures 2 and 4 and the text about them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analysis.claims import ranks
from analysis.claims.comparisons import (
    Pairs,
    Stratum,
    best_advantage,
    equal_cost_advantage,
    equal_cost_rows,
    frontier_share,
    matched_pairs,
    pair_advantage,
    pair_cost_factor,
    pair_rows,
    pairs_cover,
    strata,
)
from analysis.claims.evidence import Evidence
from analysis.claims.statistics import Quantity
from analysis.claims.verdicts import (
    Condition,
    Finding,
    all_hold,
    not_enough,
    signs_differ,
    some_share,
)

# "A wide range", and a range with a low and a high end: at least this factor in decode cost.
WIDE_FACTOR = 2.0
ENDS_FACTOR = 1.5
MOSTLY_PCT = 50.0
_NAMES = {"elic": "ELIC", "swint": "SwinT"}


@dataclasses.dataclass(frozen=True)
class Statement:
    """number: 1 to 9. short: for the one line of the report.

    command: what `python -m sweep`, or for runtimes `python -m rdc time`, needs to make what is missing.
    """

    number: int
    id: str
    short: str
    sentence: str
    needs: str
    method: str
    command: str
    test: Callable[[Evidence], Finding]
    is_timed: bool = False


# ------------------------------------------------------------------------------- 1 to 3: transforms, CHARM


def conv_cheapest_and_worst(evidence: Evidence) -> Finding:
    groups = evidence.architectures.groupby(["entropy_model", "hyper_transform"], sort=True)
    sides: dict[str, list[tuple[list[int], list[int]]]] = {"elic": [], "swint": []}
    for _, group in groups:
        conv = [int(index) for index in group.index[group["transform"] == "conv"]]
        for name, pairs in sides.items():
            other = [int(index) for index in group.index[group["transform"] == name]]
            if conv and other:
                pairs.append((other, conv))
    missing = [name for name, pairs in sides.items() if not pairs]
    if missing:
        return not_enough(
            f"conv and {' and '.join(missing)} transforms with the same entropy model and hyper"
        )
    conditions = []
    for name, pairs in sides.items():
        ratio = [evidence.cost[other].min() / evidence.cost[conv].min() for other, conv in pairs]
        factor = Quantity(f"cheapest {_NAMES[name]} over cheapest conv", "x", min(ratio), exact=True)
        conditions.append(Condition(best_advantage(evidence, pairs, f"best {_NAMES[name]} vs best conv")))
        conditions.append(Condition(factor, bound=1.0))
    members = {index for pairs in sides.values() for both in pairs for side in both for index in side}
    return _of_losses(evidence, conditions, n=f"{len(members)} archs")


def charm_costs_and_helps(evidence: Evidence) -> Finding:
    pairs = matched_pairs(evidence, "entropy_model", "charm", "mean_scale_hyperprior")
    if not pairs.rows:
        return _no_pairs(pairs, "CHARM and the (mean-scale) hyperprior")
    conditions = [
        Condition(pair_advantage(evidence, pairs, "CHARM vs hyperprior")),
        Condition(pair_cost_factor(evidence, pairs, "cost of CHARM over hyperprior"), bound=1.0),
    ]
    return _of_pairs(evidence, pairs, conditions)


def elic_over_conv(evidence: Evidence) -> Finding:
    found = strata(evidence, "transform", "elic", "conv")
    if found:
        advantage = equal_cost_advantage(evidence, found, ["ELIC vs conv, equal cost"])
        return _at_equal_cost(evidence, found, [Condition(quantity) for quantity in advantage])
    pairs = matched_pairs(evidence, "transform", "elic", "conv")
    if not pairs.rows:
        return _no_pairs(pairs, "ELIC and conv transforms", "or ranges of decode cost that overlap")
    return _of_pairs(
        evidence,
        pairs,
        [Condition(pair_advantage(evidence, pairs, "ELIC vs conv, equal width"))],
        others=(pair_cost_factor(evidence, pairs, "cost of ELIC over conv"),),
        notes=("their ranges of cost do not overlap: ELIC may be better because it costs more",),
    )


# ------------------------------------------------------------------------------------- 4 to 6: over cost


def elic_swint_flip(evidence: Evidence) -> Finding:
    found = [s for s in strata(evidence, "transform", "elic", "swint") if s.factor >= ENDS_FACTOR]
    if not found:
        return not_enough(
            "ELIC and SwinT transforms with the same entropy model and hyper-transform, "
            f"each at several costs, whose ranges overlap by a factor of {ENDS_FACTOR:g}"
        )
    names = ["ELIC vs SwinT, cheapest", "ELIC vs SwinT, middle", "ELIC vs SwinT, dearest"]
    low, middle, high = equal_cost_advantage(evidence, found, names)
    return signs_differ(
        Condition(low),
        Condition(high),
        is_published=evidence.is_published,
        others=(middle,),
        n=_members(found),
        covers=evidence.covers(),
        notes=(*_flip_note(low, high), *_strata_notes(found)),
        rows=equal_cost_rows(evidence, found),
    )


def swint_hyper_helps(evidence: Evidence) -> Finding:
    pairs = matched_pairs(evidence, "hyper_transform", "swint", "conv")
    cost = evidence.cost[pairs.one]
    if pairs.rows and cost.max() >= WIDE_FACTOR * cost.min():
        middle = math.sqrt(cost.max() * cost.min())
        halves = [
            Pairs(tuple(pair for pair in pairs.rows if (evidence.cost[pair[0]] <= middle) == is_cheap))
            for is_cheap in (True, False)
        ]
        names = ("SwinT vs conv, cheaper", "SwinT vs conv, dearer")
        conditions = [
            Condition(pair_advantage(evidence, half, name)) for half, name in zip(halves, names, strict=True)
        ]
        factor = pair_cost_factor(evidence, pairs, "cost of SwinT hyper over conv hyper")
        return _of_pairs(evidence, pairs, conditions, others=(factor,), smallest=min(halves, key=len))
    found = [s for s in strata(evidence, "hyper_transform", "swint", "conv") if s.factor >= WIDE_FACTOR]
    if not found:
        return not_enough(
            "architectures that differ in the hyper-transform alone (SwinT, conv), "
            f"over a factor of {WIDE_FACTOR:g} in decode cost"
        )
    names_of_thirds = ["SwinT vs conv, cheapest", "SwinT vs conv, middle", "SwinT vs conv, dearest"]
    thirds = equal_cost_advantage(evidence, found, names_of_thirds)
    return _at_equal_cost(evidence, found, [Condition(quantity) for quantity in thirds])


def frontier_is_elic_charm_swint(evidence: Evidence) -> Finding:
    rows = evidence.architectures
    mask = np.asarray(
        (rows["transform"] == "elic")
        & (rows["entropy_model"] == "charm")
        & (rows["hyper_transform"] == "swint")
    )
    cost = evidence.cost
    if not mask.any() or mask.all():
        return not_enough("architectures of ELIC + CHARM + SwinT hyper, and of other families")
    low, high = cost[mask].min(), min(cost[mask].max(), cost[~mask].max())
    if not high > low:
        return not_enough("other families at the cost of ELIC + CHARM + SwinT hyper: all there are cost less")
    share = frontier_share(evidence, mask, math.log(low), math.log(high), "frontier of that family")
    return _of_losses(
        evidence,
        [Condition(share, bound=MOSTLY_PCT)],
        n=f"{mask.sum()} : {(~mask).sum()} archs",
        notes=(f"from {low:.3g}, where the family begins, to {high:.3g} kFLOP/px, where a family ends",),
    )


# ---------------------------------------------------------------------------------------- 7 to 9: runtime


def flops_do_not_rank_runtime(evidence: Evidence) -> Finding:
    orders = _large_enough(
        [ranks.by_flops(timed) for timed in ranks.timed_settings(evidence)], evidence.is_published
    )
    across, within = ([order.within(same) for order in orders] for same in (False, True))
    if not any(order.counted.any() for order in across) or not any(order.counted.any() for order in within):
        return not_enough(
            f"decode times of at least {ranks.MIN_RANKED} architectures on one device, "
            "of two families or more with several members each"
        )
    share, inside, difference = ranks.inverted_by_family(orders)
    conditions = [Condition(share, bound=ranks.TOLERATED_PCT), Condition(difference)]
    return _of_orders(evidence, orders, conditions, others=(inside,))


def ranks_change_between_devices(evidence: Evidence) -> Finding:
    orders = _large_enough(ranks.device_orders(ranks.timed_settings(evidence)), evidence.is_published)
    if not orders:
        return not_enough(
            f"decode times of at least {ranks.MIN_RANKED} architectures on two devices, "
            "same image size and precision"
        )
    share = ranks.inverted_share(orders, "inverted between devices")
    return some_share(
        Condition(share),
        ranks.TOLERATED_PCT,
        is_published=evidence.is_published,
        **_shown_orders(evidence, orders),
    )


def image_size_keeps_ranks(evidence: Evidence) -> Finding:
    orders = _large_enough(ranks.size_orders(ranks.timed_settings(evidence)), evidence.is_published)
    if not orders:
        return not_enough(
            f"decode times of at least {ranks.MIN_RANKED} architectures on one device "
            f"at two image sizes, one with {ranks.MIN_SIZE_FACTOR:g} times the pixels of the other"
        )
    share = ranks.inverted_share(orders, "inverted between sizes")
    return _of_orders(evidence, orders, [Condition(share, bound=ranks.TOLERATED_PCT, below=True)])


# ------------------------------------------------------------------------------------------ what they share


def _of_losses(evidence: Evidence, conditions: Sequence[Condition], **shown: Any) -> Finding:
    return all_hold(conditions, is_published=evidence.is_published, covers=evidence.covers(), **shown)


def _of_pairs(
    evidence: Evidence,
    pairs: Pairs,
    conditions: Sequence[Condition],
    *,
    others: tuple[Quantity, ...] = (),
    notes: tuple[str, ...] = (),
    smallest: Pairs | None = None,
) -> Finding:
    if pairs.ambiguous:
        notes = (*notes, f"{pairs.ambiguous} architectures left out: several share their widths and layers")
    return all_hold(
        conditions,
        is_published=evidence.is_published,
        others=others,
        n=f"{len(pairs)} pair" + "s" * (len(pairs) > 1),
        covers=pairs_cover(evidence, smallest or pairs),
        notes=notes,
        rows=pair_rows(evidence, pairs),
    )


def _at_equal_cost(evidence: Evidence, found: list[Stratum], conditions: Sequence[Condition]) -> Finding:
    return _of_losses(
        evidence,
        conditions,
        n=_members(found),
        notes=_strata_notes(found),
        rows=equal_cost_rows(evidence, found),
    )


def _no_pairs(pairs: Pairs, of: str, otherwise: str = "") -> Finding:
    reason = (
        f"; {pairs.ambiguous} are there but share widths and layers with others" if pairs.ambiguous else ""
    )
    return not_enough(f"a pair of architectures alike but for {of}{' ' * bool(otherwise)}{otherwise}{reason}")


def _members(found: Sequence[Stratum]) -> str:
    one = {row for stratum in found for row in stratum.one}
    other = {row for stratum in found for row in stratum.other}
    return f"{len(one)} : {len(other)} archs"


def _strata_notes(found: Sequence[Stratum]) -> tuple[str, ...]:
    return tuple(
        f"{stratum.name}: {len(stratum.one)} against {len(stratum.other)} architectures, both from "
        f"{math.exp(stratum.low):.3g} to {math.exp(stratum.high):.3g} kFLOP/px"
        for stratum in found
    )


def _flip_note(low: Quantity, high: Quantity) -> tuple[str, ...]:
    if low.draws is None or high.draws is None:
        return ()
    share = 100 * float(np.mean(low.draws * high.draws < 0))
    return (f"in {share:.3g} % of the draws the two ends have opposite signs",)


def _large_enough(orders: Sequence[ranks.PairOrder], is_published: bool) -> list[ranks.PairOrder]:
    least = 2 if is_published else ranks.MIN_RANKED
    return [order for order in orders if len(order.ids) >= least and order.counted.any()]


def _shown_orders(evidence: Evidence, orders: Sequence[ranks.PairOrder]) -> dict[str, Any]:
    count = len({identity for order in orders for identity in order.ids})
    return {
        "n": f"{count} archs",
        "covers": "other architectures; pairs within timing noise do not count",
        "notes": (*ranks.order_notes(orders), *(() if evidence.is_published else ranks.tau_notes(orders))),
    }


def _of_orders(
    evidence: Evidence,
    orders: Sequence[ranks.PairOrder],
    conditions: Sequence[Condition],
    others: tuple[Quantity, ...] = (),
) -> Finding:
    shown = _shown_orders(evidence, orders)
    return all_hold(conditions, is_published=evidence.is_published, others=others, **shown)


_AXES_2 = "space.axes={model:[rdc_g,rdc_f,rdc_e],entropy_model:[mean_scale_hyperprior,charm]}"
_AXES_3 = "space.axes=[{model:[rdc_g],depth:[n64,n96,n128,n192]},{model:[rdc_f],depth:[n64,n96,n128]}]"
_AXES_4 = (
    "space.axes=[{model:[rdc_f],depth.channels:[[96,96,96],[192,192,192],[256,256,256]]},"
    "{model:[rdc_e],depth.channels:[[64,96,128],[96,128,192]]}]"
)
_AXES_5 = "space.axes={model:[rdc_c],hyper_transform:[conv,swint],depth:[rdc_d,rdc_c,rdc_b,rdc_a]}"
_EQUAL_COST = (
    "each family's frontier, linear in ln(decode kFLOP/px) between its architectures, compared where both "
    "have some; nothing is extrapolated"
)

STATEMENTS: tuple[Statement, ...] = (
    Statement(
        1,
        "conv-cheapest-worst",
        "conv: cheapest and worst",
        "Transforms of stacked convolutions (Conv) are the cheapest to decode and the worst in quality.",
        "conv, ELIC and SwinT transforms with the same entropy model and hyper-transform",
        "per entropy model and hyper-transform the best loss and the least cost of each transform; both must "
        "be higher for ELIC and for SwinT than for conv (cost), and lower (loss)",
        "+experiment=frontier",
        conv_cheapest_and_worst,
    ),
    Statement(
        2,
        "charm-costs-helps",
        "CHARM: dearer and better",
        "Going from a hyperprior to the channel-wise autoregressive model raises both cost and quality.",
        "architectures that differ in the entropy model alone",
        "pairs alike in transform, widths, layers and hyper-transform, latent within 10 % (CHARM needs a "
        "multiple of its slices): mean of ln(loss / loss) below 0, and of ln(cost / cost) above",
        f"name=claim2 width=0.2 '{_AXES_2}'",
        charm_costs_and_helps,
    ),
    Statement(
        3,
        "elic-over-conv",
        "ELIC better than conv",
        "The ELIC transform improves on stacked convolutions.",
        "conv and ELIC transforms with the same entropy model and hyper-transform, at overlapping cost",
        f"{_EQUAL_COST}; without such a range, pairs of equal widths",
        f"name=claim3 width=0.2 '{_AXES_3}'",
        elic_over_conv,
    ),
    Statement(
        4,
        "elic-swint-flip",
        "ELIC/SwinT flip with FLOPs",
        "Which of ELIC and SwinT is better depends on decode cost: one wins when cheap, the other when dear.",
        "ELIC and SwinT transforms with the same entropy model and hyper-transform, several costs each",
        f"{_EQUAL_COST}; the advantage in the cheapest and in the dearest third of that range must have "
        "opposite signs, each beyond its interval",
        f"name=claim4 width=0.2 '{_AXES_4}'",
        elic_swint_flip,
    ),
    Statement(
        5,
        "swint-hyper-helps",
        "SwinT hyper helps widely",
        "A SwinT hyper-transform helps over a wide range of decode cost.",
        f"architectures that differ in the hyper-transform alone, over a factor of {WIDE_FACTOR:g} in cost",
        "pairs alike in all else, in their cheaper and in their dearer half; without such pairs, thirds of "
        "the range of cost that both families have. Each part must favour SwinT",
        f"name=claim5 width=0.2 '{_AXES_5}'",
        swint_hyper_helps,
    ),
    Statement(
        6,
        "frontier-elic-charm-swint",
        "frontier: ELIC+CHARM+SwinT",
        "Beyond the cheapest architectures, the frontier is ELIC + CHARM + SwinT hyper-transform.",
        "that family, and others at its cost",
        "share of the range of ln(decode kFLOP/px) that this family and others have where the best "
        f"affordable architecture is one of it; more than {MOSTLY_PCT:g} % must be",
        "space=paper width=0.2 name=claim6",
        frontier_is_elic_charm_swint,
    ),
    Statement(
        7,
        "flops-do-not-rank-runtime",
        "FLOPs do not rank runtime",
        "FLOPs do not rank runtime across families, though they do within a family.",
        f"decode times of {ranks.MIN_RANKED} or more architectures, of several families",
        "share of pairs that FLOPs and decode time of the networks put in opposite order, of those whose "
        f"quartile ranges do not overlap: above {ranks.TOLERATED_PCT:g} % for pairs of two families (a "
        "Kendall tau below 0.8), and higher than for pairs of one family",
        "--images kodak -o TIMES.csv",
        flops_do_not_rank_runtime,
        is_timed=True,
    ),
    Statement(
        8,
        "ranks-change-between-devices",
        "devices change the ranks",
        "The order of architectures by runtime changes from one device to another.",
        f"decode times of {ranks.MIN_RANKED} or more architectures on two devices",
        "share of pairs that two devices put in opposite order, of those whose quartile ranges overlap on "
        "neither: above 0. It is contradicted where no pair is inverted and more than "
        f"{ranks.TOLERATED_PCT:g} % can be excluded",
        "--images kodak -o OTHER_DEVICE.csv  # on another device",
        ranks_change_between_devices,
        is_timed=True,
    ),
    Statement(
        9,
        "image-size-keeps-ranks",
        "image size keeps the ranks",
        "Larger images (CLIC instead of Kodak) do not change the trends of runtime.",
        f"decode times of {ranks.MIN_RANKED} or more architectures at two image sizes",
        "share of pairs that the two sizes put in opposite order, of those whose quartile ranges overlap at "
        f"neither: below {ranks.TOLERATED_PCT:g} %",
        "--images kodak clic -o TIMES.csv",
        image_size_keeps_ranks,
        is_timed=True,
    ),
)
