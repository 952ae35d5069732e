"""python -m analysis COMMAND: from finished trials to frontiers, BD-rates and figures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from analysis.commands import (
    anchors,
    bdrate,
    claims,
    export,
    figures,
    frontier,
    gating,
    report,
    runtime,
    schema,
    table,
    variable_rate,
)
from analysis.commands.common import Help
from analysis.errors import AnalysisError

COMMANDS = (
    frontier,
    figures,
    bdrate,
    gating,
    export,
    claims,
    anchors,
    runtime,
    report,
    schema,
    table,
    variable_rate,
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__, formatter_class=Help)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
