"""Spaces that searches choose from, what they want, and what is refused, by name."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import conf
from rdc.complexity import measure
from rdc.configured import model_of
from rdc.errors import UserError
from sweep.search.asked import check_space, draw_candidates
from sweep.search.objectives import check_objectives, costs_of
from sweep.search.space import Space, read_branches
from sweep.search.start import rungs_of, study_name
from sweep.settings import read_settings
from tests.sweep.test_plan import RECIPE, plan_of

TWO = "space.axes=[{transform:[conv],depth:[n32,n64]},{transform:[swint],transform.window:[4,8]}]"


def space_of(*overrides: str) -> Space:
    return read_settings(conf.compose(["search=nsga2", *overrides])).space.space


def test_branches_have_their_own_axes_and_names() -> None:
    space = space_of(TWO, "space.points=[['model=rdc_g'],['model=rdc_f','width=0.5']]")
    assert [branch.name for branch in space.branches] == ["conv", "swint", "points"]
    assert space.size == 2 + 2 + 2
    everything = list(space.in_random_order(np.random.default_rng(0)))
    assert sorted(space.point(params) for params in everything) == [
        ("model=rdc_f", "width=0.5"),
        ("model=rdc_g",),
        ("transform=conv", "depth=n32"),
        ("transform=conv", "depth=n64"),
        ("transform=swint", "transform.window=4"),
        ("transform=swint", "transform.window=8"),
    ]
    assert {"branch": "conv", "conv/depth": "n32"} in everything  # one transform is nothing to choose


def test_one_branch_needs_no_choice_among_branches_and_alike_names_are_told_apart() -> None:
    assert space_of("space.axes={depth:[n32,n64]}").parameters.keys() == {"branch 1"}
    alike = space_of(
        "space.axes=[{depth:[n32,n64]},{depth:[n96,n128]},{transform:[conv]},{transform:[conv]}]"
    )
    assert [branch.name for branch in alike.branches] == ["branch 1", "branch 2", "conv 3", "conv 4"]


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("{low: 8, high: 20, step: 4}", ["8", "12", "16", "20"]),
        ("{low: 8, high: 11}", ["8", "9", "10", "11"]),
        ("{low: 0.5, high: 1.1, step: 0.25}", ["0.5", "0.75", "1"]),
    ],
)
def test_ranges_hold_both_ends_and_keep_to_their_steps(axis: str, values: list[str]) -> None:
    space = space_of(f"space.axes={{width: {axis}}}")
    assert space.size == len(values)
    everything = [space.point(params) for params in space.in_random_order(np.random.default_rng(0))]
    assert sorted(everything) == sorted((f"width={value}",) for value in values)
    random = np.random.default_rng(0)
    assert {space.point(space.draw(random)) for _ in range(200)} == set(everything)


def test_a_continuum_has_no_size_and_stays_inside() -> None:
    random = np.random.default_rng(0)
    for log in ("false", "true"):
        space = space_of(f"space.axes={{width: {{low: 0.1, high: 2.0, log: {log}}}}}")
        assert space.size is None
        drawn = [space.draw(random)["width"] for _ in range(300)]
        assert min(drawn) >= 0.1
        assert max(drawn) <= 2.0
        assert bool(np.median(drawn) < 0.7) is (log == "true")  # half-way in ratios is 0.45


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["space.axes={depth:3}"],
            "space.axes.depth=3: expected a list of values, or a range such as {low: 8",
        ),
        (["space.axes={width:{low:1}}"], "space.axes.width.high: is required; a range has low and high"),
        (["space.axes={width:{low:2,high:1}}"], "space.axes.width: low=2 must be less than high=1"),
        (["space.axes={width:{low:a,high:1}}"], "space.axes.width.low='a': must be a number"),
        (["space.axes={width:{low:0,high:.inf}}"], "space.axes.width.high"),
        (
            ["space.axes={width:{low:0,high:1,log:true}}"],
            "space.axes.width: log=true needs low above 0 and no step",
        ),
        (["space.axes={width:{low:1,high:2,log:3}}"], "space.axes.width.log=3: must be true or false"),
        (["space.axes={width:{low:1,high:2,step:0}}"], "space.axes.width.step=0: must be greater than 0"),
        (
            ["space.axes={width:{low:1,high:2,by:1}}"],
            "space.axes.width.by: there is no such key; a range has: low",
        ),
        (["space.axes=[3]"], "space.axes=3: expected a mapping of override keys"),
        (["space=none"], "search=nsga2: space=none holds nothing to choose from"),
        (["space=study", "lmbdas=[0.01,0.02]"], "search=nsga2 compares architectures at one lmbda"),
        (["from=x"], "search=nsga2: chooses from a space, from=x has none; use search=grid"),
        (["search.trials=0"], "search.trials=0: must be at least 1"),
        (["search.seed=-1"], "search.seed=-1: must be at least 0"),
        (["search.population=1"], "search.population=1: must be at least 2"),
        (["search.eta=1"], "search.eta=1.0: must be greater than 1"),
        (["search.rungs=[0.5,1]"], "search.rungs: 1.0 is no share of the training"),
        (["search.rungs=[0.5,0.25]"], "search.rungs=[0.5, 0.25]: each must be above the one before it"),
        (["search.objectives=[]"], "search.objectives=[]: give at least one of: rd_loss"),
        (["search.objectives=[time_dec_total_ms]"], "all of them are costs; add one of: rd_loss"),
        (["search.objectives=[beauty]"], "search.objectives: there is no 'beauty'; known: rd_loss"),
        (["search.objectives=[rd_loss,rd_loss]"], "search.objectives: rd_loss is there twice"),
        (["search.objectives=[params_m]"], "all of them are costs; add one of: rd_loss"),
        (
            ["search.constraints.params_m=-1"],
            "search.constraints.params_m=-1.0: must be a finite number greater",
        ),
        (
            ["+search.constraints.rd_loss=1"],
            "search.constraints.rd_loss: is not known before training; limits",
        ),
        (["search.storage=optuna.db"], "search.storage=optuna.db: expected sqlite:///FILE"),
        (
            ["search.storage='sqlite://'"],
            "search.storage=sqlite://: a study in memory is lost with the command",
        ),
        (
            ["search.storage='sqlite:///:memory:'"],
            "search.storage=sqlite:///:memory:: a study in memory is lost",
        ),
        (["search.storage=ftp://me:secret@host"], "search.storage=ftp://***@host: expected sqlite:///FILE"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_are_named_in_one_line(overrides: list[str], message: str) -> None:
    config = conf.compose(["search=nsga2", "space=study", *overrides])
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_settings(config)
    assert "\n" not in str(caught.value)


def test_a_grid_refuses_ranges_by_name() -> None:
    with pytest.raises(UserError, match=r"space\.axes\.width: search=grid needs a list of values"):
        read_settings(conf.compose(["space.axes={width:{low:0.5,high:1.0}}"]))


def test_a_misspelt_key_anywhere_in_the_space_is_found_before_anything_starts() -> None:
    for wrong, message in (("dept:[n32]", "dept"), ("depth:[n32,n7]", "depth=n7: there is no such choice")):
        overrides = ["search=tpe", f"space.axes=[{{depth:[n64,n96]}},{{{wrong}}}]"]
        space = read_settings(conf.compose(overrides)).space.space
        with pytest.raises(UserError, match=message):
            check_space(space, overrides)


def test_rungs_are_steps_of_the_budget_and_apart() -> None:
    budget = ["search=nsga2", "space=study", "budget.steps=40", "budget.warmup_steps=1"]
    rungs = rungs_of(read_settings(conf.compose([*budget, "search.rungs=[0.25,0.5]"])))
    assert rungs is not None
    assert rungs.steps == (10, 20)
    assert rungs_of(read_settings(conf.compose(budget))) is None
    with pytest.raises(UserError, match=r"with budget.steps=40 they are the steps \[4, 4\]; give shares"):
        rungs_of(read_settings(conf.compose([*budget, "search.rungs=[0.1,0.105]"])))


def test_directions_come_with_the_names() -> None:
    wanted = check_objectives(("rate_saving_vs_bpg_pct", "params_m", "rd_loss"), {"params_m": None})
    assert wanted.directions == ("maximize", "minimize", "minimize")
    assert (wanted.cost, wanted.limits) == ("params_m", {})
    assert check_objectives(("rd_loss", "time_dec_total_ms"), {}).cost == "kmac_per_px_dec"
    assert check_objectives(("rd_loss",), {}).cost is None


def test_costs_are_those_of_the_built_model_in_the_units_of_the_table() -> None:
    counted = measure(model_of(conf.compose(["depth=n32"]))).to_dict()
    costs = costs_of(counted)
    assert costs["params_m"] == counted["params"]["total"] / 1e6
    assert (
        costs["kflop_per_px_dec"] == counted["decode"]["parity_kflop_per_px"] == 2 * costs["kmac_per_px_dec"]
    )
    assert costs["activation_mb_dec"] == counted["activation_bytes"]["decode"]["peak"] / 2**20


def test_values_are_means_over_seeds_and_rate_savings_need_the_anchors_images() -> None:
    wanted = check_objectives(("rd_loss", "params_m", "rate_saving_vs_bpg_pct"), {})
    kodak = {"dataset": "kodak", "images": 24, "bpp": 0.3, "psnr_db": 32.0}
    results = [{"evaluation": {**kodak, "rd_loss": loss}} for loss in (1.0, 2.0)]
    rd_loss, params, saving = wanted.values({"params_m": 3.0}, results)
    assert (rd_loss, params) == (1.5, 3.0)
    assert -100 < saving < 100
    other: list[dict[str, Any]] = [{"evaluation": {**kodak, "dataset": "mine", "rd_loss": 1.0}}]
    assert math.isnan(wanted.values({"params_m": 3.0}, other)[2])


def test_a_question_has_one_study_and_another_question_another() -> None:
    base = ["search=nsga2", "depth=n32", "space.axes={depth.latent_channels:[8,12]}"]

    def name(*overrides: str) -> str:
        return study_name(plan_of([*base, *overrides]))

    assert name("search=tpe", "search.trials=7", "search.seed=3", "search.rungs=[0.5]") == name()
    for different in (
        "seeds=[0,1]",
        "transform.norm=gdn",
        "search.objectives=[rd_loss,params_m]",
        "space.axes={depth.latent_channels:[8,16]}",
    ):
        assert name(different) != name()


def test_a_dry_run_draws_different_architectures_within_the_limits() -> None:
    overrides = [
        *RECIPE,
        "search=nsga2",
        "depth=n32",
        "space.axes={depth.latent_channels:{low:4,high:40,step:4}}",
    ]
    limit = "search.constraints.params_m=0.22"
    drawn = draw_candidates([*overrides, limit], read_settings(conf.compose([*overrides, limit])), count=4)
    widths = [candidate.model.depth.latent_channels for candidate in drawn if candidate.model]
    assert len(set(widths)) == len(widths)
    sizes = [
        costs_of(measure(candidate.model).to_dict())["params_m"] for candidate in drawn if candidate.model
    ]
    assert max(sizes) <= 0.22
    too_tight = [*overrides, "search.constraints.params_m=0.0001"]
    with pytest.raises(UserError, match=r"has no architecture to train; .*above its limit: params_m"):
        draw_candidates(too_tight, read_settings(conf.compose(too_tight)), count=4)


def test_shipped_branches_are_conditional() -> None:
    space = read_settings(conf.compose(["+experiment=search"])).space.space
    assert read_branches(None, None) == ()
    with_windows = [name for name, axes in space.parameters.items() if any("window" in axis for axis in axes)]
    assert with_windows == ["rdc_e"]
    assert space.size == 256
