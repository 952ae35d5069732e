"""Figures: the RDC scatter, rate saving, decode time, and RD curves beside their anchors."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.anchors import Anchor
from analysis.curves import TrialCurve
from analysis.files import atomic
from analysis.labels import place_labels
from analysis.pareto import frontier_mask
from analysis.schema import column

# Okabe and Ito's colours, which people with any colour vision can tell apart; yellow is too faint for points.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# From this ratio on a linear axis would press most points into a corner.
LOG_RATIO = 4.0
# More names than this do not fit beside the axes.
MAX_NAMED = 24
# Tukey's fence for far outliers.
FAR_IQRS = 3.0

_AXIS_TEXT = {
    "rd_loss": "rd_loss = bpp + lmbda 255² MSE  [bit/px]",
    "kflop_per_px_dec": "decode complexity  [kFLOP/px]",
    "rate_saving_vs_bpg_pct": "rate saving against BPG 4:4:4 at equal PSNR  [%]",
    "time_dec_total_ms": "decode time, networks and entropy coding  [ms]",
    "psnr_db": "PSNR, mean over images  [dB]",
    "bpp": "rate of the coded file  [bit/px]",
}
_DEFAULT_FIGURES = (
    ("frontier.png", "kflop_per_px_dec", "rd_loss"),
    ("frontier_rate_saving.png", "kflop_per_px_dec", "rate_saving_vs_bpg_pct"),
    ("frontier_time.png", "time_dec_total_ms", "rd_loss"),
)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Written figures, and one line for each that could not be drawn."""

    files: tuple[Path, ...]
    left_out: tuple[str, ...]


def draw_frontier(architectures: pd.DataFrame, objectives: Sequence[str], folder: Path) -> Drawn:
    """The three figures of a frontier report, and one more if the objectives are a plane of their own."""
    files, left_out = [], []
    wanted = list(_DEFAULT_FIGURES)
    if len(objectives) == 2 and not {"kmac_per_px_dec", "kflop_per_px_dec"} & set(objectives):
        first, second = objectives
        if (second, first) not in {(x, y) for _, x, y in wanted}:
            wanted.append((f"frontier_{first}_{second}.png", second, first))
    for name, x, y in wanted:
        points = architectures[np.isfinite(architectures[[x, y]].astype("float64")).all(axis=1)]
        if points.empty:
            left_out.append(f"{name}: {_why_missing(architectures, x, y)}")
            (folder / name).unlink(missing_ok=True)  # an older figure would show other trials
        else:
            files.append(_scatter(points, x, y, folder / name, architectures))
    return Drawn(tuple(files), tuple(left_out))


def _why_missing(architectures: pd.DataFrame, x: str, y: str) -> str:
    if architectures.empty:
        return "no trial can be compared"
    name = y if architectures[y].isna().all() else x
    notes = [note for note in architectures["rate_saving_note"].unique() if note]
    if name.startswith("rate_saving") and notes:
        return f"no architecture has {name} ({notes[0]})"
    if name.startswith("time_"):
        return "nothing was timed"
    return f"no architecture has {name}"


def _scatter(points: pd.DataFrame, x: str, y: str, path: Path, every: pd.DataFrame) -> Path:
    """Architectures in one plane with that plane's own frontier as a step line."""
    figure, axes = _new_figure()
    styles = family_styles(every["family"])
    inside = points[~_far_off(points, x, y)]
    best = _draw_points(axes, inside, x, y, styles)
    line = _draw_steps(axes, best, x, y)
    axes.set_xlabel(axis_text(x))
    axes.set_ylabel(axis_text(y))
    _scale(axes, "x", inside[x], force_log=x.startswith("k"))
    _scale(axes, "y", inside[y])
    title = _title(points, every, inside)
    nameable = len(best) <= MAX_NAMED
    axes.set_title(
        title if nameable else f"{title}, names in frontier.csv", fontsize=9.5, loc="left", color="0.25"
    )
    _legend(figure, axes)
    if nameable:
        _name_points(figure, axes, best[[x, y, "label"]], inside[[x, y]].to_numpy(dtype=np.float64), line)
    return _save(figure, path)


