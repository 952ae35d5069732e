"""hypervolume.csv and hypervolume.png: how the frontier of a sweep grew while its trials ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import hypervolume
from analysis.figures import basis, sheet
from analysis.figures.style import COLOURS, set_scale
from analysis.files import write_csv

CSV, FIGURE = "hypervolume.csv", "hypervolume"
# Most of the growth is among the first; of more architectures than this it would be a vertical line.
_LINEAR = 60


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
        files += sheet.save(_figure(history, architectures, space), folder, FIGURE)
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


def _figure(history: pd.DataFrame, architectures: pd.DataFrame, space: hypervolume.Space) -> Figure:
    """Hypervolume over the number of architectures that were ready; dots where one joined the frontier."""
    figure, (axes,) = sheet.new_figure()
    is_share = bool(history["hypervolume_pct"].notna().all())
    values = history["hypervolume_pct" if is_share else "hypervolume"]
    axes.step(history["architectures"], values, where="post", color=COLOURS[0], linewidth=1.6)
    joined = history["joined_frontier"]
    axes.plot(
        history["architectures"][joined],
        values[joined],
        "o",
        color=COLOURS[1],
        markersize=5 if len(history) <= _LINEAR else 3,
        zorder=3,
        clip_on=False,
    )
    axes.set_ylim(bottom=0)
    if len(history) > _LINEAR:
        set_scale(axes, "x", history["architectures"], force_log=True)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("architectures ready, in the order in which their trials ended")
    axes.set_ylabel(
        "hypervolume, higher is better\n"
        + ("[% of the box, ideal to reference]" if is_share else f"[{_unit(space)}]")
    )
    handles = [
        Line2D([], [], color=COLOURS[0], linewidth=1.6, label="hypervolume of the frontier so far"),
        Line2D(
            [], [], linestyle="none", marker="o", color=COLOURS[1], label="joined the frontier of its time"
        ),
    ]
    hours = history["hours"].iloc[-1]
    sheet.frame(
        figure,
        f"Hypervolume in {' and '.join(space.objectives)} as {len(history):,} architectures became ready",
        basis.basis(
            architectures,
            f"Reference: {space.describe()}. First to last architecture: {_duration(hours)}.",
        ),
        handles,
    )
    return figure


def _unit(space: hypervolume.Space) -> str:
    return " x ".join(
        f"decades of {name}" if log else name for name, log in zip(space.objectives, space.logs, strict=True)
    )


def _duration(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 2 else f"{hours:.1f} h"
