"""python -m analysis frontier | bdrate | export: from finished trials to frontiers, BD-rates and figures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.errors import AnalysisError

_SOURCE_HELP = (
    "sweep folder, results table (.csv or .parquet), mlflow:RUN_ID or an MLflow run id; "
    "default: the last sweep under runs/"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on stderr and exit status 2."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _frontier(options: argparse.Namespace) -> int:
    from analysis.comparable import Choice
    from analysis.frontier import DEFAULT_OBJECTIVES, report
    from analysis.load import read

    objectives = options.objectives.split(",") if options.objectives else list(DEFAULT_OBJECTIVES)
    source = read(options.source, device=options.device)
    choice = Choice(lmbda=options.lmbda, budget=options.budget, evaluation=options.eval)
    found = report(source, options.out or source.folder, objectives=objectives, choice=choice)
    if found.frontier.empty:
        raise AnalysisError(f"no trial of {source.name} can be compared; trials.csv gives the reasons")
    return 0


def _bdrate(options: argparse.Namespace) -> int:
    from analysis.anchors import load_anchor
    from analysis.bdrate_report import DEFAULT_ANCHORS, report
    from analysis.load import read
    from analysis.settings import Settings

    anchors = [load_anchor(name) for name in options.anchor or DEFAULT_ANCHORS]
    settings = Settings(options.method, options.min_bpp, options.max_bpp, options.min_overlap / 100)
    source = read(options.source)
    report(source, options.out or source.folder, anchors, settings)
    return 0


def _export(options: argparse.Namespace) -> int:
    from analysis.compressai_json import export
    from analysis.load import read

    source = read(options.source)
    for note in (*source.problems, *source.notes):
        print(note)
    files = export(source, options.out)
    print("\n".join(map(str, files)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__, formatter_class=_Help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_frontier(commands)
    _add_bdrate(commands)
    _add_export(commands)
    return parser


def _add_frontier(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "frontier",
        help="architectures that no other beats; writes trials.csv, frontier.csv and figures",
        description="Architectures that no other beats in rate-distortion loss and decode complexity,\n"
        "among trials with one evaluation set, one budget and one lmbda; seeds are averaged first.",
        epilog="examples:\n"
        "  python -m analysis frontier                          the last sweep\n"
        "  python -m analysis frontier runs/frontier --lmbda 0.025\n"
        "  python -m analysis frontier trials.csv --objectives rd_loss,time_dec_total_ms -o by_time\n"
        "  python -m analysis frontier mlflow:0f3c...           an MLflow run, at $MLFLOW_TRACKING_URI",
        formatter_class=_Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=_SOURCE_HELP)
    parser.add_argument(
        "--objectives", metavar="A,B", help="columns to compare by (default: rd_loss,kmac_per_px_dec)"
    )
    parser.add_argument("--lmbda", type=float, metavar="X", help="compare trials with this lmbda")
    parser.add_argument("--budget", metavar="NAME", help="compare trials with this budget (name or id)")
    parser.add_argument(
        "--eval", metavar="NAME", help="compare trials with this evaluation set (name or hash)"
    )
    parser.add_argument(
        "--device", metavar="SLUG", help="whose timings fill the time columns (sweep folders only)"
    )
    _add_out(parser)
    parser.set_defaults(run=_frontier)


def _add_bdrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from analysis.settings import METHODS, MIN_OVERLAP

    parser = commands.add_parser(
        "bdrate",
        help="BD-rate of curves, rate saving of points, against BPG and VTM; writes bdrate.csv and .png",
        description="BD-rate of architectures with at least 4 lmbdas, rate saving of single points, against\n"
        "published curves on the same images. What an anchor does not reach is listed, never extrapolated.",
        epilog="examples:\n"
        "  python -m analysis bdrate                            the last sweep against BPG and VTM\n"
        "  python -m analysis bdrate runs/curves --anchor vtm --min-bpp 0.1 --max-bpp 1\n"
        "  python -m analysis bdrate trials.csv --anchor mine.csv   a CSV with bpp, psnr_db, dataset",
        formatter_class=_Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=_SOURCE_HELP)
    parser.add_argument(
        "--anchor",
        action="append",
        metavar="NAME|PATH",
        help="bpg, bpg_compressai, vtm, another shipped curve, a CSV file, or a results JSON of CompressAI; "
        "may be repeated (default: bpg and vtm)",
    )
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="interpolation (default: %(default)s)"
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
    _add_out(parser)
    parser.set_defaults(run=_bdrate)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "export",
        help="results in a format that other tools read",
        description="One file per architecture, budget and evaluation set: OUT/<dataset>/<name>.json.",
        epilog="examples:\n"
        "  python -m analysis export runs/curves --format compressai -o results/image\n"
        "  python -m compressai.utils.plot -f results/image/kodak/*.json -o rd.png",
        formatter_class=_Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=_SOURCE_HELP)
    parser.add_argument(
        "--format", choices=["compressai"], default="compressai", help="(default: %(default)s)"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    parser.set_defaults(run=_export)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the files go (default: the sweep folder itself, or ./NAME_analysis for any other source)",
    )


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wide enough for the option names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=112)


if __name__ == "__main__":
    sys.exit(main())
