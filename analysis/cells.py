"""The cells of a CSV file as text, or why it is none that can be read without guessing."""

from __future__ import annotations

import collections
import csv
import io
from pathlib import Path

import pandas as pd


def csv_cells(path: Path) -> pd.DataFrame:
    """Cells as text, by column: ids such as 12e45 must stay what they are. Blank lines are left out.

    ValueError in a few words: other separators, columns of one name, rows with more or fewer cells than the
    header has (a file that was cut off, decimal commas), no UTF-8. OSError as `Path.read_bytes`.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text (byte {error.start + 1}); save it as CSV in UTF-8") from None
    if "\0" in text:
        raise ValueError("it holds NUL bytes; write it again")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError("it is empty")
    header, *body = rows
    _check_header(header)
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"row {number} has {len(row)} cells, the header has {len(header)}; "
                "commas separate cells, and decimals have a point"
            )
    names = [name or f"Unnamed: {place}" for place, name in enumerate(header)]
    columns = zip(*body, strict=True) if body else [()] * len(names)
    return pd.DataFrame({n: pd.Series(cells, dtype=str) for n, cells in zip(names, columns, strict=True)})


def _check_header(header: list[str]) -> None:
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise ValueError(f"{called} separate its cells; save it with commas, and decimals with a point")
    twice = [name for name, count in collections.Counter(header).items() if name and count > 1]
    if twice:
        raise ValueError(f"it has the column {twice[0]} twice; keep one")
