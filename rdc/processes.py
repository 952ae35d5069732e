"""What a process of this project needs to know of the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # now: a forked child should load nothing


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, however that ends: no orphan keeps a GPU."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the line above
        os._exit(1)


def package_path() -> str:
    """PYTHONPATH with the running package first: a new interpreter finds the same code from any folder."""
    root = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{inherited}" if inherited else root
