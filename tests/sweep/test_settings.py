"""The sweep's own settings: what is refused, and how it says so."""

from __future__ import annotations

import re

import pytest

import conf
from rdc.errors import UserError
from sweep.settings import read_settings


def test_one_value_or_several() -> None:
    one = read_settings(conf.compose(["lmbda=0.05", "seed=3"]))
    several = read_settings(conf.compose(["lmbdas=[0.01,0.02,0.01]", "seeds=[1,2]"]))
    assert (one.lmbdas, one.seeds) == ((0.05,), (3,))
    assert (several.lmbdas, several.seeds) == ((0.01, 0.02), (1, 2))


def test_the_space_is_its_grid_and_its_points() -> None:
    overrides = ["space.axes={depth:[n32,n64]}", "space.points=[['depth=n96'],['model=rdc_g']]"]
    space = read_settings(conf.compose(overrides)).space
    assert space.point_overrides == [["depth=n32"], ["depth=n64"], ["depth=n96"], ["model=rdc_g"]]


def test_families_may_have_axes_of_their_own() -> None:
    overrides = ["space.axes=[{depth:[n32,n64],transform.norm:[gdn]},{model:[rdc_g]}]"]
    assert read_settings(conf.compose(overrides)).space.point_overrides == [
        ["depth=n32", "transform.norm=gdn"],
        ["depth=n64", "transform.norm=gdn"],
        ["model=rdc_g"],
    ]


def test_without_a_space_the_composed_model_is_the_only_point() -> None:
    assert read_settings(conf.compose([])).space.point_overrides == [[]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+colour=red"], "colour: there is no such key"),
        (["~lmbda"], "lmbda: is required"),
        (["lmbda=cheap"], "lmbda='cheap': input should be a valid number"),
        (["lmbdas=[]"], "lmbdas=[]: give at least one value, or null for lmbda=0.013"),
        (["name=../elsewhere"], "name='../elsewhere': it names a folder; use letters, digits"),
        (["name=mlflow.db"], "name=mlflow.db: the runs folder has a use of its own for that name"),
        (["name=benchmarks"], "name=benchmarks: the runs folder has a use of its own for that name"),
        (["top=3"], "top=3: it needs from=SWEEP"),
        (["top=0", "from=x"], "top=0: must be at least 1"),
        (
            ["from=x", "space=conv_quick"],
            "from=x: its architectures are trained, so space=conv_quick has to be none",
        ),
        (["from=3"], "from=3: must be the name of a finished sweep"),
        (["budget.steps=0"], "budget.steps=0: must be at least 1"),
        (["budget.precision=fp8"], "budget.precision='fp8': input should be 'auto', 'fp32' or 'bf16'"),
        (["budget.crop_px=100"], "budget.crop_px=100: must be a multiple of 64"),
        (["cluster.slots=0"], "cluster.slots=0: must be at least 1"),
        (
            ["cluster.gpus_per_trial=1.5"],
            "cluster.gpus_per_trial=1.5: must be a fraction up to 1, or a whole number",
        ),
        (["cluster.deadline_s=0"], "cluster.deadline_s=0.0: must be greater than 0"),
        (["cluster.timing.threads=0"], "cluster.timing.threads=0: must be at least 1"),
        (["cluster.deadline_s=nan"], "cluster.deadline_s=nan: must be a finite number"),
        (
            ["cluster.gpus_per_trial=2"],
            "cluster.gpus_per_trial=2: each GPU's process needs a processor; ",
        ),
        (["cluster.gpus_per_trial=nan"], "cluster.gpus_per_trial=nan: must be a finite number"),
        (["cluster.gpus_per_trial=-1"], "cluster.gpus_per_trial=-1.0: must be at least 0"),
        (["budget.log_every=0"], "budget.log_every=0: must be at least 1"),
        (["budget.log_every=-1"], "budget.log_every=-1: must be at least 1"),
        (["budget.validate_every=-1"], "budget.validate_every=-1: must be at least 0"),
        (["budget.checkpoint_every_s=-1"], "budget.checkpoint_every_s=-1.0: must be at least 0"),
        (["budget.checkpoint_every_s=nan"], "budget.checkpoint_every_s=nan: must be a finite number"),
        (["budget.fresh_decode_images=-7"], "budget.fresh_decode_images=-7: must be at least -1"),
        (["budget.learning_rate=inf"], "budget.learning_rate=inf: must be a finite number"),
        (["budget.warmup_steps=800"], "budget.warmup_steps=800: must be less than budget.steps="),
        (["lmbda=inf"], "lmbda=inf: must be a finite number"),
        (["lmbda=1e400"], "lmbda=inf: must be a finite number"),
        (["lmbdas=[0.01,inf]"], "lmbda=inf: must be a finite number"),
        (["seeds=[0,12345678901234567890123]"], "seed=12345678901234567890123: must be at most"),
        (["space.axes={depth:[]}"], "space.axes.depth: has no values"),
        (["pricing.utilisation=0"], "pricing.utilisation=0.0: must be greater than 0"),
        (["pricing.utilisation=30"], "pricing.utilisation=30.0: it is a share, at most 1"),
        (["pricing.peak_tflops=-1"], "pricing.peak_tflops=-1.0: must be greater than 0"),
        (["search.name=guess"], "search.name='guess': input should be 'grid'"),
        (["cluster.walltime=soon"], "cluster.walltime='soon': must be seconds above 0, 'HH:MM:SS'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_are_named_in_one_line(overrides: list[str], message: str) -> None:
    config = conf.compose(overrides)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_settings(config)
    assert "\n" not in str(caught.value)
