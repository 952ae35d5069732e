"""python -m analysis bdrate."""

from __future__ import annotations

import argparse

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_out
from analysis.settings import AVERAGE_TEXT, AVERAGES, METHOD_TEXT, METHODS, MIN_OVERLAP


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "bdrate",
        help="BD-rate of curves, rate saving of points, against BPG and VTM; writes bdrate.csv and .png",
        description="BD-rate and BD-PSNR of architectures with at least 4 lmbdas, rate saving of single\n"
        "points, against published curves on the same images. What an anchor does not reach is listed,\n"
        "never extrapolated. docs/bdrate.md defines everything.",
        epilog="examples:\n"
        "  python -m analysis bdrate                            the last sweep against BPG and VTM\n"
        "  python -m analysis bdrate runs/curves --anchor vtm --min-bpp 0.1 --max-bpp 1\n"
        "  python -m analysis bdrate trials.csv --anchor mine.csv   a CSV with bpp, psnr_db, dataset\n"
        "  python -m analysis bdrate --anchor kodak.csv:jxl --average per_image\n"
        "\n"
        "methods:\n"
        + "".join(f"  {name:<11}{METHOD_TEXT[name]}\n" for name in METHODS)
        + "  What others call piecewise cubic is pchip here; piecewise is straight lines.",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--anchor",
        action="append",
        metavar="NAME|PATH",
        help="bpg, bpg_compressai, vtm, another shipped curve, a CSV file (PATH.csv:CODEC of several), or a "
        "results JSON of CompressAI; may be repeated (default: bpg and vtm)",
    )
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="interpolation (default: %(default)s)"
    )
    parser.add_argument(
        "--average",
        choices=AVERAGES,
        default=AVERAGES[0],
        help=f"{'; '.join(f'{name}: {AVERAGE_TEXT[name]}' for name in AVERAGES)} (default: %(default)s)",
    )
    parser.add_argument("--min-bpp", type=float, metavar="X", help="leave out where the anchor has fewer bpp")
    parser.add_argument("--max-bpp", type=float, metavar="X", help="leave out where the anchor has more bpp")
    parser.add_argument(
        "--min-overlap",
        type=float,
        default=100 * MIN_OVERLAP,
        metavar="PERCENT",
        help="least share of a curve's PSNR range that the anchor must reach (default: %(default)g)",
    )
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.anchors import load_anchor
    from analysis.bdrate_report import DEFAULT_ANCHORS, report
    from analysis.load import read
    from analysis.settings import Settings

    anchors = [load_anchor(name) for name in options.anchor or DEFAULT_ANCHORS]
    settings = Settings(
        options.method, options.min_bpp, options.max_bpp, options.min_overlap / 100, options.average
    )
    source = read(options.source)
    report(source, options.out or source.folder, anchors, settings)
    return 0
