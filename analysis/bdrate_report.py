"""BD-rates and rate savings of a table of trials: computed, written, drawn, and printed with their basis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import figures, text
from analysis.anchors import Anchor
from analysis.bdrate_table import compare
from analysis.curves import CURVE_COLUMNS, TrialCurve, trial_curves
from analysis.errors import AnalysisError
from analysis.files import write_csv
from analysis.load import Source
from analysis.settings import Settings

DEFAULT_ANCHORS = ("bpg", "vtm")


@dataclasses.dataclass(frozen=True)
class BdRateReport:
    """table: one row per curve or point and anchor. text: what was, or would have been, printed."""

    table: pd.DataFrame
    files: tuple[Path, ...]
    text: str


def report(
    source: Source,
    folder: Path,
    anchors: Sequence[Anchor],
    settings: Settings,
    *,
    print_table: bool = True,
) -> BdRateReport:
    """Compute, write bdrate.csv and bdrate.png, print; the output folder is made if needed."""
    names = [anchor.name for anchor in anchors]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AnalysisError(f"two anchors are called {twice!r}; give each once, files under different names")
    source.require(CURVE_COLUMNS)
    curves = trial_curves(source.frame)
    table = compare(curves, anchors, settings)
    on_anchor_images = [
        curve for curve in curves if any(curve.dataset == anchor.dataset for anchor in anchors)
    ]
    files = (
        write_csv(table, folder / "bdrate.csv"),
        figures.draw_rd(on_anchor_images, anchors, folder / "bdrate.png"),
    )
    printed = bdrate_text(source, curves, table, anchors, settings, files)
    if print_table:
        print(printed)
    return BdRateReport(table, files, printed)


def bdrate_text(
    source: Source,
    curves: Sequence[TrialCurve],
    table: pd.DataFrame,
    anchors: Sequence[Anchor],
    settings: Settings,
    files: Sequence[Path],
) -> str:
    """The whole printed report of `python -m analysis bdrate`."""
    lines = [text.paragraph("note", note) for note in (*source.problems, *source.notes)]
    lines += ["BD-rate and rate saving of " + source.name + "\n", *_basis(curves, anchors, settings), ""]
    of_curves = table[table["kind"] == "curve"]
    of_points = table[table["kind"] == "point"]
    if of_curves.empty:
        lines.append(
            "No architecture has the 4 lmbdas that BD-rate needs; "
            "`python -m sweep +experiment=curves from=SWEEP` trains them.\n"
        )
    else:
        lines += ["BD-rate: mean rate change at equal PSNR, negative is better", _curve_table(of_curves), ""]
    if not of_points.empty:
        lines += [
            "Rate saving: 100 (1 - bpp / anchor's bpp at the same PSNR), positive is better",
            _point_table(of_points, anchors),
            "",
        ]
    refused = table[table["refused"] != ""]
    lines += [
        text.paragraph("no value", f"{reason}: {text.some(dict.fromkeys(group['label']))}")
        for reason, group in refused.groupby("refused", sort=False)
    ]
    lines.append(text.files_line(files))
    return "\n".join(lines)


def _basis(curves: Sequence[TrialCurve], anchors: Sequence[Anchor], settings: Settings) -> list[str]:
    low = "" if settings.min_bpp is None else f" from {settings.min_bpp:g} bpp"
    high = "" if settings.max_bpp is None else f" to {settings.max_bpp:g} bpp"
    cut = f", narrowed to where the anchor has{low}{high}" if low or high else ""
    lines = [
        text.paragraph(
            "method",
            f"{settings.method} of log rate over PSNR, mean over the PSNR range that both reach{cut}",
        ),
        text.paragraph(
            "averaging",
            "trials: mean of per-image PSNR (RGB, 8-bit rounded), mean of per-image bpp of whole files; "
            "seeds are averaged first",
        ),
    ]
    sets = sorted({f"{c.dataset or 'not named'} ({c.rows['eval_images'].iloc[0]} images)" for c in curves})
    lines.append(text.paragraph("evaluated on", ", ".join(sets)))
    for anchor in anchors:
        bpp, psnr_db = anchor.curve.bpp, anchor.curve.psnr_db
        facts = [
            f"{anchor.title}, {anchor.dataset}, {len(bpp)} points",
            f"{bpp[0]:.3f}..{bpp[-1]:.2f} bpp, {psnr_db[0]:.2f}..{psnr_db[-1]:.2f} dB",
            f"colour: {anchor.colour}; PSNR: {anchor.psnr_rule}; averaging: {anchor.averaging}",
            f"source: {anchor.source}",
        ]
        lines.append(text.paragraph(f"anchor {anchor.name}", f"{'; '.join(facts)}. {anchor.note}".strip()))
    return lines


def _curve_table(table: pd.DataFrame) -> str:
    heads = [
        ("", "architecture"),
        ("", "budget"),
        ("", "points"),
        ("own range", "dB"),
        ("", "anchor"),
        ("BD-rate", "%"),
        ("integrated", "dB"),
        ("of own", "range %"),
    ]
    body = [
        [
            text.shorten(row["label"], text.LABEL_WIDTH),
            _budget(row),
            str(row["points"]),
            _range(row["psnr_low_db"], row["psnr_high_db"]),
            row["anchor"],
            text.cell(row["bd_rate_pct"], "+.2f"),
            _range(row["range_low_db"], row["range_high_db"]),
            text.cell(row["overlap_pct"], ".0f"),
        ]
        for _, row in table.iterrows()
    ]
    return text.columns_text(heads, body)


def _point_table(table: pd.DataFrame, anchors: Sequence[Anchor]) -> str:
    heads = [
        ("", "architecture"),
        ("", "budget"),
        ("decode", "kFLOP/px"),
        ("", "lmbda"),
        ("", "bpp"),
        ("PSNR", "dB"),
    ]
    heads += [("saves vs", f"{anchor.name} %") for anchor in anchors]
    body = []
    keys = ["arch_id", "curve_id", "budget_id", "dataset", "lmbdas"]
    for _, rows in table.sort_values("kflop_per_px_dec", kind="stable").groupby(keys, sort=False):
        first = rows.iloc[0]
        savings = rows.set_index("anchor")["rate_saving_pct"]
        body.append(
            [
                text.shorten(first["label"], text.LABEL_WIDTH),
                _budget(first),
                text.cell(first["kflop_per_px_dec"], ".1f"),
                first["lmbdas"],
                f"{first['bpp_low']:.4f}",
                f"{first['psnr_low_db']:.2f}",
                *(text.cell(savings[anchor.name], "+.1f") for anchor in anchors),
            ]
        )
    return text.columns_text(heads, body)


def _budget(row: pd.Series) -> str:
    return (row["budget"] or "-") + (", warm" if row["warm_started"] else "")


def _range(low_db: float | None, high_db: float | None) -> str:
    return "-" if pd.isna(low_db) else f"{low_db:.2f}..{high_db:.2f}"
