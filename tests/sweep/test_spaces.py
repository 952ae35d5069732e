"""Every space and experiment there is, expanded as a sweep expands it: all legal, and what each is for."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import conf
from rdc.configured import model_of
from rdc.spec import ModelSpec, arch_id, to_plain
from rdc.width import scale
from sweep.plan import choose_models
from sweep.settings import read_settings

CONF = Path(conf.__file__).parent
SPACES = sorted(path.stem for path in (CONF / "space").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
FOR_SEARCHES = ["quick_families"]  # with ranges, which are no list of points
STUDY = [f"rdc_{letter}" for letter in "abcdefg"]
# Minnen & Johnston, ICIP 2023, Fig. 2: SwinT hyper-transforms come with ELIC and CHARM only.
FAMILIES = {
    *(f"{t}/{e}/conv" for t in ("conv", "elic", "swint") for e in ("mean_scale_hyperprior", "charm")),
    "elic/charm/swint",
}


@functools.cache
def models(*overrides: str) -> list[ModelSpec]:
    """The architectures that `python -m sweep OVERRIDES` would train, warm starts aside."""
    config = conf.compose(overrides)
    settings = read_settings(config)
    if not settings.search.is_grid:
        chosen = conf.compose_points(overrides, settings.space.space.samples())
        return [model_of(one) for one in chosen]
    candidates = choose_models(config, overrides, settings)
    refusals = [f"{candidate.point}: {candidate.refusal}" for candidate in candidates if candidate.refusal]
    assert not refusals, refusals
    return [candidate.model for candidate in candidates if candidate.model is not None]


def ids(found: list[ModelSpec]) -> set[str]:
    return {arch_id(model) for model in found}


def study(width: float = 1.0) -> list[ModelSpec]:
    """Models A to G, in their order."""
    return [scale(model, width) for model in models("space.axes={model:[" + ",".join(STUDY) + "]}")]


def decisions(model: ModelSpec, base: ModelSpec) -> set[str]:
    """What differs: a whole group where another component is chosen, else its parameters one by one."""
    found = set()
    mine, theirs = to_plain(model), to_plain(base)
    for group, params in mine.items():
        if params.get("name") != theirs[group].get("name"):
            found.add(group)
        else:
            found |= {f"{group}.{key}" for key, value in params.items() if value != theirs[group][key]}
    return found


POINTS = [f"space={name}" for name in SPACES] + [f"+experiment={name}" for name in EXPERIMENTS]


@pytest.mark.parametrize("overrides", POINTS)
def test_every_point_can_be_built(overrides: str) -> None:
    of_search = overrides.removeprefix("space=") in FOR_SEARCHES
    assert models(overrides, *(["search=random"] if of_search else []))


def test_the_papers_space_holds_the_study() -> None:
    found = models("space=paper")
    assert len(ids(found)) >= 70
    assert {model.family for model in found} == FAMILIES
    assert ids(study()) <= ids(found)
    assert len(ids(study())) == len(STUDY)


@pytest.mark.parametrize(("start", "width"), [("space=study", 1.0), ("+experiment=frontier", 0.2)])
def test_the_study_has_one_model_of_every_kind(start: str, width: float) -> None:
    found = models(start)
    assert conf.compose([start])["width"] == width
    assert len(found) == len(ids(found)) == 10
    assert {model.family for model in found} == FAMILIES
    assert found[: len(STUDY)] == study(width)


@pytest.mark.parametrize(("start", "width"), [("space=ablation_b", 1.0), ("+experiment=ablation_b", 0.2)])
def test_the_ablation_of_b_takes_back_one_decision_at_a_time(start: str, width: float) -> None:
    base, *single, together = models(start)
    assert base == study(width)[STUDY.index("rdc_b")]
    assert [decisions(model, base) for model in single] == [
        {"depth.layers"},
        {"depth.channels"},
        {"hyper_transform"},
        {"entropy_model.lrp"},
        {"entropy_model.side"},
    ]
    assert decisions(together, base) == set().union(*(decisions(model, base) for model in single))
    for model in single:
        group, _, key = decisions(model, base).pop().partition(".")
        alone, with_others = to_plain(model)[group], to_plain(together)[group]
        assert (alone[key] == with_others[key]) if key else (alone == with_others)
