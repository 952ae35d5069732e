"""Specs: what is refused at birth, what an id depends on, and that ids stay what they were."""

import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf import compose
from rdc.errors import UserError
from rdc.spec import (
    COMPONENT_GROUPS,
    ExternalWeights,
    ModelSpec,
    Recipe,
    RunSettings,
    TrainedWeights,
    TrialSpec,
    WarmStart,
    arch_id,
    canonical,
    component,
    parse,
    parse_model,
    parse_trial,
)

RECIPE = {
    "steps": 500,
    "batch_size": 8,
    "crop_px": 128,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "final_learning_rate": 1e-5,
}


def groups_of(*overrides: str) -> dict[str, Any]:
    config = compose(list(overrides))
    return {group: config[group] for group in (*COMPONENT_GROUPS, "depth")}


def trial(model: ModelSpec | None = None, **changes: Any) -> TrialSpec:
    fields: dict[str, Any] = {
        "model": model or parse_model(groups_of("model=rdc_g")),
        "recipe": parse(Recipe, RECIPE, where="budget"),
        "precision": "fp32",
        "lmbda": 0.013,
        "seed": 0,
        "train_data": "a" * 12,
        "eval_data": "b" * 12,
    }
    return TrialSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    ("preset", "golden"),
    # Written down once; they change only with SEMANTICS_VERSION, by intent.
    [
        ("rdc_g", "7acd5a10fcf5"),
        ("scale_hyperprior", "3a93929b1033"),
        ("mean_scale_hyperprior", "5c8fbfb707fc"),
    ],
)
def test_golden_arch_ids(preset: str, golden: str) -> None:
    assert arch_id(parse_model(groups_of(f"model={preset}"))) == golden


def test_golden_trial_ids() -> None:
    spec = trial()
    assert (spec.curve_id, spec.spec_id) == ("7e4098d9c057", "f929a42eafa5")


def test_ids_say_what_differs() -> None:
    base = trial()
    brighter, other_seed, other_eval = trial(lmbda=0.025), trial(seed=1), trial(eval_data="c" * 12)
    for other in (brighter, other_seed, other_eval):
        assert other.curve_id == base.curve_id
        assert other.spec_id != base.spec_id
    recipe = dataclasses.replace(base.recipe, steps=501)
    for other in (trial(recipe=recipe), trial(precision="bf16"), trial(train_data="c" * 12)):
        assert other.arch_id == base.arch_id
        assert other.curve_id != base.curve_id


def test_a_warm_started_curve_is_one_curve_of_its_own() -> None:
    origin = trial()
    warm = WarmStart(spec_id=origin.spec_id, checkpoint_sha256="d" * 64, lmbda=0.013)
    low, high = trial(lmbda=0.0067, warm_start=warm), trial(lmbda=0.025, warm_start=warm)
    assert low.curve_id == high.curve_id != origin.curve_id


def test_golden_ids_of_warm_starts_and_given_weights() -> None:
    """As they were before trials could start from one another."""
    warm = WarmStart(spec_id="e" * 12, checkpoint_sha256="d" * 64, lmbda=0.013)
    zoo = ExternalWeights(source="compressai", name="mbt2018", quality=1, checkpoint_sha256="d" * 64)
    warm_spec, zoo_spec = trial(warm_start=warm), trial(weights=zoo)
    assert (warm_spec.budget_id, zoo_spec.budget_id) == ("632290a1fad5", "039d27d9336f")
    assert (warm_spec.curve_id, warm_spec.spec_id) == ("ecfe61e9237e", "38bec0cf23fb")
    assert (zoo_spec.curve_id, zoo_spec.spec_id) == ("eb6adf5c6547", "a09b066e5157")


def test_trials_that_start_from_the_points_of_a_curve_are_one_curve() -> None:
    def warm(origin: TrialSpec, *, with_curve: bool) -> WarmStart:
        curve_id = origin.curve_id if with_curve else None
        return WarmStart(
            spec_id=origin.spec_id, checkpoint_sha256="d" * 64, lmbda=origin.lmbda, curve_id=curve_id
        )

    origins = trial(lmbda=0.0067), trial(lmbda=0.025)
    one, other = (trial(lmbda=o.lmbda, warm_start=warm(o, with_curve=True)) for o in origins)
    assert one.curve_id == other.curve_id != origins[0].curve_id
    assert one.spec_id != other.spec_id
    apart = [trial(lmbda=o.lmbda, warm_start=warm(o, with_curve=False)) for o in origins]
    assert apart[0].curve_id != apart[1].curve_id


