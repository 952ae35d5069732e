"""The lock pins everything that the project declares, exactly, and leaks nothing of where it was written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = dict(line.split("==") for line in LOCK)


def test_every_line_is_one_exact_public_version_without_host_marker_or_hash() -> None:
    assert len(LOCK) > 100
    odd = [line for line in LOCK if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*", line)]
    assert odd == []
    assert len(PINS) == len(LOCK), "a package is pinned twice"
    assert [pin for pin in PINS.values() if Version(pin).local or Version(pin).is_devrelease] == []


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *EXTRAS["all"], *EXTRAS["dev"]])
def test_every_declared_requirement_has_a_fitting_pin(text: str) -> None:
    requirement = Requirement(text)
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin), f"{text} is pinned to {pin}: run `make lock`"


def test_base_dependencies_are_those_of_analysis_alone() -> None:
    names = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    heavy = {canonicalize_name(Requirement(text).name) for text in EXTRAS["all"]}
    assert "torch" in heavy
    assert names.isdisjoint(heavy)
