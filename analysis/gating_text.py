"""What `python -m analysis gating` prints: tables per model, verdicts, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analysis import text
from analysis.gating_table import GatingTable
from analysis.gating_verdict import verdicts
from analysis.load import Source
from analysis.published import GATING_TITLE


def gating_text(
    source: Source, found: GatingTable, files: Iterable[Path], left_out: Sequence[str] = ()
) -> str:
    """The whole printed report."""
    lines = [text.paragraph("note", note) for note in (*source.problems, *source.notes)]
    lines.append(f"Gating in {source.name}: what it saves, what it costs, and what else costs as little\n")
    for _, rows in found.rows.groupby("model_id", sort=False):
        lines += [str(rows["model"].iloc[0]), "", "changes against the control and the base, in per cent"]
        lines += [_quality(rows), "", "how many times fewer operations, and how many times faster"]
        lines += [_work(rows), ""]
    lines += verdict_lines(found)
    lines += _basis(found)
    lines += [text.paragraph("missing", note) for note in found.notes]
    lines += [text.paragraph("left out", note) for note in left_out]
    lines.append(text.files_line(files))
    return "\n".join(lines)


def verdict_lines(found: GatingTable) -> list[str]:
    """A paragraph per model and rival."""
    return [text.paragraph("gating", said) for said in verdicts(found)]


def _quality(rows: pd.DataFrame) -> str:
    heads = [
        ("", "lmbda, stage"),
        ("PSNR", "dB"),
        ("", "bpp"),
        ("PSNR drop", "control %"),
        ("PSNR drop", "base %"),
        ("bpp", "control %"),
        ("rd_loss", "control %"),
        ("its 95 %", "interval"),
        ("BD-rate", "control %"),
        ("poster:", "drop %"),
    ]
    body = [
        [
            _name(row),
            text.cell(row["psnr_db"], ".2f"),
            text.cell(row["bpp"], ".4f"),
            text.cell(row["psnr_drop_pct"], "+.2f"),
            text.cell(row["psnr_drop_vs_base_pct"], "+.2f"),
            text.cell(row["bpp_change_pct"], "+.2f"),
            text.cell(row["rd_loss_change_pct"], "+.2f"),
            _range(row["rd_loss_low_pct"], row["rd_loss_high_pct"]),
            text.cell(row["bd_rate_pct"], "+.2f"),
            text.cell(row["published_psnr_drop_pct"], ".2f"),
        ]
        for _, row in rows.iterrows()
    ]
    return text.columns_text(heads, body)


def _work(rows: pd.DataFrame) -> str:
    heads = [
        ("", "lmbda, stage"),
        ("enc+dec", "kMAC/px"),
        ("fewer", "MACs"),
        ("dec", "alone"),
        ("by", "masks"),
        ("convs", "alone"),
        ("dec", "convs"),
        ("closed %", "all"),
        ("of it", "natural"),
        ("of it", "learned"),
        ("faster", "enc"),
        ("faster", "dec"),
        ("poster:", "FLOPs"),
    ]
    body = [
        [
            _name(row),
            text.cell(row["kmac_per_px"], ".4g"),
            text.cell(row["reduction"], ".2f"),
            text.cell(row["reduction_dec"], ".2f"),
            text.cell(row["gating_reduction_dec_masks"], ".2f"),
            text.cell(row["gating_conv_reduction"], ".2f"),
            text.cell(row["gating_conv_reduction_dec"], ".2f"),
            *(text.cell(100 * row[f"gating_{kind}sparsity"], ".0f") for kind in ("", "natural_", "learned_")),
            text.cell(row["speedup_enc"], ".2f"),
            text.cell(row["speedup_dec"], ".2f"),
            text.cell(row["published_reduction"], ".2f"),
        ]
        for _, row in rows.iterrows()
    ]
    return text.columns_text(heads, body)


def _basis(found: GatingTable) -> list[str]:
    trials = found.trials
    lines = []
    steps = sorted(trials["steps"].dropna().unique())
    undertrained = text.undertraining(trials)
    if undertrained:
        head = "undertrained" if trials["percent_of_paper_steps"].max() < 100 else "training"
        lines.append(text.paragraph(head, f"{', '.join(f'{n:,}' for n in steps)} steps; {undertrained}"))
    first = trials.iloc[0]
    lines.append(
        text.paragraph(
            "evaluated on",
            f"{first['dataset'] or 'an unnamed set'} ({first['eval_images']} images): means over images, of "
            f"whole files and 8-bit pixels{_INTERVALS if found.scores.images else ''}",
        )
    )
    timed = trials[trials["time_dec_net_ms"].notna() & ~trials["gating"].isin(["", "none"])]
    if len(timed):
        lines.append(text.paragraph("timed on", _timing(timed)))
    lines.append(
        text.paragraph(
            "poster",
            f"{GATING_TITLE}: (192, 320) models, trained far longer; its FLOPs fit convolutions alone, its "
            "drop is relative PSNR without the change of rate; shown beside ours, not mixed",
        )
    )
    return lines


_INTERVALS = (
    "; intervals: paired bootstrap over the images, 95 %; how much another training seed would change is not "
    "covered"
)


def _timing(timed: pd.DataFrame) -> str:
    first = timed.iloc[0]
    images = [image for image in dict.fromkeys(timed["time_image"]) if image]
    height_px, _, width_px = first["time_image_px"].partition("-")
    return (
        f"{first['time_device']}, {first['time_threads']} thread(s), {first['time_precision']}, {height_px} "
        f"x {width_px} px (height x width), {text.some(images) or 'an image that is not named'}: networks "
        "alone, medians, gates and gathers included; closed are the channels that this image closes"
        + _noise(timed)
    )


def _noise(timed: pd.DataFrame) -> str:
    """What is known of how steady the times are."""
    total = timed["time_dec_total_ms"]
    apart = ((timed["time_dec_total_q75_ms"] - timed["time_dec_total_q25_ms"]) / total).max()
    load = timed["time_load"].max()
    said: str = "" if pd.isna(apart) else f"; quartiles of the repeats are up to {100 * apart:.0f} % apart"
    return said if pd.isna(load) else f"{said}; load of the machine before: up to {load:.1f}"


def _name(row: pd.Series) -> str:
    return f"{row['lmbda']:g}  {row['stage']}"


def _range(low: float, high: float) -> str:
    return "-" if pd.isna(low) else f"{low:+.2f}..{high:+.2f}"
