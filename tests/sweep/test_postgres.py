"""A real PostgreSQL under MLflow's server, under the tracker itself, and under a search's study.

Needs PostgreSQL's programs on the PATH or where Debian puts them; under root also an account to run them, as
PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import conf
from rdc.errors import UserError
from sweep.driver import run_sweep
from sweep.sync import main
from sweep.ui import serve
from tests.sweep.conftest import ROOT
from tests.sweep.test_search import real_study
from tests.sweep.tracking_reader import Server, unused_port

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

PASSWORD = "s3cret-p0stgres"
UNPRIVILEGED = ("postgres", "nobody")


def programs() -> Path:
    """The folder of the newest initdb and postgres."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else versions[-1:]
    assert found, "PostgreSQL is not installed: apt-get install postgresql, or leave `-m full` out"
    return found[0]


class Postgres:
    """A cluster of its own on this machine's loopback, with a password; started by `with ... .running()`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = unused_port()
        self._programs = programs()
        self._as: dict[str, Any] = {"cwd": "/"}
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            account = pwd.getpwnam(next(name for name in UNPRIVILEGED if name in names))
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._as |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def uri(self, database: str, driver: str = "postgresql") -> str:
        return f"{driver}://rdc:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _init(self) -> None:
        words = self.folder / "password"
        words.write_text(PASSWORD)
        init = [
            "-D",
            str(self.folder / "data"),
            "-U",
            "rdc",
            "-A",
            "scram-sha-256",
            f"--pwfile={words}",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        os.chmod(words, 0o644)
        subprocess.run(
            [str(self._programs / "initdb"), "--no-sync", *init],
            check=True,
            capture_output=True,
            **self._as,
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Postgres]:
        if not (self.folder / "data").exists():
            self._init()
        data = str(self.folder / "data")
        log = self.folder / "postgres.log"
        options = ["-D", data, "-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1", "-F"]
        with open(log, "w") as output:
            server = subprocess.Popen(
                [str(self._programs / "postgres"), *options], stdout=output, stderr=output, **self._as
            )
        try:
            self._wait(server, log)
            yield self
        finally:
            server.send_signal(signal.SIGINT)  # ends sessions and stops
            server.wait(60)

    def create(self, database: str) -> None:
        import psycopg

        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database}")

    def _wait(self, server: subprocess.Popen[Any], log: Path) -> None:
        import psycopg

        ends_at = time.monotonic() + 60
        while True:
            assert server.poll() is None, log.read_text()
            try:
                return psycopg.connect(self.uri("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < ends_at, log.read_text()
                time.sleep(0.1)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    # Not pytest's own folder: only root may enter that one.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, Postgres(Path(folder)).running() as running:
        yield running


@pytest.fixture
def sweep(environment: None, base_overrides: list[str], tmp_path: Path) -> Any:
    """Runs `python -m sweep` on one tiny real training."""

    def run(*overrides: str) -> str:
        given = [
            *(o for o in base_overrides if o != "tracking=none"),
            "budget.steps=12",
            "budget.fresh_decode_images=0",
            "cluster=inline",
            "time=false",
            *overrides,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "sweep", *given], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    os.environ["PYTHONPATH"] = str(ROOT)
    return run


def test_a_sweep_reads_back_from_an_mlflow_server_on_postgresql(
    postgres: Postgres, sweep: Any, tmp_path: Path
) -> None:
    postgres.create("mlflow")
    port = unused_port()
    with serve(postgres.uri("mlflow"), tmp_path / "artifacts", port, log=tmp_path / "server.log"):
        printed = sweep(f"tracking.uri=http://127.0.0.1:{port}", "seeds=[0,1]")
        server = Server(f"http://127.0.0.1:{port}")
        assert server.parent().info.status == "FINISHED"
        folder = tmp_path / "runs" / "tiny"
        results = {
            path.parent.name: json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")
        }
        children = server.children()
        assert len(results) == 2
        logged = {spec_id: run.data.metrics["eval/rd_loss"] for spec_id, run in children.items()}
        assert logged == {spec_id: result["evaluation"]["rd_loss"] for spec_id, result in results.items()}
        for spec_id, run in children.items():
            lines = (folder / "trials" / spec_id / "metrics.jsonl").read_text().splitlines()
            rows = [row for row in map(json.loads, lines) if "train/rd_loss" in row]
            assert server.history(run, "train/rd_loss") == [
                (row["step"], row["train/rd_loss"]) for row in rows
            ]
        wanted = server.content()
        # The database itself, without a server before it.
        assert main(["sync", str(folder), "--uri", postgres.uri("mlflow"), "--experiment", "direct"]) == 0
        direct = Server(postgres.uri("mlflow"), experiment="direct").content()
    assert {k: (v["metrics"], v["params"], v["status"]) for k, v in direct.items()} == {
        k: (v["metrics"], v["params"], v["status"]) for k, v in wanted.items()
    }
    assert PASSWORD not in printed
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p for p in written if PASSWORD.encode() in p.read_bytes()] == []


@pytest.mark.usefixtures("environment")
def test_a_search_keeps_its_study_in_postgresql(
    postgres: Postgres, base_overrides: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    postgres.create("optuna")
    overrides = [
        *base_overrides,
        "budget.steps=4",
        "budget.warmup_steps=1",
        "budget.fresh_decode_images=0",
        "cluster=inline",
        "time=false",
        "search=tpe",
        "search.trials=2",
        f"search.storage={postgres.uri('optuna')}",
        "space.axes={depth.latent_channels:[8,12,16,20]}",
    ]

    def sweep() -> dict[int, list[float] | None]:
        command = ["python", "-m", "sweep", *overrides]
        assert run_sweep(conf.compose(overrides), overrides=overrides, command=command) == 0
        return told_values(postgres.uri("optuna"))

    first = sweep()
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/tiny/trials/*/result.json")]
    losses = [result["evaluation"]["rd_loss"] for result in results]
    assert len(losses) == 2
    assert sorted(values[0] for values in first.values() if values) == sorted(losses)
    assert sweep() == first
    assert "optuna-dashboard 'postgresql://***@127.0.0.1:" in (printed := "".join(capfd.readouterr()))
    assert PASSWORD not in printed
    assert [p for p in tmp_path.rglob("*") if p.is_file() and PASSWORD.encode() in p.read_bytes()] == []


def test_a_study_goes_on_after_a_restart_of_its_server() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = Postgres(Path(folder))
        with server.running():
            study = real_study(Path(folder), "random", storage=server.uri("postgres"))
            before, _ = study.ask()
        with server.running():  # while nobody asked for anything
            study.tell(before, [1.0, 2.0])
            before, _ = study.ask()
        with pytest.raises(
            UserError, match=r"^search\.storage=postgresql://\*\*\*@.*; the same command"
        ) as caught:
            study.ask()
        assert PASSWORD not in str(caught.value)
        assert "\n" not in str(caught.value)
        with server.running():
            study.tell(before, [1.0, 2.0])
            assert [past.state for past in study.history()] == ["COMPLETE", "COMPLETE"]


def told_values(uri: str) -> dict[int, list[float] | None]:
    """Trial number -> its objectives; None for one that failed."""
    import optuna

    storage = optuna.storages.RDBStorage(uri)
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert all(trial.state.is_finished() for trial in study.trials)
    return {trial.number: trial.values for trial in study.trials}
