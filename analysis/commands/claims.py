"""python -m analysis claims."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_choice, add_out, add_runtimes, chosen


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "claims",
        help="the study's statements tested on sweeps: supported, contradicted, undecided or what is missing",
        description="Tests nine statements of the study (Minnen & Johnston, ICIP 2023) on trials with\n"
        "one evaluation set, budget and lmbda: a verdict with an interval, or what is missing for it and\n"
        "the command that makes it. Writes claims.csv and claims.json. See docs/claims.md.",
        epilog="examples:\n"
        "  python -m analysis claims                            the last sweep\n"
        "  python -m analysis claims runs/frontier runs/claim5 -v\n"
        "  python -m analysis claims runs/frontier --runtimes cpu.csv --runtimes gpu.csv\n"
        "  python -m analysis claims --published                the study's own Table 1, as a reference",
        formatter_class=Help,
    )
    parser.add_argument(
        "sources", nargs="*", metavar="SOURCE", help=f"{SOURCE_HELP}; several are taken together"
    )
    add_runtimes(parser)
    parser.add_argument(
        "--published",
        action="store_true",
        help="test the study's own table: beside SOURCEs in a section of its own, or alone without any",
    )
    add_choice(parser)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print how each claim was tested and every number"
    )
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.claims.report import report
    from analysis.load import read
    from analysis.runtimes import read_runtime_table

    names: list[str | None] = list(options.sources)
    if not names and not options.published:
        names = [None]
    sources = [read(name) for name in names]
    folder = options.out or (sources[0].folder if sources else Path("published_analysis"))
    report(
        sources,
        folder,
        choice=chosen(options),
        runtimes=[read_runtime_table(path) for path in options.runtimes],
        published=options.published,
        verbose=options.verbose,
    )
    return 0
