"""PSNR over rate: curves beside their anchors, and all architectures at one trade-off."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.anchors import Anchor
from analysis.curves import TrialCurve, curve_names, rows_of
from analysis.families import Styles, family_styles
from analysis.figures.basis import basis, plural
from analysis.figures.lines import RateLine, counted, draw_rate_lines
from analysis.figures.plane import draw_points, name_points, to_name, unnamed_line
from analysis.figures.sheet import frame, new_figure, save
from analysis.figures.style import (
    FAMILY_TITLE,
    REFERENCE_COLOUR,
    REFERENCE_DASHES,
    axis_text,
    family_handles,
    hollow,
    set_scale,
    wrap_label,
)

# References are in view up to so much above our best, or ours would be pressed together.
REACH_DB = 8.0


def draw_rd(curves: Sequence[TrialCurve], anchors: Sequence[Anchor], path: Path) -> Path:
    """`rate_quality` as a file, whose name says its format."""
    figure = rate_quality(curves, anchors)
    (written,) = save(figure, path.parent, path.stem, (path.suffix.removeprefix("."),))
    return written


def rate_quality(curves: Sequence[TrialCurve], anchors: Sequence[Anchor]) -> Figure:
    """PSNR over rate: architectures with several lmbdas as lines, single points by family, anchors plain."""
    figure, (axes,) = new_figure()
    for anchor, line in zip(anchors, itertools.cycle(REFERENCE_DASHES), strict=False):
        axes.plot(
            anchor.curve.bpp,
            anchor.curve.psnr_db,
            linestyle=line,
            color=REFERENCE_COLOUR,
            linewidth=1.3,
            label=f"reference: {anchor.title}",
        )
    rows = rows_of(curves)
    lines = [_rate_line(curve, name) for curve, name in zip(curves, curve_names(curves), strict=True)]
    handles = [*axes.get_lines(), *draw_rate_lines(axes, lines, family_styles(rows["family"]))]
    _view(axes, rows, anchors)
    axes.set_xlabel(axis_text("bpp", direction=False))
    axes.set_ylabel(wrap_label(axis_text("psnr_db")))
    frame(figure, f"Quality over rate: {counted(lines)}", basis(rows), handles)
    return figure


def _rate_line(curve: TrialCurve, name: str) -> RateLine:
    bpp, psnr_db = tuple(curve.values("bpp")), tuple(curve.values("psnr_db"))
    return RateLine(name, str(curve.values("family")[0]), bpp, psnr_db)


def _view(axes: Axes, rows: pd.DataFrame, anchors: Sequence[Anchor]) -> None:
    """The rates of our own points with some room, and what lies there; an anchor may reach to 10 bpp."""
    low_bpp, high_bpp = 0.8 * rows["bpp"].min(), 1.25 * rows["bpp"].max()
    best_db = rows["psnr_db"].max()
    # The axis is logarithmic, and so are the straight lines on it.
    reached = [
        float(np.interp(np.log(high_bpp), np.log(anchor.curve.bpp), anchor.curve.psnr_db))
        for anchor in anchors
        if anchor.curve.bpp[0] < high_bpp
    ]
    axes.set_xlim(low_bpp, high_bpp)
    top_db = max(best_db, min(max(reached, default=best_db), best_db + REACH_DB))
    axes.set_ylim(rows["psnr_db"].min() - 1.5, top_db + 0.5)
    set_scale(axes, "x", rows["bpp"], force_log=True)


def rate_psnr(architectures: pd.DataFrame, by_family: Styles) -> Figure:
    """Final rate and PSNR of every architecture at one lmbda; those on the frontier are filled and named.

    architectures: as of `analysis.frontier`, with on_frontier.
    """
    figure, (axes,) = new_figure()
    best = architectures[architectures["on_frontier"]].sort_values("bpp")
    draw_points(axes, architectures, "bpp", "psnr_db", by_family, architectures["on_frontier"])
    axes.set_xlabel(axis_text("bpp", direction=False))
    axes.set_ylabel(wrap_label(axis_text("psnr_db")))
    set_scale(axes, "x", architectures["bpp"])
    filled = hollow("filled: on the frontier of the other figure")
    filled.set(markerfacecolor="0.5", markeredgecolor="black")
    empty = [hollow("hollow: off that frontier")] if len(best) < len(architectures) else []
    note = (
        "The other figure: rd_loss over decode complexity. One lmbda does not give one rate: training "
        "decides where on its own curve a model ends."
    )
    frame(
        figure,
        f"Rate and PSNR at one trade-off: {plural(len(architectures), 'architecture')}",
        basis(architectures, note, unnamed_line(best)),
        [*family_handles(by_family, architectures["family"]), filled, *empty],
        legend_title=FAMILY_TITLE,
    )
    columns = ["bpp", "psnr_db"]
    named = to_name(architectures, best)[[*columns, "label"]]
    name_points(figure, axes, named, architectures[columns].to_numpy(dtype=np.float64))
    return figure
