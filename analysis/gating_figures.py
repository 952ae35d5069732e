"""Figures of `python -m analysis gating`: what gates trade, which layers close, and what time it saves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.families import COLOURS, Style, curve_styles
from analysis.figures.basis import basis
from analysis.figures.sheet import Drawn, frame, new_figure, remove, save
from analysis.figures.style import hollow
from analysis.gating_layers import layer_frame
from analysis.gating_table import GatingTable
from analysis.gating_verdict import mean_of
from analysis.labels import place_labels
from analysis.published import GATING_TITLE, gating

# Role -> colour, marker, and what it is called.
_LOOKS = {
    "control": ("#000000", "o", "ungated, fine-tuned as long (control)"),
    "ecg": (COLOURS[0], "o", "gate per image (ecg)"),
    "static": (COLOURS[1], "s", "fixed mask (static)"),
    "narrow_tuned": (COLOURS[2], "D", "narrower network, trained as long"),
}
_GREY = "0.45"
_POSTERS = ("scale_hyperprior", "mean_scale_hyperprior", "joint_autoregressive")
MAX_PANELS = 3


def draw(found: GatingTable, folder: Path) -> Drawn:
    """gating_tradeoff, _published, _sparsity and _speed as PNG; what cannot be drawn is said."""
    files: list[Path] = []
    left_out: list[str] = []
    for name, drawing in (
        ("gating_tradeoff", _tradeoff),
        ("gating_published", _published),
        ("gating_sparsity", _sparsity),
        ("gating_speed", _speed),
    ):
        drawn = drawing(found, folder, name)
        files += drawn.files
        left_out += drawn.left_out
    models = found.rows.drop_duplicates("model_id")["model"]
    if len(models) > MAX_PANELS:
        left_out.append(
            f"figures show {MAX_PANELS} of {len(models)} models; not {', '.join(models.iloc[MAX_PANELS:])}"
        )
    return Drawn(tuple(files), tuple(left_out))


def _nothing(folder: Path, name: str, why: str) -> Drawn:
    remove(folder, name)
    return Drawn((), (f"{name}.png: {why}",))


def _models(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(label, rows) of the first MAX_PANELS models: more panels would be too small to read."""
    groups = [(str(group["model"].iloc[0]), group) for _, group in rows.groupby("model_id", sort=False)]
    return groups[:MAX_PANELS]


# ------------------------------------------------------------------------------------------------ trade-off


def _tradeoff(found: GatingTable, folder: Path, name: str) -> Drawn:
    """rd_loss against the control over the reduction of operations, mean over lmbdas, a panel per model."""
    rows = found.rows[found.rows["rd_loss_change_pct"].notna() & found.rows["reduction"].notna()]
    if rows.empty:
        return _nothing(folder, name, "no stage has a control that was fine-tuned for as many steps")
    models = _models(rows)
    figure, panels = new_figure(len(models), size_in=(2.4 + 3.4 * len(models), 4.2))
    for axes, (label, group) in zip(panels, models, strict=True):
        _draw_tradeoff(axes, label, _mean_over_lmbdas(found, group))
    panels[0].set_ylabel("rd_loss against the control  [%]\nlower is better")
    shown = set(rows["role"]) | {"control"}
    handles = [_handle(role) for role in _LOOKS if role in shown]
    lmbdas = ", ".join(f"{lmbda:g}" for lmbda in sorted(rows["lmbda"].unique()))
    frame(
        figure,
        "What fewer operations cost: gates per image, a fixed mask, a narrower network",
        [
            f"Each point is the mean over lmbda {lmbdas}; bars: 95 % intervals, paired bootstrap over the "
            "images; how much another training seed would change is not covered. Operations: encoder and "
            "decoder, the whole model, counted while images were coded. Joined are gates that differ in "
            "alpha_target alone.",
            *basis(found.trials),
        ],
        handles,
    )
    return Drawn(tuple(save(figure, folder, name)), ())


