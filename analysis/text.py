"""What the commands print: aligned tables, and sentences about what the numbers rest on."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.anchors import load_anchor
from analysis.load import Source
from analysis.rows import SAVINGS
from analysis.schema import column

WIDTH = 112
TABLE_WIDTH = 120
LABEL_WIDTH = 48
_INDENT = 14


@dataclasses.dataclass(frozen=True)
class Shown:
    """One printed column: a column of the table, its heading lines, and how a value is written."""

    name: str
    heading: tuple[str, str]
    form: str


_SHOWN = (
    Shown("kflop_per_px_dec", ("decode", "kFLOP/px"), ".1f"),
    Shown("gating_reduction_dec_masks", ("fewer x", "masks"), ".2f"),
    Shown("gating_reduction_dec", ("fewer x", "counted"), ".2f"),
    Shown("params_m", ("params", "M"), ".2f"),
    Shown("bpp", ("", "bpp"), ".4f"),
    Shown("psnr_db", ("PSNR", "dB"), ".2f"),
    Shown("ms_ssim_db", ("MS-SSIM", "dB"), ".2f"),
    Shown("rd_loss", ("", "rd_loss"), ".4f"),
    Shown("rate_saving_vs_bpg_pct", ("saves vs", "BPG %"), "+.1f"),
    Shown("rate_saving_vs_vtm_pct", ("saves vs", "VTM %"), "+.1f"),
    Shown("time_dec_net_ms", ("networks", "dec ms"), ".0f"),
    Shown("time_dec_total_ms", ("total", "dec ms"), ".0f"),
    Shown("frontier_probability", ("P(fron-", "tier)"), ".0%"),
)
_FIRST_TO_GO = ("time_dec_net_ms", "ms_ssim_db", "params_m")
# What operations gates save, in theory and counted, stands beside the time that this saves.
_FIRST_TO_GO_WITH_GATES = ("ms_ssim_db", "params_m", "rate_saving_vs_vtm_pct", "time_dec_total_ms")


def frontier_text(
    source: Source,
    trials: pd.DataFrame,
    architectures: pd.DataFrame,
    frontier: pd.DataFrame,
    objectives: Sequence[str],
    message: str,
    files: Iterable[Path],
    left_out: Iterable[str],
    *,
    findings: Iterable[tuple[str, str]] = (),
) -> str:
    """The whole printed report of `python -m analysis frontier`.

    frontier: the rows of the table. findings: heads and sentences to follow it.
    """
    lines = [paragraph("note", note) for note in (*source.problems, *source.notes, message) if note]
    if frontier.empty:
        lines.append(f"No frontier for {source.name}: none of its {len(trials)} trials can be compared.")
    else:
        goals = ", ".join(f"{name} ({column(name).better})" for name in objectives)
        title = (
            f"Frontier of {source.name}: {architectures['on_frontier'].sum()} of {len(architectures)} "
            f"architectures are dominated "
            f"by no other in {goals}; lmbda {architectures['lmbda'].iloc[0]:g}"
        )
        lines += [textwrap.fill(title, WIDTH), ""]
        lines += [architecture_table(frontier, objectives), ""]
        lines += [paragraph(head, body) for head, body in findings]
        if has_gates(frontier):
            lines.append(paragraph("gates", _GATES))
        lines += basis(architectures)
    lines += [paragraph("not compared", line) for line in left_aside(trials)]
    lines += [paragraph("left out", line) for line in left_out]
    lines.append(files_line(files))
    return "\n".join(lines)


def architecture_table(frame: pd.DataFrame, objectives: Sequence[str] = ()) -> str:
    """One line per architecture; columns without any value are left out, other objectives come last.

    If the table would be wider than a terminal, the columns that matter least go first.
    """
    shown = [*_SHOWN]
    for name in objectives:
        if name not in {s.name for s in shown} and name != "kmac_per_px_dec":
            shown.append(Shown(name, (name, column(name).unit), ".5g"))
    shown = [s for s in shown if s.name in frame and frame[s.name].notna().any()]
    heads = [("", "architecture"), *(s.heading for s in shown)]
    body = [
        [shorten(_name(row), LABEL_WIDTH), *(cell(row[s.name], s.form) for s in shown)]
        for _, row in frame.iterrows()
    ]
    table = columns_text(heads, body)
    if max(map(len, table.splitlines())) > TABLE_WIDTH:
        for name in _FIRST_TO_GO_WITH_GATES if has_gates(frame) else _FIRST_TO_GO:
            if name in frame and name not in objectives:
                return architecture_table(frame.drop(columns=name), objectives)
    return table


def has_gates(frame: pd.DataFrame) -> bool:
    """Whether a trial's gates have closed channels."""
    return "gating_reduction_dec" in frame and bool(frame["gating_reduction_dec"].notna().any())


_GATES = (
    "decode work is what gates leave of it, mean over the evaluation images; fewer: decoder operations with "
    "all channels open over those left, in theory (by masks) and counted while images were coded; time is "
    "measured with the gates on one image. python -m analysis gating compares with the ungated model"
)


def _name(row: pd.Series) -> str:
    is_knee = row.get("is_knee")
    return f"{row['label']} [knee]" if not pd.isna(is_knee) and is_knee else str(row["label"])