def _far_off(points: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Points so bad in y that showing them would press the others together; never a frontier point."""
    bad = points[y] if column(y).better == "low" else -points[y]
    low, high = bad.quantile(0.25), bad.quantile(0.75)
    return (bad > high + FAR_IQRS * (high - low)) & ~_plane_frontier(points, x, y)


def _name_points(
    figure: Figure, axes: Axes, named: pd.DataFrame, points: npt.NDArray[np.float64], line: Line2D
) -> None:
    """Labels beside the frontier points; where not all have room, numbers and a list of their meaning."""
    labels = [(float(x), float(y), str(label)) for x, y, label in named.itertuples(index=False)]
    if not place_labels(axes, labels, points, line):
        return
    for text in list(axes.texts):
        text.remove()
    numbered = [(x, y, str(number)) for number, (x, y, _) in enumerate(labels, start=1)]
    names = [f"{number}  {label}" for number, (_, _, label) in enumerate(labels, start=1)]
    blank = [Line2D([], [], linestyle="none") for _ in names]
    figure.legend(
        blank, names, loc="outside right upper", frameon=False, fontsize=8, handlelength=0, handletextpad=0
    )
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 0.07 * max(map(len, names)), height)
    place_labels(axes, numbered, points, line)


def _draw_steps(axes: Axes, best: pd.DataFrame, x: str, y: str) -> Line2D:
    """Edge of the attained region: between two architectures, what the money buys is the cheaper one."""
    along, up = (np.repeat(best[name].to_numpy(dtype=np.float64), 2) for name in (x, y))
    corners = (along[1:], up[:-1]) if column(x).better == "low" else (along[:-1], up[1:])
    (line,) = axes.plot(*corners, color="0.3", linewidth=1.3, zorder=2, label="frontier in this plane")
    return line


def _draw_points(
    axes: Axes, points: pd.DataFrame, x: str, y: str, styles: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """Filled markers on the plane's frontier, hollow ones behind it; returns the frontier by rising x."""
    on_frontier = _plane_frontier(points, x, y)
    for family, (colour, marker) in styles.items():
        for filled in (False, True):
            group = points[(points["family"] == family) & (on_frontier == filled)]
            axes.scatter(
                group[x],
                group[y],
                s=58 if filled else 40,
                marker=marker,
                facecolors=colour if filled else "white",
                edgecolors="black" if filled else colour,
                linewidths=1.0 if filled else 1.3,
                zorder=4 if filled else 3,
            )
        axes.scatter([], [], s=50, marker=marker, color=colour, label=family)
    axes.scatter(
        [],
        [],
        s=40,
        marker="o",
        facecolors="white",
        edgecolors="0.4",
        label="hollow: dominated in this plane",
    )
    return points[on_frontier].sort_values(x)


def draw_rd(curves: Sequence[TrialCurve], anchors: Sequence[Anchor], path: Path) -> Path:
    """PSNR over rate: architectures with several lmbdas as lines, single points by family, anchors plain."""
    figure, axes = _new_figure()
    for anchor, line in zip(anchors, itertools.cycle(("--", ":", "-.")), strict=False):
        axes.plot(
            anchor.curve.bpp,
            anchor.curve.psnr_db,
            linestyle=line,
            color="0.3",
            linewidth=1.3,
            label=anchor.title,
        )
    lines = [curve for curve in curves if len(curve.rows) > 1]
    singles = [curve.rows for curve in curves if len(curve.rows) == 1]
    for (colour, marker), curve in zip(_styles(range(len(lines))), lines, strict=True):
        bpp, psnr_db = curve.rows["bpp"], curve.rows["psnr_db"]
        axes.plot(bpp, psnr_db, color=colour, marker=marker, markersize=5.5, linewidth=1.3, label=curve.label)
    if singles:
        points = pd.concat(singles)
        families = sorted(points["family"].unique())
        styles = _styles(range(len(lines), len(lines) + len(families)))
        for (colour, marker), family in zip(styles, families, strict=True):
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
    _view(axes, pd.concat([curve.rows for curve in curves]))
    axes.set_xlabel(axis_text("bpp"))
    axes.set_ylabel(axis_text("psnr_db"))
    images = curves[0].rows["eval_images"].iloc[0]
    axes.set_title(
        f"{curves[0].dataset or 'evaluation set not named'}"
        + ("" if pd.isna(images) else f" ({images} images)"),
        fontsize=9.5,
        loc="left",
        color="0.25",
    )
    _legend(figure, axes)
    return _save(figure, path)


def _view(axes: Axes, rows: pd.DataFrame) -> None:
    """The range of our own points with some room; an anchor may reach to 10 bpp."""
    axes.set_xlim(0.6 * rows["bpp"].min(), 1.6 * rows["bpp"].max())
    axes.set_ylim(rows["psnr_db"].min() - 1.5, rows["psnr_db"].max() + 2.5)
    _scale(axes, "x", rows["bpp"], force_log=True)


def family_styles(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every family, by name, so that figures agree with each other."""
    ordered = sorted(set(families))
    return dict(zip(ordered, _styles(range(len(ordered))), strict=True))


def _styles(indices: Iterable[int]) -> list[tuple[str, str]]:
    """Pairs of colour and marker; both change with every index, and the first 49 pairs differ."""
    return [(COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]) for i in indices]


def axis_text(name: str) -> str:
    return _AXIS_TEXT.get(name) or f"{name}  [{column(name).unit}]"


def _plane_frontier(points: pd.DataFrame, x: str, y: str) -> pd.Series:
    signs = [1.0 if column(name).better == "low" else -1.0 for name in (x, y)]
    return pd.Series(frontier_mask(points[[x, y]].to_numpy(dtype=np.float64) * signs), index=points.index)


def _title(points: pd.DataFrame, every: pd.DataFrame, inside: pd.DataFrame) -> str:
    """What the points have in common, and who is not to be seen."""
    first = points.iloc[0]
    parts = [f"{first['dataset'] or 'evaluation set not named'}", f"lmbda {first['lmbda']:g}"]
    if not pd.isna(first["eval_images"]):
        parts[0] += f" ({first['eval_images']} images)"
    if first["budget"]:
        steps = "" if pd.isna(first["steps"]) else f" ({first['steps']:,} steps)"
        parts.append(f"budget {first['budget']}{steps}")
    if len(points) < len(every):
        parts.append(f"{len(every) - len(points)} without this value")
    if len(inside) < len(points):
        parts.append(f"{len(points) - len(inside)} far worse, out of view")
    return ", ".join(parts)


def _new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.4, 5.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(visible=True, which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.07, y=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _scale(axes: Axes, which: str, values: pd.Series, *, force_log: bool = False) -> None:
    positive = bool((values > 0).all())
    if not positive or not (force_log or values.max() / values.min() > LOG_RATIO):
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    columns = 3 if max(map(len, names)) < 34 else 2
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)


def _save(figure: Figure, path: Path) -> Path:
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
