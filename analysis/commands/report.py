"""python -m analysis report."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.common import SOURCE_HELP, Commands, Help
from analysis.errors import AnalysisError


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "report",
        help="one page to explore: frontier, table, RD curves, reconstructions; works offline",
        description="Writes one HTML file that any browser opens, without a network: the frontier on axes\n"
        "of your choice, every trial in a table, RD curves beside BPG and VTM, reconstructions beside\n"
        "their originals, configurations, and what the numbers rest on.",
        epilog="examples:\n"
        "  python -m analysis report                            of the last sweep, into its folder\n"
        "  python -m analysis report runs/curves -o curves.html\n"
        "  python -m analysis report trials.csv --objectives rd_loss,time_dec_total_ms",
        formatter_class=Help,
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--objectives", metavar="A,B", help="columns to compare by (default: rd_loss,kmac_per_px_dec)"
    )
    parser.add_argument(
        "--device", metavar="SLUG", help="whose timings fill the time columns (sweep folders only)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE.html",
        help="where it goes (default: report.html in the sweep folder, or in ./NAME_analysis)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from analysis.load import read
    from analysis.objectives import DEFAULT_OBJECTIVES
    from analysis.report import write_page
    from analysis.schema import PAGE_FILE

    if options.out is not None and options.out.suffix.lower() not in (".html", ".htm"):
        raise AnalysisError(f"--out {options.out}: must be a file that ends in .html")
    objectives = options.objectives.split(",") if options.objectives else list(DEFAULT_OBJECTIVES)
    source = read(options.source, device=options.device)
    page = write_page(source, options.out or source.folder / PAGE_FILE, objectives=objectives)
    for note in (*source.problems, *source.notes, *page.notes):
        print(f"note: {note}")
    print(f"{page.path} ({page.size_bytes / 1e6:.1f} MB): open it in a browser")
    return 0
