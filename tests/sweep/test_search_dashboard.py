"""A search's study in optuna-dashboard, started as the documents say, read through its own HTTP API."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import conf
from rdc.files import read_json
from sweep.driver import run_sweep
from tests.sweep.conftest import wait_until
from tests.sweep.test_search_sweeps import TINY
from tests.sweep.tracking_reader import unused_port

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("environment")]


OF_SWINT = ("transform.head_dim", "transform.window")


@contextlib.contextmanager
def dashboard(command: str, log: Path) -> Iterator[str]:
    """Where `command` serves."""
    port = unused_port()
    words = [str(Path(sys.executable).parent / command.split()[0]), *command.split()[1:]]
    with open(log, "w") as output:
        server = subprocess.Popen([*words, f"--port={port}"], stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        assert wait_until(lambda: answers(address), limit_s=100), log.read_text()
        yield address
    finally:
        server.kill()
        server.wait()


def answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(get(f"{address}/api/meta"))
    return False


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.load(answer)


def test_a_study_opens_with_its_trials_objectives_and_question(
    base_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*base_overrides, *TINY, "search=tpe", "search.trials=2"]
    assert run_sweep(conf.compose(overrides), overrides=overrides, command=["python", "x"]) == 0
    folder = tmp_path / "runs/tiny"
    told = next(line for line in capsys.readouterr().out.splitlines() if "optuna-dashboard" in line)
    command = told.strip().partition("  ")[0]
    assert command == f"optuna-dashboard {folder}/optuna.journal"
    with dashboard(command, tmp_path / "dashboard.txt") as address:
        (study,) = get(f"{address}/api/studies")["study_summaries"]
        found = get(f"{address}/api/studies/{study['study_id']}")
    assert study["study_name"].startswith("tiny-")
    assert found["directions"] == ["minimize", "minimize"]
    assert found["objective_names"] == ["rd_loss", "kmac_per_px_dec"]
    about = {attr["key"]: attr["value"] for attr in found["user_attrs"]}
    assert about["objectives"] == "rd_loss (minimize), kmac_per_px_dec (minimize)"
    assert about["budget"] == "smoke: 8 steps of 4 crops of 64 px, fp32"
    results = [read_json(path) for path in folder.glob("trials/*/result.json")]
    expected = {
        result["spec_id"]: [
            result["evaluation"]["rd_loss"],
            result["complexity"]["decode"]["parity_kmac_per_px"],
        ]
        for result in results
    }
    told_values = {}
    for trial in found["trials"]:
        attrs = {attr["key"]: attr["value"] for attr in trial["user_attrs"]}
        if attrs.keys().isdisjoint({"dup_of", "rejected"}):
            assert trial["state"] == "Complete"
            (spec_id,) = json.loads(attrs["spec_ids"])
            told_values[spec_id] = trial["values"]
    assert told_values == {spec_id: pytest.approx(values) for spec_id, values in expected.items()}
    varying = {param["name"] for param in found["union_search_space"]}
    assert {name.rpartition("/")[2] for name in varying} <= {"branch", "depth.channels", *OF_SWINT}
