"""Rate saving over rate: what each codec saves against BPG at the PSNR that it has at that rate."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.anchors import Anchor, load_anchor
from analysis.bdrate import OutsideRangeError, rate_saving_pct
from analysis.curves import TrialCurve
from analysis.figures.basis import SAVING_LINE, basis, plural
from analysis.figures.sheet import frame, new_figure
from analysis.figures.style import (
    REFERENCE_COLOUR,
    REFERENCE_DASHES,
    Styles,
    axis_text,
    marker_scale,
    set_scale,
    styles,
    wrap_label,
)
from analysis.labels import label_line_ends
from analysis.rows import dataset_mismatch
from analysis.text import LABEL_WIDTH, shorten

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
# More curves than this have the colours of their families, and no name of their own.
MAX_NAMED_CURVES = 12
# The rates that published curves are usually shown at; the figure shows at least these.
USUAL_BPP = (0.1, 1.2)


@dataclasses.dataclass(frozen=True)
class SavingLine:
    """A codec's savings: one value per point whose PSNR BPG reaches. outside: how many it does not reach."""

    label: str
    family: str
    bpp: tuple[float, ...]
    saving_pct: tuple[float, ...]
    outside: int


def saving_lines(curves: Sequence[TrialCurve], zero: Anchor) -> list[SavingLine]:
    """The savings of all curves and single points on the anchor's images; some may be without any."""
    usable = [
        curve
        for curve in curves
        if not dataset_mismatch({str(k): v for k, v in curve.rows.iloc[0].items()}, zero.dataset)
    ]
    return [
        _saving_line(
            curve.label, str(curve.rows["family"].iloc[0]), curve.rows["bpp"], curve.rows["psnr_db"], zero
        )
        for curve in usable
    ]


def reference_line(anchor: Anchor, zero: Anchor) -> SavingLine:
    """The same of a published curve."""
    return _saving_line(anchor.title, "", pd.Series(anchor.curve.bpp), pd.Series(anchor.curve.psnr_db), zero)


