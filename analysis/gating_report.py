"""What gating buys, computed, written, drawn and printed: `python -m analysis gating`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from analysis import gating_figures, text
from analysis.figures.sheet import Drawn
from analysis.files import write_csv
from analysis.gating_table import GatingTable, gating_table
from analysis.gating_text import gating_text, verdict_lines
from analysis.load import Source


@dataclasses.dataclass(frozen=True)
class GatingReport:
    """table: as gating.csv. text: what was, or would have been, printed."""

    table: pd.DataFrame
    found: GatingTable
    files: tuple[Path, ...]
    text: str


def report(source: Source, folder: Path, *, print_table: bool = True, draw: bool = True) -> GatingReport:
    """Compute, write gating.csv, draw, print; the output folder is made if needed."""
    found = gating_table(source)
    table = write_csv(found.rows, folder / "gating.csv")
    drawn = gating_figures.draw(found, folder) if draw else Drawn((), ())
    files = (table, *drawn.files)
    printed = gating_text(source, found, files, drawn.left_out)
    if print_table:
        print(printed)
    return GatingReport(found.rows, found, files, printed)


def write(source: Source, folder: Path) -> str:
    """As `report` at the end of a sweep; what there is to say of it in few lines."""
    found = report(source, folder, print_table=False)
    return "\n".join([*verdict_lines(found.found), text.files_line(found.files)])