def test_measured_weights_are_a_further_point_on_the_curve_of_who_trained_them() -> None:
    warm = WarmStart(spec_id="e" * 12, checkpoint_sha256="d" * 64, lmbda=0.013)
    for trained in (trial(), trial(warm_start=warm)):
        weights = TrainedWeights(spec_id=trained.spec_id, checkpoint_sha256="f" * 64)
        measured = dataclasses.replace(trained, lmbda=0.05, weights=weights)
        assert (measured.curve_id, measured.budget_id) == (trained.curve_id, trained.budget_id)
        again = dataclasses.replace(weights, checkpoint_sha256="0" * 64)
        ids = [trained.spec_id, dataclasses.replace(trained, lmbda=0.05).spec_id, measured.spec_id]
        ids.append(dataclasses.replace(measured, weights=again).spec_id)
        assert len(set(ids)) == 4
        assert parse_trial(json.loads(json.dumps(measured.to_dict()))) == measured
        assert measured.external is None


def test_weights_from_elsewhere_are_measured_or_started_from_but_not_both() -> None:
    warm = WarmStart(spec_id="e" * 12, checkpoint_sha256="d" * 64, lmbda=0.013)
    zoo = ExternalWeights(source="compressai", name="mbt2018", quality=1, checkpoint_sha256="d" * 64)
    with pytest.raises(UserError, match="weights and warm_start: a trial measures the one or trains"):
        trial(warm_start=warm, weights=zoo)


def test_a_new_option_at_its_default_leaves_old_ids_alone() -> None:
    @dataclasses.dataclass(frozen=True)
    class Old:
        name: str = "conv"
        width: int = 1

    @dataclasses.dataclass(frozen=True)
    class New(Old):
        added_later: bool = False

    assert canonical(New(width=2)) == canonical(Old(width=2)) == {"name": "conv", "width": 2}
    assert canonical(New(added_later=True)) == {"name": "conv", "added_later": True}


