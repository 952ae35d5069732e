"""A short campaign; `make faults` runs a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import Campaign


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_sweep_survives_a_few_faults(tmp_path: Path) -> None:
    report = Campaign(
        tmp_path, seed=3, faults=4, kinds={"trial": 2, "worker": 1, "driver": 1, "tracker": 1}
    ).run()
    assert report["faults"] == 4
    assert report["resumes"] > 0