def _mean_over_lmbdas(found: GatingTable, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the lmbdas that all stages of the model have, so that no mean is of easier ones."""
    common = rows.groupby("lmbda")["stage"].nunique()
    shared = rows[rows["lmbda"].isin(common.index[common == rows["stage"].nunique()])]
    means = []
    for (stage, role), group in (shared if len(shared) else rows).groupby(["stage", "role"], sort=False):
        pairs = [pair for pair in map(found.pair, group["spec_ids"]) if pair is not None]
        change = mean_of(found.scores.change_pct(*pair) for pair in pairs)
        low, high = change.interval()
        label, reduction = group["label"].iloc[0], group["reduction"].mean()
        means.append((stage, role, label, reduction, change.estimate, low, high))
    names = [
        "stage",
        "role",
        "label",
        "reduction",
        "rd_loss_change_pct",
        "rd_loss_low_pct",
        "rd_loss_high_pct",
    ]
    return pd.DataFrame(means, columns=names)


def _draw_tradeoff(axes: Axes, label: str, rows: pd.DataFrame) -> None:
    axes.axhline(0.0, color="0.25", linewidth=1.0, zorder=1)
    colour, marker, _ = _LOOKS["control"]
    axes.plot([1.0], [0.0], linestyle="none", marker=marker, color=colour, markersize=7, gid="control")
    names = []
    lines: list[Line2D] = []
    for role in ("ecg", "static", "narrow_tuned"):
        group = rows[rows["role"] == role].sort_values("reduction")
        if group.empty:
            continue
        colour, marker, _ = _LOOKS[role]
        x, y = (group[column].to_numpy(dtype=np.float64) for column in ("reduction", "rd_loss_change_pct"))
        low, high = (group[f"rd_loss_{end}_pct"].to_numpy(dtype=np.float64) for end in ("low", "high"))
        axes.errorbar(
            x,
            y,
            np.nan_to_num(np.stack([y - low, high - y])).clip(min=0),
            fmt="none",
            ecolor=colour,
            capsize=3,
            lw=1.1,
        )
        style = "-" if role == "ecg" and _is_series(group["label"]) else "none"
        lines += axes.plot(x, y, linestyle=style, marker=marker, color=colour, markersize=7, gid=role, lw=1.2)
        names += list(zip(x, y, group["stage"], strict=True))
    axes.set_title(_wrapped(label), fontsize=8.5, loc="left", color="0.25")
    axes.set_xlabel("fewer operations, encoder and decoder  [x]")
    points = np.array([(1.0, 0.0), *((x, y) for x, y, _ in names)])
    place_labels(axes, names, points, lines)


def _is_series(labels: pd.Series) -> bool:
    """Whether points differ in the target of alpha alone: only then a line between them means something."""
    return labels.map(lambda label: re.sub(r" alpha_target=\S+", "", label)).nunique() == 1


def _handle(role: str) -> Line2D:
    colour, marker, label = _LOOKS[role]
    return Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=7, label=label)


# ------------------------------------------------------------------------------------------------ published


def _published(found: GatingTable, folder: Path, name: str) -> Drawn:
    """PSNR drop over the reduction of convolutions, ours beside the poster's; a panel per model of it."""
    wanted = ["psnr_drop_pct", "gating_conv_reduction"]
    ours = found.rows[found.rows["role"] == "ecg"].dropna(subset=wanted)
    ours = ours[ours["entropy_model"].isin(_POSTERS)]
    theirs = gating()
    models = _models(ours)
    if not models:
        return _nothing(folder, name, "no gated stage of the poster's models has a control of as many steps")
    figure, panels = new_figure(len(models), size_in=(2.4 + 3.4 * len(models), 4.2))
    for axes, (label, rows) in zip(panels, models, strict=True):
        poster = theirs[theirs["entropy_model"] == rows["entropy_model"].iloc[0]]
        axes.axhline(0.0, color="0.25", linewidth=1.0, zorder=1)
        (hollows,) = axes.plot(poster["flop_reduction"], poster["psnr_drop_pct"], "o", color=_GREY, ms=6)
        hollows.set(markerfacecolor="white", gid="published")
        for stage, (colour, marker) in _stage_styles(ours).items():
            mine = rows[rows["stage"] == stage]
            axes.plot(
                mine["gating_conv_reduction"], mine["psnr_drop_pct"], marker, color=colour, ms=7, gid=stage
            )
        axes.set_title(_wrapped(label), fontsize=8.5, loc="left", color="0.25")
        axes.set_xlabel("fewer operations of convolutions  [x]")
    panels[0].set_ylabel("PSNR drop against the control  [%]\nlower is better")
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=7, label=f"ours, {stage}")
        for stage, (colour, marker) in _stage_styles(ours).items()
    ]
    handles.append(hollow("published, one point per quality", "o", _GREY))
    frame(
        figure,
        "PSNR drop and fewer operations: ours, and as published",
        [
            "Ours: one point per lmbda. PSNR drop: 100 (P0 - P1) / P0 of the decibels; the change of rate is "
            "not in it. Operations: convolutions of the transforms alone, encoder and decoder.",
            *basis(found.trials),
            f"Grey: {GATING_TITLE}: models of widths (192, 320), trained far longer; which training its drop "
            "is against, and what its operations leave out, is not stated.",
        ],
        handles,
    )
    return Drawn(tuple(save(figure, folder, name)), ())


