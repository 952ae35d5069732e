"""python -m analysis runtime."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.common import Commands, Help


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "runtime",
        help="decode FLOPs against decode time, ranks from device to device, rooflines; writes three CSVs",
        description="Whether FLOPs tell how long decoding takes: correlations per device, threads,\n"
        "precision and image size, of all models and of families; the order of models in one\n"
        "setting against that in another; times predicted by a roofline. Times are of the\n"
        "networks, entropy coding left out.",
        epilog="examples:\n"
        "  python -m analysis runtime                        the timings of the last sweep\n"
        "  python -m analysis runtime cpu.csv gpu.csv        tables of `python -m rdc time`\n"
        "  python -m analysis runtime cpu.csv --published    beside the study's V100 and A100 speeds",
        formatter_class=Help,
    )
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="tables of `python -m rdc time` and sweep folders; default: the last sweep under runs/",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="also the study's own speeds (alone where no SOURCE is named)",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("runtime_analysis"),
        metavar="FOLDER",
        help="where the files go (default: ./%(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.runtime_report import report
    from analysis.runtime_rows import gather

    sources = options.sources or ([] if options.published else [None])
    report(gather(sources, published=options.published), options.out)
    return 0
