"""The compared architectures of a source as a LaTeX table, with what the numbers rest on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis import text
from analysis.comparable import Choice, average_seeds, comparable, distinct_labels
from analysis.errors import AnalysisError
from analysis.files import atomic
from analysis.frontier import DEFAULT_OBJECTIVES, rank
from analysis.latex import booktabs
from analysis.load import Source
from analysis.text import Shown, cell

_SHOWN = (
    Shown("kflop_per_px_dec", ("decode", "kFLOP/px"), ".1f"),
    Shown("params_m", ("params", "M"), ".2f"),
    Shown("bpp", ("", "bpp"), ".4f"),
    Shown("psnr_db", ("PSNR", "dB"), ".2f"),
    Shown("rd_loss", ("", "rd_loss"), ".4f"),
    Shown("rate_saving_vs_bpg_pct", ("saves vs", "BPG %"), "+.1f"),
    Shown("rate_saving_vs_vtm_pct", ("saves vs", "VTM %"), "+.1f"),
    Shown("time_dec_total_ms", ("decode", "ms"), ".0f"),
)


def provenance(rows: pd.DataFrame) -> str:
    """Budget and images in a sentence, for a caption that may be read alone."""
    first = rows.iloc[0]
    share = rows["percent_of_paper_steps"].max()
    trained = "" if pd.isna(share) else f", {share:.3g} % of the study's training steps"
    images = "" if pd.isna(first["eval_images"]) else f" ({first['eval_images']} images)"
    return (
        f"Budget {first['budget'] or 'not named'}{trained}; "
        f"evaluated on {first['dataset'] or 'an unnamed set'}{images}; seeds averaged."
    )


def export(source: Source, folder: Path, *, every: bool = False) -> list[Path]:
    """architectures.tex: the frontier, or every compared architecture, cheapest first; seeds averaged."""
    objectives = list(DEFAULT_OBJECTIVES)
    source.require(["label", "lmbda", *objectives])
    selection = comparable(source.frame, objectives, Choice())
    if selection.rows.empty:
        raise AnalysisError(f"no trial of {source.name} can be compared; trials.csv gives the reasons")
    ranked = rank(average_seeds(distinct_labels(selection.rows)), objectives)
    rows = ranked.sort_values(objectives[::-1], kind="stable")
    rows = rows if every else rows[rows["on_frontier"]]
    shown = [column for column in _SHOWN if rows[column.name].notna().any()]
    marks = ["*" if every and on_frontier else "" for on_frontier in rows["on_frontier"]]
    body = [
        [row["label"] + mark, *(cell(row[s.name], s.form) for s in shown)]
        for mark, (_, row) in zip(marks, rows.iterrows(), strict=True)
    ]
    who = (
        f"The {len(rows)} compared architectures of {source.name}; * marks the frontier"
        if every
        else f"The {len(rows)} of {len(ranked)} architectures of {source.name} on the frontier"
    )
    caption = f"{who} of rd_loss and decode operations at lmbda {rows['lmbda'].iloc[0]:g}. {provenance(rows)}"
    notes = [" ".join(line.split()) for line in (*text.basis(rows), selection.message) if line]
    path = folder / "architectures.tex"
    with atomic(path) as temporary:
        temporary.write_text(
            booktabs(
                [("", "architecture"), *(s.heading for s in shown)],
                body,
                caption=caption,
                label="tab:architectures",
                notes=notes,
            ),
            encoding="utf-8",
        )
    return [path]
