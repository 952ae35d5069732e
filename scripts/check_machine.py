"""Say what this machine lacks before anything is installed: one line per missing thing, exit code 1.

When nothing is missing, the path of the chosen interpreter is printed on stdout. Runs on any Python from 3.6
on and needs only the standard library, because it runs before there is an environment.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from typing import List, NamedTuple, Optional, Tuple

SUPPORTED = ((3, 11), (3, 12))
CANDIDATES = ("python3.12", "python3.11", "python3", "python")

# Measured: torch with its CUDA libraries, Ray, MLflow and the rest take 6.2 GB in .venv. uv links the files
# of .venv to its cache when both are on one disk: they are paid once; pip keeps compressed wheels besides.
VENV_GB = 6.5
PIP_CACHE_GB = 3.0
REFRESH_GB = 0.5
MEMORY_GB = 4.0
GB = 1e9

PROBE = """
import importlib.util, sys
print(sys.executable)
print(*sys.version_info[:2])
print(int(all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))))
"""


class Interpreter(NamedTuple):
    path: str
    version: Tuple[int, int]
    has_venv: bool


def run(*command: str) -> Optional[str]:
    """stdout of a command that succeeds, else None: a name on PATH may be a shim that only fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def probe(name: str) -> Optional[Interpreter]:
    """The interpreter behind a name or path, or None when it does not run."""
    lines = (run(name, "-c", PROBE) or "").splitlines()
    if len(lines) != 3:
        return None
    path, version, has_venv = lines
    major, minor = version.split()
    return Interpreter(path, (int(major), int(minor)), has_venv == "1")


def choose_python(asked: str, uv: bool) -> Tuple[Optional[Interpreter], str]:
    """The interpreter for .venv, or None and the line that says why; `asked`: the user's choice or empty."""
    tried = []
    without_venv = None
    for name in [asked] if asked else CANDIDATES:
        found = probe(name)
        if found is None:
            tried.append(f"{name}: does not run")
        elif found.version not in SUPPORTED:
            tried.append("{}: {}.{}".format(name, *found.version))
        elif not (uv or found.has_venv):
            without_venv = found
        else:
            return found, ""
    if without_venv is not None:
        package = "python{}.{}-venv".format(*without_venv.version)
        lacks = f"{without_venv.path} lacks the modules venv and ensurepip, and there is no uv"
        return None, f"venv: {lacks}; install {package} (Debian, Ubuntu) or uv"
    return None, (
        f"Python: need 3.11 or 3.12, tried {', '.join(tried)}; install python3.12 or python3.11 "
        "with its venv package, or name one: make setup PYTHON=/path/to/python3.12"
    )


def existing_parent(path: str) -> str:
    """The nearest folder of `path` that exists: the disk on which it will be made."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def cache_folder(uv: bool) -> str:
    """Where the installer keeps downloads."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if uv:
        return os.environ.get("UV_CACHE_DIR") or os.path.join(home, "uv")
    return os.environ.get("PIP_CACHE_DIR") or os.path.join(home, "pip")


def disk_lines(venv: str, cache: str, uv: bool, free_gb: Optional[float] = None) -> List[str]:
    """One line per disk that is too full; `free_gb` stands in for the measured space."""
    variable, cache_gb = ("UV_CACHE_DIR", VENV_GB) if uv else ("PIP_CACHE_DIR", PIP_CACHE_GB)
    venv_disk, cache_disk = existing_parent(venv), existing_parent(cache)
    one_disk = os.stat(venv_disk).st_dev == os.stat(cache_disk).st_dev
    if os.path.exists(os.path.join(venv, ".installed")):
        needs = [(venv_disk, REFRESH_GB, "move the clone to a larger disk")]
    elif one_disk:
        needs = [(venv_disk, VENV_GB if uv else VENV_GB + cache_gb, "move the clone to a larger disk")]
    else:
        needs = [
            (venv_disk, VENV_GB, "move the clone to a larger disk"),
            (cache_disk, cache_gb, f"point {variable} at a larger disk"),
        ]
    lines = []
    for folder, need_gb, way_out in needs:
        have_gb = shutil.disk_usage(folder).free / GB if free_gb is None else free_gb
        if have_gb < need_gb:
            need = f"about {need_gb:.1f} GB are needed"
            lines.append(f"disk: {folder} has {have_gb:.1f} GB free, {need}; free some or {way_out}")
    return lines


def memory_gb() -> float:
    """Memory of this machine or of its container, whichever is smaller."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                limits.append(float(file.read()) / GB)
        except (OSError, ValueError):  # no such controller, or the word "max"
            continue
    return min(limits)


def memory_lines(have_gb: float) -> List[str]:
    if have_gb >= MEMORY_GB:
        return []
    need = f"at least {MEMORY_GB:.0f} GB are needed"
    return [f"memory: {have_gb:.1f} GB here, {need}; use a larger machine or container"]


def platform_lines(system: str, machine: str) -> List[str]:
    if system == "Linux" and machine == "x86_64":
        return []
    here = f"{system} on {machine}"
    return [f"platform: requirements.lock is for Linux on x86_64, this is {here}; use such a machine"]


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", default=".venv", help="folder of the environment")
    parser.add_argument("--python", default="", help="interpreter to use; empty: search for one")
    parser.add_argument("--free-disk-gb", type=float, help="pretend that every disk has this much free")
    parser.add_argument("--memory-gb", type=float, help="pretend that the machine has this much memory")
    options = parser.parse_args(argv)

    uv = run("uv", "--version") is not None
    python, python_line = choose_python(options.python, uv)
    lines = platform_lines(platform.system(), platform.machine())
    lines += [python_line] if python is None else []
    lines += disk_lines(options.venv, cache_folder(uv), uv, options.free_disk_gb)
    lines += memory_lines(memory_gb() if options.memory_gb is None else options.memory_gb)
    for line in lines:
        print("missing: " + line, file=sys.stderr)
    if python is not None and not lines:
        print(python.path)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