# ------------------------------------------------------------------------------------------------- sparsity


def _sparsity(found: GatingTable, folder: Path, name: str) -> Drawn:
    """Open share per layer, mean and spread over images; natural zeros apart; a panel per model."""
    rows = found.rows[found.rows["role"] == "ecg"]
    if rows.empty:
        return _nothing(folder, name, "no trial has gates per image (gating=ecg)")
    layers = layer_frame(_sweep_folder(found, folder), _ids(rows))
    if layers.empty:
        return _nothing(folder, name, "layers stand in the trials' result.json of a sweep folder only")
    chosen = _one_lmbda(rows)
    models = [(label, group) for label, group in _models(chosen) if set(_ids(group)) & set(layers["spec_id"])]
    figure, panels = new_figure(len(models), size_in=(2.0 + 4.2 * len(models), 4.2))
    for axes, (label, group) in zip(panels, models, strict=True):
        _draw_layers(axes, label, group, layers)
    panels[0].set_ylabel("open input channels  [share]")
    handles: list[Line2D] = [
        Line2D([], [], marker=marker, color=colour, label=stage)
        for stage, (colour, marker) in _stage_styles(chosen).items()
    ]
    handles.append(hollow("not zero everywhere: closing the others changes nothing", "v", _GREY))
    frame(
        figure,
        f"Which layers close their channels, lmbda {chosen['lmbda'].iloc[0]:g}",
        [
            "Open: mean over the evaluation images of the input channels that are computed, over all of the "
            "layer's; bars: standard deviation over images.",
            *basis(found.trials),
        ],
        handles,
    )
    return Drawn(tuple(save(figure, folder, name)), ())


def _sweep_folder(found: GatingTable, folder: Path) -> Path:
    return found.folder if (found.folder / "trials").is_dir() else folder


def _ids(rows: pd.DataFrame) -> list[str]:
    """The first seed's trial of each row."""
    return [str(joined).split(";")[0] for joined in rows["spec_ids"]]


