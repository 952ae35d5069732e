"""python -m analysis frontier."""

from __future__ import annotations

import argparse

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_choice, add_out, chosen
from analysis.errors import AnalysisError


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "frontier",
        help="architectures that no other beats; writes trials.csv, frontier.csv, hypervolume.csv, figures",
        description="Architectures that no other beats in rate-distortion loss and decode complexity,\n"
        "among trials with one evaluation set, one budget and one lmbda; seeds are averaged first.\n"
        "See docs/frontier.md for what is computed and how.",
        epilog="examples:\n"
        "  python -m analysis frontier                          the last sweep\n"
        "  python -m analysis frontier runs/frontier --lmbda 0.025\n"
        "  python -m analysis frontier --epsilon 2%             only those more than 2 % apart\n"
        "  python -m analysis frontier --per device             rd_loss against decode time on each device\n"
        "  python -m analysis frontier trials.csv --objectives rd_loss,time_dec_total_ms -o by_time\n"
        "  python -m analysis frontier mlflow:0f3c...           an MLflow run, at $MLFLOW_TRACKING_URI",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--objectives", metavar="A,B", help="columns to compare by (default: rd_loss,kmac_per_px_dec)"
    )
    add_choice(parser)
    parser.add_argument(
        "--device", metavar="SLUG", help="whose timings fill the time columns (sweep folders only)"
    )
    parser.add_argument(
        "--per",
        choices=["device", "budget"],
        help="a frontier for each: who is on which; writes frontier_by_device.csv or frontier_by_budget.csv",
    )
    parser.add_argument(
        "--epsilon",
        metavar="E[,E]",
        help="list only architectures that represent the others to within this: per cent (2%%) or a number "
        "in the objective's unit (0.05), one for all objectives or one each",
    )
    parser.add_argument(
        "--reference",
        metavar="A=X,B=Y",
        help="up to where hypervolume counts, such as rd_loss=2,kmac_per_px_dec=500 (default: a tenth of the "
        "frontier's range beyond its worst values)",
    )
    parser.add_argument(
        "--resamples", type=int, metavar="N", default=1000, help="of the bootstrap (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="of the bootstrap (default: %(default)s)"
    )
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis import frontier_per
    from analysis.frontier import report
    from analysis.hypervolume import parse_reference
    from analysis.judgement import Rules
    from analysis.load import read
    from analysis.objectives import DEFAULT_OBJECTIVES
    from analysis.pareto import Epsilon
    from analysis.uncertainty import Bootstrap

    epsilons = tuple(map(Epsilon.parse, options.epsilon.split(","))) if options.epsilon else ()
    rules = Rules(epsilons, Bootstrap(options.resamples, options.seed))
    reference = parse_reference(options.reference) if options.reference else None
    objectives = options.objectives.split(",") if options.objectives else None
    source = read(options.source, device=options.device)
    choice = chosen(options)
    folder = options.out or source.folder
    if options.per:
        frontier_per.report(source, folder, options.per, objectives=objectives, choice=choice)
        return 0
    names = objectives or DEFAULT_OBJECTIVES
    found = report(source, folder, objectives=names, choice=choice, rules=rules, reference=reference)
    if found.frontier.empty:
        raise AnalysisError(f"no trial of {source.name} can be compared; trials.csv gives the reasons")
    return 0
