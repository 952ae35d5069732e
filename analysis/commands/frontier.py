"""python -m analysis frontier."""

from __future__ import annotations

import argparse

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_out
from analysis.errors import AnalysisError


def add(commands: Commands) -> None:
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
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
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
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
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
