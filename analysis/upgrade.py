"""Tables of older releases -> what this release reads. Newer ones are refused: their columns may mean others.

The rules of versions stand in analysis.schema, what changed with each in docs/schema.md.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.errors import AnalysisError
from analysis.schema import TABLE_VERSION, VERSION_COLUMN


def check_version(version: object, newest: int, what: str) -> None:
    """AnalysisError in one line if `what` has a version that this release does not know."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise AnalysisError(f"{what} has version {version!r}; expected a whole number from 1 to {newest}")
    if version > newest:
        raise AnalysisError(
            f"{what} has version {version}, this release reads up to {newest}; upgrade rdc, "
            "or write it again with this release"
        )


def version_of(raw: pd.DataFrame, newest: int, what: str) -> int:
    """The version that the rows of a table name; 1 without any. Rows without one are as the others.

    AnalysisError if it is none that this release reads, or if the rows disagree.
    """
    if VERSION_COLUMN not in raw:
        return 1
    cells = {str(cell).strip() for cell in raw[VERSION_COLUMN].dropna().unique()} - {""}
    versions = {_whole(cell) for cell in cells}
    if len(versions) > 1:
        known = ", ".join(sorted(map(str, versions)))
        raise AnalysisError(f"{what} mixes rows of the versions {known}; export each source with one release")
    version = next(iter(versions), 1)
    check_version(version, newest, what)
    assert isinstance(version, int), "check_version lets nothing else pass"
    return version


def upgraded_trials(raw: pd.DataFrame, what: str) -> pd.DataFrame:
    """A table of trials as the newest version has it, without its version column. raw stays as it is."""
    version = version_of(raw, TABLE_VERSION, what)
    table = raw.drop(columns=[name for name in (VERSION_COLUMN,) if name in raw])
    for step in range(version, TABLE_VERSION):
        table = _STEPS[step](table)
    return table


def _from_1(table: pd.DataFrame) -> pd.DataFrame:
    """The first tables called the layers of each stage extra_layers; the values are the same."""
    return table if "layers" in table else table.rename(columns={"extra_layers": "layers"})


_STEPS: dict[int, Callable[[pd.DataFrame], pd.DataFrame]] = {1: _from_1}


def _whole(cell: str) -> int | str:
    """2 for "2", and for "2.0", which spreadsheets make of it; what is no number stays what it is."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return int(number) if number.is_integer() else cell
