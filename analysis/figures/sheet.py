"""A figure with its title above, its legend and what it rests on below, and its files."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from analysis.errors import AnalysisError
from analysis.files import atomic

FORMATS = ("png", "svg", "pdf")

_TITLE_PT, _BASIS_PT, _LEGEND_PT = 11.0, 7.5, 8.5
_LEADING = 1.35
# Mean width of a character of the font, as a share of its size; wide enough for capitals and digits.
_CHARACTER, _BOLD_CHARACTER = 0.55, 0.62
_DPI = 150
# Text stays text, and nothing that changes between two runs enters a file.
_RC: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "rdc", "pdf.fonttype": 42}
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Written figures, and one line for each that could not be drawn."""

    files: tuple[Path, ...]
    left_out: tuple[str, ...]


def new_figure(panels: int = 1, *, size_in: tuple[float, float] = (8.4, 4.8)) -> tuple[Figure, list[Axes]]:
    """Empty axes side by side. size_in: width and height of the axes with their labels."""
    figure = Figure(figsize=size_in, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    every = list(figure.subplots(1, panels, squeeze=False)[0])
    for axes in every:
        axes.grid(visible=True, which="major", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.07, y=0.08)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every


def frame(
    figure: Figure,
    title: str,
    basis: Iterable[str],
    handles: Sequence[Artist] = (),
    *,
    legend_title: str | None = None,
    table_in: float = 0.0,
) -> None:
    """Write the title above the axes, the legend below them, and below that the basis line by line.

    The figure grows by what they need, so that the axes keep their size. table_in: height kept free under
    the axes for what is not in the layout.
    """
    width_in, body_in = figure.get_size_inches()
    head = _wrapped([title], width_in, _TITLE_PT * _BOLD_CHARACTER)
    foot = _wrapped(basis, width_in, _BASIS_PT * _CHARACTER)
    legend = _legend(figure, handles, legend_title) if handles else None
    legend_in = legend.get_window_extent().height / figure.dpi if legend else 0.0
    head_in, foot_in = _height_in(head, _TITLE_PT) + 0.12, _height_in(foot, _BASIS_PT) + 0.12
    height_in = head_in + body_in + table_in + legend_in + foot_in
    figure.set_size_inches(width_in, height_in)
    left = 0.1 / width_in
    top = 1 - 0.08 / height_in
    figure.text(left, top, head, fontsize=_TITLE_PT, va="top", weight="bold", color="0.1")
    figure.text(left, 0.06 / height_in, foot, fontsize=_BASIS_PT, va="bottom", color="0.35")
    if legend:
        legend.set_bbox_to_anchor((0.5, foot_in / height_in))
    bottom = (foot_in + legend_in + table_in) / height_in
    _set_rect(figure, (0.0, bottom, 1.0, 1.0 - bottom - head_in / height_in))


def list_beside(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines of text right of the axes; the figure grows by their width. To be called after `frame`."""
    _, bottom, _, height = _rect(figure)
    width_in, height_in = figure.get_size_inches()
    legend = figure.legend(
        [Line2D([], [], linestyle="none") for _ in lines],
        lines,
        loc="upper right",
        bbox_to_anchor=(1.0, bottom + height),
        frameon=False,
        fontsize=8,
        handlelength=0,
        handletextpad=0,
    )
    list_in = legend.get_window_extent().width / figure.dpi
    figure.set_size_inches(width_in + list_in, height_in)
    _set_rect(figure, (0.0, bottom, width_in / (width_in + list_in), height))


def _legend(figure: Figure, handles: Sequence[Artist], title: str | None) -> Legend:
    names = [str(handle.get_label()) for handle in handles]
    longest_in = max(map(len, names)) * _LEGEND_PT * _CHARACTER / 72 + 0.5
    return figure.legend(
        handles,
        names,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=0.0,
        ncols=max(1, min(4, len(names), int(figure.get_size_inches()[0] / longest_in))),
        frameon=False,
        fontsize=_LEGEND_PT,
        title=title,
        title_fontsize=_LEGEND_PT,
    )


def _rect(figure: Figure) -> tuple[float, float, float, float]:
    engine = figure.get_layout_engine()
    assert engine is not None, "new_figure gives every figure one"
    rect: tuple[float, float, float, float] = engine.get()["rect"]
    return rect


def _set_rect(figure: Figure, rect: tuple[float, float, float, float]) -> None:
    """Where the axes may lie: left, bottom, width, height in shares of the figure."""
    engine = figure.get_layout_engine()
    assert engine is not None, "new_figure gives every figure one"
    engine.set(rect=rect)  # type: ignore[call-arg]  # constrained layout has it


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("png",)) -> list[Path]:
    """NAME.FORMAT in the folder, one file per format, each whole or absent."""
    paths = []
    for file_format in formats:
        path = folder / f"{name}.{file_format}"
        with atomic(path) as temporary, matplotlib.rc_context(_RC):
            figure.savefig(temporary, format=file_format, metadata=_METADATA[file_format])
        paths.append(path)
    return paths


def remove(folder: Path, pattern: str) -> None:
    """Delete older files of figures that cannot be drawn now: they would show other trials.

    pattern: a file's name without its format, * for any part of it.
    """
    for file_format in FORMATS:
        for path in folder.glob(f"{pattern}.{file_format}"):
            path.unlink()


def check_formats(text: str) -> tuple[str, ...]:
    """'png,svg' -> the formats, each once."""
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    for name in wanted:
        if name not in FORMATS:
            raise AnalysisError(f"--format {name!r} is not known; known: {', '.join(FORMATS)}")
    return wanted


def _wrapped(lines: Iterable[str], width_in: float, character_pt: float) -> str:
    columns = max(20, int((width_in - 0.2) * 72 / character_pt))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, columns, break_on_hyphens=False))


def _height_in(text: str, size_pt: float) -> float:
    return (text.count("\n") + 1) * size_pt * _LEADING / 72 if text else 0.0
