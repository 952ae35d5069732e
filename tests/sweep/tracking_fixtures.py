"""A folder of sweeps beside an empty MLflow database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rdc.files import locked
from sweep.tracking.client import Client
from sweep.tracking.mirror import Mirror
from tests.sweep.synthetic_sweep import SyntheticSweep


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creating MLflow's tables takes seconds, copying them nothing: once for all modules and processes."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    path = folder / "mlflow-empty.db"
    with locked(folder / "mlflow-empty.lock"):
        if not path.exists():
            Client(f"sqlite:///{path}.new", 10).connect()
            os.rename(f"{path}.new", path)
    return path


@pytest.fixture
def runs(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """The same for all tests of a module, which leave it as they find it."""
    folder = tmp_path_factory.mktemp("shared") / "runs"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


def mirror_of(
    sweep: SyntheticSweep, said: list[str] | None = None, record: dict[str, Any] | None = None
) -> Mirror:
    """record: what sweep.json says, if it is not the usual."""
    return Mirror(
        Client(f"sqlite:///{sweep.folder.parent}/mlflow.db", 10),
        experiment="rdc",
        artifacts=sweep.folder.parent / "mlartifacts",
        folder=sweep.folder,
        sweep=record or sweep.sweep,
        say=(said if said is not None else []).append,
    )
