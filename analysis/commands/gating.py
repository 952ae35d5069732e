"""python -m analysis gating."""

from __future__ import annotations

import argparse

from analysis.commands.common import SOURCE_HELP, Commands, Help, add_out


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "gating",
        help="what gated convolutions save and cost, beside a fixed mask and a narrower network; "
        "writes gating.csv and figures",
        description="Models with gates against the same model without, fine-tuned for as many steps, and\n"
        "against a fixed mask and a narrower network of equal cost; theoretical, realised and measured\n"
        "savings, beside what the authors of the gates report. docs/gating.md defines everything.",
        epilog="examples:\n"
        "  python -m sweep +experiment=gating                   trains what is compared\n"
        "  python -m analysis gating                            the last sweep\n"
        "  python -m analysis gating runs/gating -o tables",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--device", metavar="SLUG", help="whose timings give the speed-up (sweep folders only)"
    )
    add_out(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.gating_report import report
    from analysis.load import read

    source = read(options.source, device=options.device)
    report(source, options.out or source.folder)
    return 0
