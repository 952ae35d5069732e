"""BD-rates and rate savings of a table of trials: computed, written, drawn, and printed with their basis."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, text
from analysis.anchors import Anchor
from analysis.bdrate_table import compare
from analysis.curves import CURVE_COLUMNS, TrialCurve, rows_of, trial_curves
from analysis.errors import AnalysisError
from analysis.files import write_csv
from analysis.load import Source
from analysis.settings import AVERAGE_TEXT, METHOD_TEXT, Settings

DEFAULT_ANCHORS = ("bpg", "vtm")
_LABEL_WIDTH = 34


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
    table = compare(curves, anchors, settings, source.images)
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
        lines += [
            "BD-rate: mean rate change at equal PSNR, negative is better. BD-PSNR: mean PSNR change at equal "
            "rate",
            _curve_table(of_curves),
            "",
        ]
        spread_over = of_curves[of_curves["images"].notna()]
        if not spread_over.empty:
            lines += ["BD-rates of the images, %", _spread_table(spread_over), ""]
    if not of_points.empty:
        lines += [
            "Rate saving: 100 (1 - bpp / anchor's bpp at the same PSNR), positive is better",
            _point_table(of_points, anchors),
            "",
        ]
    lines += _reasons("no value", table, "refused") + _reasons("note", table, "note")
    lines += _without(table)
    lines.append(text.files_line(files))
    return "\n".join(lines)


def _reasons(head: str, table: pd.DataFrame, name: str) -> list[str]:
    said = table[table[name] != ""]
    return [
        text.paragraph(head, f"{reason}: {text.some(dict.fromkeys(group['label']))}")
        for reason, group in said.groupby(name, sort=False)
    ]


def _without(table: pd.DataFrame) -> list[str]:
    """Which images have no value, and for whom."""
    lacking = table[table["images_refused"] != ""]
    return [
        text.paragraph(
            "left out",
            f"{row['label']} against {row['anchor']}: no value on {row['images_refused'].replace(';', ', ')}",
        )
        for _, row in lacking.iterrows()
    ]


def _basis(curves: Sequence[TrialCurve], anchors: Sequence[Anchor], settings: Settings) -> list[str]:
    low = "" if settings.min_bpp is None else f" from {settings.min_bpp:g} bpp"
    high = "" if settings.max_bpp is None else f" to {settings.max_bpp:g} bpp"
    cut = f", narrowed to where the anchor has{low}{high}" if low or high else ""
    lines = [
        text.paragraph(
            "method",
            f"{settings.method} of log rate over PSNR ({METHOD_TEXT[settings.method]}), mean over the PSNR "
            f"range that both reach{cut}; at least {100 * settings.min_overlap:g} % of a curve's own range",
        ),
        text.paragraph(
            "averaging",
            f"{settings.average}: {AVERAGE_TEXT[settings.average]}; trials: mean of per-image PSNR (RGB, "
            "8-bit rounded), mean of per-image bpp of whole files; seeds are averaged first",
        ),
    ]
    rows = rows_of(curves)
    if undertrained := text.undertraining(rows):
        head = "undertrained" if rows["percent_of_paper_steps"].max() < 100 else "training"
        lines.append(text.paragraph(head, undertrained))
    named = rows["dataset"].where(rows["dataset"] != "", "not named")
    sets = sorted(set(named + " (" + rows["eval_images"].astype("string").fillna("?") + " images)"))
    lines.append(text.paragraph("evaluated on", ", ".join(sets)))
    for anchor in anchors:
        bpp, psnr_db = anchor.curve.bpp, anchor.curve.psnr_db
        facts = [
            f"{anchor.title}, {anchor.dataset}, {len(bpp)} points",
            f"{bpp[0]:.3f}..{bpp[-1]:.2f} bpp, {psnr_db[0]:.2f}..{psnr_db[-1]:.2f} dB",
            f"colour: {anchor.colour}; PSNR: {anchor.psnr_rule}; averaging: {anchor.averaging}",
            f"source: {anchor.source}",
        ]
        if anchor.images:
            facts.insert(1, f"points of {len(anchor.images)} images")
        lines.append(text.paragraph("anchor", f"{anchor.name}: {'; '.join(facts)}. {anchor.note}".strip()))
        if anchor.caution:
            lines.append(text.paragraph("caution", anchor.caution))
    return lines


def _curve_table(table: pd.DataFrame) -> str:
    heads = [
        ("", "architecture"),
        ("", "budget"),
        ("", "points"),
        ("", "anchor"),
        ("BD-rate", "%"),
        ("BD-PSNR", "dB"),
        ("integrated", "dB"),
        ("anchor's", "bpp there"),
        ("of own", "range %"),
    ]
    body = [
        [
            text.shorten(row["label"], _LABEL_WIDTH),
            _budget(row),
            str(row["points"]),
            row["anchor"],
            text.cell(row["bd_rate_pct"], "+.2f"),
            text.cell(row["bd_psnr_db"], "+.2f"),
            _range(row["range_low_db"], row["range_high_db"], ".2f"),
            _range(row["range_low_bpp"], row["range_high_bpp"], ".3f"),
            text.cell(row["overlap_pct"], ".0f"),
        ]
        for _, row in table.iterrows()
    ]
    return text.columns_text(heads, body)


def _spread_table(table: pd.DataFrame) -> str:
    heads = [
        ("", "architecture"),
        ("", "budget"),
        ("", "anchor"),
        ("", "images"),
        ("", "mean"),
        ("95 % interval", "of the mean"),
        ("", "median"),
        ("", "quartiles"),
    ]
    body = [
        [
            text.shorten(row["label"], _LABEL_WIDTH),
            _budget(row),
            row["anchor"],
            f"{row['images']:.0f}",
            text.cell(row["bd_rate_pct"], "+.2f"),
            _range(row["ci95_low_pct"], row["ci95_high_pct"], "+.2f"),
            text.cell(row["median_pct"], "+.2f"),
            _range(row["q25_pct"], row["q75_pct"], "+.2f"),
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
    keys = ["arch_id", "curve_id", "budget_id", "dataset", "lmbdas"]
    ordered = table.sort_values("kflop_per_px_dec", kind="stable")
    savings = ordered.set_index([*keys, "anchor"])["rate_saving_pct"].to_dict()
    body = [
        [
            text.shorten(row["label"], text.LABEL_WIDTH),
            _budget(row),
            text.cell(row["kflop_per_px_dec"], ".1f"),
            row["lmbdas"],
            f"{row['bpp_low']:.4f}",
            f"{row['psnr_low_db']:.2f}",
            *(text.cell(savings[(*(row[name] for name in keys), anchor.name)], "+.1f") for anchor in anchors),
        ]
        for row in ordered.drop_duplicates(keys).to_dict("records")
    ]
    return text.columns_text(heads, body)


def _budget(row: pd.Series | dict[Hashable, Any]) -> str:
    return (row["budget"] or "-") + (", warm" if row["warm_started"] else "")


def _range(low: float | None, high: float | None, form: str) -> str:
    return "-" if pd.isna(low) else f"{low:{form}}..{high:{form}}"
