"""python -m analysis variable_rate."""

from __future__ import annotations

import argparse

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_out


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "variable_rate",
        help="one model for every rate against fixed-rate ones; writes variable_rate.csv and figures",
        description="Models of variable rate (rate_control=modulator) against fixed-rate models with\n"
        "the same networks: BD-rate, storage, training, and whether files grow with lmbda.\n"
        "docs/variable_rate.md defines everything.",
        epilog="examples:\n"
        "  python -m analysis variable_rate                     the last sweep\n"
        "  python -m analysis variable_rate runs/variable_rate\n"
        "  python -m analysis variable_rate trials.csv -o out   with images.csv beside it also bytes",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.load import read
    from analysis.variable_rate_report import report

    source = read(options.source)
    report(source, options.out or source.folder)
    return 0
