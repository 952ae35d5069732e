"""Rate saving over rate: what each codec saves against BPG at the PSNR that it has at that rate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.anchors import Anchor, load_anchor
from analysis.bdrate import OutsideRangeError, rate_saving_pct
from analysis.curves import TrialCurve, rows_of
from analysis.families import Styles
from analysis.figures.basis import basis, plural, saving_line
from analysis.figures.lines import RateLine, counted, draw_rate_lines
from analysis.figures.sheet import frame, new_figure
from analysis.figures.style import (
    REFERENCE_COLOUR,
    REFERENCE_DASHES,
    axis_text,
    set_scale,
    wrap_label,
)
from analysis.labels import label_line_ends
from analysis.rows import dataset_mismatch

ZERO = "bpg"
# One line per codec that readers ask for; --anchor takes others.
DEFAULT_REFERENCES = (
    "vtm",
    "elic",
    "charm",
    "cheng2020_anchor",
    "mbt2018",
    "mbt2018_mean",
    "bmshj2018_hyperprior",
)
# The rates that published curves are usually shown at; the figure shows at least these.
USUAL_BPP = (0.1, 1.2)


def saving_lines(curves: Sequence[TrialCurve], zero: Anchor) -> list[RateLine]:
    """The savings of all curves and single points on the anchor's images, in per cent; some may have none."""
    return [
        _saving_line(
            curve.label, str(curve.values("family")[0]), curve.values("bpp"), curve.values("psnr_db"), zero
        )
        for curve in curves
        if not _mismatch(curve, zero)
    ]


def _mismatch(curve: TrialCurve, zero: Anchor) -> str:
    """Why these images are not the anchor's; '' if they are."""
    first = {name: curve.values(name)[0] for name in ("dataset", "eval_images")}
    return dataset_mismatch(first, zero.dataset)


def reference_line(anchor: Anchor, zero: Anchor) -> RateLine:
    """The same of a published curve."""
    return _saving_line(anchor.title, "", anchor.curve.bpp, anchor.curve.psnr_db, zero)


def why_no_savings(curves: Sequence[TrialCurve]) -> str:
    """Why there is nothing to show; '' if there is."""
    zero = load_anchor(ZERO)
    if not curves:
        return "no trial with status ok has bpp and psnr_db"
    if any(line.bpp for line in saving_lines(curves, zero)):
        return ""
    low_db, high_db = zero.curve.psnr_db[0], zero.curve.psnr_db[-1]
    return _mismatch(curves[0], zero) or (
        f"no trial's PSNR lies in the range of {zero.title}, {low_db:.1f} to {high_db:.1f} dB"
    )


def saving_over_rate(curves: Sequence[TrialCurve], references: Sequence[Anchor], by_family: Styles) -> Figure:
    """Lines for architectures with several points, markers for single ones, grey lines for what is published.

    curves: at least one must have a point that BPG reaches. Lines join measured points.
    """
    zero = load_anchor(ZERO)
    every = saving_lines(curves, zero)
    ours = [line for line in every if line.bpp]
    published = [reference_line(anchor, zero) for anchor in references if anchor.dataset == zero.dataset]
    rates_bpp = _rates_in_view(ours)
    published = [line for line in published if line.bpp and line.bpp[0] < rates_bpp[1]]
    figure, (axes,) = new_figure(size_in=(9.6, 5.0))
    handles = draw_rate_lines(axes, ours, by_family)
    axes.axhline(0.0, color="0.25", linewidth=1.4, zorder=1)
    ends = [*_draw_published(axes, published, rates_bpp[1]), (rates_bpp[1], 0.0, f"{zero.title} = 0")]
    _set_view(axes, [*ours, *published], rates_bpp)
    axes.set_xlabel(axis_text("bpp", direction=False))
    axes.set_ylabel(wrap_label(axis_text("rate_saving_vs_bpg_pct")))
    handles.append(
        Line2D(
            [],
            [],
            color=REFERENCE_COLOUR,
            linestyle="--",
            label="grey, named at the right: published, told apart by dashes",
        )
    )
    rows = rows_of(curves)
    outside = sum(line.outside for line in every)
    unseen = f"Not shown: {plural(outside, 'point')} outside BPG's range of PSNR." if outside else ""
    lowest = min(min(line.values) for line in ours)
    frame(figure, _title(ours), basis(rows, saving_line(lowest), unseen), handles)
    label_line_ends(axes, ends)
    return figure


def _saving_line(
    label: str, family: str, bpp: Sequence[float], psnr_db: Sequence[float], zero: Anchor
) -> RateLine:
    points = []
    for rate, quality in zip(bpp, psnr_db, strict=True):
        try:
            points.append((rate, rate_saving_pct(zero.curve, bpp=rate, psnr_db=quality)))
        except OutsideRangeError:
            continue
    rates, savings = zip(*points, strict=True) if points else ((), ())
    return RateLine(label, family, rates, savings, len(bpp) - len(points))


def _draw_published(
    axes: Axes, published: Sequence[RateLine], high_bpp: float
) -> list[tuple[float, float, str]]:
    """Returns where every line ends or leaves the view, and its name."""
    ends = []
    for line, dashes in zip(published, itertools.cycle(REFERENCE_DASHES), strict=False):
        axes.plot(line.bpp, line.values, color=REFERENCE_COLOUR, linestyle=dashes, linewidth=1.1, zorder=2)
        end_bpp = min(high_bpp, line.bpp[-1])
        # The axis is logarithmic, and so are the straight lines on it.
        end_pct = np.interp(np.log(end_bpp), np.log(line.bpp), line.values)
        ends.append((end_bpp, float(end_pct), line.label))
    return ends


def _rates_in_view(ours: Sequence[RateLine]) -> tuple[float, float]:
    rates = [bpp for line in ours for bpp in line.bpp]
    return min(USUAL_BPP[0], 0.8 * min(rates)), max(USUAL_BPP[1], 1.25 * max(rates))


def _set_view(axes: Axes, lines: Sequence[RateLine], rates_bpp: tuple[float, float]) -> None:
    """All savings at the rates in view, and 0, with some room."""
    seen = [
        saving
        for line in lines
        for bpp, saving in zip(line.bpp, line.values, strict=True)
        if rates_bpp[0] <= bpp <= rates_bpp[1]
    ]
    low, high = min(0.0, *seen), max(0.0, *seen)
    room = 0.06 * (high - low) or 1.0
    axes.set_xlim(*rates_bpp)
    axes.set_ylim(low - room, high + room)
    set_scale(axes, "x", pd.Series(rates_bpp), force_log=True)


def _title(ours: Sequence[RateLine]) -> str:
    """With how many times BPG's bits ours need, if all need more."""
    title = f"Bits saved against BPG at equal PSNR, over rate: {counted(ours)}"
    savings = [saving for line in ours for saving in line.values]
    if max(savings) >= 0:
        return title
    least, most = (f"{1 - saving / 100:.1f}" for saving in (max(savings), min(savings)))
    times = least if least == most else f"{least} to {most}"
    return f"{title}; ours need {times} times BPG's bits"
