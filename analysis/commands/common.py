"""What the commands share: how a source is named, where files go, how help is laid out."""

from __future__ import annotations

import argparse
from pathlib import Path

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


class Help(argparse.RawDescriptionHelpFormatter):
    """Wide enough for the option names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=112)
