"""The study's own table beside ours, and clearly apart: grey, hollow, named by letters."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.families import Styles
from analysis.figures.basis import basis, saving_line
from analysis.figures.sheet import frame, new_figure
from analysis.figures.style import (
    FAMILY_TITLE,
    axis_text,
    family_handles,
    marker_scale,
    set_scale,
    wrap_label,
)
from analysis.labels import place_labels
from analysis.published import SPEEDS, TITLE, table1

SAVING = "rate_saving_vs_bpg_pct"
_GREY = "0.45"
_DEVICE_MARKERS = {"V100": "s", "A100": "o"}
_IMAGE_DASHES = {"Kodak": ":", "CLIC": "-"}


def published_figure(architectures: pd.DataFrame, by_family: Styles) -> Figure:
    """Rate saving and decode speed over complexity: models A to G as published, with our savings if any.

    architectures: one row each; may be empty.
    """
    table = table1()
    ours = architectures[architectures[SAVING].notna() & architectures["kflop_per_px_dec"].notna()]
    figure, (saving, speed) = new_figure(2, size_in=(12.0, 4.8))
    _draw_savings(saving, table, ours, by_family)
    _draw_speeds(speed, table)
    theirs = Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        color=_GREY,
        markerfacecolor="white",
        label="circled letter: published, 2,000,000 steps",
    )
    frame(
        figure,
        f"The study's models A to G as published{', and ours' if len(ours) else ''}",
        [*_their_basis(table), *_our_basis(ours)],
        [*family_handles(by_family, ours["family"]), theirs, *_speed_handles()],
        legend_title=FAMILY_TITLE if len(ours) else None,
    )
    fastest = table[list(SPEEDS)].max(axis=1)
    names = list(zip(table["kflops_per_px_decode"], fastest, table["model"], strict=True))
    place_labels(speed, names, np.array([name[:2] for name in names], dtype=np.float64))
    return figure


def _draw_savings(axes: Axes, table: pd.DataFrame, ours: pd.DataFrame, by_family: Styles) -> None:
    work = table["kflops_per_px_decode"]
    (circles,) = axes.plot(work, table[SAVING], linestyle="none", marker="o", markersize=11, zorder=4)
    circles.set(color=_GREY, markerfacecolor="white", gid="published")
    for x, y, letter in zip(work, table[SAVING], table["model"], strict=True):
        axes.text(x, y, letter, ha="center", va="center_baseline", fontsize=7, color="0.2", zorder=5)
    for family, (colour, marker) in by_family.items():
        group = ours[ours["family"] == family]
        axes.plot(
            group["kflop_per_px_dec"],
            group[SAVING],
            linestyle="none",
            marker=marker,
            color=colour,
            markersize=6 * marker_scale(len(ours)),
        )
    axes.set_xlabel(axis_text("kflop_per_px_dec"))
    axes.set_ylabel(wrap_label(axis_text(SAVING)))
    set_scale(axes, "x", pd.concat([work, ours["kflop_per_px_dec"]]), force_log=True)
    axes.set_title("Rate saving against BPG (0: as many bits as BPG)", fontsize=9.5, loc="left", color="0.25")
    axes.axhline(0.0, color="0.25", linewidth=1.2, zorder=1)


def _draw_speeds(axes: Axes, table: pd.DataFrame) -> None:
    ordered = table.sort_values("kflops_per_px_decode")
    for column, (device, images) in SPEEDS.items():
        axes.plot(
            ordered["kflops_per_px_decode"],
            ordered[column],
            marker=_DEVICE_MARKERS[device],
            linestyle=_IMAGE_DASHES[images],
            color=_GREY,
            markerfacecolor="white",
            markersize=6,
            linewidth=1.0,
            gid=column,
        )
    axes.set_xlabel(axis_text("kflop_per_px_dec"))
    axes.set_ylabel("decode speed of the networks  [megapixel/s]\nhigher is better")
    for which, values in (
        ("x", ordered["kflops_per_px_decode"]),
        ("y", pd.concat([ordered[column] for column in SPEEDS])),
    ):
        set_scale(axes, which, values, force_log=True)
    axes.set_title("Decode speed on two GPUs, published only", fontsize=9.5, loc="left", color="0.25")


def _speed_handles() -> list[Line2D]:
    handles = []
    for device, images in SPEEDS.values():
        label = f"published speed: {device}, {images} images"
        handle = Line2D([], [], color=_GREY, marker=_DEVICE_MARKERS[device], label=label)
        handle.set(linestyle=_IMAGE_DASHES[images], markerfacecolor="white")
        handles.append(handle)
    return handles


def _their_basis(table: pd.DataFrame) -> list[str]:
    kinds = table.groupby(["transform", "entropy_model", "hyper_transform"], sort=False)["model"]
    models = "; ".join(f"{', '.join(letters)}: {' / '.join(map(str, kind))}" for kind, letters in kinds)
    return [
        f"Grey: {TITLE}: 2,000,000 steps; savings on Kodak from rate-distortion curves, against the study's "
        "own curve of BPG; speed of the networks alone, without entropy coding.",
        f"Models, as transform / entropy model / hyper-transform: {models}.",
    ]


def _our_basis(ours: pd.DataFrame) -> list[str]:
    if ours.empty:
        return ["Ours: no architecture has a rate saving against BPG and a decode complexity."]
    return [
        *(f"Ours, in colour: {line[0].lower()}{line[1:]}" for line in basis(ours)),
        saving_line(ours[SAVING].min()),
    ]
