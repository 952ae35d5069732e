"""python -m analysis figures."""

from __future__ import annotations

import argparse

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_choice, add_out, add_runtimes, chosen


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "figures",
        help="the study's figures: rate savings, frontier, decode time, ranks, published numbers",
        description="The study's figures from any sweep or table: rate saving over rate, rate-distortion\n"
        "loss over FLOPs, rate and PSNR, decode time over FLOPs, the order of models on two devices, and\n"
        "the study's own numbers beside ours. What cannot be drawn is listed with the reason.",
        epilog="examples:\n"
        "  python -m analysis figures                           of the last sweep, into its folder\n"
        "  python -m analysis figures runs/frontier runs/curves -o figures --format png,svg\n"
        "  python -m analysis figures runs/frontier --runtimes laptop.csv --runtimes server.csv",
        formatter_class=Help,
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--format", default="png", metavar="A,B", help="png, svg, pdf, or several (default: %(default)s)"
    )
    add_runtimes(parser)
    parser.add_argument(
        "--anchor",
        action="append",
        metavar="NAME|PATH",
        help="published curve in the figure of rate savings, as for bdrate; may be repeated "
        "(default: VTM and six learned codecs)",
    )
    add_choice(parser)
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.anchors import load_anchor
    from analysis.figures.savings import DEFAULT_REFERENCES
    from analysis.figures.sheet import check_formats
    from analysis.figures.study import check_out, draw_study, material
    from analysis.load import read
    from analysis.runtimes import read_runtime_table
    from analysis.text import files_line, paragraph

    formats = check_formats(options.format)
    references = [load_anchor(name) for name in options.anchor or DEFAULT_REFERENCES]
    tables = [read_runtime_table(path) for path in options.runtimes]
    sources = [read(name) for name in options.sources or [None]]
    folder = check_out(sources, options.out)
    choice = chosen(options)
    given = material(sources, tables, choice)
    drawn = draw_study(given, references, folder, formats)
    notes = [note for source in sources for note in (*source.problems, *source.notes)]
    for note in (*notes, given.selection.message):
        if note:
            print(paragraph("note", note))
    for line in drawn.left_out:
        print(paragraph("no figure", line))
    print(files_line(drawn.files))
    return 0
