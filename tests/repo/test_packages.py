"""What a stranger installs: the wheel with everything, and the base package without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests" / "analysis" / "data" / "example_trials.csv"
UV = str(Path(sys.executable).with_name("uv"))

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


def run(*command: str, cwd: Path) -> str:
    """stdout of a command that must succeed, with nothing of this checkout on its path."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# Command of analysis -> each of its ways to be tested: options, and what a base environment says it lacks.
OPTIONS: dict[str, list[tuple[list[str], str]]] = {
    "export": [
        (["--format", "csv"], ""),
        (["--format", "compressai"], ""),
        (["--format", "latex"], ""),
        (["--format", "parquet"], "writing Parquet needs pyarrow: pip install pyarrow"),
    ],
    "anchors": [(["--codecs", "jpeg", "--cache", "cache"], "")],
    "table": [(["--format", "text,csv,latex,markdown"], "")],
}


def outcome(*command: str, cwd: Path) -> tuple[int, str]:
    """Exit status and stderr, with nothing of this checkout on the command's path."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


def command_names(help_text: str) -> set[str]:
    listed = help_text.partition("COMMAND\n")[2]
    return {line.split()[0] for line in listed.splitlines() if line.startswith("    ") and line[4] != " "}


def write_synthetic_sweep(folder: Path) -> Path:
    """Families, curves, gates, variable rate, per-image scores and timings of two devices."""
    sys.path.insert(0, str(ROOT / "tests" / "analysis"))
    from synthetic_results import families, result, timings_of, write_sweep

    from tests.analysis.variable_rate_results import variable

    trees = families((32, 64, 128))
    curve = [result(64, "charm", transform="elic", lmbda=lmbda) for lmbda in (0.0035, 0.0067, 0.025, 0.0483)]
    gated = result(128, gating={"name": "ecg", "alpha_target": 1.0})
    written: Path = write_sweep(folder, [*trees, *curve, gated, *variable()], timings=timings_of(trees))
    return written


def write_images(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir()
    for number in range(2):
        Image.effect_noise((96, 64), 30 + 10 * number).convert("RGB").save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    sources = tmp_path_factory.mktemp("sources")
    # From a copy of what git has or would take: a build folder of this checkout could hide a missing file.
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes((ROOT / name).read_bytes())
    build = (UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable)
    run(*build, "--out-dir", str(folder), cwd=sources)
    (built,) = folder.glob("*.whl")
    return built


def new_environment(folder: Path) -> str:
    """The interpreter of a fresh, empty environment."""
    run(UV, "venv", "--quiet", "--python", sys.executable, str(folder), cwd=folder.parent)
    return str(folder / "bin" / "python")


def write_frontier_and_bdrate(python: str, empty: Path) -> None:
    run(python, "-m", "analysis", "frontier", str(TABLE), "--out", "report", cwd=empty)
    assert (empty / "report" / "frontier.csv").stat().st_size > 100
    assert "pchip" in run(python, "-m", "analysis", "bdrate", str(TABLE), cwd=empty)


def test_the_wheel_runs_all_commands_from_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    python = new_environment(tmp_path / "venv")
    run(UV, "pip", "install", "--quiet", "--no-deps", "--python", python, str(wheel), cwd=tmp_path)
    # Our own dependencies without our editable install: the .pth files of such a folder are not read.
    (site_packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()

    where = "import conf, sweep, rdc, analysis; print(*(m.__file__ for m in (conf, sweep, rdc, analysis)))"
    assert all(path.startswith(str(site_packages)) for path in run(python, "-c", where, cwd=empty).split())
    assert "experiment" in run(python, "-m", "sweep", "--help", cwd=empty)
    dry_run = ("-m", "sweep", "+experiment=frontier", "dry_run=true", "data.download=false")
    assert "trials would run" in run(python, *dry_run, cwd=empty)
    described = json.loads(run(python, "-m", "rdc", "describe", "model=rdc_g", "--json", cwd=empty))
    assert described["decode"]["parity_kflop_per_px"] == pytest.approx(117.4, rel=0.005)
    write_frontier_and_bdrate(python, empty)


def test_the_base_package_analyses_a_table_without_torch(wheel: Path, tmp_path: Path) -> None:
    python = new_environment(tmp_path / "venv")
    run(UV, "pip", "install", "--quiet", "--python", python, str(wheel), cwd=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    absent = "from importlib.util import find_spec as f; print(*map(f, ('torch', 'ray', 'mlflow', 'hydra')))"
    assert run(python, "-c", absent, cwd=empty).split() == ["None"] * 4
    write_frontier_and_bdrate(python, empty)
    sweep = write_synthetic_sweep(tmp_path / "sweep")
    commands = command_names(run(python, "-m", "analysis", "--help", cwd=empty))
    assert set(OPTIONS) < commands
    for name in sorted(commands):
        source = write_images(tmp_path / "photos") if name == "anchors" else sweep
        for number, (options, needs) in enumerate(OPTIONS.get(name, [([], "")])):
            out = f"{name}{number}" + {"report": ".html", "anchors": ".csv"}.get(name, "")
            arguments = [] if name == "schema" else [str(source), "-o", out]
            code, error = outcome(python, "-m", "analysis", name, *arguments, *options, cwd=empty)
            if needs:
                assert (code, error.count("\n")) == (2, 1), f"{name}: {error}"
                assert needs in error
            else:
                assert code == 0, f"{name} {options}: {error}"
                assert name == "schema" or (empty / out).exists(), name
    assert "Frontier of trials" in run(python, "-m", "analysis", "frontier", "export0", cwd=empty)
