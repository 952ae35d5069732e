"""Tiny images, and the module of pretended trials on every worker's path."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="session")
def image_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ (4 images) and eval/ (2 images)."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("train/a", "train/b", "train/c", "train/d", "eval/e", "eval/f"):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        smooth = np.kron(random.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(smooth).save(path)
    return folder


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers and this process find `pretend`; caches are the test's own."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("RDC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RDC_DATA", raising=False)


@pytest.fixture
def base_overrides(image_folders: Path, tmp_path: Path) -> list[str]:
    """A sweep of one tiny model on the tiny images, without tracking."""
    return [
        "name=tiny",
        f"runs_dir={tmp_path}/runs",
        "budget=smoke",
        "budget.precision=fp32",
        f"data.train={image_folders}/train",
        f"data.eval={image_folders}/eval",
        "depth.channels=[8,8,8]",
        "depth.latent_channels=8",
        "tracking=none",
    ]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], *, limit_s: float) -> bool:
    """Whether the condition came true in time."""
    ends_at = time.monotonic() + limit_s
    while time.monotonic() < ends_at:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
