"""`dry_run=true`: the trials, what they would cost, and what would be skipped and why. Starts nothing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rdc.result import read_any, shares_of_paper
from rdc.spec import ModelSpec, Recipe
from sweep.machines import known_precision, precision_by_probes
from sweep.plan import (
    Candidate,
    PlannedTrial,
    Precision,
    SweepPlan,
    choose_data,
    make_plan,
    require_possible,
)
from sweep.pricing import Price, PriceList, Speed, probed_speed, speed_of_finished
from sweep.progress import duration
from sweep.record import finished_result
from sweep.search.source import Summary, summary
from sweep.settings import PricingSettings, Settings
from sweep.stages import Node, Staged, open_stages

_SAMPLE = 8  # architectures that stand for those that a search would choose
_HEADS = ("trial", "architecture", "params M", "decode kFLOP/px", "training PFLOP", "expected", "state")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """One trial. spec_id: "" while that is not known."""

    spec_id: str
    name: str
    price: Price
    state: str
    runs: bool


def show_dry_run(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    settings: Settings,
    candidates: Sequence[Candidate],
    staged: Sequence[Staged] = (),
) -> None:
    """Print the plan as a table with its sums; UserError if not one architecture is possible.

    What a search will choose is not known: a random sample of its space stands for it.
    """
    if not settings.search.is_grid:
        from sweep.search.asked import draw_candidates

        candidates = draw_candidates(overrides, settings, count=min(_SAMPLE, settings.search.trials))
    if all(candidate.refusal is not None for candidate in candidates):
        require_possible(candidates)
    data = choose_data(settings, print)
    precision, why = _precision(settings)
    plan = make_plan(config, settings, [] if staged else candidates, data, precision)
    prices = PriceList()
    lines, notes = _lines(plan, prices), list(plan.notes)
    if staged:
        stages = open_stages(plan, staged, prices, read=_finished_summary, say=notes.append)
        plan = plan.with_trials(stages.trials())
        shown = len(settings.every_lmbda) > 1
        to_come = [_line_to_come(node, prices, with_lmbda=shown) for node in stages.to_come_in_order()]
        lines = [*_lines(plan, prices), *to_come]
        notes = [*_budgets(staged, settings), *notes]
        notes += [f"not run: {line}" for line in stages.not_run()]
    recipe = settings.budget.recipe
    models = [candidate.model for candidate in candidates if candidate.model and not candidate.weights]
    speed = speed_of_finished(plan.trials) or probed_speed(models, prices, recipe, precision)
    share = shares_of_paper(recipe)["percent_of_paper_steps"]
    steps = f"{recipe.steps:,} steps of {recipe.batch_size} crops of {recipe.crop_px} px"
    print(f"budget {settings.budget.name}: {steps}, {share:.3g} % of the study's steps")
    print(f"precision {precision} ({why})")
    print()
    for line in _table([_HEADS, *(_row(line, speed) for line in lines)]):
        print(line)
    print()
    for candidate in candidates:
        if candidate.refusal is not None:
            print(f"refused: [{', '.join(candidate.point)}]: {candidate.refusal}")
    for note in notes:
        print(note)
    print(_sums(settings, lines, speed) if settings.search.is_grid else _search_sums(plan, lines, speed))


def _budgets(staged: Sequence[Staged], settings: Settings) -> list[str]:
    """What stages with a budget of their own do."""
    return [
        f"stage {one.stage.name}: budget {one.budget.name}, {one.budget.recipe.steps:,} steps"
        for one in staged
        if one.budget != settings.budget and not one.stage.measure
    ]


def _lines(plan: SweepPlan, prices: PriceList) -> list[_Line]:
    """Of the trials that are known."""
    names = plan.names()
    return [
        _Line(
            spec_id=trial.spec_id,
            name=names[trial.spec_id],
            price=_price(prices, trial.spec.model, trial.spec.recipe, trains=trial.spec.weights is None),
            state=_state(trial),
            runs=finished_result(trial) is None,
        )
        for trial in plan.trials
    ]


def _line_to_come(node: Node, prices: PriceList, *, with_lmbda: bool) -> _Line:
    """Of a trial that needs results of others; one that is made to match has the price of its full width."""
    state = f"run: after {' and '.join(other.stage.name for other in node.waits_for)}"
    if node.is_fitted:
        state += f"; at most this, decided by {node.fitted_by}"
    return _Line(
        spec_id="",
        name=f"{node.name} lmbda {node.lmbda:g}" if with_lmbda else node.name,
        price=_price(prices, node.model, node.budget.recipe, trains=not node.stage.measure),
        state=state,
        runs=True,
    )


def _price(prices: PriceList, model: ModelSpec, recipe: Recipe, *, trains: bool) -> Price:
    price = prices.price(model, recipe)
    return price if trains else dataclasses.replace(price, training_px=0)


def _finished_summary(trial: PlannedTrial) -> Summary | None:
    result = finished_result(trial)
    return None if result is None else summary(result)


def _precision(settings: Settings) -> tuple[Precision, str]:
    known = known_precision(settings)
    if known is not None:
        return known, "as asked" if settings.budget.precision == known else "as in this sweep so far"
    from rdc.machine import probe

    found = probe()
    gain = f"a probe of this machine: bf16 is {found['bf16_speedup']:.1f} times as fast as fp32"
    return precision_by_probes([found]), gain


def _row(line: _Line, speed: Speed) -> tuple[str, ...]:
    return (
        line.spec_id or "not known yet",
        line.name,
        f"{line.price.params / 1e6:.2f}",
        f"{line.price.kflop_per_px_dec:.1f}",
        f"{line.price.training_pflop:.3g}",
        duration(speed.seconds(line.price)) if line.runs else "-",
        line.state,
    )


def _state(trial: PlannedTrial) -> str:
    finished = finished_result(trial)
    if finished is not None:
        return f"skip: has a result ({finished['status']})"
    failed = read_any(trial.folder)
    if failed is not None:
        cause = (failed.get("error") or {}).get("class", "unknown cause")
        return f"run: failed before ({cause})"
    if (trial.folder / "resume.pt").exists():
        return "run: continues from its checkpoint"
    return "run"


def _sums(settings: Settings, lines: Sequence[_Line], speed: Speed) -> str:
    missing = [line for line in lines if line.runs]
    seconds = [speed.seconds(line.price) for line in missing]
    slots = _slots(settings)
    # With fewer trials than slots, or one very long one, the longest decides.
    expected_s = max([sum(seconds) / slots, *seconds], default=0.0)
    pflop = sum(line.price.training_pflop for line in missing)
    return (
        f"{len(missing)} of {len(lines)} trials would run, {pflop:.3g} PFLOP of training: about "
        f"{duration(expected_s)} on {slots} slots,\nby the speed of {speed.origin}. "
        f"Evaluation and timing come on top.\n{_gpu_hours(pflop, settings.pricing)}"
    )


def _search_sums(plan: SweepPlan, lines: Sequence[_Line], speed: Speed) -> str:
    """The sample's means, times what the search would train."""
    search, size = plan.settings.search, plan.settings.space.space.size
    count = search.trials * len(plan.settings.seeds)
    pflop = sum(line.price.training_pflop for line in lines) / len(lines) * count
    seconds = sum(speed.seconds(line.price) for line in lines) / len(lines) * count
    slots = _slots(plan.settings)
    points = "a continuous space" if size is None else f"a space of {size} points"
    return (
        f"search={search.name} by {search.wanted.text} would train {search.trials} architectures\n"
        f"of {points}; "
        f"the {len(lines)} trials above are a random sample of it.\n"
        f"{count} trials like these, {pflop:.3g} PFLOP of training: about {duration(seconds / slots)} on "
        f"{slots} slots, by the speed of {speed.origin}. Evaluation and timing come on top.\n"
        f"{_gpu_hours(pflop, plan.settings.pricing)}"
    )


def _gpu_hours(pflop: float, pricing: PricingSettings) -> str:
    hours = pflop * 1000 / (pricing.peak_tflops * pricing.utilisation) / 3600
    return (
        f"by operations alone: {hours:,.3g} hours of one {pricing.gpu} reaching {pricing.utilisation:.0%} "
        f"of {pricing.peak_tflops:g} TFLOP/s (pricing.gpu, pricing.utilisation, pricing.peak_tflops)"
    )


def _slots(settings: Settings) -> int:
    if settings.cluster.name == "inline":
        return 1
    here = len(os.sched_getaffinity(0)) // settings.cluster.cpus_per_trial
    return settings.cluster.slots or max(1, here)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned: words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    words = {0, 1, len(widths) - 1}
    return [
        "  ".join(
            cell.ljust(w) if i in words else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
