"""CSV and Parquet of everything that a source holds: trials, per-image scores, runtimes.

`analysis.load.read` of the folder, or of its table of trials, gives back the same frames, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from analysis.errors import AnalysisError
from analysis.files import atomic, write_csv
from analysis.load import Source
from analysis.schema import COLUMNS, TABLE_VERSION, VERSION_COLUMN, Column
from analysis.side_tables import TABLES, VERSIONS, with_version

Format = Literal["csv", "parquet"]


def export(source: Source, folder: Path, form: Format) -> list[Path]:
    """trials, images and runtimes in the folder; the last two have no rows where the source has none."""
    frames = {
        "trials": source.frame,
        "images": with_version(source.images, "images"),
        "runtimes": with_version(source.runtimes, "runtimes"),
    }
    files = []
    for table, frame in frames.items():
        path = folder / f"{table}.{form}"
        files.append(write_csv(frame, path) if form == "csv" else _write_parquet(frame, table, path))
    return files


def _write_parquet(frame: pd.DataFrame, table: str, path: Path) -> Path:
    """Every known column carries its unit, kind, direction and meaning; the file its version."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise AnalysisError("writing Parquet needs pyarrow: pip install pyarrow, or --format csv") from None
    content = pyarrow.Table.from_pandas(frame, preserve_index=False)
    known = {column.name: column for column in described(table)}
    fields = [
        field.with_metadata(_facts(known[field.name])) if field.name in known else field
        for field in content.schema
    ]
    version = TABLE_VERSION if table == "trials" else VERSIONS[table]
    facts = {**(content.schema.metadata or {}), b"rdc_table": table.encode()}
    facts[VERSION_COLUMN.encode()] = str(version).encode()
    with atomic(path) as temporary:
        pyarrow.parquet.write_table(content.cast(pyarrow.schema(fields, metadata=facts)), temporary)
    return path


def described(table: str) -> Sequence[Column]:
    """The columns of one of the three tables, in the order in which they are written."""
    if table == "trials":
        return COLUMNS
    version = next(column for column in COLUMNS if column.name == VERSION_COLUMN)
    return (version, *TABLES[table])


def _facts(column: Column) -> dict[str, str]:
    return {
        "unit": column.unit,
        "kind": column.kind,
        "better": column.better,
        "origin": column.origin,
        "description": column.description,
    }
