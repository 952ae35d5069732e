"""Who may not be imported by whom, seen from a fresh interpreter: what the import rules cannot see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a fork server imports once, so that its trials find it there.
MEANT_TO_BE_HEAVY = {"sweep.preload"}

CODE = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted({module.partition(".")[0] for module in sys.modules})))
"""


def modules_of(room: str) -> list[str]:
    """Dotted names of every module of a package."""
    files = sorted((ROOT / room).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return sorted({name.removesuffix(".__init__") for name in names} - MEANT_TO_BE_HEAVY)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("sweep", {"torch", "torchvision", "compressai", "ray", "mlflow", "fvcore"}),
        ("conf", {"torch", "ray", "mlflow", "pandas", "sweep", "analysis"}),
        (
            "analysis",
            {"torch", "compressai", "ray", "mlflow", "optuna", "hydra", "omegaconf", "rdc", "sweep"},
        ),
    ],
)
def test_importing_a_room_stays_light(room: str, forbidden: set[str]) -> None:
    names = modules_of(room)
    assert names
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(names)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) & forbidden == set()
