"""Opens the search that a configuration asks for, new or where an earlier command left it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conf import POINT_KEYS
from rdc.errors import UserError
from rdc.spec import SEMANTICS_VERSION, canonical, parse_trial, to_plain
from sweep.plan import PlannedTrial, SweepPlan
from sweep.pricing import PriceList
from sweep.record import read_sweep
from sweep.search.asked import Chooser
from sweep.search.rungs import Rungs, RungsRecord
from sweep.search.search import Search
from sweep.search.source import Summary
from sweep.settings import Settings
from sweep.timing import decode_times


def open_search(
    plan: SweepPlan,
    overrides: Sequence[str],
    prices: PriceList,
    *,
    read: Callable[[PlannedTrial], Summary | None],
    timed_on: str | None,
    say: Callable[[str], None],
) -> Search:
    """plan: of the search, with no trial yet. overrides: points are composed on top of them.

    timed_on: kind of device whose times count, where the objectives hold one.
    """
    from sweep.search.study import open_study

    settings = plan.settings
    search = settings.search
    _require_anchors(plan)
    plan.folder.mkdir(parents=True, exist_ok=True)
    name = study_name(plan, timed_on)
    study = open_study(
        name=name,
        folder=plan.folder,
        storage=search.storage,
        space=settings.space.space,
        objectives=search.wanted,
        sampler=search.name,  # type: ignore[arg-type]  # the driver opens no search for a grid
        seed=search.seed,
        population=search.first_random,
        about=_about(plan),
    )
    say(f"search={search.name} by {search.wanted.text}, study {name}")
    return Search(
        study=study,
        space=settings.space.space,
        objectives=search.wanted,
        wanted=search.trials,
        seed=search.seed,
        choose=Chooser(overrides, settings, plan.data, plan.precision, prices),
        read=read,
        times=lambda trial: decode_times(plan, trial, str(timed_on)),
        recall=_Recorded(settings).trial,
        rungs=rungs_of(settings),
        record=RungsRecord(plan.folder, name),
        say=say,
    )


def rungs_of(settings: Settings) -> Rungs | None:
    """search.rungs as steps of the budget; UserError where shares fall on one step."""
    shares, steps = settings.search.rungs, settings.budget.recipe.steps
    if not shares:
        return None
    found = [max(1, round(share * steps)) for share in shares]
    if len(set(found)) < len(found) or found[-1] >= steps:
        raise UserError(
            f"search.rungs={list(shares)}: with budget.steps={steps} they are the steps {found}; "
            "give shares that are at least a step apart"
        )
    return Rungs(found, settings.search.eta)


def study_name(plan: SweepPlan, timed_on: str | None = None) -> str:
    """One study per question: what changes the space, the values or their meaning makes another name.

    The results of other studies in the folder are not lost: what has one is told it when it is suggested.
    """
    settings, search = plan.settings, plan.settings.search
    question: list[Any] = [
        SEMANTICS_VERSION,
        {key: plan.config.get(key) for key in POINT_KEYS},
        settings.space.space.to_plain(),
        [search.wanted.names, search.wanted.limits],
        [settings.lmbdas, settings.seeds, plan.precision],
        canonical(settings.budget.recipe),
        [plan.data.train.content_hash, plan.data.evaluation.content_hash],
    ]
    if search.wanted.timed:
        timing = settings.cluster.timing
        question.append([timed_on, timing.threads, timing.height_px, timing.width_px])
    digest = hashlib.sha256(json.dumps(to_plain(question), sort_keys=True).encode()).hexdigest()
    return f"{settings.name}-{digest[:8]}"


def _about(plan: SweepPlan) -> dict[str, Any]:
    """What tells the studies of a storage apart, for people."""
    settings, search, recipe = plan.settings, plan.settings.search, plan.settings.budget.recipe
    steps = f"{recipe.steps} steps of {recipe.batch_size} crops of {recipe.crop_px} px"
    return {
        "space": settings.space.name,
        "objectives": search.wanted.text,
        "limits": dict(search.wanted.limits),
        "lmbda": settings.lmbdas[0],
        "seeds": list(settings.seeds),
        "budget": f"{settings.budget.name}: {steps}, {plan.precision}",
        "images": f"{plan.data.train.name}, evaluated on {plan.data.evaluation.name}",
    }


def _require_anchors(plan: SweepPlan) -> None:
    """UserError if rate savings are wanted on other images than the anchors'."""
    from analysis.anchors import DEFAULT, load_anchor
    from analysis.rows import dataset_mismatch

    savings = [name for name in plan.settings.search.wanted.names if name.startswith("rate_saving")]
    images = plan.data.evaluation
    row = {"dataset": images.name, "eval_images": len(images)}
    mismatch = dataset_mismatch(row, load_anchor(DEFAULT).dataset) if savings else ""
    if mismatch:
        raise UserError(f"search.objectives: {savings[0]} has no value here: {mismatch}; search by rd_loss")


class _Recorded:
    """Planned trials of earlier commands, from sweep.json."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.folder
        sweep = read_sweep(settings.folder) or {}
        self._trials: Mapping[str, Any] = {trial["spec_id"]: trial for trial in sweep.get("trials", [])}

    def trial(self, spec_id: str) -> PlannedTrial | None:
        found = self._trials.get(spec_id)
        if found is None:
            return None
        try:
            spec = parse_trial(found["spec"])
        except (UserError, KeyError, TypeError):
            return None
        if spec.spec_id != spec_id:
            return None
        point = tuple(found.get("overrides", ()))
        return PlannedTrial(spec=spec, folder=self._folder / "trials" / spec_id, point=point, checkpoint=None)
