"""Architectures in a plane of two costs or scores, with that plane's own frontier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.families import Styles, family_styles
from analysis.figures.basis import basis, plural, saving_line, timing_line
from analysis.figures.sheet import Drawn, frame, list_beside, new_figure, remove, save
from analysis.figures.style import (
    FAMILY_TITLE,
    axis_text,
    family_handles,
    hollow,
    marker_scale,
    set_scale,
    words,
    wrap_label,
)
from analysis.labels import place_labels
from analysis.pareto import frontier_mask
from analysis.schema import column
from analysis.text import LABEL_WIDTH, shorten

# Up to so many points every one is named; beyond it, those on the frontier.
MAX_ALL_NAMED = 8
# More names than this do not fit beside the axes.
MAX_NAMED = 36
SAMPLE_NAMED = 20
# Tukey's fence for far outliers.
FAR_IQRS = 3.0

_DEFAULT_FIGURES = (
    ("frontier", "kflop_per_px_dec", "rd_loss"),
    ("frontier_rate_saving", "kflop_per_px_dec", "rate_saving_vs_bpg_pct"),
    ("frontier_time", "time_dec_total_ms", "rd_loss"),
)


def draw_frontier(architectures: pd.DataFrame, objectives: Sequence[str], folder: Path) -> Drawn:
    """The three figures of a frontier report, and one more if the objectives are a plane of their own."""
    files: list[Path] = []
    left_out: list[str] = []
    wanted = list(_DEFAULT_FIGURES)
    by_family = family_styles(architectures["family"])
    if len(objectives) == 2 and not {"kmac_per_px_dec", "kflop_per_px_dec"} & set(objectives):
        first, second = objectives
        if (second, first) not in {(x, y) for _, x, y in wanted}:
            wanted.append((f"frontier_{first}_{second}", second, first))
    for name, x, y in wanted:
        why_not = why_no_plane(architectures, x, y)
        if why_not:
            left_out.append(f"{name}.png: {why_not}")
            remove(folder, name)
        else:
            files += save(plane(architectures, x, y, by_family), folder, name)
    return Drawn(tuple(files), tuple(left_out))


def why_no_plane(architectures: pd.DataFrame, x: str, y: str) -> str:
    """Why no architecture has both values; '' if one has."""
    if architectures.empty:
        return "no trial can be compared"
    if _has_both(architectures, x, y).any():
        return ""
    name = y if architectures[y].isna().all() else x
    notes = [note for note in architectures["rate_saving_note"].unique() if note]
    if name.startswith("rate_saving") and notes:
        return f"no architecture has {name} ({notes[0]})"
    if name.startswith("time_"):
        return "nothing was timed"
    return f"no architecture has {name}"


def plane(architectures: pd.DataFrame, x: str, y: str, by_family: Styles) -> Figure:
    """Architectures with both values; at least one must have them."""
    points = architectures[_has_both(architectures, x, y)]
    inside = points[~_far_off(points, x, y)]
    figure, (axes,) = new_figure()
    on_frontier = plane_frontier(inside, x, y)
    draw_points(axes, inside, x, y, by_family, on_frontier)
    best = inside[on_frontier].sort_values(x)
    line = _draw_steps(axes, best, x, y)
    axes.set_xlabel(axis_text(x))
    axes.set_ylabel(wrap_label(axis_text(y)))
    set_scale(axes, "x", inside[x], force_log=x.startswith("k"))
    set_scale(axes, "y", inside[y])
    handles = family_handles(by_family, inside["family"])
    handles += [line] if len(best) > 1 else []
    handles += [hollow("hollow: off the frontier, another is better")] if len(best) < len(inside) else []
    frame(
        figure,
        _title(x, y, len(best), len(inside)),
        basis(
            points, *_extra_basis(points, x, y), _unseen(architectures, points, inside), unnamed_line(best)
        ),
        handles,
        legend_title=FAMILY_TITLE,
    )
    named = to_name(inside, best)[[x, y, "label"]]
    name_points(figure, axes, named, inside[[x, y]].to_numpy(dtype=np.float64), [line])
    return figure


def to_name(points: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """All points if they are few, else those on the frontier, or, of many, some from end to end."""
    if len(points) <= MAX_ALL_NAMED:
        return points
    if len(best) <= MAX_NAMED:
        return best
    return best.iloc[np.linspace(0, len(best) - 1, SAMPLE_NAMED).round().astype(int)]


def unnamed_line(best: pd.DataFrame) -> str:
    """Small print about the names that are missing; '' if none is."""
    if len(best) <= MAX_NAMED:
        return ""
    return (
        f"Named: {SAMPLE_NAMED} of the {len(best)} on the frontier; `python -m analysis frontier` lists all."
    )


def plane_frontier(points: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Which points no other one beats in both columns."""
    signs = [1.0 if column(name).better == "low" else -1.0 for name in (x, y)]
    return pd.Series(frontier_mask(points[[x, y]].to_numpy(dtype=np.float64) * signs), index=points.index)


