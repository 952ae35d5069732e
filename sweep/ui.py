"""`python -m sweep.ui`: MLflow's web interface on this machine, at the newest sweep as charts and table."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from sweep.tracking.address import SERVER_SCHEMES, redact, scheme, server_name, sqlite_path, tracking_uri
from sweep.tracking.client import require_mlflow
from sweep.tracking.state import STATE_FILE, read_state
from sweep.tracking.view import run_address, view_address

HOST = "127.0.0.1"  # there is no login: loopback only
FIRST_PORT, PORTS_TRIED = 5000, 100
START_TIMEOUT_S = 90.0

SERVER_ENVIRONMENT = {
    # One person's server: without its job workers it is two processes and 0.4 GB instead of ten and 1.7 GB.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.ui", description=__doc__)
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="folder of the sweeps (default: runs)"
    )
    parser.add_argument("--sweep", help="name of the sweep to open (default: the one logged last)")
    parser.add_argument("--port", type=int, help=f"default: {FIRST_PORT} or the next free one")
    options = parser.parse_args()
    try:
        return show(options.runs_dir, options.sweep, options.port)
    except UserError as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        return 2


def show(runs_dir: Path, sweep: str | None, port: int | None) -> int:
    folder = tracked_folder(runs_dir, sweep)
    state = read_state(folder)
    uri = backend_uri(state["server"], folder)
    if scheme(uri) in SERVER_SCHEMES:
        print(addresses(state["server"], folder.name, state))
        return 0
    require_mlflow()
    port = free_port() if port is None else port
    print(f"starting MLflow on {HOST}:{port} ...", flush=True)
    # SIGTERM ends it like Ctrl-C, so that the server never outlives this command.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with serve(uri, runs_dir / "mlartifacts", port, log=runs_dir / "mlflow-server.log") as server:
            print(addresses(f"http://{HOST}:{port}", folder.name, state))
            print("MLflow's assistant panel opens on the first visit only; x closes it.")
            print("Ctrl-C ends the server.", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("\nended")
        return 0
    raise UserError(f"MLflow's server ended by itself; see {runs_dir / 'mlflow-server.log'}")


def tracked_folder(runs_dir: Path, sweep: str | None) -> Path:
    """The folder of the named sweep, or of the one logged last."""
    known = sorted(runs_dir.glob(f"*/{STATE_FILE}"), key=lambda path: path.stat().st_mtime)
    names = [path.parent.name for path in known]
    if not known:
        raise UserError(
            f"{runs_dir}: no sweep in this folder was logged to MLflow; run one first "
            "(python -m sweep +experiment=frontier), or name another folder with --runs-dir"
        )
    if sweep is None:
        return known[-1].parent
    if sweep not in names:
        raise UserError(
            f"--sweep {sweep}: no sweep of that name was logged; known: {', '.join(sorted(names))}"
        )
    return runs_dir / sweep


def backend_uri(server: str, folder: Path) -> str:
    """The full URI of the server that the sweep was logged to; credentials come from the environment."""
    path = sqlite_path(server)
    if path is not None:
        if not path.is_file():
            raise UserError(
                f"{path}: this database is gone; the command of sweep {folder.name} builds it again"
            )
        return server
    if scheme(server) in SERVER_SCHEMES:
        return server
    uri = tracking_uri(None, folder.parent)
    if server_name(uri) != server:
        raise UserError(
            f"sweep {folder.name} was logged to {server}: set MLFLOW_TRACKING_URI to that database"
        )
    return uri


def addresses(base: str, name: str, state: dict[str, Any]) -> str:
    """One line per page; `charts` and `table` are the same prepared view."""
    experiment_id, key = state["experiment_id"], state["view_key"]
    return "\n".join(
        (
            f"sweep {name}, {len(state['trials'])} trials:",
            f"  charts  {view_address(base, experiment_id, key, 'CHART')}",
            f"  table   {view_address(base, experiment_id, key, 'TABLE')}",
            f"  report  {run_address(base, experiment_id, state['run_id'])}",
            f"  plot    {run_address(base, experiment_id, state['run_id'], '/artifacts/frontier.png')}",
        )
    )


@contextlib.contextmanager
def serve(uri: str, artifacts: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running MLflow server, answering when the block starts and gone when it ends."""
    environment = {**os.environ, **SERVER_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri}
    root = artifacts.resolve().as_uri()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--no-serve-artifacts",
        "--default-artifact-root",
        root,
    ]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    with open(log, "wb") as output:
        # A process group of its own: Ctrl-C reaches us alone, and we end all of its workers.
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait_until_up(server, port, log)
            yield server
        finally:
            _end_group(server)


def free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UserError(
        f"no port is free from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1}; name one with --port"
    )


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise UserError(
                f"MLflow's server did not start: {lines[-1] if lines else 'no message'}; see {log}"
            )
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise UserError(f"MLflow's server did not answer within {START_TIMEOUT_S:.0f} s; see {log}")


def _end_group(server: subprocess.Popen[bytes]) -> None:
    for request in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, request)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
            return


if __name__ == "__main__":
    sys.exit(main())
