"""hypervolume.csv and hypervolume.png: how the frontier of a sweep grew while its trials ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import hypervolume
from analysis.families import COLOURS
from analysis.figures import basis, sheet
from analysis.figures.plane import name_points
from analysis.figures.style import set_scale, words
from analysis.files import write_csv
from analysis.schema import column

CSV, FIGURE = "hypervolume.csv", "hypervolume"
# Most of the growth is among the first; of more architectures than this it would be a vertical line.
_LINEAR = 60
MAX_NAMED = 12


@dataclasses.dataclass(frozen=True)
class Written:
    """files: what was written. left_out: a line for what could not be. text: the number and what it means."""

    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    text: str
    history: pd.DataFrame


def write(
    trials: pd.DataFrame,
    architectures: pd.DataFrame,
    objectives: Sequence[str],
    folder: Path,
    *,
    reference: Mapping[str, float] | None = None,
    draw: bool = True,
) -> Written:
    """The hypervolume of the compared architectures, and its history where trials say when they ended.

    Files of an earlier report that this one cannot write are removed.
    """
    space = hypervolume.space_of(architectures, objectives, reference)
    if space is None:
        why = "no hypervolume: it needs two architectures that differ in every objective, or --reference"
        return _without(folder, f"{CSV}: {why}" if len(architectures) else "", pd.DataFrame())
    history = hypervolume.history(trials, architectures, space)
    volume = hypervolume.total(architectures, space)
    text = _text(volume, space)
    if history.empty:
        done = _without(folder, f"{CSV}: the source does not say when trials ended (ended_at)", history)
        return dataclasses.replace(done, text=text)
    files, left_out = [write_csv(history, folder / CSV)], []
    untimed = len(architectures) - len(history)
    if untimed:
        left_out.append(f"{CSV}: {untimed} of {len(architectures)} architectures do not say when they ended")
    if draw:
        files += sheet.save(figure(history, architectures, space), folder, FIGURE)
    return Written(tuple(files), tuple(left_out), text, history)


def _without(folder: Path, why: str, history: pd.DataFrame) -> Written:
    if (folder / CSV).is_file():
        (folder / CSV).unlink()
    sheet.remove(folder, FIGURE)
    return Written((), (why,) if why else (), "", history)


def _text(volume: float, space: hypervolume.Space) -> str:
    percent = space.percent(volume)
    share = "" if pd.isna(percent) else f", {percent:.1f} % of the box from the frontier's best values"
    return f"{volume:.5g}{share} to the reference {space.describe()}"


def figure(history: pd.DataFrame, architectures: pd.DataFrame, space: hypervolume.Space) -> Figure:
    """Hypervolume over the number of architectures that were ready; those that raised it by name."""
    drawn, (axes,) = sheet.new_figure()
    is_share = bool(history["hypervolume_pct"].notna().all())
    rows = history.assign(value=history["hypervolume_pct" if is_share else "hypervolume"])
    gain = rows["value"].diff().fillna(rows["value"])
    raised, in_vain = rows[gain > 0], rows[rows["joined_frontier"] & (gain <= 0)]
    (line,) = axes.step(
        rows["architectures"],
        rows["value"],
        where="post",
        color=COLOURS[0],
        linewidth=1.6,
        label="hypervolume of the frontier so far",
    )
    handles = [line]
    size = 5 if len(rows) <= _LINEAR else 3
    if len(raised):
        handles += _dots(axes, raised, size, COLOURS[1], "joined the frontier and raised the hypervolume")
    if len(in_vain):
        handles += _dots(axes, in_vain, size, "0.6", "joined, but covers nothing new up to the reference")
    _set_axes(axes, rows, is_share, space)
    sheet.frame(
        drawn,
        f"Hypervolume in {' and '.join(map(words, space.objectives))} over {len(rows):,} architectures",
        basis.basis(
            architectures,
            _meaning(space, is_share),
            f"Reference: {_reference(space)}. "
            f"First to last architecture: {_duration(rows['hours'].iloc[-1])}.",
            f"Named: the {MAX_NAMED} that raised it most." if len(raised) > MAX_NAMED else "",
        ),
        handles,
    )
    named = raised.loc[sorted(gain[raised.index].nlargest(MAX_NAMED).index)]
    columns = ["architectures", "value"]
    name_points(drawn, axes, named[[*columns, "label"]], rows[columns].to_numpy(dtype=np.float64), [line])
    return drawn


def _dots(axes: Axes, rows: pd.DataFrame, size: float, colour: str, label: str) -> list[Line2D]:
    """Filled, or hollow if grey."""
    return axes.plot(
        rows["architectures"],
        rows["value"],
        linestyle="none",
        marker="o",
        markersize=size,
        color=colour,
        markerfacecolor="white" if colour == "0.6" else colour,
        zorder=3,
        clip_on=False,
        label=label,
    )


def _set_axes(axes: Axes, rows: pd.DataFrame, is_share: bool, space: hypervolume.Space) -> None:
    axes.set_ylim(bottom=0)
    if len(rows) > _LINEAR:
        set_scale(axes, "x", rows["architectures"], force_log=True)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("architectures ready, in the order in which their trials ended")
    unit = "% of the box from reference to ideal" if is_share else _unit(space)
    axes.set_ylabel(f"hypervolume  [{unit}]\nhigher is better")


def _meaning(space: hypervolume.Space, is_share: bool) -> str:
    logs = [words(name) for name, log in zip(space.objectives, space.logs, strict=True) if log]
    scale = f" on a logarithmic scale of {' and of '.join(logs)}" if logs else ""
    if not is_share:
        return f"Hypervolume: how much between the frontier and the reference the frontier covers{scale}."
    area = "area" if len(space.objectives) == 2 else "volume"
    return (
        f"Share: how much of the {area} between the reference and the ideal point, the best value of each, "
        f"the frontier covers{scale}; 0: not better than the reference."
    )


def _reference(space: hypervolume.Space) -> str:
    """In the units of the other figures."""
    parts = []
    for name, value in space.reference_values().items():
        number = (
            f"{2 * value:.4g} kFLOP/px" if name == "kmac_per_px_dec" else f"{value:.4g} {column(name).unit}"
        )
        parts.append(f"{words(name)} {number} ({'given' if name in space.given else 'derived'})")
    return "; ".join(parts)


def _unit(space: hypervolume.Space) -> str:
    return " x ".join(
        f"decades of {words(name)}" if log else words(name)
        for name, log in zip(space.objectives, space.logs, strict=True)
    )


def _duration(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 2 else f"{hours:.1f} h"