def draw_points(
    axes: Axes, points: pd.DataFrame, x: str, y: str, by_family: Styles, filled: pd.Series
) -> None:
    """Families by colour and marker; filled ones are large with a black edge, the others hollow."""
    scale = marker_scale(len(points))
    for family, (colour, marker) in by_family.items():
        for full in (False, True):
            group = points[(points["family"] == family) & (filled == full)]
            if group.empty:
                continue
            axes.scatter(
                group[x],
                group[y],
                s=(58 if full else 40) * scale**2,
                marker=marker,
                facecolors=colour if full else "white",
                edgecolors="black" if full else colour,
                linewidths=(1.0 if full else 1.3) * scale,
                zorder=4 if full else 3,
                gid=f"{'filled' if full else 'hollow'} {family}",
            )


def name_points(
    figure: Figure,
    axes: Axes,
    named: pd.DataFrame,
    points: npt.NDArray[np.float64],
    lines: Sequence[Line2D] = (),
) -> None:
    """Labels beside the points; where not all have room, numbers and a list of their meaning.

    named: columns x, y and label. points: (n, 2), all that a label must not cover.
    """
    labels = [
        (float(x), float(y), shorten(str(label), LABEL_WIDTH))
        for x, y, label in named.itertuples(index=False)
    ]
    if not place_labels(axes, labels, points, lines):
        return
    for text in list(axes.texts):
        text.remove()
    numbered = [(x, y, str(number)) for number, (x, y, _) in enumerate(labels, start=1)]
    names = [f"{number}  {label}" for number, (_, _, label) in enumerate(labels, start=1)]
    list_beside(figure, names)
    place_labels(axes, numbered, points, lines)


def _has_both(architectures: pd.DataFrame, x: str, y: str) -> pd.Series:
    return np.isfinite(architectures[[x, y]].astype("float64")).all(axis=1)


def _far_off(points: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Points so bad in y that showing them would press the others together; never a frontier point."""
    bad = points[y] if column(y).better == "low" else -points[y]
    low, high = bad.quantile(0.25), bad.quantile(0.75)
    return (bad > high + FAR_IQRS * (high - low)) & ~plane_frontier(points, x, y)


def _draw_steps(axes: Axes, best: pd.DataFrame, x: str, y: str) -> Line2D:
    """Edge of the attained region: between two architectures, what the money buys is the cheaper one."""
    along, up = (np.repeat(best[name].to_numpy(dtype=np.float64), 2) for name in (x, y))
    corners = (along[1:], up[:-1]) if column(x).better == "low" else (along[:-1], up[1:])
    (line,) = axes.plot(
        *corners, color="0.3", linewidth=1.3, zorder=2, label="frontier: no other is better in both"
    )
    return line


def _title(x: str, y: str, best: int, points: int) -> str:
    said = [words(name) for name in (y, x)]
    share = f"{best} of {plural(points, 'architecture')} on the frontier"
    return f"{said[0][0].upper()}{said[0][1:]} over {said[1]}: {share}"


def _extra_basis(points: pd.DataFrame, x: str, y: str) -> list[str]:
    savings = [name for name in (x, y) if name.startswith("rate_saving")]
    lines = [saving_line(points[name].min(), _codec(name)) for name in savings]
    return [*lines, timing_line(points)] if any(name.startswith("time_") for name in (x, y)) else lines


def _codec(saving: str) -> str:
    return saving.removeprefix("rate_saving_vs_").removesuffix("_pct").upper()


def _unseen(every: pd.DataFrame, points: pd.DataFrame, inside: pd.DataFrame) -> str:
    """Who is not to be seen."""
    parts = []
    if len(points) < len(every):
        parts.append(f"{len(every) - len(points)} of {len(every)} architectures lack a value")
    if len(inside) < len(points):
        parts.append(f"{len(points) - len(inside)} far worse, out of view")
    return f"Not shown: {'; '.join(parts)}." if parts else ""
