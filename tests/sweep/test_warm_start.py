"""`from=SWEEP top=K lmbdas=[...]`: curves of frontier architectures, warm-started and recorded as such."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

import conf
from rdc.errors import UserError
from sweep.driver import run_sweep
from sweep.machines import Entries

pytestmark = pytest.mark.usefixtures("environment")
ENTRIES = Entries(trial="pretend:trial", timing="pretend:timing", probe="pretend:probe")


def run(*overrides: str) -> int:
    return run_sweep(conf.compose(overrides), overrides=overrides, entries=ENTRIES)


@pytest.fixture
def finished(base_overrides: list[str]) -> list[str]:
    """A finished sweep of three architectures, all on the frontier; returns the overrides of the next one."""
    axes = "space.axes={depth.channels:[[8,8,8],[16,16,16],[32,32,32]]}"
    run(*base_overrides, "cluster=inline", "time=false", axes)
    return [*base_overrides, "cluster=inline", "time=false", "name=curves", "from=tiny"]


def test_the_best_architectures_are_trained_from_their_own_weights(
    finished: list[str], tmp_path: Path
) -> None:
    assert run(*finished, "top=2", "lmbdas=[0.005,0.02]") == 0
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/curves/trials/*/result.json")]
    # A pretended trial's rd_loss is 9 / width: the two widest are the best.
    widths = {result["spec"]["model"]["depth"]["channels"][0] for result in results}
    assert (len(results), widths) == (4, {16, 32})
    assert {result["spec"]["lmbda"] for result in results} == {0.005, 0.02}
    for result in results:
        warm = result["spec"]["warm_start"]
        source = tmp_path / "runs/tiny/trials" / warm["spec_id"]
        assert json.loads((source / "result.json").read_text())["arch_id"] == result["arch_id"]
        weights = (source / "model.safetensors").read_bytes()
        assert warm["checkpoint_sha256"] == hashlib.sha256(weights).hexdigest()
        assert warm["lmbda"] == 0.013
    assert len({result["curve_id"] for result in results}) == 2


def test_a_sweep_that_does_not_exist_is_named_with_those_that_do(finished: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=re.escape(f"from=tin: there is no such sweep; {tmp_path}/runs has: tiny")
    ):
        run(*finished, "from=tin")


def test_more_architectures_than_the_frontier_has(finished: list[str]) -> None:
    with pytest.raises(UserError, match=r"top=4: the frontier of .*/tiny has 3 architectures"):
        run(*finished, "top=4")


def test_a_missing_checkpoint_is_named_with_the_way_out(finished: list[str], tmp_path: Path) -> None:
    for path in tmp_path.glob("runs/tiny/trials/*/model.safetensors"):
        path.unlink()
    message = r"model\.safetensors: is missing, .* has to start from it; delete .* run the sweep tiny again"
    with pytest.raises(UserError, match=message):
        run(*finished)


def test_a_sweep_cannot_start_from_itself(finished: list[str]) -> None:
    with pytest.raises(UserError, match="from=tiny: a sweep cannot start from itself"):
        run(*finished, "name=tiny")
