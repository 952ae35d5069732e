"""Orders of architectures by runtime: pairs that two orders put the other way round, beyond timing noise."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.statistics import Array, Quantity
from analysis.correlation import MIN_MODELS, correlate
from analysis.errors import AnalysisError
from analysis.ranks import Measured

# An order is kept where at most one pair in ten is the other way round: a Kendall tau of 0.8 or more.
TOLERATED_PCT = 10.0
# Fewer architectures have too few pairs to speak of an order.
MIN_RANKED = 8
# Image sets differ in size where one has at least twice the pixels of the other.
MIN_SIZE_FACTOR = 2.0
# Draws, fewest and most: fewer of many architectures, whose pairs take long to count and vary less.
_DRAWS = (500, 2000)
_PAIRS_OF_DRAWS = 2e9

Mask = npt.NDArray[np.bool_]
_SETTING = ["device_slug", "threads", "precision", "height_px", "width_px"]


@dataclasses.dataclass(frozen=True, eq=False)
class Timed:
    """All architectures timed in one setting. low_ms, high_ms: quartiles, or the median itself."""

    device: str
    threads: int
    precision: str
    height_px: int
    width_px: int
    rows: pd.DataFrame  # index arch_id; family, kflop_per_px, median_ms, low_ms, high_ms

    @property
    def megapixels(self) -> float:
        return self.height_px * self.width_px / 1e6

    @property
    def name(self) -> str:
        return (
            f"{self.device}, {self.threads} thread(s), {self.precision or 'precision unknown'}, {self.size}"
        )

    @property
    def size(self) -> str:
        return f"{self.height_px} x {self.width_px} px"


@dataclasses.dataclass(frozen=True, eq=False)
class PairOrder:
    """Over (a, a) pairs of architectures: which can be told apart, and which two orders disagree on.

    first, second: what the orders are by, for correlations. families: of the architectures.
    """

    name: str
    ids: tuple[str, ...]
    counted: Mask
    inverted: Mask
    first: Array
    second: Array
    families: npt.NDArray[np.object_]

    def numbers(self) -> tuple[int, int]:
        """Inverted and counted pairs."""
        return int(np.triu(self.inverted, 1).sum()), int(np.triu(self.counted, 1).sum())

    def within(self, same_family: bool) -> PairOrder:
        mask = (self.families[:, None] == self.families) == same_family
        return dataclasses.replace(self, counted=self.counted & mask, inverted=self.inverted & mask)


def timed_settings(evidence: Evidence) -> list[Timed]:
    """Settings with at least two timed architectures; of one measured repeatedly, medians of its rows."""
    rows = evidence.runtimes
    rows = rows[rows["dec_net_ms"].notna() & (rows["dec_net_ms"] > 0)]
    known = evidence.architectures.drop_duplicates("arch_id").set_index("arch_id")
    found = []
    for setting, group in rows.groupby(_SETTING, sort=True):
        by_id = group.groupby("arch_id", sort=True)
        table = pd.DataFrame(
            {
                "family": by_id["family"].first(),
                "kflop_per_px": by_id["kflop_per_px_dec"].median(),
                "median_ms": by_id["dec_net_ms"].median(),
                "low_ms": by_id["dec_net_q25_ms"].median(),
                "high_ms": by_id["dec_net_q75_ms"].median(),
            }
        )
        table["kflop_per_px"] = table["kflop_per_px"].fillna(known["cost"].reindex(table.index))
        family = known["family"].reindex(table.index) if "family" in known else pd.Series(dtype=object)
        table["family"] = table["family"].where(table["family"] != "", family)
        for name in ("low_ms", "high_ms"):
            table[name] = table[name].fillna(table["median_ms"])
        if len(table) > 1:
            device, threads, precision, height, width = cast(tuple[Any, ...], setting)
            found.append(Timed(str(device), int(threads), str(precision), int(height), int(width), table))
    return found


def by_flops(timed: Timed) -> PairOrder:
    """The order of FLOPs against that of decode time; pairs whose quartile ranges overlap do not count."""
    rows = timed.rows.dropna(subset=["kflop_per_px"])
    return _pair_order(timed.name, rows, Measured.exact(rows["kflop_per_px"]), _times(rows))


def between(one: Timed, other: Timed, name: str) -> PairOrder:
    """Two orders by decode time; only pairs that both settings tell apart count."""
    ids = one.rows.index.intersection(other.rows.index)
    return _pair_order(name, one.rows.loc[ids], _times(one.rows.loc[ids]), _times(other.rows.loc[ids]))


def device_orders(settings: Sequence[Timed]) -> list[PairOrder]:
    """Every two devices that timed images of one size in one precision."""
    return [
        between(one, other, f"{one.name} against {other.name}")
        for one, other in itertools.combinations(settings, 2)
        if one.device != other.device and one.size == other.size and one.precision == other.precision
    ]


def size_orders(settings: Sequence[Timed]) -> list[PairOrder]:
    """The smallest against the largest images of every device, if these differ enough."""
    found = []
    by_device = sorted(settings, key=lambda timed: (timed.device, timed.threads, timed.precision))
    for _, group in itertools.groupby(by_device, key=lambda t: (t.device, t.threads, t.precision)):
        sizes = sorted(group, key=lambda timed: timed.megapixels)
        if sizes[-1].megapixels >= MIN_SIZE_FACTOR * sizes[0].megapixels:
            found.append(between(sizes[0], sizes[-1], f"{sizes[0].name} against {sizes[-1].size}"))
    return found


def inverted_share(orders: Sequence[PairOrder], name: str, *, rng_seed: int = 0) -> Quantity:
    """Per cent of the counted pairs that are inverted; mean over orders. Resampled: architectures.

    An architecture enters all orders with the same weight of a draw, and is never paired with itself.
    """
    draws, point = _resampled(orders, _all_ids(orders), rng_seed)
    return _share_quantity(name, draws, point, orders)


def inverted_by_family(
    orders: Sequence[PairOrder], *, rng_seed: int = 0
) -> tuple[Quantity, Quantity, Quantity]:
    """The share across families, that within families, and across less within in percentage points."""
    ids = _all_ids(orders)
    across, within = ([order.within(same) for order in orders] for same in (False, True))
    across_draws, across_point = _resampled(across, ids, rng_seed)
    within_draws, within_point = _resampled(within, ids, rng_seed)
    difference = across_draws - within_draws
    return (
        _share_quantity("inverted across families", across_draws, across_point, orders),
        _share_quantity("inverted within a family", within_draws, within_point, orders),
        Quantity(
            "across less within",
            "points",
            across_point - within_point,
            difference[np.isfinite(difference)],
            _fewest(orders),
        ),
    )


def order_notes(orders: Iterable[PairOrder]) -> tuple[str, ...]:
    """How many pairs each comparison counted and inverted."""
    notes = []
    for order in orders:
        inverted, counted = order.numbers()
        every = len(order.ids) * (len(order.ids) - 1) // 2
        notes.append(f"{order.name}: {inverted} of {counted} pairs inverted, {every - counted} within noise")
    return tuple(notes)


def _share_quantity(name: str, draws: Array, point: float, orders: Sequence[PairOrder]) -> Quantity:
    return Quantity(name, "%", point, draws[np.isfinite(draws)], _fewest(orders), is_share=True)


def _all_ids(orders: Sequence[PairOrder]) -> dict[str, int]:
    return {name: place for place, name in enumerate(sorted({i for order in orders for i in order.ids}))}


def _fewest(orders: Sequence[PairOrder]) -> float:
    return float(min(len(order.ids) for order in orders))


def _resampled(orders: Sequence[PairOrder], ids: Mapping[str, int], rng_seed: int) -> tuple[Array, float]:
    """(draws,) of the mean share, and the share of the architectures as they are."""
    count = len(ids)
    draws = int(np.clip(_PAIRS_OF_DRAWS / count**2, *_DRAWS))
    weights = np.random.default_rng(rng_seed).multinomial(count, np.full(count, 1 / count), size=draws)
    # Small whole numbers: exact in half the memory.
    drawn = _mean_share(orders, ids, weights.astype(np.float32))
    return drawn, float(_mean_share(orders, ids, np.ones((1, count), dtype=np.float32))[0])


def _mean_share(
    orders: Sequence[PairOrder], ids: Mapping[str, int], weights: npt.NDArray[np.float32]
) -> Array:
    """(draws,): mean over those orders that have a countable pair in a draw; NaN where none has."""
    shares = np.stack([_share(order, weights[:, [ids[name] for name in order.ids]]) for order in orders])
    known = np.isfinite(shares)
    total = np.where(known, shares, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(weights), np.nan), where=known.any(axis=0))


def tau_notes(orders: Iterable[PairOrder]) -> tuple[str, ...]:
    """Kendall's tau of every comparison, over all architectures and within each family of enough members."""
    notes = []
    for order in orders:
        groups = [("all", np.ones(len(order.ids), dtype=bool))]
        groups += [(str(name), order.families == name) for name in sorted(set(order.families))]
        found = [_tau(order, name, mask) for name, mask in groups if mask.sum() >= MIN_MODELS]
        notes.append(f"{order.name}: Kendall's tau {', '.join(filter(None, found))}")
    return tuple(notes)