@given(
    lmbda=st.floats(1e-4, 1.0),
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 10**7),
    widths=st.tuples(*[st.integers(1, 512)] * 3),
)
def test_a_spec_survives_json(lmbda: float, seed: int, steps: int, widths: tuple[int, ...]) -> None:
    model = parse_model({**MODEL, "depth": {"channels": widths, "latent_channels": 7}})
    recipe = parse(Recipe, {**RECIPE, "steps": steps}, where="budget")
    spec = trial(model, lmbda=lmbda, seed=seed, recipe=recipe)
    again = parse_trial(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.spec_id == spec.spec_id


MODEL = groups_of("model=rdc_g")
BAD_NUMBERS = (math.nan, math.inf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"transform": {"name": "elyc"}},
            r"transform='elyc' is not known; known: .*conv",
        ),
        ({"transform": {"name": "conv", "nrom": "gdn"}}, r"transform\.nrom: there is no such key"),
        ({"transform": {"name": "conv", "norm": "gdn2"}}, r"transform\.norm='gdn2': .*'gdn1' or 'gdn'"),
        (
            {"transform": "conv"},
            r"transform needs a mapping with a name, got 'conv'; choose one with transform=",
        ),
        ({"depth": {"channels": [8, 8, 8]}}, r"depth\.latent_channels: is required"),
        (
            {"depth": {"channels": [8, 8, 0], "latent_channels": 8}},
            r"\[8, 8, 0\]: .*least 1",
        ),
        (
            {"depth": {"channels": [8, 8], "latent_channels": 8}},
            r"\[8, 8\]: .*needs 3",
        ),
        ({"depth": {"channels": "wide", "latent_channels": 8}}, r"depth\.channels='wide': "),
        ({"depht": {}}, r"missing or unknown: depht"),
    ],
)
def test_a_wrong_model_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_model({**MODEL, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, r"budget\.steps=0: must be at least 1"),
        ({"crop_px": 100}, r"budget\.crop_px=100: must be a multiple of 64"),
        ({"ema_decay": 1.0}, r"budget\.ema_decay=1\.0: must lie in \[0, 1\)"),
        *[
            ({field: value}, rf"budget\.{field}=({value}|{float(value)}): must be {expected}")
            for fields, values, expected in (
                (("learning_rate", "grad_clip_norm"), (0, -1), "greater than 0"),
                (("final_learning_rate", "aux_learning_rate", "weight_decay"), (-1,), "at least 0"),
                (("warmup_steps", "rate_ramp_steps"), (-5,), "at least 0"),
                (
                    ("learning_rate", "final_learning_rate", "aux_learning_rate"),
                    BAD_NUMBERS,
                    "a finite number",
                ),
                (("weight_decay", "grad_clip_norm"), BAD_NUMBERS, "a finite number"),
            )
            for field in fields
            for value in values
        ],
        ({"warmup_steps": 500}, r"budget\.warmup_steps=500: must be less than budget\.steps=500"),
        ({"drop_at": 7}, r"budget\.drop_at=7\.0: must lie in \[0, 1\]"),
        ({"drop_at": math.nan}, r"budget\.drop_at=nan: must lie in \[0, 1\]"),
        ({"schedule": "linear"}, r"budget\.schedule='linear': .*'cosine' or 'constant_then_drop'"),
        ({"stpes": 3}, r"budget\.stpes: there is no such key"),
        ({"steps": "many"}, r"budget\.steps='many': "),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(Recipe, {**RECIPE, **change}, where="budget")


def test_a_trial_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match="trial spec has unknown keys: lambda"):
        parse_trial({**trial().to_dict(), "lambda": 0.1})
    with pytest.raises(UserError, match=r"lmbda=-1: must be greater than 0"):
        trial(lmbda=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmbda": math.inf}, "lmbda=inf: must be a finite number"),
        ({"lmbda": math.nan}, "lmbda=nan: must be a finite number"),
        ({"lmbda": 0.0}, r"lmbda=0\.0: must be greater than 0"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"seed": 2**63}, f"seed={2**63}: must be at most {2**63 - 1}"),
    ],
)
def test_a_trial_refuses_numbers_that_nothing_can_use(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trial(**change)
    trial(seed=2**63 - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, r"cluster\.cpus_per_trial=0: must be at least 1"),
        ({"cache_gb": math.nan}, r"data\.cache_gb=nan: must be a finite number"),
        ({"log_every": 0}, r"budget\.log_every=0: must be at least 1"),
        ({"checkpoint_every_s": math.inf}, r"budget\.checkpoint_every_s=inf: must be a finite number"),
    ],
)
def test_run_settings_are_checked_too(change: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"folder": "", "train_manifest": "", "eval_manifest": "", **change}
    with pytest.raises(UserError, match=message):
        RunSettings(**fields)


def test_every_component_is_found_by_its_file_name() -> None:
    for group in COMPONENT_GROUPS:
        name = MODEL[group]["name"]
        assert component(group, name).Params().name == name


def test_specs_need_no_torch() -> None:
    code = "import sys, rdc.spec, rdc.result; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_budget_id_is_shared_by_what_was_trained_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    base = trial()
    alike = [trial(lmbda=0.025), trial(seed=1), trial(eval_data="c" * 12)]
    assert {other.budget_id for other in alike} == {base.budget_id}
    warm = WarmStart(spec_id="a" * 12, checkpoint_sha256="d" * 64, lmbda=0.013)
    recipe = dataclasses.replace(base.recipe, steps=501)
    others = [
        trial(recipe=recipe),
        trial(precision="bf16"),
        trial(train_data="c" * 12),
        trial(warm_start=warm),
    ]
    earlier = {other.budget_id for other in (base, *others)}
    assert len(earlier) == 5
    monkeypatch.setattr("rdc.spec.SEMANTICS_VERSION", -1)
    assert trial().budget_id not in earlier


def test_a_new_recipe_option_at_its_default_leaves_the_budget_id_alone() -> None:
    base = trial()

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Newer(Recipe):
        added_later: bool = False

    newer = Newer(**dataclasses.asdict(base.recipe))
    assert trial(recipe=newer).budget_id == base.budget_id
    assert trial(recipe=dataclasses.replace(newer, added_later=True)).budget_id != base.budget_id
