"""A short campaign; `make faults` runs a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import Campaign

SMALL = [
    "space.axes={entropy_model:[scale_hyperprior,mean_scale_hyperprior]}",
    "depth.latent_channels=8",
    "lmbdas=[0.01]",
]


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_sweep_survives_a_few_faults(tmp_path: Path) -> None:
    kinds = {"trial": 2, "worker": 1, "driver": 1, "tracker": 1}
    report = Campaign(tmp_path, seed=3, faults=3, kinds=kinds, overrides=SMALL).run()
    assert report["faults"] == 3
