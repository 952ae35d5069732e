"""Figures of models of variable rate: PSNR over rate with all arms, and bytes over lmbda."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.curves import rows_of
from analysis.families import COLOURS
from analysis.figures.basis import basis, plural
from analysis.figures.sheet import frame, new_figure, remove, save
from analysis.figures.style import axis_text, set_scale, wrap_label
from analysis.text import shorten
from analysis.variable_rate import VariableModel
from analysis.variable_rate_bytes import ByteSteps

RD_FILE, BYTES_FILE = "variable_rate_rd", "variable_rate_bytes"
_VARIABLE, *_ARMS = COLOURS
_ARM_MARKERS = ("s", "^", "D", "v", "P")
_PANEL_IN, _HEIGHT_IN = 5.2, 4.6
_FIRST_PANEL_IN = 7.6
_FALL = "#D55E00"


def draw_rd(models: Sequence[VariableModel], folder: Path) -> Path:
    """PSNR over rate, one panel per model: each arm a line, the variable model's trained lmbdas larger."""
    models = [model for model in models if model.curve.is_curve] or models  # a single point says little
    figure, panels = _panels(len(models))
    rows = rows_of([curve for model in models for curve in (model.curve, *(arm.curve for arm in model.arms))])
    handles: dict[str, Line2D] = {}
    for axes, model in zip(panels, models, strict=True):
        _draw_arms(axes, model, models, handles)
        set_scale(
            axes, "x", rows_of([model.curve, *(arm.curve for arm in model.arms)])["bpp"], force_log=True
        )
        axes.set_title(shorten(model.name, 60), fontsize=9)
        axes.set_xlabel(axis_text("bpp", direction=False))
    panels[0].set_ylabel(wrap_label(axis_text("psnr_db")))
    count = plural(len(models), "model")
    frame(
        figure,
        f"One model for every rate: {count} of variable rate, and fixed-rate ones",
        basis(rows),
        list(handles.values()),
    )
    (written,) = save(figure, folder, RD_FILE)
    return written


def _draw_arms(
    axes: Axes, model: VariableModel, models: Sequence[VariableModel], handles: dict[str, Line2D]
) -> None:
    """handles: the legend's entries so far. models: all of the figure, which share its legend."""
    for place, arm in enumerate(model.arms):
        (line,) = axes.plot(
            arm.curve.values("bpp"),
            arm.curve.values("psnr_db"),
            color=_ARMS[place % len(_ARMS)],
            marker=_ARM_MARKERS[place % len(_ARM_MARKERS)],
            markersize=5.5,
            linewidth=1.3,
            zorder=3,
            label=_arm_label(arm.name, models),
        )
        handles.setdefault(arm.name, line)
    rows = model.curve.rows.sort_values("lmbda")
    (line,) = axes.plot(
        rows["bpp"], rows["psnr_db"], color=_VARIABLE, marker="o", markersize=3, linewidth=1.2, zorder=4,
        label=f"one variable model, {_steps([m.cost.steps_each for m in models])}: every measured lmbda",
    )  # fmt: skip
    handles.setdefault("variable", line)
    trained = rows[rows["lmbda"].isin(model.trained)]
    (points,) = axes.plot(
        trained["bpp"], trained["psnr_db"], color=_VARIABLE, marker="o", markersize=7, linestyle="none",
        markerfacecolor="white", markeredgewidth=1.6, zorder=5, label="its lmbdas in training",
    )  # fmt: skip
    if len(trained):
        handles.setdefault("trained", points)


def _arm_label(name: str, models: Sequence[VariableModel]) -> str:
    arms = [arm for model in models for arm in model.arms if arm.name == name]
    steps = _steps([arm.cost.steps_each for arm in arms])
    return f"{shorten(name, 30)}: fixed-rate models, {steps} each"


def _steps(steps: Sequence[float]) -> str:
    """Of models that share one entry of the legend."""
    known = sorted({number for number in steps if np.isfinite(number)})
    return f"{' or '.join(f'{number:,.0f}' for number in known)} steps" if known else "steps not known"


def draw_bytes(models: Sequence[VariableModel], folder: Path) -> list[Path]:
    """Mean bytes over lmbda, single images faint, what does not rise marked; [] without scores of images."""
    judged = [(model, steps) for model in models for steps in model.steps if steps.steps]
    if not judged:
        remove(folder, BYTES_FILE)
        return []
    figure, panels = _panels(len(judged))
    for axes, (model, steps) in zip(panels, judged, strict=True):
        _draw_sizes(axes, steps)
        seed = f", seed {steps.seed}" if len(model.steps) > 1 else ""
        axes.set_title(f"{shorten(model.name, 60)}{seed}", fontsize=9)
        axes.set_xlabel("lmbda of the file's rate code")
    panels[0].set_ylabel("coded file  [kB = 1,000 bytes]")
    falls = sum(len(steps.mean_violations()) for _, steps in judged)
    singles = sum(len(steps.image_violations()) for _, steps in judged)
    said = (
        "The mean file grows with lmbda at every step"
        if not falls
        else f"The mean file does not grow at {plural(falls, 'step')} of lmbda"
    )
    total = sum(steps.steps * len(steps.images) for _, steps in judged)
    note = f"Single images: {singles} of {total:,} steps from one rate to the next do not rise."
    rows = rows_of([model.curve for model in dict(judged)])
    frame(figure, said, basis(rows, note), _size_handles(falls, singles))
    return save(figure, folder, BYTES_FILE)


def _draw_sizes(axes: Axes, steps: ByteSteps) -> None:
    axes.plot(steps.lmbdas, steps.bytes / 1e3, color="0.75", linewidth=0.7, zorder=2)
    axes.plot(
        steps.lmbdas,
        steps.mean_bytes / 1e3,
        color=_VARIABLE,
        linewidth=1.8,
        marker="o",
        markersize=3.5,
        zorder=4,
    )
    of_images, of_mean = steps.image_violations(), steps.mean_violations()
    axes.plot(
        [v.next_lmbda for v in of_images], [v.next_bytes / 1e3 for v in of_images],
        linestyle="none", marker="x", markersize=5, color=_FALL, zorder=3,
    )  # fmt: skip
    axes.plot(
        [v.next_lmbda for v in of_mean], [v.next_bytes / 1e3 for v in of_mean],
        linestyle="none", marker="X", markersize=10, color=_FALL, markeredgecolor="black", zorder=5,
    )  # fmt: skip
    set_scale(axes, "x", pd.Series(steps.lmbdas), force_log=True)
    set_scale(axes, "y", pd.Series(steps.bytes.ravel() / 1e3), force_log=True)


def _size_handles(falls: int, singles: int) -> list[Line2D]:
    handles = [
        Line2D([], [], color=_VARIABLE, linewidth=1.8, marker="o", markersize=3.5, label="mean over images"),
        Line2D([], [], color="0.75", linewidth=0.9, label="single images"),
    ]
    if singles:
        handles.append(
            Line2D([], [], linestyle="none", marker="x", color=_FALL, label="an image's file does not grow")
        )
    if falls:
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="X",
                markersize=9,
                color=_FALL,
                markeredgecolor="black",
                label="the mean does not grow",
            )
        )
    return handles


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    width_in = _FIRST_PANEL_IN if count == 1 else _PANEL_IN * count
    return new_figure(count, size_in=(width_in, _HEIGHT_IN))
