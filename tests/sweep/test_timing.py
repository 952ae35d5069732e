"""What is timed: which trials, and on which image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rdc.data import ImageFile, ImageSet
from sweep.jobs import NodeSlots
from sweep.timing import missing_jobs
from tests.sweep.test_plan import DATA, plan_of

NODE = NodeSlots(node="here", slots=1, cpus_per_slot=1, gpus_per_slot=0.0)


def payloads(
    folder: Path, overrides: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Of the timing jobs of a sweep whose trials have all ended well. sizes: of the evaluation images."""
    images = tuple(
        ImageFile(path=f"/{w}x{h}.png", width_px=w, height_px=h, sha256=f"{w}x{h}", file_size=1)
        for w, h in sizes
    )
    data = dataclasses.replace(DATA, evaluation=ImageSet(name="eval", source="made up", images=images))
    plan = plan_of([f"runs_dir={folder}", *overrides], data)
    for trial in plan.trials:
        trial.folder.mkdir(parents=True)
        (trial.folder / "model.safetensors").touch()
    results = {trial.spec_id: {"status": "ok"} for trial in plan.trials}
    jobs = missing_jobs(plan, [NODE], {"here": {"device_slug": "cpu"}}, results, "entry")
    return [dict(job.payload) for job in jobs]


@pytest.mark.parametrize(
    ("sizes", "image", "mirrored"),
    [
        ([(320, 256), (768, 512), (2048, 1365)], "/768x512.png", False),
        ([(512, 768), (2048, 1365)], "/2048x1365.png", False),  # upright photos are not turned
        ([(320, 256), (640, 480), (256, 256)], "/640x480.png", True),
    ],
)
def test_a_real_evaluation_image_is_timed(
    tmp_path: Path, sizes: Sequence[tuple[int, int]], image: str, mirrored: bool
) -> None:
    (found,) = payloads(tmp_path, ["depth=n32"], sizes)
    assert (found["image"], found["mirrored"]) == (image, mirrored)


def test_trials_with_gates_are_timed_one_by_one_with_their_own_weights(tmp_path: Path) -> None:
    lmbdas = "lmbdas=[0.01,0.02]"
    assert len(payloads(tmp_path / "ungated", [lmbdas, "depth=n32"], [(768, 512)])) == 1
    found = payloads(tmp_path / "gated", [lmbdas, "depth=n32", "gating=ecg"], [(768, 512)])
    assert len({payload["spec_id"] for payload in found}) == 2
    assert all(Path(payload["checkpoint"]).parent.name == payload["spec_id"] for payload in found)
