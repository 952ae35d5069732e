"""The check before the set-up says what is missing in one line each, on any Python, and starts nothing."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "check_machine.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_machine", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load()


def run_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120)


def fake_python(folder: Path, version: str, has_venv: bool) -> str:
    """A command that answers the probe as an interpreter of that version would."""
    path = folder / f"python{version}"
    path.write_text(f"#!/bin/sh\necho {path}\necho {version.replace('.', ' ')}\necho {int(has_venv)}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_machine_that_lacks_nothing_gets_the_path_of_an_interpreter() -> None:
    done = run_check("--python", sys.executable, "--free-disk-gb", "100", "--memory-gb", "8")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == sys.executable


def test_everything_missing_is_one_line_each(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    done = run_check(
        "--python", "/no/such/python", "--venv", str(venv), "--free-disk-gb", "1.5", "--memory-gb", "2"
    )
    assert (done.returncode, done.stdout) == (1, "")
    python, *disks, memory = done.stderr.splitlines()
    assert python.startswith(
        "missing: Python: need 3.11 or 3.12, tried /no/such/python: does not run; install"
    )
    assert "make setup PYTHON=/path/to/python3.12" in python
    assert disks
    assert all("has 1.5 GB free, about" in line and "are needed; free some or" in line for line in disks)
    assert memory == (
        "missing: memory: 2.0 GB here, at least 4 GB are needed; use a larger machine or container"
    )


def test_an_unsupported_version_is_named(tmp_path: Path) -> None:
    old = fake_python(tmp_path, "3.9", has_venv=True)
    assert check.choose_python(old, uv=True)[1].startswith(
        f"Python: need 3.11 or 3.12, tried {old}: 3.9; install"
    )


def test_venv_is_missing_only_where_uv_is_missing_too(tmp_path: Path) -> None:
    bare = fake_python(tmp_path, "3.11", has_venv=False)
    assert check.choose_python(bare, uv=True)[0].path == bare
    found, line = check.choose_python(bare, uv=False)
    assert found is None
    assert line == (
        f"venv: {bare} lacks the modules venv and ensurepip, and there is no uv; "
        "install python3.11-venv (Debian, Ubuntu) or uv"
    )


def test_a_shim_that_fails_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'not installed here' >&2\nexit 127\n")
    shim.chmod(0o755)
    good = Path(fake_python(tmp_path, "3.11", has_venv=True))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert check.choose_python("", uv=False)[0].path == str(good)


def test_the_cache_counts_apart_only_where_it_takes_its_own_space(tmp_path: Path) -> None:
    venv, cache = str(tmp_path / "clone" / ".venv"), str(tmp_path / "cache")
    # One disk: uv links .venv to its cache (6.5 GB in all), pip keeps 3 GB of wheels besides.
    assert check.disk_lines(venv, cache, uv=True, free_gb=7) == []
    (line,) = check.disk_lines(venv, cache, uv=False, free_gb=7)
    assert line == f"disk: {tmp_path} has 7.0 GB free, about 9.5 GB are needed; free some or " + (
        "move the clone to a larger disk"
    )


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_a_cache_on_a_disk_of_its_own_names_the_variable_that_moves_it(tmp_path: Path) -> None:
    lines = check.disk_lines(str(tmp_path / ".venv"), "/dev/shm/cache", uv=True, free_gb=2)
    assert len(lines) == 2
    assert lines[1].startswith("disk: /dev/shm has 2.0 GB free")
    assert lines[1].endswith("free some or point UV_CACHE_DIR at a larger disk")


def test_a_finished_environment_needs_little_room_to_be_refreshed(tmp_path: Path) -> None:
    (tmp_path / ".installed").touch()
    assert check.disk_lines(str(tmp_path), str(tmp_path / "cache"), uv=False, free_gb=1) == []


def test_another_platform_is_refused() -> None:
    assert check.platform_lines("Linux", "x86_64") == []
    assert check.platform_lines("Darwin", "arm64") == [
        "platform: requirements.lock is for Linux on x86_64, this is Darwin on arm64; use such a machine"
    ]


def test_the_check_is_written_for_old_pythons() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_setup_stops_before_it_installs_and_says_how_to_go_on(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)
    make = ["make", "setup", "PYTHON=/no/such/python"]
    done = subprocess.run(make, cwd=clone, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "missing: Python: need 3.11 or 3.12, tried /no/such/python: does not run" in done.stderr
    assert "Nothing was installed." in done.stderr
    assert not (clone / ".venv").exists()