def columns_text(heads: Sequence[tuple[str, str]], body: Sequence[Sequence[str]]) -> str:
    """Two heading lines and rows; the first column flush left, the others flush right."""
    rows = [[head[0] for head in heads], [head[1] for head in heads], *body]
    widths = [max(len(row[index]) for row in rows) for index in range(len(heads))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(2, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(line for line in lines if line)


def basis(rows: pd.DataFrame) -> list[str]:
    """What the compared results were trained, evaluated and timed on, and how far training went."""
    first = rows.iloc[0]
    lines = [paragraph("trained on", _training(first))] if first["steps"] is not pd.NA else []
    undertrained = undertraining(rows)
    if undertrained:
        lines.append(
            paragraph(
                "undertrained" if rows["percent_of_paper_steps"].max() < 100 else "training", undertrained
            )
        )
    lines.append(paragraph("evaluated on", _evaluation(first)))
    lines += [paragraph("rate saving", line) for line in saving_lines(rows)]
    if rows["time_dec_total_ms"].notna().any():
        timed = rows[rows["time_dec_total_ms"].notna()].iloc[0]
        lines.append(paragraph("timed on", _timing(timed)))
    return lines


def undertraining(rows: pd.DataFrame) -> str:
    """How much of the study's training this is, and whether the loss still fell; '' if not recorded."""
    steps, pixels = rows["percent_of_paper_steps"].max(), rows["percent_of_paper_pixels"].max()
    if pd.isna(steps):
        return ""
    sentence = f"{steps:.3g} % of the study's 2,000,000 steps"
    if not pd.isna(pixels):
        sentence += f", {pixels:.2g} % of its training pixels"
    slopes = rows["rd_loss_slope_per_1k_steps"].dropna()
    if slopes.empty:
        return sentence
    trend = "still falls by" if slopes.median() < 0 else "does not fall: it rises by"
    sentence += f"; in the last fifth of training validation rd_loss {trend} {abs(slopes.median()):.3g}"
    sentence += " per 1,000 steps"
    return sentence + f" (median; {slopes.min():+.3g} to {slopes.max():+.3g})"


def saving_lines(rows: pd.DataFrame) -> list[str]:
    """Which anchors the savings refer to, and who has none."""
    lines = []
    for name, anchor_name in SAVINGS.items():
        have, lack = rows[rows[name].notna()], rows[rows[name].isna()]
        if have.empty:
            continue
        anchor = load_anchor(anchor_name)
        line = f"{anchor_name.upper()} = {anchor.title}, at equal mean PSNR; negative: needs more rate"
        if not lack.empty:
            reach = f"{anchor.curve.psnr_db[0]:.1f}..{anchor.curve.psnr_db[-1]:.1f} dB"
            line += f"; none for {some(lack['label'])}, outside its {reach}"
        lines.append(line)
    if not lines and (rows["rate_saving_note"] != "").any():
        lines.append("none: " + some(rows["rate_saving_note"].drop_duplicates(), 2, "; "))
    return lines


def left_aside(trials: pd.DataFrame) -> list[str]:
    """One line per reason why trials took no part."""
    lines = []
    for reason, group in trials[trials["off_frontier_reason"] != ""].groupby("off_frontier_reason"):
        names = [
            f"{row['label']} ({row['error_class']}: {row['error_message']})"
            if row["error_class"]
            else row["label"]
            for _, row in group.iterrows()
        ]
        lines.append(f"{len(group)} with {reason}: {some(dict.fromkeys(names))}")
    return lines


def paragraph(head: str, body: str) -> str:
    """`head` in a column of its own, `body` wrapped beside it."""
    return textwrap.fill(
        body,
        WIDTH,
        initial_indent=head.ljust(_INDENT),
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def files_line(files: Iterable[Path]) -> str:
    """The folder once, shorter where it is below the current one, and the names of its files."""
    every = [path.resolve() for path in files]
    folder = every[0].parent
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return paragraph("files", f"in {shown}/: {', '.join(path.name for path in every)}")


def shorten(text: str, width: int) -> str:
    """Cut in the middle, where labels differ least."""
    half = (width - 3) // 2
    return text if len(text) <= width else f"{text[: width - 3 - half]}...{text[-half:]}"


def cell(value: Any, form: str) -> str:
    """A number, or '-' where there is none."""
    return "-" if pd.isna(value) else format(float(value), form)


def some(names: Iterable[str], most: int = 4, separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    more = f"{separator}and {len(every) - most} more" if len(every) > most else ""
    return separator.join(every[:most]) + more


def _training(row: pd.Series) -> str:
    images = f"{row['train_images']} images" if not pd.isna(row["train_images"]) else "images"
    source = f" ({row['train_source']})" if row["train_source"] else ""
    crops = f"{row['batch_size']} crops of {row['crop_px']} x {row['crop_px']} px"
    warm = ", warm-started" if row["warm_start"] else ""
    return (
        f"{images}, {row['train_data'] or 'unnamed'}{source}: {row['steps']:,} steps of {crops}, "
        f"{row['precision']}{warm}, budget {row['budget']}, on {row['train_device']}"
    )


def _evaluation(row: pd.Series) -> str:
    images = [] if pd.isna(row["eval_images"]) else [f"{row['eval_images']} images"]
    facts = [*images, *filter(None, [row["eval_source"]]), f"content {row['dataset_hash'] or 'unknown'}"]
    return (
        f"{row['dataset'] or 'an unnamed set'} ({'; '.join(facts)}): "
        "bpp of whole files, 8-bit rounded pixels, mean of per-image PSNR"
    )


def _timing(row: pd.Series) -> str:
    if not row["time_device"]:
        return "a device that the source does not name; total = networks and entropy coding, medians"
    alone = row["time_alone"]
    company = "" if pd.isna(alone) else ", alone on its node" if alone else ", NOT alone on its node"
    height_px, _, width_px = row["time_image_px"].partition("-")
    return (
        f"{row['time_device']}, {row['time_threads']} thread(s), {row['time_precision']}, image of "
        f"{height_px} x {width_px} px (height x width){company}; total = networks and entropy coding, medians"
    )