def _one_lmbda(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the middle one of the lmbdas that most rows have."""
    counts = rows.groupby("lmbda").size()
    most = sorted(counts.index[counts == counts.max()])
    return rows[rows["lmbda"] == most[len(most) // 2]]


def _stage_styles(rows: pd.DataFrame) -> dict[str, Style]:
    """Colour and marker of every stage."""
    stages = list(dict.fromkeys(rows["stage"]))
    return dict(zip(stages, curve_styles(len(stages)), strict=True))


def _draw_layers(axes: Axes, label: str, rows: pd.DataFrame, layers: pd.DataFrame) -> None:
    names: list[str] = []
    styles = _stage_styles(rows)
    width = 0.6 / len(styles)
    for place, (stage, spec_id) in enumerate(zip(rows["stage"], _ids(rows), strict=True)):
        mine = layers[layers["spec_id"] == spec_id]
        names = list(mine["layer"])
        colour, marker = styles[stage]
        x = np.arange(len(mine)) + (place - (len(styles) - 1) / 2) * width
        axes.errorbar(
            x,
            mine["open_share"].to_numpy(),
            mine["open_share_std"].to_numpy(),
            fmt=marker,
            color=colour,
            capsize=2,
            markersize=5,
        )
        axes.plot(
            x, 1 - mine["natural_zero"], linestyle="none", marker="v", markersize=5, color=_GREY,
            markerfacecolor="white", zorder=1,
        )  # fmt: skip
    axes.set_xticks(np.arange(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylim(0, 1.05)
    axes.set_title(_wrapped(label), fontsize=8.5, loc="left", color="0.25")


# ---------------------------------------------------------------------------------------------------- speed


def _speed(found: GatingTable, folder: Path, name: str) -> Drawn:
    """Measured speed-up over the reduction of operations, encoder and decoder apart."""
    rows = found.rows[found.rows["role"].isin(["ecg", "static", "narrow_tuned"])]
    known = [rows[[f"reduction_{way}", f"speedup_{way}"]].notna().all(axis=1) for way in ("enc", "dec")]
    if not (known[0] | known[1]).any():
        return _nothing(folder, name, "no gated trial was timed together with its ungated model")
    figure, panels = new_figure(2, size_in=(9.6, 4.4))
    ends = [1.0, 1.0]
    for axes, way, title, there in zip(
        panels, ("enc", "dec"), ("encoder's networks", "decoder's networks"), known, strict=True
    ):
        points = rows[there]
        for role, group in points.groupby("role", sort=False):
            colour, marker, _ = _LOOKS[str(role)]
            axes.plot(
                group[f"reduction_{way}"], group[f"speedup_{way}"], linestyle="none", marker=marker,
                color=colour, markersize=6, alpha=0.8, gid=str(role),
            )  # fmt: skip
        values = points[[f"reduction_{way}", f"speedup_{way}"]].to_numpy(dtype=np.float64)
        if values.size:
            ends = [min(ends[0], float(values.min())), max(ends[1], float(values.max()))]
        axes.set_title(title, fontsize=9.5, loc="left", color="0.25")
        axes.set_xlabel("fewer operations, counted  [x]")
    for axes in panels:
        axes.plot(ends, ends, color="0.6", linestyle="--", linewidth=1.0, zorder=1)
        axes.axhline(1.0, color="0.25", linewidth=0.8, zorder=1)
    panels[0].set_ylabel("faster than the ungated model  [x]\nhigher is better")
    handles = [_handle(role) for role in _LOOKS if role in set(rows["role"])]
    handles.append(Line2D([], [], color="0.6", linestyle="--", label="as much faster as there are fewer"))
    frame(figure, "Fewer operations against time saved", [*_timed(found), *basis(found.trials)], handles)
    return Drawn(tuple(save(figure, folder, name)), ())


def _timed(found: GatingTable) -> Iterable[str]:
    timed = found.trials[found.trials["time_dec_net_ms"].notna()]
    first = timed.iloc[0]
    images = [image for image in dict.fromkeys(timed["time_image"]) if image]
    height_px, _, width_px = first["time_image_px"].partition("-")
    yield (
        f"Time: {first['time_device']}, {first['time_threads']} thread(s), {first['time_precision']}, one "
        f"image of {width_px} x {height_px} px ({', '.join(images[:2]) or 'not named'}), medians of repeats, "
        "networks without entropy coding, gates and gathers included. Operations: means over the "
        "evaluation images."
    )


def _wrapped(label: str, width: int = 44) -> str:
    words: Sequence[str] = label.split()
    lines = [""]
    for word in words:
        lines[-1:] = (
            [f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < width else [lines[-1], word]
        )
    return "\n".join(lines)
