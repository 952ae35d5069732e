"""Checkpoints of CompressAI in a sweep: planned once each, at their own lmbda, beside models to train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressai.models import ScaleHyperprior

from rdc.errors import UserError
from tests.sweep.test_plan import plan_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "bmshj2018-hyperprior-3.pth.tar"
    torch.save(ScaleHyperprior(128, 192).state_dict(), path)
    return path


def point(checkpoint: Path, quality: int) -> str:
    zoo = ["model=compressai", "compressai.name=bmshj2018-hyperprior", f"compressai.quality={quality}"]
    return str([*zoo, f"compressai.checkpoint={checkpoint}"])


def test_a_checkpoint_is_one_trial_at_its_own_lmbda(checkpoint: Path) -> None:
    points = f"space.points=[{point(checkpoint, 3)},['depth=n32'],['width=0.5']]"
    plan = plan_of([points, "lmbdas=[0.01,0.02]", "seeds=[0,1]", "budget.precision=bf16"])
    external, *own = plan.trials
    assert external.spec.weights is not None
    assert external.checkpoint == str(checkpoint)
    assert (external.spec.lmbda, external.spec.seed, external.spec.precision) == (0.0067, 0, "fp32")
    assert external.label == "compressai bmshj2018-hyperprior-3"
    assert plan.run_settings(external, device="cpu").warm_start_checkpoint == str(checkpoint)
    assert len(own) == 2 * 2 * 2
    assert {trial.spec.model.depth.channels for trial in own} == {(32, 32, 32), (64, 64, 64)}
    assert all(trial.spec.weights is None for trial in own)


def test_a_checkpoint_of_something_else_is_refused_before_anything_starts(
    checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"is quality 3 of bmshj2018-hyperprior by its name"):
        plan_of([f"space.points=[{point(checkpoint, 7)}]"])
    nameless = tmp_path / "mine.pth.tar"
    nameless.symlink_to(checkpoint)
    with pytest.raises(UserError, match=r"quality=7; it fits bmshj2018-hyperprior of quality 1 to 5"):
        plan_of([f"space.points=[{point(nameless, 7)}]"])
