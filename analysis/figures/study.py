"""The study's figures from any sweep: what can be drawn is drawn, what cannot is listed with the reason."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.anchors import Anchor
from analysis.comparable import Choice, Selection, average_seeds, comparable, distinct_labels
from analysis.correlation import MIN_MODELS
from analysis.curves import trial_curves
from analysis.errors import AnalysisError
from analysis.families import Styles, family_styles
from analysis.figures.plane import plane, why_no_plane
from analysis.figures.published import published_figure
from analysis.figures.ranks import draw_ranks, orders, pairs
from analysis.figures.rd import rate_psnr
from analysis.figures.savings import saving_over_rate, why_no_savings
from analysis.figures.sheet import FORMATS, Drawn, remove, save
from analysis.figures.times import time_over_flops, timed
from analysis.frontier import DEFAULT_OBJECTIVES, rank
from analysis.load import Source
from analysis.runtimes import RUNTIME_COLUMNS, runtime_frame

# More settings or pairs than this are listed, not drawn.
MAX_SETTINGS = 8
MAX_PAIRS = 8
TIME, RANKS = "fig4_time_over_flops", "fig4_ranks"
_UNTIMED = "nothing was timed; `python -m rdc time` measures, --runtimes TABLE.csv takes its table"


@dataclasses.dataclass(frozen=True)
class Material:
    """What the figures are drawn from.

    trials: of all sources, each once. architectures: the comparable ones, seeds averaged, with on_frontier.
    selection: how they were chosen. timed: of `times.timed`.
    """

    trials: pd.DataFrame
    architectures: pd.DataFrame
    selection: Selection
    timed: pd.DataFrame


def material(sources: Sequence[Source], runtimes: Sequence[pd.DataFrame], choice: Choice) -> Material:
    """Put the trials and timings of several sources and runtime tables together."""
    every = pd.concat([source.frame for source in sources], ignore_index=True)
    trials = every.drop_duplicates("spec_id", ignore_index=True) if len(sources) > 1 else every
    selection = comparable(trials, list(DEFAULT_OBJECTIVES), choice)
    architectures = rank(average_seeds(distinct_labels(selection.rows)), DEFAULT_OBJECTIVES)
    tables = [
        *(_runtimes(source) for source in sources),
        *(table[list(RUNTIME_COLUMNS)] for table in runtimes),
    ]
    full = [table for table in tables if len(table)]
    measured = timed(pd.concat(full, ignore_index=True) if full else runtime_frame())
    return Material(trials, architectures, selection, distinct_labels(measured))


def draw_study(
    given: Material, references: Sequence[Anchor], folder: Path, formats: Sequence[str] = FORMATS[:1]
) -> Drawn:
    """Write every figure that the material allows. Older files of the others are deleted."""
    files: list[Path] = []
    left_out: list[str] = []

    def draw(name: str, why_not: str, make: Callable[[], Figure]) -> None:
        if why_not:
            left_out.append(f"{name}: {why_not}")
            remove(folder, name)
        else:
            files.extend(save(make(), folder, name, formats))

    curves = trial_curves(given.trials)
    by_family = family_styles([*given.trials["family"], *given.timed["family"]])
    best = given.architectures
    x, y = "kflop_per_px_dec", "rd_loss"
    draw(
        "fig1_rate_saving_over_rate",
        why_no_savings(curves),
        lambda: saving_over_rate(curves, references, by_family),
    )
    draw(
        "fig2_rd_loss_over_flops",
        _why_none(given) or why_no_plane(best, x, y),
        lambda: plane(best, x, y, by_family),
    )
    draw(
        "fig2_rate_psnr",
        _why_none(given) or why_no_plane(best, "bpp", "psnr_db"),
        lambda: rate_psnr(best, by_family),
    )
    for drawn in (
        _draw_times(given, by_family, folder, formats),
        _draw_ranks(given, by_family, folder, formats),
    ):
        files += drawn.files
        left_out += drawn.left_out
    draw("fig_published", "", lambda: published_figure(best, by_family))
    return Drawn(tuple(files), tuple(left_out))


def _draw_times(given: Material, styles: Styles, folder: Path, formats: Sequence[str]) -> Drawn:
    """One figure per device, threads and precision."""
    if given.timed.empty:
        remove(folder, f"{TIME}__*")
        return Drawn((), (f"{TIME}: {_UNTIMED}",))
    groups = [(group["setting"].iloc[0], group) for _, group in given.timed.groupby("setting")]
    groups.sort(key=lambda entry: (-entry[1]["arch_id"].nunique(), entry[0]))
    figures = [
        (f"{TIME}__{setting.slug}", lambda group=group: time_over_flops(group, styles))
        for setting, group in groups
    ]
    return _draw_first(TIME, figures, MAX_SETTINGS, folder, formats)


def _draw_ranks(given: Material, styles: Styles, folder: Path, formats: Sequence[str]) -> Drawn:
    """One figure per pair of settings."""
    every = pairs(orders(given.timed))
    if not every:
        remove(folder, f"{RANKS}__*")
        few = f"fewer than {MIN_MODELS} models were timed in common" if len(given.timed) else _UNTIMED
        return Drawn((), (f"{RANKS}: {few}",))
    figures = [(f"{RANKS}__{pair.slug}", lambda pair=pair: draw_ranks(pair, styles)) for pair in every]
    return _draw_first(RANKS, figures, MAX_PAIRS, folder, formats)


def _draw_first(
    kind: str,
    figures: Sequence[tuple[str, Callable[[], Figure]]],
    most: int,
    folder: Path,
    formats: Sequence[str],
) -> Drawn:
    """The first `most`; older files of the kind that are not among them are deleted."""
    names = {name for name, _ in figures[:most]}
    for path in folder.glob(f"{kind}__*"):
        if path.stem not in names and path.suffix.removeprefix(".") in FORMATS:
            path.unlink()
    files = [path for name, make in figures[:most] for path in save(make(), folder, name, formats)]
    more = [name for name, _ in figures[most:]]
    note = f"{kind}: {most} of {len(figures)} are drawn; not {', '.join(more[:3])}"
    note += f" and {len(more) - 3} more" if len(more) > 3 else ""
    return Drawn(tuple(files), (note,) if more else ())


def _why_none(given: Material) -> str:
    """Why no trial can be compared; '' if some can."""
    if len(given.architectures):
        return ""
    reasons = given.selection.reasons.value_counts()
    return f"no trial can be compared ({'; '.join(f'{count} with {why}' for why, count in reasons.items())})"


def _runtimes(source: Source) -> pd.DataFrame:
    """The timings of a source; those of a table are in its time columns."""
    if len(source.runtimes):
        return source.runtimes
    frame = source.frame[source.frame["time_dec_net_ms"].notna()].drop_duplicates("arch_id")
    sizes = frame["time_image_px"].str.extract(r"^(\d+)-(\d+)$").astype("float64")
    rows = pd.DataFrame(
        {
            **{name: frame[name] for name in ("arch_id", "label", "family", "kflop_per_px_dec", "params_m")},
            "device": frame["time_device"],
            "device_slug": [re.sub(r"[^a-z0-9]+", "-", device.lower()) for device in frame["time_device"]],
            "precision": frame["time_precision"],
            "threads": frame["time_threads"],
            "height_px": sizes[0],
            "width_px": sizes[1],
            "dec_net_ms": frame["time_dec_net_ms"],
            "dec_entropy_ms": frame["time_dec_entropy_ms"],
            "dec_total_ms": frame["time_dec_total_ms"],
        }
    )
    return runtime_frame([{str(key): value for key, value in row.items()} for row in rows.to_dict("records")])


def check_out(sources: Sequence[Source], out: Path | None) -> Path:
    """Where files go: the given folder, or that of the only source."""
    if out is None and len(sources) > 1:
        raise AnalysisError(f"{len(sources)} sources: say where their figures go with --out FOLDER")
    return out or sources[0].folder
