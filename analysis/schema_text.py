"""The schema as the Markdown of docs/schema.md: every column of every table, and what versions changed."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.runtimes import TABLE_VERSION as RUNTIME_TABLE_VERSION
from analysis.schema import (
    COLUMNS,
    FRONTIER_COLUMNS,
    HISTORY,
    IMAGE_TABLE_VERSION,
    RESULT_VERSION,
    TABLE_VERSION,
    TIMING_VERSION,
    VERSION_COLUMN,
    Column,
)
from analysis.side_tables import IMAGES, RUNTIMES

_INTRODUCTION = """\
# Schema of results

Written by `python -m analysis schema`; a test compares. The tables are those of
`python -m analysis export SOURCE --format csv` (or `parquet`); `trials.csv` and `frontier.csv` of the other
commands have the columns of trials, too. Text is UTF-8; a missing number is an empty cell, a missing text is
empty.

- **better**: which direction wins; `-` where none does. A column with a direction can be an objective of
  `python -m analysis frontier --objectives`.
- **from**: the place in a trial's `result.json`, in the timing JSON of its architecture, or *computed* by
  `analysis`. Times are those of one device and image size, chosen with `--device`; the table of runtimes has
  all of them.
- Averages are means over images, then over seeds where several are compared. Nothing is extrapolated.

## Versions

| file | version | what changed |
|---|---|---|
"""

_RULES = f"""
Current: trials {TABLE_VERSION}, images {IMAGE_TABLE_VERSION}, runtimes {RUNTIME_TABLE_VERSION}, result.json \
{RESULT_VERSION}, timing JSON {TIMING_VERSION}.

A version rises when something that exists changes its name or its meaning. Added columns and keys do not
raise it: they are empty in what older files give. Tables say their version in the column `{VERSION_COLUMN}`,
JSON files in `schema_version`. Older files are upgraded when they are read and stay as they are on disk.
Newer ones are refused by name: a table with an error, a result or a timing of a sweep with a line that says
it was left out. A sweep does not overwrite the result of a newer release.
"""


def markdown() -> str:
    """The whole page."""
    parts = [_INTRODUCTION.rstrip("\n")]
    parts += [f"| {file} | {version} | {change} |" for file, version, change in HISTORY]
    parts += [_RULES, "## Trials\n\nOne row per trial.\n", *_table(COLUMNS)]
    parts += ["\n## Frontier\n\nAdded to the trials by `python -m analysis frontier`; ignored when read.\n"]
    parts += _table(FRONTIER_COLUMNS)
    parts += [f"\n## Images\n\nOne row per trial and image; `{VERSION_COLUMN}` comes first.\n"]
    parts += _table(IMAGES, places=False)
    parts += [
        "\n## Runtimes\n\nOne row per architecture, device, threads, precision and image size; "
        f"`{VERSION_COLUMN}` comes first.\n"
    ]
    parts += _table(RUNTIMES, places=False)
    return "\n".join([*parts, ""])


def _table(columns: Sequence[Column], *, places: bool = True) -> list[str]:
    last = " from |" if places else ""
    lines = [f"| column | unit | kind | better | meaning |{last}", f"|---|---|---|---|---|{last and '---|'}"]
    for column in columns:
        cells = [f"`{column.name}`", column.unit, column.kind, column.better, column.description]
        if places:
            cells.append(_place(column))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _place(column: Column) -> str:
    if column.origin == "derived":
        return "*computed*"
    divided = f", divided by {column.divisor:,.0f}" if column.divisor != 1 else ""
    return f"`{'timing' if column.origin == 'timing' else 'result'}: {column.path}`{divided}"
