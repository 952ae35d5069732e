"""What `stages` may ask for, and the one line for what it may not."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from rdc.errors import UserError
from sweep.stage import read_stages
from tests.sweep.conftest import ROOT

LMBDAS = (0.01, 0.02)


def test_stages_come_after_those_that_they_wait_for_and_have_the_sweeps_lmbdas() -> None:
    stages = read_stages(
        {
            "narrow": {"match": "gated"},
            "gated": {"start": "base", "overrides": ["gating=ecg", "budget.steps=7"]},
            "rates": {"start": "gated", "measure": True, "lmbdas": [0.02, 0.04, 0.02]},
            "base": None,
        }
        | {
            "rates": {"start": "single", "measure": True, "lmbdas": [0.02, 0.04, 0.02]},
            "single": {"lmbdas": [0.03]},
        },
        LMBDAS,
    )
    assert [stage.name for stage in stages] == ["base", "gated", "narrow", "single", "rates"]
    base, gated, narrow, single, rates = stages
    assert (base.lmbdas, narrow.lmbdas, rates.lmbdas) == (LMBDAS, LMBDAS, (0.02, 0.04))
    assert (gated.model, gated.budget) == (("gating=ecg",), ("budget.steps=7",))
    assert (gated.of_lmbda(0.02), single.of_lmbda(0.02)) == (0.02, 0.03)


def test_null_is_no_stages() -> None:
    assert read_stages(None, LMBDAS) == ()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({}, "stages={}: needs a mapping of names to stages, or null for none"),
        (["base"], "stages=['base']: needs a mapping of names to stages, or null for none"),
        ({"a b": None}, "stages.a b: a stage's name begins with a letter"),
        ({"a": {"begin": "b"}}, "stages.a.begin: there is no such key"),
        ({"a": {"measure": "often"}}, "stages.a.measure='often': input should be a valid boolean"),
        ({"a": {"lmbdas": []}}, "stages.a.lmbdas=[]: give at least one value, or null"),
        ({"a": {"lmbdas": [0.0]}}, "stages.a.lmbdas=0.0: must be greater than 0"),
        ({"a": {"start": "b"}}, "stages.a.start=b: there is no such stage; known: a"),
        ({"a": None, "b": {"match": "c"}}, "stages.b.match=c: there is no such stage; known: a, b"),
        ({"a": {"start": "a"}}, "stages: a waits for a: none of them could ever begin"),
        (
            {"x": None, "a": {"start": "c"}, "b": {"start": "a"}, "c": {"match": "b"}, "d": {"start": "c"}},
            "stages: a waits for c waits for b waits for a: none of them could ever begin; take out one",
        ),
        ({"a": {"measure": True}}, "stages.a: measure=true needs start=STAGE"),
        ({"a": 5}, "stages.a=5: needs a mapping of keys to values"),
        (
            {"a": None, "b": {"start": "a", "measure": True, "overrides": ["budget.steps=9"]}},
            "stages.b: 'budget.steps=9': measure=true trains nothing, so that a budget changes nothing",
        ),
        (
            {"a": None, "b": {"start": "a", "measure": True, "overrides": ["gating=ecg"]}},
            "stages.b: 'gating=ecg': measure=true measures the model as a has trained it; give the override",
        ),
        (
            {"a": None, "b": {"start": "a", "measure": True, "match": "a"}},
            "stages.b: measure=true changes no model; leave match=a out",
        ),
        (
            {"a": None, "b": {"start": "a", "measure": True}, "c": {"start": "b"}},
            "stages.c.start=b: it trains nothing; start from a",
        ),
        (
            {"a": None, "b": {"start": "a", "lmbdas": [0.01, 0.5]}},
            "stages.b.start=a: has no trial at lmbda 0.5, only at 0.01, 0.02",
        ),
        (
            {"a": None, "b": {"match": "a", "lmbdas": [0.5]}},
            "stages.b.match=a: has no trial at lmbda 0.5, only at 0.01, 0.02",
        ),
        (
            {"a": {"overrides": ["lmbda=0.1"]}},
            "stages.a: 'lmbda=0.1': a stage chooses the model (transform, entropy_model,",
        ),
        ({"a": {"overrides": ["+data.x=1"]}}, "and the budget, not data"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_mistakes_are_named(stages: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_stages(stages, LMBDAS)


def test_the_example_in_the_documentation_is_right() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/stages.md").read_text(), flags=re.DOTALL)
    example, rates = (yaml.safe_load(block) for block in blocks)
    stages = read_stages(example["stages"], tuple(example["lmbdas"]))
    assert 3 * sum(len(stage.lmbdas) for stage in stages) == 36  # of three models, as it says there
    assert [stage.name for stage in read_stages(rates["stages"], LMBDAS)] == ["variable", "rates"]
