"""Architectures over rate: a line through the points of a curve, a marker for a single point."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.families import Style, Styles, curve_styles
from analysis.figures.basis import plural
from analysis.figures.style import marker_scale
from analysis.text import LABEL_WIDTH, shorten

# More curves than this have the looks of their families, and no name of their own.
MAX_NAMED_CURVES = 12


@dataclasses.dataclass(frozen=True)
class RateLine:
    """A codec's values by rising rate. outside: how many more points it has that have no value."""

    label: str
    family: str
    bpp: tuple[float, ...]
    values: tuple[float, ...]
    outside: int = 0


def draw_rate_lines(axes: Axes, ours: Sequence[RateLine], by_family: Styles) -> list[Line2D]:
    """Returns the legend's entries: the curves, or their families if they are many, then single points."""
    curves = sorted((line for line in ours if len(line.bpp) > 1), key=lambda line: -np.mean(line.values))
    singles = _of_families([line for line in ours if len(line.bpp) == 1])
    handles = []
    if len(curves) <= MAX_NAMED_CURVES:
        looks = _looks_of_curves(curves, by_family, [by_family[family] for family in singles])
        for look, curve in zip(looks, curves, strict=True):
            handles += _draw_curves(axes, [curve], look, shorten(curve.label, LABEL_WIDTH), 1.0)
    else:
        for family, group in _of_families(curves).items():
            label = f"{family}: curves"
            handles += _draw_curves(axes, group, by_family[family], label, 0.6 * marker_scale(len(curves)))
    for family, group in singles.items():
        scale = marker_scale(sum(map(len, singles.values())))
        handles += _draw_singles(axes, group, by_family[family], f"{family}: single points", scale)
    return handles


def counted(lines: Sequence[RateLine]) -> str:
    """How many are curves and how many single points, in words."""
    curves = sum(len(line.bpp) > 1 for line in lines)
    parts = [plural(curves, "curve")] if curves else []
    parts += [plural(len(lines) - curves, "single point")] if len(lines) > curves else []
    return " and ".join(parts)


def _of_families(lines: Sequence[RateLine]) -> dict[str, list[RateLine]]:
    groups: dict[str, list[RateLine]] = {line.family: [] for line in sorted(lines, key=lambda x: x.family)}
    for line in lines:
        groups[line.family].append(line)
    return groups


def _looks_of_curves(curves: Sequence[RateLine], by_family: Styles, singles: Sequence[Style]) -> list[Style]:
    """Those of their families, if these differ, else others, none of which single points have."""
    families = [curve.family for curve in curves]
    if len(set(families)) == len(families):
        return [by_family[family] for family in families]
    return curve_styles(len(curves), but=singles)


def _draw_curves(
    axes: Axes, curves: Sequence[RateLine], look: Style, label: str, scale: float
) -> list[Line2D]:
    """One line with a gap after every curve: thousands of lines would take seconds."""
    bpp = [rate for curve in curves for rate in (*curve.bpp, np.nan)]
    values = [value for curve in curves for value in (*curve.values, np.nan)]
    colour, marker = look
    return axes.plot(
        bpp[:-1],
        values[:-1],
        color=colour,
        marker=marker,
        markersize=6 * scale,
        linewidth=1.5 * scale,
        zorder=3,
        label=label,
    )


def _draw_singles(
    axes: Axes, points: Sequence[RateLine], look: Style, label: str, scale: float
) -> list[Line2D]:
    colour, marker = look
    return axes.plot(
        [line.bpp[0] for line in points],
        [line.values[0] for line in points],
        linestyle="none",
        marker=marker,
        markersize=6.5 * scale,
        color=colour,
        markerfacecolor="white",
        markeredgewidth=1.4 * scale,
        zorder=3,
        label=label,
    )
