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
from analysis.curves import TrialCurve, rows_of
from analysis.figures.basis import basis, plural
from analysis.figures.plane import draw_points, name_points, to_name, unnamed_line
from analysis.figures.sheet import frame, new_figure, save
from analysis.figures.style import (
    FAMILY_TITLE,
    REFERENCE_COLOUR,
    REFERENCE_DASHES,
    Styles,
    axis_text,
    family_handles,
    hollow,
    set_scale,
    styles,
    wrap_label,
)


def draw_rd(curves: Sequence[TrialCurve], anchors: Sequence[Anchor], path: Path) -> Path:
    """PSNR over rate: architectures with several lmbdas as lines, single points by family, anchors plain."""
    figure, (axes,) = new_figure()
    for anchor, line in zip(anchors, itertools.cycle(REFERENCE_DASHES), strict=False):
        axes.plot(
            anchor.curve.bpp,
            anchor.curve.psnr_db,
            linestyle=line,
            color=REFERENCE_COLOUR,
            linewidth=1.3,
            label=f"{anchor.title}, published",
        )
    lines = [curve for curve in curves if curve.end - curve.start > 1]
    singles = [curve for curve in curves if curve.end - curve.start == 1]
    for (colour, marker), curve in zip(styles(range(len(lines))), lines, strict=True):
        bpp, psnr_db = curve.rows["bpp"], curve.rows["psnr_db"]
        axes.plot(bpp, psnr_db, color=colour, marker=marker, markersize=5.5, linewidth=1.3, label=curve.label)
    if singles:
        points = rows_of(singles)
        families = sorted(points["family"].unique())
        pairs = styles(range(len(lines), len(lines) + len(families)))
        for (colour, marker), family in zip(pairs, families, strict=True):
            group = points[points["family"] == family]
            axes.scatter(
                group["bpp"],
                group["psnr_db"],
                s=42,
                marker=marker,
                facecolors="white",
                edgecolors=colour,
                linewidths=1.4,
                zorder=3,
                label=f"{family}: single points",
            )
    rows = rows_of(curves)
    _view(axes, rows)
    axes.set_xlabel(axis_text("bpp"))
    axes.set_ylabel(wrap_label(axis_text("psnr_db")))
    handles, _ = axes.get_legend_handles_labels()
    frame(figure, "Quality over rate", basis(rows), handles)
    (written,) = save(figure, path.parent, path.stem, (path.suffix.removeprefix("."),))
    return written


def rate_psnr(architectures: pd.DataFrame, by_family: Styles) -> Figure:
    """Final rate and PSNR of every architecture at one lmbda; those on the frontier are filled and named.

    architectures: as of `analysis.frontier`, with on_frontier.
    """
    figure, (axes,) = new_figure()
    best = architectures[architectures["on_frontier"]].sort_values("bpp")
    draw_points(axes, architectures, "bpp", "psnr_db", by_family, architectures["on_frontier"])
    axes.set_xlabel(axis_text("bpp"))
    axes.set_ylabel(wrap_label(axis_text("psnr_db")))
    set_scale(axes, "x", architectures["bpp"])
    filled = hollow("filled: on the frontier of rd_loss over FLOPs")
    filled.set(markerfacecolor="0.5", markeredgecolor="black")
    empty = [hollow("hollow: off that frontier")] if len(best) < len(architectures) else []
    frame(
        figure,
        f"Rate and PSNR at one trade-off: {plural(len(architectures), 'architecture')}",
        basis(architectures, unnamed_line(best)),
        [*family_handles(by_family, architectures["family"]), filled, *empty],
        legend_title=FAMILY_TITLE,
    )
    columns = ["bpp", "psnr_db"]
    named = to_name(architectures, best)[[*columns, "label"]]
    name_points(figure, axes, named, architectures[columns].to_numpy(dtype=np.float64), None)
    return figure


def _view(axes: Axes, rows: pd.DataFrame) -> None:
    """The range of our own points with some room; an anchor may reach to 10 bpp."""
    axes.set_xlim(0.6 * rows["bpp"].min(), 1.6 * rows["bpp"].max())
    axes.set_ylim(rows["psnr_db"].min() - 1.5, rows["psnr_db"].max() + 2.5)
    set_scale(axes, "x", rows["bpp"], force_log=True)
