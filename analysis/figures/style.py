"""What all figures share: texts of axes, scales, legend entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullFormatter

from analysis.families import Styles
from analysis.schema import column

# References are grey, so that no colour is taken for one of ours; dashes tell the first few apart.
REFERENCE_COLOUR = "0.45"
REFERENCE_DASHES = ("--", ":", "-.", (0, (6, 1.5)), (0, (1, 2.5)), (0, (8, 2, 1, 2, 1, 2)), (0, (2, 1)))
FAMILY_TITLE = "family: transform / entropy model / hyper-transform"
# From this ratio on a linear axis would press most points into a corner.
LOG_RATIO = 4.0
# Up to so many points markers have their full size.
_CROWD = 120
# A logarithmic axis has labels at the first of these multiples of powers of ten that give MIN_TICKS in view.
_TICK_FACTORS = ((1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))
MIN_TICKS, _MAX_TICKS = 4, 12

_AXIS_TEXT = {
    "rd_loss": "rd_loss = bpp + lmbda 255² MSE  [bit/px]",
    "kflop_per_px_dec": "decode complexity  [kFLOP/px]",
    "rate_saving_vs_bpg_pct": "rate saving against BPG 4:4:4 at equal PSNR  [%]",
    "time_dec_total_ms": "decode time, networks and entropy coding  [ms]",
    "psnr_db": "PSNR, mean over images  [dB]",
    "bpp": "rate of the coded file  [bit/px]",
}
_WORDS = {
    "rd_loss": "rate-distortion loss",
    "kflop_per_px_dec": "decode complexity",
    "kmac_per_px_dec": "decode complexity",
    "rate_saving_vs_bpg_pct": "rate saving against BPG",
    "time_dec_total_ms": "decode time",
}


def axis_text(name: str, *, direction: bool = True) -> str:
    """What an axis shows, its unit, and, with direction, which way is good."""
    col = column(name)
    text = _AXIS_TEXT.get(name) or f"{name}  [{col.unit}]"
    if col.better == "-" or not direction:
        return text
    return f"{text}, {'lower' if col.better == 'low' else 'higher'} is better"


def words(name: str) -> str:
    """A column's name as titles have it."""
    return _WORDS.get(name, name)


def wrap_label(text: str) -> str:
    """Of `axis_text`, for a vertical axis: which way is good goes on a line of its own."""
    return text.replace("], ", "]\n")


class PlainLogLocator(Locator):
    """Ticks of a logarithmic axis, at least MIN_TICKS of them also where it covers less than a decade."""

    def __call__(self) -> Sequence[float]:
        assert self.axis is not None, "matplotlib sets it"
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        low, high = min(vmin, vmax), max(vmin, vmax)
        if not 0 < low < high:
            return []
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        step = 1 + len(decades) // _MAX_TICKS
        for factors in ((1.0,), *_TICK_FACTORS) if len(decades) > MIN_TICKS else _TICK_FACTORS:
            ticks = np.outer(decades[::step], factors).ravel()
            inside = _inside(ticks, low, high)
            if len(inside) >= MIN_TICKS:
                return inside.tolist()
        even = np.asarray(MaxNLocator(nbins=10, steps=[1, 2, 5, 10]).tick_values(low, high))
        return _inside(even, low, high).tolist()


def _inside(ticks: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Limits lose their last digit on the way through a logarithm."""
    return ticks[(low * (1 - 1e-9) <= ticks) & (ticks <= high * (1 + 1e-9))]


def set_scale(axes: Axes, which: str, values: pd.Series, *, force_log: bool = False) -> None:
    """A logarithmic axis with plain numbers, if values are positive and far apart, or it is forced."""
    positive = bool((values > 0).all())
    if not positive or not (force_log or values.max() / values.min() > LOG_RATIO):
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if values.min() == values.max():  # one point would lie at the edge
        (axes.set_xlim if which == "x" else axes.set_ylim)(values.min() / LOG_RATIO, values.max() * LOG_RATIO)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(PlainLogLocator())
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