def why_no_savings(curves: Sequence[TrialCurve]) -> str:
    """Why there is nothing to show; '' if there is."""
    zero = load_anchor(ZERO)
    if not curves:
        return "no trial with status ok has bpp and psnr_db"
    if any(line.bpp for line in saving_lines(curves, zero)):
        return ""
    first = {str(key): value for key, value in curves[0].rows.iloc[0].items()}
    low_db, high_db = zero.curve.psnr_db[0], zero.curve.psnr_db[-1]
    return dataset_mismatch(first, zero.dataset) or (
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
    handles = _draw_ours(axes, ours, by_family)
    axes.axhline(0.0, color="0.25", linewidth=1.4, zorder=1)
    ends = [*_draw_published(axes, published, rates_bpp[1]), (rates_bpp[1], 0.0, f"{zero.title} = 0")]
    _set_view(axes, [*ours, *published], rates_bpp)
    axes.set_xlabel(axis_text("bpp"))
    axes.set_ylabel(wrap_label(axis_text("rate_saving_vs_bpg_pct")))
    handles.append(
        Line2D([], [], color=REFERENCE_COLOUR, linestyle="--", label="grey, named at the right: published")
    )
    rows = pd.concat([curve.rows for curve in curves])
    outside = sum(line.outside for line in every)
    unseen = f"Not shown: {plural(outside, 'point')} outside BPG's range of PSNR." if outside else ""
    frame(figure, _title(ours), basis(rows, SAVING_LINE, unseen), handles)
    label_line_ends(axes, ends)
    return figure


def _saving_line(label: str, family: str, bpp: pd.Series, psnr_db: pd.Series, zero: Anchor) -> SavingLine:
    points = []
    for rate, quality in zip(bpp, psnr_db, strict=True):
        try:
            points.append((rate, rate_saving_pct(zero.curve, bpp=rate, psnr_db=quality)))
        except OutsideRangeError:
            continue
    rates, savings = zip(*points, strict=True) if points else ((), ())
    return SavingLine(label, family, rates, savings, len(bpp) - len(points))


def _draw_ours(axes: Axes, ours: Sequence[SavingLine], by_family: Styles) -> list[Line2D]:
    """Returns the legend's entries."""
    lines = sorted((line for line in ours if len(line.bpp) > 1), key=lambda line: -np.mean(line.saving_pct))
    singles = [line for line in ours if len(line.bpp) == 1]
    named = len(lines) <= MAX_NAMED_CURVES
    pairs = styles(range(len(lines))) if named else [by_family[line.family] for line in lines]
    handles = {}
    for (colour, marker), line in zip(pairs, lines, strict=True):
        label = shorten(line.label, LABEL_WIDTH) if named else f"{line.family}: one line per architecture"
        (drawn,) = axes.plot(
            line.bpp,
            line.saving_pct,
            color=colour,
            marker=marker,
            markersize=5.5 if named else 3.5,
            linewidth=1.5 if named else 0.8,
            zorder=3,
            label=label,
        )
        handles[label] = drawn
    families = sorted({line.family for line in singles})
    # Beside curves with colours of their own, single points take the next ones.
    apart = styles(range(len(lines), len(lines) + len(families)))
    single_styles = apart if lines and named else [by_family[family] for family in families]
    for (colour, marker), family in zip(single_styles, families, strict=True):
        group = [line for line in singles if line.family == family]
        label = f"{family}: single points"
        (drawn,) = axes.plot(
            [line.bpp[0] for line in group],
            [line.saving_pct[0] for line in group],
            linestyle="none",
            marker=marker,
            markersize=6.5 * marker_scale(len(singles)),
            color=colour,
            markerfacecolor="white",
            markeredgewidth=1.4 * marker_scale(len(singles)),
            zorder=3,
            label=label,
        )
        handles[label] = drawn
    return list(handles.values()) if named else [handles[label] for label in sorted(handles)]


def _draw_published(
    axes: Axes, published: Sequence[SavingLine], high_bpp: float
) -> list[tuple[float, float, str]]:
    """Returns where every line ends or leaves the view, and its name."""
    ends = []
    for line, dashes in zip(published, itertools.cycle(REFERENCE_DASHES), strict=False):
        axes.plot(
            line.bpp, line.saving_pct, color=REFERENCE_COLOUR, linestyle=dashes, linewidth=1.1, zorder=2
        )
        end_bpp = min(high_bpp, line.bpp[-1])
        # The axis is logarithmic, and so are the straight lines on it.
        end_pct = np.interp(np.log(end_bpp), np.log(line.bpp), line.saving_pct)
        ends.append((end_bpp, float(end_pct), line.label))
    return ends


def _rates_in_view(ours: Sequence[SavingLine]) -> tuple[float, float]:
    rates = [bpp for line in ours for bpp in line.bpp]
    return min(USUAL_BPP[0], 0.8 * min(rates)), max(USUAL_BPP[1], 1.25 * max(rates))


def _set_view(axes: Axes, lines: Sequence[SavingLine], rates_bpp: tuple[float, float]) -> None:
    """All savings at the rates in view, and 0, with some room."""
    seen = [
        saving
        for line in lines
        for bpp, saving in zip(line.bpp, line.saving_pct, strict=True)
        if rates_bpp[0] <= bpp <= rates_bpp[1]
    ]
    low, high = min(0.0, *seen), max(0.0, *seen)
    room = 0.06 * (high - low) or 1.0
    axes.set_xlim(*rates_bpp)
    axes.set_ylim(low - room, high + room)
    set_scale(axes, "x", pd.Series(rates_bpp), force_log=True)


def _title(ours: Sequence[SavingLine]) -> str:
    lines = sum(len(line.bpp) > 1 for line in ours)
    parts = [plural(lines, "curve")] if lines else []
    parts += [plural(len(ours) - lines, "single point")] if len(ours) > lines else []
    return f"Bits saved against BPG at equal PSNR, over rate: {' and '.join(parts)}"
