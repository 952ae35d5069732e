"""A short campaign on a grid; `make faults` runs a long one, on searches too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import WEIGHTS, Campaign, draw_faults

SMALL = ["space.axes={depth.latent_channels:[8,12],depth.channels:[[8,8,8]]}"]


@pytest.mark.timeout(600)
def test_a_sweep_survives_a_few_faults(tmp_path: Path) -> None:
    faults = ["trial", "driver", "worker", "tracker"]
    report = Campaign(tmp_path, faults, seed=3, overrides=SMALL, grid=["lmbdas=[0.02]"]).run()
    assert report["struck"] == dict.fromkeys(sorted(faults), 1)


def test_all_kinds_of_faults_are_drawn_and_the_seed_decides() -> None:
    faults = draw_faults(100, seed=0)
    assert len(faults) == 100
    assert set(faults) == set(WEIGHTS)
    assert faults == draw_faults(100, seed=0) != draw_faults(100, seed=1)
