"""What the commands share: how a source is named, where files go, how help is laid out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.comparable import Choice

Commands = argparse._SubParsersAction  # of ArgumentParser; argparse has no public name for it

SOURCE_HELP = (
    "sweep folder, results table (.csv or .parquet), mlflow:RUN_ID or an MLflow run id; "
    "default: the last sweep under runs/"
)


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the files go (default: the sweep folder itself, or ./NAME_analysis for any other source)",
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Which of several groups of comparable trials; `chosen` reads it."""
    parser.add_argument("--lmbda", type=float, metavar="X", help="compare trials with this lmbda")
    parser.add_argument("--budget", metavar="NAME", help="compare trials with this budget (name or id)")
    parser.add_argument(
        "--eval", metavar="NAME", help="compare trials with this evaluation set (name or hash)"
    )


def chosen(options: argparse.Namespace) -> Choice:
    from analysis.comparable import Choice

    return Choice(lmbda=options.lmbda, budget=options.budget, evaluation=options.eval)


def add_runtimes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtimes",
        action="append",
        default=[],
        metavar="TABLE.csv",
        help="decode times of this or other machines, a table of `python -m rdc time`; may be repeated",
    )


class Help(argparse.RawDescriptionHelpFormatter):
    """Wide enough for the option names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=112)
