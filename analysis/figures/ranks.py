"""The order of models by decode time on one device against their order on another, or by complexity."""

from __future__ import annotations

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.correlation import MIN_MODELS, correlate
from analysis.errors import AnalysisError
from analysis.families import Styles
from analysis.figures.sheet import frame, new_figure
from analysis.figures.style import FAMILY_TITLE, family_handles, marker_scale
from analysis.figures.times import Setting, size_name
from analysis.labels import place_labels
from analysis.ranks import Inversions, Measured, inversions
from analysis.text import LABEL_WIDTH, shorten

# Beyond so many models names at both sides become too small: then a plane of ranks.
MAX_SLOPES = 30
# Models whose ranks differ most, named in that plane.
_NAMED_MOVES = 6
_ROW_IN = 0.24
# Of crossings: id, colour inside, and what it says.
_CROSSINGS = (
    ("clear", "black", "inversion, quartiles of both models apart"),
    ("unclear", "white", "inversion within the spread of the repeats"),
)
DIGITS = 4
# From a marker to the end of its value, and from there to the name.
_VALUE_PT, _NAME_PT = 30.0, 8.0


@dataclasses.dataclass(frozen=True)
class Order:
    """Models by one quantity, the least first: decode time in one setting, or, without one, complexity.

    models: arch_id -> label, family, value, and its quartiles low and high (the value itself where it has
        no spread).
    """

    setting: Setting | None
    size: tuple[int, int]
    models: pd.DataFrame

    @property
    def text(self) -> str:
        if not self.setting:
            return "decode complexity"
        name = size_name(self.size)
        return f"decode time on {self.setting.text}, {name.partition(': ')[2] or name}"

    @property
    def slug(self) -> str:
        return f"{self.setting.slug}-{self.size[1]}x{self.size[0]}" if self.setting else "flops"

    @property
    def unit(self) -> str:
        return "ms" if self.setting else "kFLOP/px"


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two orders of the same models.

    rows: one per model with label, family, x, y (values), rank_x, rank_y (1 is the least; ties share the
        mean rank), sorted by x. inversions: of row numbers; clear where the quartiles of both models are
        apart in both orders. kendall_tau: None where all values of one order are the same.
    """

    x: Order
    y: Order
    rows: pd.DataFrame
    inversions: Inversions
    kendall_tau: float | None

    @property
    def slug(self) -> str:
        return f"{self.x.slug}__vs__{self.y.slug}"


def orders(timed: pd.DataFrame) -> list[Order]:
    """timed: of `times.timed`. One order per setting and image size; the last one is by decode complexity."""
    if timed.empty:
        return []
    found = []
    for _, group in timed.groupby(["setting", "size"], sort=True):
        setting, size = group["setting"].iloc[0], group["size"].iloc[0]
        values = group.set_index("arch_id")
        low, high = (values[f"dec_net_{end}_ms"].fillna(values["dec_net_ms"]) for end in ("q25", "q75"))
        models = values[["label", "family"]].assign(value=values["dec_net_ms"], low=low, high=high)
        found.append(Order(setting, size, models))
    first = timed.drop_duplicates("arch_id").set_index("arch_id")
    work = first["kflop_per_px_dec"]
    models = first[["label", "family"]].assign(value=work, low=work, high=work)
    return [*found, Order(None, (0, 0), models)]


def pairs(every: Sequence[Order]) -> list[Pair]:
    """Pairs of orders that differ in one thing and have MIN_MODELS models in common.

    First two devices (or thread counts, or precisions) at one image size, then complexity and a device, then
    two image sizes on one device.
    """
    by_kind: list[list[Pair]] = [[], [], []]
    for x, y in itertools.combinations(sorted(every, key=lambda order: order.setting is not None), 2):
        if len(x.models.index.intersection(y.models.index)) < MIN_MODELS:
            continue
        if x.setting is None:
            by_kind[1].append(pair(x, y))
        elif x.size == y.size and _differ_in_one(x.setting, y.setting):
            by_kind[0].append(pair(x, y))
        elif x.setting == y.setting:
            by_kind[2].append(pair(x, y))
    devices = sorted(by_kind[0], key=_same_device)
    return [*devices, *by_kind[1], *by_kind[2]]


def _differ_in_one(one: Setting, other: Setting | None) -> bool:
    """Devices have their own thread counts; on one device two differences would explain each other."""
    assert other, "complexity comes first"
    return one.device != other.device or one.threads == other.threads or one.precision == other.precision


def _same_device(two: Pair) -> bool:
    assert two.x.setting, "complexity is no device"
    assert two.y.setting, "complexity is no device"
    return two.x.setting.device == two.y.setting.device


def pair(x: Order, y: Order) -> Pair:
    """The two orders of the models that both have."""
    shared = x.models.index.intersection(y.models.index)
    one, other = x.models.loc[shared], y.models.loc[shared]
    rows = pd.DataFrame(
        {
            "label": one["label"],
            "family": one["family"],
            "x": one["value"],
            "y": other["value"],
            "rank_x": one["value"].rank(),
            "rank_y": other["value"].rank(),
            "low_x": one["low"],
            "high_x": one["high"],
            "low_y": other["low"],
            "high_y": other["high"],
        }
    ).sort_values(["x", "y", "label"], kind="stable")
    rows = rows.reset_index()
    found = inversions(_measured(rows, "x"), _measured(rows, "y"))
    try:
        kendall_tau = correlate(rows["x"], rows["y"]).kendall.value
    except AnalysisError:  # all values of one order are the same
        kendall_tau = None
    return Pair(x, y, rows, found, kendall_tau)


def draw_ranks(drawn: Pair, by_family: Styles) -> Figure:
    """Lines between two columns of ranks, or points in a plane of ranks where there are many models."""
    return (_slopes if len(drawn.rows) <= MAX_SLOPES else _plane)(drawn, by_family)


def _measured(rows: pd.DataFrame, side: str) -> Measured:
    value, low, high = (
        rows[name].to_numpy(dtype=np.float64) for name in (side, f"low_{side}", f"high_{side}")
    )
    return Measured(value, low, high)


def _slopes(drawn: Pair, by_family: Styles) -> Figure:
    """Every crossing of two lines is an inversion, for equal values keep the order of the other column."""
    rows, count = drawn.rows, len(drawn.rows)
    figure, (axes,) = new_figure(size_in=(11.5, 1.0 + _ROW_IN * count))
    left = np.arange(1.0, count + 1)
    right = np.empty(count)
    right[rows.sort_values(["y", "x", "label"], kind="stable").index.to_numpy()] = left
    moved = {row for two in drawn.inversions.found for row in two}
    for index, (label, family, x, y) in enumerate(
        rows[["label", "family", "x", "y"]].itertuples(index=False, name=None)
    ):
        colour, marker = by_family[family]
        axes.plot(
            [0, 1],
            [left[index], right[index]],
            color=colour if index in moved else "0.75",
            linewidth=1.5 if index in moved else 1.0,
            zorder=2,
        )
        axes.plot(
            [0, 1], [left[index], right[index]], linestyle="none", marker=marker, color=colour, zorder=3
        )
        _write_row(axes, 0, left[index], shorten(label, LABEL_WIDTH), x)
        _write_row(axes, 1, right[index], shorten(label, LABEL_WIDTH), y)
    _mark_crossings(axes, drawn, left, right)
    axes.set_ylim(count + 0.6, 0.4)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 1], [f"{drawn.x.text}  [{drawn.x.unit}]", f"{drawn.y.text}  [{drawn.y.unit}]"])
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, labelsize=8.5)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    frame(
        figure,
        _title(drawn),
        ["The least is at the top.", *_basis(drawn)],
        [*family_handles(by_family, rows["family"]), *_crossing_handles(drawn.inversions)],
        legend_title=FAMILY_TITLE,
    )
    return figure


def _mark_crossings(
    axes: Axes, drawn: Pair, left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]
) -> None:
    first, second = np.array(drawn.inversions.found, dtype=int).reshape(-1, 2).T
    ahead, behind = left[second] - left[first], right[first] - right[second]
    along = ahead / (ahead + behind)
    height = left[first] + along * (right[first] - left[first])
    clear = set(drawn.inversions.clear)
    is_clear = np.array([two in clear for two in drawn.inversions.found], dtype=bool)
    for gid, face, _ in _CROSSINGS:
        chosen = is_clear == (gid == "clear")
        axes.scatter(
            along[chosen],
            height[chosen],
            s=20,
            facecolors=face,
            edgecolors="black",
            linewidths=0.8,
            zorder=4,
            gid=gid,
        )


def _crossing_handles(found: Inversions) -> list[Line2D]:
    """Of inversions that are clear, and of those that are not, where there are some."""
    counts = (len(found.clear), len(found.found) - len(found.clear))
    return [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            markersize=4.5,
            color="black",
            markerfacecolor=face,
            label=label,
        )
        for count, (_, face, label) in zip(counts, _CROSSINGS, strict=True)
        if count
    ]


def _write_row(axes: Axes, side: int, height: float, name: str, value: float) -> None:
    """Value and name beside a marker; side: 0 left, 1 right."""
    value_pt = (-12.0, 12.0 + _VALUE_PT)[side]  # where it ends
    name_pt = (value_pt - _VALUE_PT - _NAME_PT, value_pt + _NAME_PT)[side]
    for text, along_pt, align in (
        (_value(value), value_pt, "right"),
        (name, name_pt, ("right", "left")[side]),
    ):
        axes.annotate(
            text,
            (side, height),
            xytext=(along_pt, 0.0),
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=8,
        )


def _plane(drawn: Pair, by_family: Styles) -> Figure:
    rows, count = drawn.rows, len(drawn.rows)
    figure, (axes,) = new_figure(size_in=(8.4, 6.4))
    diagonal = axes.plot([1, count], [1, count], color="0.3", linewidth=1.2, zorder=1)
    for family, (colour, marker) in by_family.items():
        group = rows[rows["family"] == family]
        axes.plot(
            group["rank_x"],
            group["rank_y"],
            linestyle="none",
            marker=marker,
            color=colour,
            markersize=5 * marker_scale(count),
            zorder=3,
        )
    axes.set_xlabel(textwrap.fill(f"rank by {drawn.x.text} ", 80))
    axes.set_ylabel(textwrap.fill(f"rank by {drawn.y.text} ", 80))
    equal = Line2D([], [], color="0.3", linewidth=1.2, label="same rank in both orders")
    frame(
        figure,
        _title(drawn),
        [*_basis(drawn), f"Rank 1: the least. Named: up to {_NAMED_MOVES} models whose ranks differ most."],
        [*family_handles(by_family, rows["family"]), equal],
        legend_title=FAMILY_TITLE,
    )
    distance = (rows["rank_x"] - rows["rank_y"]).abs()
    moved = rows.loc[distance[distance > 0].sort_values(ascending=False, kind="stable").index[:_NAMED_MOVES]]
    names = [
        (float(x), float(y), shorten(label, LABEL_WIDTH))
        for x, y, label in moved[["rank_x", "rank_y", "label"]].itertuples(index=False, name=None)
    ]
    place_labels(axes, names, rows[["rank_x", "rank_y"]].to_numpy(dtype=np.float64), diagonal)
    return figure


def _title(drawn: Pair) -> str:
    count, every, tied = len(drawn.inversions.found), drawn.inversions.pairs, _tied_pairs(drawn.rows)
    tau = "not defined" if drawn.kendall_tau is None else f"{drawn.kendall_tau:.2f}"
    ties = f", {_counted(tied)} tied" if tied else ""
    return (
        f"{_compared(drawn)} order {every - count - tied:,} of {every:,} pairs alike; "
        f"{_counted(count)} inverted{ties} (Kendall tau {tau})"
    )


def _counted(pairs: int) -> str:
    return {0: "none is", 1: "1 is"}.get(pairs, f"{pairs:,} are")


def _compared(drawn: Pair) -> str:
    one, other = drawn.x.setting, drawn.y.setting
    if one is None or other is None:
        return "Decode complexity and decode time"
    if one == other:
        return "Decode times for two image sizes"
    return (
        f"Decode times {'in two settings of one device' if one.device == other.device else 'on two devices'}"
    )


def _tied_pairs(rows: pd.DataFrame) -> int:
    x, y = (rows[name].to_numpy(dtype=np.float64) for name in ("x", "y"))
    tied = (x[:, None] == x) | (y[:, None] == y)
    return int(tied.sum() - len(rows)) // 2


def _basis(drawn: Pair) -> list[str]:
    clear, count = len(drawn.inversions.clear), len(drawn.inversions.found)
    return [
        "Inversion: of two models, the one that has less in the first order has more in the second. Time: "
        "the decoding networks alone, without entropy coding; one image, median of repeats. Kendall tau: 1: "
        "same order, 0: unrelated, -1: reversed.",
        f"{clear} of {count} inversions are clear: in both orders the models' quartiles do not overlap."
        if count
        else "No inversion: no pair of models changes its order.",
    ]


def _value(number: float) -> str:
    """With DIGITS significant digits, zeros at the end included."""
    decimals = DIGITS - 1 - math.floor(math.log10(number)) if number > 0 else 0
    return f"{number:,.{max(0, decimals)}f}"
