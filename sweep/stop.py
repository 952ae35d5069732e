"""`python -m sweep stop`: let a running sweep end early, so that the same command continues it later."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rdc.errors import UserError
from sweep.drain import write_request
from sweep.status import SweepStatus, add_sweep_arguments, read_status, sweep_folder
from sweep.status_text import how_to_go_on


def main(argv: Sequence[str]) -> int:
    """argv: as typed, from "stop" on. UserError if there is no such sweep, or nobody drives it."""
    options = _parser().parse_args(argv[1:])
    status = read_status(sweep_folder(options.sweep, options.runs_dir))
    if not status.alive:
        raise UserError(f"{status.folder}: is not running; python -m sweep status says how it ended")
    write_request(status.folder, now=options.now)
    print(_what_happens(status, now=options.now))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweep stop", description=__doc__)
    add_sweep_arguments(parser)
    parser.add_argument(
        "--now",
        action="store_true",
        help="running trials write a checkpoint and end; else they run to their end",
    )
    return parser


def _what_happens(status: SweepStatus, *, now: bool) -> str:
    running = status.count("running")
    left = sum(status.count(state) for state in ("waiting", "interrupted"))
    fate = "write a checkpoint and end at their next step" if now else "run to their end (--now ends them)"
    return "\n".join(
        [
            f"asked {status.driver} to end sweep {status.sweep.get('name')}",
            f"{running} running trials {fate}; {left} others do not start",
            how_to_go_on(status),
        ]
    )
