"""`python -m sweep sync FOLDER`: log a sweep to MLflow from its files alone."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from sweep.lock import sweep_lock
from sweep.record import SWEEP_FILE, read_sweep
from sweep.tracking.address import (
    QuietParser,
    artifact_root,
    is_relative_file,
    redact,
    redact_value,
    scheme,
    server_name,
    tracking_uri,
)
from sweep.tracking.client import Client, ServerError, require_mlflow
from sweep.tracking.mirror import Mirror
from sweep.tracking.state import known_servers

REQUEST_TIMEOUT_S = 30.0
DEFAULT_EXPERIMENT = "rdc"
# What sweep.json says of its end -> the status of its run. One whose driver was killed still says "running".
RUN_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


def main(argv: Sequence[str]) -> int:
    """argv: as typed, from "sync" on. Exit codes: 0; 1 the server refused a part; 2 the user's mistake."""
    options = _parser().parse_args(argv[1:])
    try:
        return sync(options.folder, uri=options.uri, experiment=options.experiment)
    except UserError as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = QuietParser(prog="python -m sweep sync", description=__doc__)
    parser.add_argument("folder", type=Path, help="the sweep's folder, such as runs/frontier")
    parser.add_argument("--uri", help="the tracking server or database (default: the sweep's own)")
    parser.add_argument("--experiment", help="the experiment's name there (default: the sweep's own)")
    return parser


def sync(folder: Path, *, uri: str | None = None, experiment: str | None = None) -> int:
    """Bring the server up to the folder; the exit code. UserError in one line."""
    folder = folder.expanduser().resolve()
    sweep = _read_sweep(folder)
    tracking = sweep["config"].get("tracking") or {}
    address = _address(folder, tracking, uri)
    require_mlflow()
    refused: list[str] = []
    with _unused(folder):
        print(f"logging {folder.name} to {server_name(address)}", flush=True)
        mirror = Mirror(
            Client(address, float(tracking.get("request_timeout_s") or REQUEST_TIMEOUT_S)),
            experiment=experiment or tracking.get("experiment") or DEFAULT_EXPERIMENT,
            artifacts=artifact_root(address, tracking.get("artifacts"), folder.parent),
            folder=folder,
            sweep=sweep,
            say=refused.append,
            compare=True,
        )
        try:
            mirror.sync(RUN_STATUS.get(str(sweep.get("status")), "KILLED"))
        except ServerError as error:
            raise UserError(
                f"MLflow at {server_name(address)} does not take the record: {error}; {mirror.recorded()} "
                "ended trials are there, and the same command goes on from them"
            ) from None
    for line in refused:
        print(line, file=sys.stderr)
    print(f"{mirror.recorded()} ended trials of {folder.name} are in MLflow at {server_name(address)}")
    return int(bool(refused))


def _read_sweep(folder: Path) -> dict[str, Any]:
    """sweep.json, with a mapping under "config". UserError for what no sweep has written."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name that of a sweep, such as runs/frontier")
    sweep = read_sweep(folder)
    if sweep is None:
        raise UserError(f"{folder}: is not the folder of a sweep, it has no {SWEEP_FILE}")
    config = sweep.get("config") or {}
    is_ours = isinstance(config, Mapping) and isinstance(config.get("tracking") or {}, Mapping)
    if not is_ours or not isinstance(sweep.get("started_at") or 0.0, int | float):
        raise UserError(
            f"{folder / SWEEP_FILE}: is not the record of a sweep; bring back the one of this folder"
        )
    return {**sweep, "config": config}


def _address(folder: Path, tracking: Mapping[str, Any], given: str | None) -> str:
    """--uri, else the server that the sweep was told or found in its environment.

    What tracking.json remembers of it counts where this command stands in another folder or environment.
    """
    if given:
        return tracking_uri(given, folder.parent)
    told = tracking.get("uri")
    from_environment = os.environ.get("MLFLOW_TRACKING_URI")
    if told is not None:
        return _told_address(folder, str(told), from_environment)
    if from_environment:
        return tracking_uri(from_environment, folder.parent)
    known = known_servers(folder)
    if known:
        return tracking_uri(known[0], folder.parent)
    if tracking.get("name", "none") == "none":
        raise UserError(
            f"{folder.name} ran without tracking; name a server: --uri URI, or set MLFLOW_TRACKING_URI"
        )
    return tracking_uri(None, folder.parent)


def _told_address(folder: Path, told: str, from_environment: str | None) -> str:
    """The address as sweep.json has it, made usable again."""
    if is_relative_file(told):  # to the folder in which the sweep was started
        end = f"/{told.partition(':///')[2].removeprefix('./')}"
        fitting = [
            server for server in known_servers(folder) if scheme(server) == "sqlite" and server.endswith(end)
        ]
        return fitting[0] if fitting else tracking_uri(told, folder.parent)
    if "***" not in told:
        return tracking_uri(told, folder.parent)
    # Credentials are not kept in the folder; the same server may stand in the environment with them.
    if from_environment and redact_value(from_environment) == told:
        return tracking_uri(from_environment, folder.parent)
    raise UserError(
        f"{folder.name} was logged to {server_name(told)} with credentials, which the folder does not keep; "
        "give --uri URI, or set MLFLOW_TRACKING_URI to it"
    )


@contextlib.contextmanager
def _unused(folder: Path) -> Iterator[None]:
    """Hold the sweep's lock; UserError names the driver that has it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sweep_lock(folder))
        except UserError as error:
            reason = str(error).partition(";")[0]
            if " is in use by " not in reason:
                raise UserError(
                    f"{folder}: cannot be written, and sync keeps there what the server has; permit writing, "
                    "or sync a copy of the folder"
                ) from None
            raise UserError(
                f"{reason}, which keeps MLflow up to date by itself; sync when it has ended"
            ) from None
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv))
