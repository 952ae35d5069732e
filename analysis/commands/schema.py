"""python -m analysis schema."""

from __future__ import annotations

import argparse

from analysis.commands.common import Commands, Help


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "schema",
        help="every column of the tables: unit, direction, meaning, origin; and what versions changed",
        description="The columns of trials, images and runtimes as Markdown: docs/schema.md.",
        epilog="examples:\n  python -m analysis schema > docs/schema.md",
        formatter_class=Help,
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.schema_text import markdown

    print(markdown(), end="")
    return 0
