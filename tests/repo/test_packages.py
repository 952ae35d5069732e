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