def _tau(order: PairOrder, name: str, mask: Mask) -> str:
    try:
        tau = correlate(order.first[mask], order.second[mask]).kendall
    except AnalysisError:  # all of one cost, or of one time
        return ""
    return f"{name} {tau.value:.2f} ({tau.low:.2f} .. {tau.high:.2f}, n = {mask.sum()})"


def _share(order: PairOrder, weights: npt.NDArray[np.float32]) -> Array:
    """weights: (draws, a) -> (draws,) per cent; NaN where a draw holds no countable pair."""
    counted, inverted = (
        ((weights @ mask.astype(np.float32)) * weights).sum(axis=1, dtype=np.float64)
        for mask in (order.counted, order.inverted)
    )
    return np.divide(100 * inverted, counted, out=np.full(len(weights), np.nan), where=counted > 0)


def _pair_order(name: str, rows: pd.DataFrame, first: Measured, second: Measured) -> PairOrder:
    counted = first.is_apart() & second.is_apart()
    inverted = counted & (first.order() != second.order())
    families = rows["family"].to_numpy(dtype=object)
    return PairOrder(name, tuple(rows.index), counted, inverted, first.value, second.value, families)


def _times(rows: pd.DataFrame) -> Measured:
    median, low, high = (rows[name].to_numpy(dtype=np.float64) for name in ("median_ms", "low_ms", "high_ms"))
    return Measured(median, low, high)
