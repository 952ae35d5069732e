"""python -m analysis export."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.common import SOURCE_HELP, Commands, Help
from analysis.errors import AnalysisError

_FORMATS = ("compressai", "csv", "parquet", "latex")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="results as CSV, Parquet, CompressAI's JSON or a LaTeX table",
        description="compressai  one file per architecture, budget and images: OUT/<dataset>/<name>.json\n"
        "csv         OUT/trials.csv, images.csv and runtimes.csv; every command reads OUT back\n"
        "parquet     the same, with the unit and the meaning of every column in the files\n"
        "latex       OUT/architectures.tex: the frontier, or all that was compared\n"
        "`python -m analysis schema` says what the columns mean.",
        epilog="examples:\n"
        "  python -m analysis export runs/curves --format compressai -o results/image\n"
        "  python -m compressai.utils.plot -f results/image/kodak/*.json -o rd.png\n"
        "  python -m analysis export runs/frontier --format parquet -o published\n"
        "  python -m analysis export runs/frontier --format latex --all -o paper",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help="(default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="latex: every compared architecture")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis import compressai_json, latex_export, tables
    from analysis.load import read

    if options.all and options.format != "latex":
        raise AnalysisError(f"--all goes with --format latex; {options.format} holds every trial anyway")
    source = read(options.source)
    for note in (*source.problems, *source.notes):
        print(note)
    if options.format == "compressai":
        files = compressai_json.export(source, options.out)
    elif options.format == "latex":
        files = latex_export.export(source, options.out, every=options.all)
    else:
        files = tables.export(source, options.out, options.format)
    print("\n".join(map(str, files)))
    return 0
