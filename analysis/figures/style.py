"""What all figures share: colours and markers that anyone can tell apart, axis texts, scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.schema import column

# Okabe and Ito's colours, which people with any colour vision can tell apart; yellow is too faint for points.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# References are grey, so that no colour is taken for one of ours; dashes tell the first few apart.
REFERENCE_COLOUR = "0.45"
REFERENCE_DASHES = ("--", ":", "-.", (0, (6, 1.5)), (0, (1, 2.5)), (0, (8, 2, 1, 2, 1, 2)))
FAMILY_TITLE = "family: transform / entropy model / hyper-transform"
# From this ratio on a linear axis would press most points into a corner.
LOG_RATIO = 4.0
# Up to so many points markers have their full size.
_CROWD = 120

Style = tuple[str, str]
Styles = Mapping[str, Style]

_AXIS_TEXT = {
    "rd_loss": "rd_loss = bpp + lmbda 255² MSE  [bit/px]",
    "kflop_per_px_dec": "decode complexity  [kFLOP/px]",
    "rate_saving_vs_bpg_pct": "rate saving against BPG 4:4:4 at equal PSNR  [%]",
    "time_dec_total_ms": "decode time, networks and entropy coding  [ms]",
    "psnr_db": "PSNR, mean over images  [dB]",
    "bpp": "rate of the coded file  [bit/px]",
}


def family_styles(families: Iterable[str]) -> dict[str, Style]:
    """Colour and marker of every family, by name, so that figures agree with each other."""
    ordered = sorted(set(families))
    return dict(zip(ordered, styles(range(len(ordered))), strict=True))


def styles(indices: Iterable[int]) -> list[Style]:
    """Pairs of colour and marker; both change with every index, and the first 49 pairs differ."""
    return [(COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]) for i in indices]


def axis_text(name: str) -> str:
    """What an axis shows, its unit, and which way is good."""
    col = column(name)
    text = _AXIS_TEXT.get(name) or f"{name}  [{col.unit}]"
    return text if col.better == "-" else f"{text}, {'lower' if col.better == 'low' else 'higher'} is better"


def wrap_label(text: str) -> str:
    """Of `axis_text`, for a vertical axis: which way is good goes on a line of its own."""
    return text.replace("], ", "]\n")


def set_scale(axes: Axes, which: str, values: pd.Series, *, force_log: bool = False) -> None:
    """A logarithmic axis with plain numbers, if values are positive and far apart, or it is forced."""
    positive = bool((values > 0).all())
    if not positive or not (force_log or values.max() / values.min() > LOG_RATIO):
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if values.min() == values.max():  # one point would lie at the edge
        (axes.set_xlim if which == "x" else axes.set_ylim)(values.min() / LOG_RATIO, values.max() * LOG_RATIO)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def family_handles(by_family: Styles, families: Iterable[str]) -> list[Line2D]:
    """One legend entry per family that the figure shows."""
    shown = set(families)
    return [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=7, label=family)
        for family, (colour, marker) in by_family.items()
        if family in shown
    ]


def marker_scale(count: int) -> float:
    """Factor of a marker's width: many points are drawn smaller, so that they can still be told apart."""
    return max(0.4, min(1.0, (_CROWD / max(count, 1)) ** 0.5))


def hollow(label: str, marker: str = "o", colour: str = "0.4") -> Line2D:
    """A legend entry of a hollow marker."""
    return Line2D([], [], linestyle="none", marker=marker, color=colour, markerfacecolor="white", label=label)
