"""Decode time over decode complexity on one device: a panel per image size, with power-law fits by family."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from analysis.correlation import Correlation, Estimate, correlate
from analysis.errors import AnalysisError
from analysis.families import Styles
from analysis.figures.basis import plural
from analysis.figures.sheet import frame, new_figure
from analysis.figures.style import axis_text, marker_scale, set_scale
from analysis.labels import place_labels
from analysis.text import LABEL_WIDTH, shorten

# Fewer models than this make no line: two always lie on one.
MIN_FIT = 3
# Fewer have no interval worth reading.
MIN_INTERVAL = 5
# Models far from the line of all models that are named: so many, and from so many times its time on.
MAX_OUTLIERS, OUTLIER_RATIO = 4, 1.5
MAX_PANELS = 3
KODAK_PX = (512, 768)
# The photos of the CLIC sets have from 0.4 to 4.2 million pixels, most of them more than this.
CLIC_LEAST_PX = 1_000_000
_TABLE_PT = 7.5
_LINE_IN = 0.165
TIME_TEXT = "decode time of the networks  [ms]"


@dataclasses.dataclass(frozen=True, order=True)
class Setting:
    """What a timing depends on besides model and image."""

    device: str
    threads: int
    precision: str

    @property
    def text(self) -> str:
        threads = f", {plural(self.threads, 'thread')}" if self.threads > 0 else ""
        return f"{self.device}{threads}, {self.precision or 'precision not recorded'}"

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", self.text.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Fit:
    """time = factor * complexity ** exponent, least squares of the logarithms, and how well it fits.

    models: how many went in; with fewer than MIN_FIT, or all of one cost, there are no other numbers.
    correlation: None where `correlate` refuses.
    """

    models: int
    exponent: float | None = None
    factor: float | None = None
    correlation: Correlation | None = None


def timed(runtimes: pd.DataFrame) -> pd.DataFrame:
    """One row per model, setting and image size: those with cost and time, repeated ones by median.

    Adds setting and size (height, width), sorted by them and by complexity.
    """
    numbers = runtimes[["kflop_per_px_dec", "dec_net_ms"]].astype("float64")
    rows = runtimes[(numbers > 0).all(axis=1) & np.isfinite(numbers).all(axis=1)].copy()
    if rows.empty:
        return rows.assign(setting=pd.Series(dtype=object), size=pd.Series(dtype=object))
    rows["setting"] = [
        Setting(str(device or slug), 0 if pd.isna(threads) else int(threads), str(precision))
        for device, slug, threads, precision in rows[
            ["device", "device_slug", "threads", "precision"]
        ].itertuples(index=False)
    ]
    rows["size"] = [
        (0, 0) if pd.isna(height) or pd.isna(width) else (int(height), int(width))
        for height, width in rows[["height_px", "width_px"]].itertuples(index=False)
    ]
    by = ["setting", "size", "arch_id"]
    columns = [name for name in rows.columns if name.startswith(("dec_", "enc_"))]
    medians = rows.groupby(by)[columns].median()
    firsts = rows.drop_duplicates(by).drop(columns=columns)
    merged = firsts.merge(medians, left_on=by, right_index=True)
    return merged.sort_values(["setting", "size", "kflop_per_px_dec", "arch_id"], ignore_index=True)


def time_over_flops(rows: pd.DataFrame, by_family: Styles) -> Figure:
    """rows: of `timed`, one setting."""
    sizes = sorted(rows["size"].unique(), key=lambda size: (size[0] * size[1], size))
    shown = sizes[:MAX_PANELS]
    # A monospaced character is 0.6 of its size wide; 68 of them are markers and numbers.
    table_in = (68 + max(map(len, rows["family"].unique()))) * 0.6 * _TABLE_PT / 72
    figure, panels = new_figure(len(shown), size_in=(max(8.4, (table_in + 0.3) * len(shown)), 4.4))
    for axes, size in zip(panels, shown, strict=True):
        axes.set_title(size_name(size), fontsize=9.5, loc="left", color="0.25")
        _panel(axes, rows[rows["size"] == size], by_family)
    setting: Setting = rows["setting"].iloc[0]
    outliers = [far_from_fit(rows[rows["size"] == size]) for size in shown]
    frame(
        figure,
        f"Decode time over decode complexity on {setting.text}",
        [
            "Time: the decoding networks alone, without entropy coding; one image, median of repeats.",
            f"Lines: power laws time = a complexity^b, fitted to families of {MIN_FIT} or more models. "
            "n: models. r: Pearson correlation of the logarithms. tau: Kendall's rank correlation; 1: "
            "complexity orders the times; 0: it says nothing about the order. In brackets: 95 % confidence "
            f"intervals; too few: fewer than {MIN_INTERVAL} models, or an interval of all values.",
            *_named_line(outliers),
            *_missing_lines(sizes),
        ],
        table_in=_LINE_IN * (rows["family"].nunique() + 3),
    )
    for axes, size, names in zip(panels, shown, outliers, strict=True):
        points = rows.loc[rows["size"] == size, ["kflop_per_px_dec", "dec_net_ms"]]
        fits = [line for line in axes.lines if line.get_linestyle() != "None"]
        crowded = place_labels(axes, names, points.to_numpy(dtype=np.float64), fits)
        over_fits = [name for name in names if name[2] in crowded]
        place_labels(axes, over_fits, points.to_numpy(dtype=np.float64))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, by_family: Styles) -> None:
    """Points and fits, and below them a legend that is also the table of the fits."""
    width = max(len("all models"), *map(len, rows["family"].unique()))
    size = 6.5 * marker_scale(len(rows))
    header = f"{'family':{width}}{'n':>5}{'b':>6}{'r':>7}{'':16}{'tau':>7}"
    handles = [Line2D([], [], linestyle="none", label=header)]
    for family, (colour, marker) in by_family.items():
        group = rows[rows["family"] == family]
        if group.empty:
            continue
        work, time_ms = _numbers(group)
        axes.plot(work, time_ms, linestyle="none", marker=marker, color=colour, markersize=size, zorder=3)
        found = fit(work, time_ms)
        _draw_fit(axes, work, found, colour, "-")
        label = f"{family:{width}}{_fit_text(found)}"
        width_pt = 1.2 if found.exponent is not None else 0.0
        handles.append(Line2D([], [], color=colour, marker=marker, linewidth=width_pt, label=label))
    work, time_ms = _numbers(rows)
    every = fit(work, time_ms)
    _draw_fit(axes, work, every, "0.3", ":")
    handles.append(
        Line2D([], [], color="0.3", linestyle=":", label=f"{'all models':{width}}{_fit_text(every)}")
    )
    for handle in handles:  # an SVG shows several spaces as one
        handle.set_label(str(handle.get_label()).replace(" ", "\N{NO-BREAK SPACE}"))
    axes.set_xlabel(axis_text("kflop_per_px_dec", direction=False))
    axes.set_ylabel(TIME_TEXT)
    set_scale(axes, "x", rows["kflop_per_px_dec"], force_log=True)
    set_scale(axes, "y", rows["dec_net_ms"], force_log=True)
    table = axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, -0.13),
        bbox_transform=offset_copy(axes.transAxes, fig=axes.get_figure(root=True), x=-0.5),
        frameon=False,
        prop=FontProperties(family="monospace", size=_TABLE_PT),
    )
    table.set_in_layout(False)  # it is wider than the axes, and would make them narrower


def _fit_text(found: Fit) -> str:
    exponent = f"{'-':>6}" if found.exponent is None else f"{found.exponent:6.2f}"
    if found.correlation is None:
        return f"{found.models:5}{exponent}{'-':>7}{'':16}{'-':>7}{'':16}"
    estimates = (found.correlation.pearson, found.correlation.kendall)
    both = "".join(f"{e.value:7.2f}{_interval_text(found.models, e):<16}" for e in estimates)
    return f"{found.models:5}{exponent}{both}"


def _interval_text(models: int, found: Estimate) -> str:
    says_nothing = found.low <= -0.995 and found.high >= 0.995
    if models < MIN_INTERVAL or says_nothing:
        return " too few"
    return f" [{found.low:.2f}, {found.high:.2f}]"


def _draw_fit(axes: Axes, kflop_per_px: npt.NDArray[np.float64], found: Fit, colour: str, line: str) -> None:
    if found.exponent is None or found.factor is None:
        return
    ends = np.array([kflop_per_px.min(), kflop_per_px.max()])
    axes.plot(
        ends, found.factor * ends**found.exponent, color=colour, linestyle=line, linewidth=1.2, zorder=2
    )


def _numbers(rows: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    columns = (rows[name].to_numpy(dtype=np.float64) for name in ("kflop_per_px_dec", "dec_net_ms"))
    work, time_ms = columns
    return work, time_ms


def far_from_fit(rows: pd.DataFrame) -> list[tuple[float, float, str]]:
    """Decode complexity, time and name of the models that are farthest from the line of all models."""
    work, time_ms = _numbers(rows)
    every = fit(work, time_ms)
    if every.exponent is None or every.factor is None:
        return []
    off = np.abs(np.log(time_ms / (every.factor * work**every.exponent)))
    farthest = np.argsort(-off, kind="stable")[:MAX_OUTLIERS]
    return [
        (float(work[i]), float(time_ms[i]), shorten(rows["label"].iloc[i], LABEL_WIDTH))
        for i in farthest
        if off[i] >= np.log(OUTLIER_RATIO)
    ]


def _named_line(outliers: Sequence[Sequence[object]]) -> list[str]:
    if not any(outliers):
        return []
    return [
        f"Named: the models farthest from the line of all models, up to {MAX_OUTLIERS}, if their time is "
        f"{OUTLIER_RATIO:g} times more or less than there."
    ]


def _missing_lines(sizes: Sequence[tuple[int, int]]) -> list[str]:
    kinds = {size_name(size).partition(":")[0] for size in sizes}
    missing = [kind for kind in ("Kodak size", "CLIC size") if kind not in kinds]
    lines = [f"Not timed here: images of {' and of '.join(missing)}."] if missing else []
    more = [size_name(size) for size in sizes[MAX_PANELS:]]
    return [*lines, f"Timed, but not shown: {', '.join(more)}."] if more else lines


def fit(kflop_per_px: npt.NDArray[np.float64], time_ms: npt.NDArray[np.float64]) -> Fit:
    """Both: (n,), positive."""
    if len(kflop_per_px) < MIN_FIT or np.ptp(kflop_per_px) == 0:
        return Fit(len(kflop_per_px))
    exponent, offset = np.polyfit(np.log(kflop_per_px), np.log(time_ms), 1)
    try:
        correlation = correlate(kflop_per_px, time_ms)
    except AnalysisError:  # too few models, or all equally fast
        correlation = None
    return Fit(len(time_ms), float(exponent), float(np.exp(offset)), correlation)


def size_name(size: tuple[int, int]) -> str:
    """size: height and width in pixels."""
    height_px, width_px = size
    if not height_px:
        return "image size not recorded"
    kind = "Other size"
    if sorted(size) == sorted(KODAK_PX):
        kind = "Kodak size"
    elif height_px * width_px >= CLIC_LEAST_PX:
        kind = "CLIC size"
    return f"{kind}: {width_px} x {height_px} px"
