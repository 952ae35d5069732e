"""python -m analysis table."""

from __future__ import annotations

import argparse

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_choice, add_out, add_runtimes, chosen
from analysis.errors import AnalysisError


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "table",
        help="the study's Table 1 for a sweep: size, work, decode speed, rate saving; as text, CSV, LaTeX",
        description="Parameters, decode operations, decode speed per device and image size, rate saving\n"
        "against BPG (from curves where there are any), rd_loss and frontier of the architectures that may\n"
        "be compared, as Table 1 of Minnen & Johnston, ICIP 2023, whose own numbers follow apart.",
        epilog="examples:\n"
        "  python -m analysis table                             the last sweep\n"
        "  python -m analysis table runs/curves --runtimes gpu.csv --runtimes cpu.csv\n"
        "  python -m analysis table runs/frontier --format latex -o paper",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    add_runtimes(parser)
    parser.add_argument(
        "--format",
        default="text,csv,latex,markdown",
        metavar="A,B",
        help="any of text, csv, latex, markdown (default: %(default)s)",
    )
    add_choice(parser)
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.load import read
    from analysis.runtimes import read_runtime_table
    from analysis.study_table import study_table
    from analysis.study_text import FORMATS, write

    formats = options.format.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise AnalysisError(f"--format {unknown[0]!r} is not known; known: {', '.join(FORMATS)}")
    runtimes = [read_runtime_table(path) for path in options.runtimes]
    source = read(options.source)
    choice = chosen(options)
    table = study_table(source, choice=choice, runtimes=runtimes)
    write(source, table, options.out or source.folder, formats)
    return 0
