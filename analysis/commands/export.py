"""python -m analysis export."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.common import SOURCE_HELP, Commands, Help


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="results in a format that other tools read",
        description="One file per architecture, budget and evaluation set: OUT/<dataset>/<name>.json.",
        epilog="examples:\n"
        "  python -m analysis export runs/curves --format compressai -o results/image\n"
        "  python -m compressai.utils.plot -f results/image/kodak/*.json -o rd.png",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--format", choices=["compressai"], default="compressai", help="(default: %(default)s)"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.compressai_json import export
    from analysis.load import read

    source = read(options.source)
    for note in (*source.problems, *source.notes):
        print(note)
    files = export(source, options.out)
    print("\n".join(map(str, files)))
    return 0
