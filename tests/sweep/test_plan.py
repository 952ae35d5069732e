"""From configuration to identified trials."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import pytest

import conf
from rdc.data import ImageFile, ImageSet
from rdc.errors import UserError
from rdc.spec import parse_trial
from sweep.plan import DataSets, SweepPlan, choose_models, job_payload, make_plan, require_possible
from sweep.settings import read_settings


def image_set(name: str) -> ImageSet:
    image = ImageFile(path=f"/{name}.png", width_px=768, height_px=512, sha256=name, file_size=1)
    return ImageSet(name=name, source="made up", images=(image,))


DATA = DataSets(train=image_set("train"), validation=image_set("validation"), evaluation=image_set("eval"))
RECIPE = ["budget=smoke", "budget.precision=fp32"]


def plan_of(overrides: Sequence[str], data: DataSets = DATA) -> SweepPlan:
    config = conf.compose([*RECIPE, *overrides])
    settings = read_settings(config)
    candidates = choose_models(config, [*RECIPE, *overrides], settings)
    require_possible(candidates)
    return make_plan(config, settings, candidates, data, "fp32")


def ids(plan: SweepPlan) -> list[str]:
    return [trial.spec.spec_id for trial in plan.trials]


def test_every_point_lmbda_and_seed_is_one_trial() -> None:
    plan = plan_of(["space.axes={depth:[n32,n64]}", "lmbdas=[0.01,0.02]", "seeds=[0,1,2]"])
    found = {(t.spec.model.depth.latent_channels, t.spec.lmbda, t.spec.seed) for t in plan.trials}
    assert found == {(m, lmbda, seed) for m in (48, 96) for lmbda in (0.01, 0.02) for seed in (0, 1, 2)}
    assert len(plan.trials) == 12


def test_ids_depend_on_what_decides_numbers_and_on_nothing_else() -> None:
    same = plan_of(["depth=n32"])
    free = ["name=other", "runs_dir=/elsewhere", "cluster.slots=1", "budget.log_every=1", "tracking=none"]
    assert ids(plan_of(["depth=n32", *free])) == ids(same)
    for decisive in (
        "lmbda=0.02",
        "seed=1",
        "budget.steps=731",
        "depth.latent_channels=40",
        "transform.norm=gdn",
    ):
        assert ids(plan_of(["depth=n32", decisive])) != ids(same)
    for field in ("train", "evaluation"):
        assert ids(plan_of(["depth=n32"], dataclasses.replace(DATA, **{field: image_set("new")}))) != ids(
            same
        )
    assert ids(plan_of(["depth=n32"], dataclasses.replace(DATA, validation=image_set("new")))) == ids(same)


def test_equal_trials_run_once_and_a_note_says_so() -> None:
    again = "['depth.channels=[32,32,32]','depth.latent_channels=48']"
    plan = plan_of([f"space.points=[['depth=n32'],['depth=n64'],{again}]"])
    assert len(plan.trials) == 2
    assert plan.notes == ("1 of the planned trials are the same as others and run once",)


def test_an_impossible_point_is_refused_by_name_before_anything_starts() -> None:
    overrides = ["space.points=[['depth=n32'],['depth.channels=[32,32]']]"]
    config = conf.compose(overrides)
    candidates = choose_models(config, overrides, read_settings(config))
    assert [candidate.refusal is None for candidate in candidates] == [True, False]
    with pytest.raises(UserError, match=re.escape("space point [depth.channels=[32,32]]: ")):
        require_possible(candidates)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            ["model=compressai", "compressai.name=cheng2020-anchor"],
            "transform=cheng2020 has no strided layers",
        ),
        (
            ["model=rdc_e", "depth.layers=[2,2,0,2]"],
            "depth.layers=[2, 2, 0, 2] leaves a stage of transform=swint",
        ),
    ],
)
def test_a_model_without_the_budgets_start_is_refused_before_anything_starts(
    model: list[str], message: str
) -> None:
    config = conf.compose(model)
    assert config["budget"]["initialisation"] == "wavelet"
    with pytest.raises(UserError, match=f"budget.initialisation=wavelet: {re.escape(message)}.*=random"):
        require_possible(choose_models(config, model, read_settings(config)))
    plan_of([*model, "budget.initialisation=random"])


def test_an_impossible_model_is_refused_without_mentioning_a_space() -> None:
    config = conf.compose(["depth.latent_channels=0"])
    with pytest.raises(UserError, match=r"^depth.latent_channels=\[0\]: every entry must be at least 1"):
        require_possible(choose_models(config, [], read_settings(config)))


def test_names_tell_trials_apart_and_no_more() -> None:
    alone = plan_of(["depth=n32"])
    assert list(alone.names().values()) == [alone.trials[0].label]
    curves = plan_of(["depth=n32", "lmbdas=[0.01,0.02]"])
    assert [name.split()[-2:] for name in curves.names().values()] == [["lmbda", "0.01"], ["lmbda", "0.02"]]
    alike = plan_of(["space.axes={entropy_model.prior_filters:[[3,3],[3,3,3]]}", "depth=n32"])
    assert len({t.label for t in alike.trials}) == 1
    assert len(set(alike.names().values())) == 2


def test_the_payload_is_plain_and_gives_back_the_same_trial() -> None:
    plan = plan_of(["depth=n32", "cluster.cpus_per_trial=3", "budget.validate_every=7", "data.cache_gb=2"])
    payload = job_payload(plan, plan.trials[0], device="cpu")
    assert parse_trial(payload["spec"]).spec_id == plan.trials[0].spec.spec_id
    run: dict[str, Any] = payload["run"]
    assert run["folder"] == str(plan.folder / "trials" / plan.trials[0].spec.spec_id)
    assert (run["threads"], run["validate_every"], run["cache_gb"], run["device"]) == (3, 7, 2.0, "cpu")
    assert run["validation_manifest"].endswith("data_val.json")
