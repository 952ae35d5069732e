"""What `python -m analysis runtime` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from analysis.correlation import MIN_MODELS
from analysis.runtime_rows import Times
from analysis.text import cell, columns_text, files_line, paragraph, shorten

_MOST_EXAMPLES = 3
_MOST_COMPARISONS = 12
_MOST_LINES = 40


def report_text(
    times: Times,
    correlations: pd.DataFrame,
    ranks: pd.DataFrame,
    rooflines: pd.DataFrame,
    files: Iterable[Path],
) -> str:
    """The whole report."""
    lines = [paragraph("note", note) for note in times.notes]
    lines += ["Decode FLOPs against decode time of the networks, entropy coding left out", ""]
    lines += [_correlation_text(correlations), "", *_reading()]
    for title, part in (
        ("Order of the models by decode time, from one setting to another", _rank_lines(ranks)),
        (
            "Roofline: predicted from operators and the machine's speeds; no model's time went into it",
            _roofline_lines(rooflines),
        ),
    ):
        body = list(part)
        if body:
            lines += ["", title, "", *body]
    if rooflines.empty:
        lines.append(paragraph("no roofline", "no source counts operators; `python -m rdc time` tables do"))
    lines += ["", files_line(files)]
    return "\n".join(lines)


def _correlation_text(table: pd.DataFrame) -> str:
    """Families of few models have no correlation, and no line."""
    heads = [
        ("", "setting / group"), ("", "models"), ("Pearson r", "of logarithms"), ("Spearman", "rho"),
        ("Kendall", "tau"), ("inverted pairs", "(clear ones)"),
    ]  # fmt: skip
    body = []
    for setting, group in table.groupby("setting", sort=False):
        body.append([str(setting), *[""] * (len(heads) - 1)])
        for _, row in group.iterrows():
            if row["models"] < MIN_MODELS and row["group"] != group["group"].iloc[0]:
                continue
            numbers = [_with_interval(row, name) for name in ("pearson", "spearman", "kendall")]
            clear = "" if pd.isna(row["clear_inversions"]) else f" ({row['clear_inversions']})"
            share = f"{row['inversions']} of {row['pairs']}{clear}"
            body.append([f"  {row['group']}", str(row["models"]), *numbers, share])
    return columns_text(heads, body)


def _with_interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return "-"
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _reading() -> Iterator[str]:
    yield paragraph(
        "read as",
        "in brackets: 95 % intervals, which take the models for a random sample; 1: FLOPs order the times, "
        f"0: they say nothing; '-': fewer than {MIN_MODELS} models. Inverted pair: the one with fewer FLOPs "
        "is slower; clear: the quartiles of the two times do not meet. Smaller families stand in the CSV.",
    )


def _rank_lines(ranks: pd.DataFrame) -> Iterator[str]:
    if ranks.empty:
        return
    comparisons = list(ranks.groupby(["setting_x", "setting_y"], sort=False))
    for (x, y), rows in comparisons[:_MOST_COMPARISONS]:
        first = rows.iloc[0]
        tau = f", Kendall tau {_with_interval(first, 'kendall')}" if pd.notna(first["kendall"]) else ""
        yield paragraph(
            first["differs"],
            f"{x}  ->  {y}: {first['models']} models, {first['inversions']} of {first['pairs']} pairs change "
            f"places{_clear(first)}{tau}{_examples(rows)}",
        )
    if len(comparisons) > _MOST_COMPARISONS:
        yield paragraph(
            "", f"and {len(comparisons) - _MOST_COMPARISONS} more comparisons in runtime_ranks.csv"
        )


def _clear(row: pd.Series) -> str:
    known = pd.notna(row["clear_inversions"]) and row["inversions"]
    return f", {row['clear_inversions']} of them beyond quartiles" if known else ""


def _examples(rows: pd.DataFrame) -> str:
    """The models whose ranks differ most."""
    moves = (rows["rank_y"] - rows["rank_x"]).abs()
    moved = rows.loc[moves[moves > 0].sort_values(ascending=False, kind="stable").index[:_MOST_EXAMPLES]]
    if moved.empty:
        return "; every model keeps its rank"
    texts = [f"{shorten(row['label'], 40)} {row['rank_x']} -> {row['rank_y']}" for _, row in moved.iterrows()]
    return f"; largest changes of rank: {', '.join(texts)}"


def _roofline_lines(table: pd.DataFrame) -> Iterator[str]:
    if table.empty:
        return
    heads = [
        ("", "setting / model"), ("measured", "ms"), ("predicted", "ms"), ("error", "%"), ("bound", "by"),
        ("arith-", "metic ms"), ("memory", "ms"), ("launches", "ms"), ("serial", "steps"),
        ("fitted*", "error %"),
    ]  # fmt: skip
    body = []
    shown = _shown_settings(table)
    for setting, rows in table[table["setting"].isin(shown)].groupby("setting", sort=False):
        body.append([str(setting), *[""] * (len(heads) - 1)])
        for _, row in rows.iterrows():
            body.append(
                [
                    f"  {shorten(row['label'], 34)}",
                    *(cell(row[name], ".4g") for name in ("measured_ms", "predicted_ms")),
                    cell(row["error_pct"], "+.0f"),
                    str(row["bound_by"]),
                    *(cell(row[f"{name}_ms"], ".3g") for name in ("compute", "memory", "serial")),
                    cell(row["serial_steps_dec"], ".0f"),
                    cell(row["fitted_error_pct"], "+.0f"),
                ]
            )
    yield columns_text(heads, body)
    if len(shown) < table["setting"].nunique():
        yield "The models of the other settings stand in roofline.csv."
    yield ""
    for setting, rows in table.groupby("setting", sort=False):
        yield paragraph("errors", f"{setting}: {_errors(rows)}")
    yield paragraph(
        "* fitted",
        "one factor for each of the three terms per setting, not below 0, from all models but the one that "
        "it then predicts; the prediction itself uses none.",
    )


def _shown_settings(table: pd.DataFrame) -> list[str]:
    """All where they are few lines together, else the one with most models."""
    models = table.groupby("setting", sort=False).size()
    return list(models.index) if models.sum() <= _MOST_LINES else [str(models.idxmax())]


def _errors(rows: pd.DataFrame) -> str:
    pure = rows["error_pct"].abs()
    text = f"median {pure.median():.0f} %, largest {pure.max():.0f} % of {len(rows)} models"
    bounds = rows["bound_by"].value_counts()
    text += f"; bound by {', '.join(f'{name} {count}' for name, count in bounds.items())}"
    fitted = rows["fitted_error_pct"].abs()
    if fitted.notna().any():
        factors = ", ".join(
            f"{name} {rows[f'fitted_factor_{name}'].iloc[0]:.2f}" for name in ("compute", "memory", "serial")
        )
        text += f"; fitted: median {fitted.median():.0f} %, largest {fitted.max():.0f} % (factors {factors})"
    if len(rows) >= MIN_MODELS:
        tau = {
            name: rows[column].corr(rows["measured_ms"], method="kendall")
            for name, column in (("FLOPs", "kflop_per_px_dec"), ("the prediction", "predicted_ms"))
        }
        text += "; Kendall tau with the time: " + ", ".join(f"{name} {v:.2f}" for name, v in tau.items())
    return text
