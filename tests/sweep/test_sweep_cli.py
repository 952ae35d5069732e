"""`python -m sweep` as a user types it, from an empty folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep.status import main as status
from sweep.stop import main as stop
from tests.sweep.conftest import ROOT

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, Any]:
    """An empty folder, and an environment with which `python -m sweep` works there."""
    (tmp_path / "empty").mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RDC_DATA")}
    environment |= {"PYTHONPATH": str(ROOT), "RDC_CACHE": str(tmp_path / "cache")}
    return {"cwd": tmp_path / "empty", "env": environment, "text": True}


@pytest.fixture
def cli(surroundings: dict[str, Any]) -> Cli:
    """Runs `python -m sweep` to its end."""

    def run(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *python, "-m", "sweep", *arguments]
        return subprocess.run(command, capture_output=True, **surroundings)

    return run


@pytest.fixture
def tiny(image_folders: Path) -> list[str]:
    """A real training of three steps, on tiny images."""
    return [
        "name=tiny",
        "budget=smoke",
        "budget.steps=3",
        "budget.warmup_steps=1",
        "budget.ms_ssim=false",
        "depth.channels=[16,16,16]",
        "depth.latent_channels=24",
        f"data.train={image_folders}/train",
        f"data.eval={image_folders}/eval",
        "cluster.timing={threads:1,repeats:1,height_px:64,width_px:64}",
        "tracking=none",
    ]


@pytest.fixture
def loading(surroundings: dict[str, Any], tiny: list[str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the tiny sweep with more overrides; returns the driver when it has begun to load models."""
    with contextlib.ExitStack() as started:

        def start(*overrides: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "sweep", *tiny, *overrides]
            pipe = subprocess.PIPE
            driver = subprocess.Popen(command, stdout=pipe, stderr=pipe, **surroundings)
            started.enter_context(driver)
            started.callback(driver.kill)
            assert driver.stdout is not None
            assert driver.stdout.readline() == "sweep tiny in runs/tiny; loading models\n"
            return driver

        yield start


def test_help_lists_the_groups_without_torch_and_leaves_no_files(cli: Cli, tmp_path: Path) -> None:
    done = cli("--help", python=("-X", "importtime"))
    assert done.returncode == 0
    assert re.search(r"^entropy_model: .*mean_scale_hyperprior, scale_hyperprior", done.stdout, re.MULTILINE)
    assert "python -m sweep +experiment=frontier" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported  # so the list is what it seems to be
    assert not imported & {"torch", "compressai", "ray", "mlflow", "pandas", "numpy"}
    assert list((tmp_path / "empty").iterdir()) == []


def test_cfg_job_and_info_show_what_would_run(cli: Cli, tmp_path: Path) -> None:
    job = cli("--cfg", "job", "model=rdc_g", "depth=n64", "lmbda=0.05")
    assert job.returncode == 0
    assert "latent_channels: 96" in job.stdout
    assert "lmbda: 0.05" in job.stdout
    info = cli("--info", "defaults", "+experiment=frontier")
    assert info.returncode == 0
    assert "experiment/frontier" in info.stdout
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["+experiment=fronter"],
            "experiment=fronter: there is no such choice; experiment has: ",
        ),
        (["budgt=quick"], "budgt: there is no such key (did you mean budget?)"),
        (["lmbda=cheap"], "lmbda='cheap': input should be a valid number"),
        (
            ["-m", "lmbda=0.01,0.02"],
            "-m: a sweep plans its own trials; give several rates as 'lmbdas=[0.0067,0.013]'",
        ),
        (["lmbda=0.01,0.02"], "lmbda=0.01,0.02: several values need a list; give several rates as 'lmbdas="),
        (["hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN: a sweep plans its own trials"),
        (["budget=null"], "budget=null: budget is chosen by name; it has: paper, paper_eighth, "),
    ],
    ids=lambda value: str(value)[:25],
)
def test_mistakes_are_one_line_and_exit_code_2(cli: Cli, arguments: list[str], message: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("runs_dir", ["/proc/nope", "{file}"])
def test_a_runs_folder_that_cannot_be_is_one_line(cli: Cli, tmp_path: Path, runs_dir: str) -> None:
    (tmp_path / "file").touch()
    folder = runs_dir.format(file=tmp_path / "file")
    done = cli("+experiment=smoke", f"runs_dir={folder}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {folder}/smoke: a sweep cannot have this folder (")
    assert done.stderr.count("\n") == 1


def test_trouble_with_a_file_is_one_line_with_its_name(cli: Cli, tmp_path: Path, image_folders: Path) -> None:
    (tmp_path / "empty/runs/smoke/data_train.json").mkdir(parents=True)
    images = [f"data.{use}={image_folders}/{use}" for use in ("train", "eval")]
    done = cli("+experiment=smoke", "budget.precision=fp32", *images)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "data_train.json: Is a directory" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_tiny_sweep_from_command_to_frontier_and_a_second_command_that_is_stopped(
    cli: Cli, tiny: list[str], loading: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    done = cli(*tiny, "cluster.slots=1")
    folder = tmp_path / "empty/runs/tiny"
    log = (folder / "driver.log").read_text() if (folder / "driver.log").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    (path,) = folder.glob("trials/*/result.json")
    trial = json.loads(path.read_text())
    # Three steps teach no entropy model its rate: the size may differ from the estimate, the pixels may not.
    assert trial["status"] in ("ok", "rate_mismatch")
    assert trial["evaluation"]["fresh_decode"] == {"images": 1, "identical": True}
    (timing,) = [json.loads(path.read_text()) for path in folder.glob("timing/*.json")]
    assert timing["arch_id"] == trial["arch_id"]
    assert trial["training"]["ended_at"] <= timing["started_at"]
    assert (folder / "frontier.csv").exists()
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {"runs"}
    assert "starting Ray on this machine" in done.stdout
    assert done.stderr == ""

    del trial["checksum"]  # as of an older release; and as if other pixels had been decoded
    path.write_text(json.dumps({**trial, "status": "decode_mismatch"}))
    driver = loading("seeds=[0,1]")
    assert stop(["stop", str(folder)]) == 0
    output, errors = driver.communicate(timeout=120)
    assert (driver.returncode, errors) == (1, "")  # not every trial that it has is fine
    assert "ended early: stop requested by " in output
    assert "; 1 trials are not finished" in output
    assert len(list(folder.glob("trials/*"))) == 1
    assert json.loads((folder / "sweep.json").read_text())["status"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_models_load_gives_130(
    loading: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    folder = tmp_path / "empty/runs/tiny"
    driver = loading()
    assert status(["status", str(folder)]) == 0
    assert f"running: driven by process {driver.pid} on " in capsys.readouterr().out
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=120)
    assert (driver.returncode, errors) == (130, "\ninterrupted; nothing was started\n")
    assert [path.name for path in folder.iterdir()] == ["driver.lock"]
