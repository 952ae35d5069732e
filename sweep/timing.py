"""Timing jobs: each trained architecture once per kind of device, alone on its node.

The time of a model with gates depends on its weights, so that each of its trials is timed.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.schema import COLUMNS, read_value
from rdc.errors import UserError
from rdc.files import read_sealed
from rdc.result import MODEL_FILE
from rdc.spec import to_plain
from sweep.jobs import Job, NodeSlots, Outcome
from sweep.machines import device_of
from sweep.plan import PlannedTrial, SweepPlan


def missing_jobs(
    plan: SweepPlan,
    nodes: Sequence[NodeSlots],
    probes: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    entry: str,
) -> list[Job]:
    """One exclusive job per kind of device for whatever has no timing in this setting yet.

    nodes: those there are now. probes: node -> rdc.machine.probe of it. results: by spec_id.
    """
    nodes_of_device: dict[str, list[NodeSlots]] = defaultdict(list)
    for node in nodes:
        if node.node in probes:
            nodes_of_device[str(probes[node.node]["device_slug"])].append(node)
    jobs = []
    for slug, alike in nodes_of_device.items():
        turns: Iterator[NodeSlots] = itertools.cycle(alike)
        for trial in _to_be_timed(plan, results):
            out = _timing_file(plan, trial, slug)
            if _read(out, plan, trial) is None:
                jobs.append(_job(plan, trial, next(turns), out, entry))
    return jobs


def all_timed_here(plan: SweepPlan, results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all that is to be timed has been, on this machine; False where only probes can tell."""
    if plan.settings.cluster.address or os.environ.get("RAY_ADDRESS"):
        return False
    from rdc.machine import device_slug, resolve_device

    wanted = "cpu" if plan.settings.cluster.gpus_per_trial == 0 else "auto"
    slug = device_slug(resolve_device(wanted))
    trained = _to_be_timed(plan, results)
    return all(_read(_timing_file(plan, trial, slug), plan, trial) is not None for trial in trained)


def decode_times(plan: SweepPlan, trial: PlannedTrial, device_slug: str) -> dict[str, float] | None:
    """The trial's times in ms by their names in the results table; None if it has no timing there."""
    found = _read(_timing_file(plan, trial, device_slug), plan, trial)
    if found is None:
        return None
    values = {
        column.name: read_value(found, column)
        for column in COLUMNS
        if column.origin == "timing" and column.unit == "ms"
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def outcome_line(outcome: Outcome) -> str:
    """What a timing job found, for the user."""
    label = outcome.job.payload["label"]
    if outcome.error is not None:
        return f"{label}: no timing ({outcome.error.kind}: {outcome.error.message})"
    try:
        decode = read_sealed(outcome.job.payload["out"])["decode"]
        medians = {part: decode[f"{part}_ms"]["median"] for part in ("total", "network", "entropy")}
    except (UserError, KeyError, TypeError):
        return f"{label}: the timing job wrote no usable {Path(outcome.job.payload['out']).name}"
    total, network, entropy = (f"{medians[part]:.0f}" for part in ("total", "network", "entropy"))
    return f"{label}: decode {total} ms (networks {network}, entropy coding {entropy})"


def _to_be_timed(plan: SweepPlan, results: Mapping[str, Mapping[str, Any]]) -> Iterator[PlannedTrial]:
    """The first usable trial of each architecture, whose weights are timed, and all that have gates."""
    seen = set()
    for wanted in ("ok", "rate_mismatch"):
        for trial in plan.trials:
            status = results.get(trial.spec_id, {}).get("status")
            if _timed_as(trial) not in seen and status == wanted and (trial.folder / MODEL_FILE).exists():
                seen.add(_timed_as(trial))
                yield trial


def _has_gates(trial: PlannedTrial) -> bool:
    return bool(trial.spec.model.gating.name != "none")


def _timed_as(trial: PlannedTrial) -> str:
    """The id of what one timing is valid for."""
    return trial.spec_id if _has_gates(trial) else trial.arch_id


def _image(plan: SweepPlan) -> tuple[str, bool]:
    """(the evaluation image to be timed, whether it has the wanted size): else the largest there is."""
    timing = plan.settings.cluster.timing
    images = plan.data.evaluation.images
    for image in images:
        if image.height_px >= timing.height_px and image.width_px >= timing.width_px:
            return image.path, True
    return max(images, key=lambda image: image.height_px * image.width_px).path, False


def _timing_file(plan: SweepPlan, trial: PlannedTrial, device_slug: str) -> Path:
    timing = plan.settings.cluster.timing
    setting = f"{timing.threads}t__{plan.precision}__{timing.height_px}x{timing.width_px}"
    return plan.folder / "timing" / f"{_timed_as(trial)}__{device_slug}__{setting}.json"


def _read(path: Path, plan: SweepPlan, trial: PlannedTrial) -> dict[str, Any] | None:
    """The trial's timing; None if it has to be timed: missing, damaged, or of something else."""
    wanted = [plan.settings.cluster.timing.height_px, plan.settings.cluster.timing.width_px]
    try:
        found = read_sealed(path)
    except UserError:
        return None
    of = (found.get("spec_id") or found.get("arch_id"), found.get("image_px"))
    return found if of == (_timed_as(trial), wanted) else None


def _job(plan: SweepPlan, trial: PlannedTrial, node: NodeSlots, out: Path, entry: str) -> Job:
    timing = plan.settings.cluster.timing
    image, large_enough = _image(plan)
    payload = {
        "model": to_plain(trial.spec.model),
        "arch_id": trial.arch_id,
        "label": trial.label,
        "checkpoint": str(trial.folder / MODEL_FILE),
        "image": image,
        "mirrored": not large_enough,
        "device": device_of(node),
        "threads": timing.threads,
        "precision": plan.precision,
        "height_px": timing.height_px,
        "width_px": timing.width_px,
        "repeats": timing.repeats,
        "out": str(out),
        "lmbda": trial.spec.lmbda,
        **({"spec_id": trial.spec_id} if _has_gates(trial) else {}),
    }
    return Job(
        job_id=f"timing {out.stem}",
        entry=entry,
        payload=payload,
        log=str(out.with_suffix(".log")),
        exclusive=True,
        node=node.node,
    )
