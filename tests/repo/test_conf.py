"""Every choice of every group composes, and says its own name where it is a component."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import MODEL_GROUPS, compose

ROOT = Path(__file__).parents[2]
CHOICES = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("*/*.yaml"))
COMPONENT_GROUPS = [g for g in MODEL_GROUPS if (ROOT / "rdc" / "models" / g / "__init__.py").exists()]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_choice_composes(choice: Path) -> None:
    group, name = choice.parent.name, choice.stem
    config = compose([f"{'+' if group == 'experiment' else ''}{group}={name}"])
    # One preset brings a whole model by its name in CompressAI.
    assert (config.get("transform") or config["compressai"])["name"]
    if group in COMPONENT_GROUPS:
        assert config[group]["name"] == name
