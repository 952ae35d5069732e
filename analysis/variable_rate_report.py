"""The report on models of variable rate: two tables, two figures and the text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import text
from analysis.curves import rows_of
from analysis.files import write_csv
from analysis.load import Source
from analysis.variable_rate import Arm, Comparison, VariableModel, variable_models, work_kmac_per_px
from analysis.variable_rate_bytes import ByteSteps, Violation
from analysis.variable_rate_figures import draw_bytes, draw_rd
from analysis.variable_rate_published import COMPRESSAI, PUBLISHED_PCT, compressai_saving_pct
from analysis.variable_rate_text import report_text, summary_text


@dataclasses.dataclass(frozen=True)
class VariableRateReport:
    """table: one row per model and arm. points: one per rate of each. text: what was printed."""

    models: tuple[VariableModel, ...]
    table: pd.DataFrame
    points: pd.DataFrame
    files: tuple[Path, ...]
    text: str


def report(source: Source, folder: Path, *, print_table: bool = True) -> VariableRateReport:
    """Compute, write, draw and print; the output folder is made if needed."""
    models = variable_models(source)
    table, points = comparison_table(models), point_table(models)
    files = (
        write_csv(table, folder / "variable_rate.csv"),
        write_csv(points, folder / "variable_rate_points.csv"),
        draw_rd(models, folder),
        *draw_bytes(models, folder),
    )
    printed = report_text(source, models, files)
    if print_table:
        print(printed)
    return VariableRateReport(tuple(models), table, points, files, printed)


def write(source: Source, folder: Path) -> str:
    """The same at the end of a sweep, where a few lines are enough."""
    found = report(source, folder, print_table=False)
    return f"{summary_text(found.models)}\n{text.files_line(found.files)}"


def comparison_table(models: Sequence[VariableModel]) -> pd.DataFrame:
    """One row per model and arm; a model without arms has one row with its own numbers."""
    rows = []
    for model in models:
        own = _about(model)
        rows += [own | _of_arm(arm) for arm in model.arms] or [own]
    return pd.DataFrame(rows)


def _about(model: VariableModel) -> dict[str, Any]:
    curve = model.curve
    judged = [steps for steps in model.steps if not steps.refused]
    gaps = curve.rows["rate_gap_pct"].dropna()
    known = model.entropy_model in COMPRESSAI
    return {
        **{name: curve.values(name)[0] for name in ("label", "arch_id", "curve_id", "budget_id", "dataset")},
        "eval_images": curve.values("eval_images")[0],
        "percent_of_paper_steps": curve.values("percent_of_paper_steps")[0],
        "rates": len(curve.values("lmbda")),
        "params": round(model.params),
        "steps": model.cost.steps,
        "train_images": model.cost.images,
        "train_wall_s": model.cost.wall_s,
        "kmac_per_px_enc": work_kmac_per_px(curve)[0],
        "kmac_per_px_dec": work_kmac_per_px(curve)[1],
        "mean_bytes_violations": sum(len(steps.mean_violations()) for steps in judged) if judged else None,
        "mean_bytes_steps": sum(steps.steps for steps in judged) if judged else None,
        "first_violation_lmbda": _first_lmbda(judged),
        "image_violations": sum(len(steps.image_violations()) for steps in judged) if judged else None,
        "image_steps": sum(steps.steps * len(steps.images) for steps in judged) if judged else None,
        "largest_image_fall_pct": _largest_fall(judged),
        "rate_gap_low_pct": gaps.min() if len(gaps) else None,
        "rate_gap_high_pct": gaps.max() if len(gaps) else None,
        "published_saving_pct": PUBLISHED_PCT.get(model.entropy_model),
        "compressai_saving_pct": compressai_saving_pct(model.entropy_model) if known else None,
    }


def _first_lmbda(judged: Sequence[ByteSteps]) -> float | None:
    found: list[Violation] = [violation for steps in judged for violation in steps.mean_violations()]
    return min((violation.lmbda for violation in found), default=None)


def _largest_fall(judged: Sequence[ByteSteps]) -> float | None:
    return max((v.fall_pct for steps in judged for v in steps.image_violations()), default=None)


def _of_arm(arm: Arm) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "role": arm.role,
        "arm_curve_id": arm.curve.curve_id,
        "arm_budget_id": arm.curve.budget_id,
        "arm_models": len(arm.curve.values("lmbda")),
        "arm_missing": "; ".join(arm.missing),
        "arm_params": round(arm.params),
        "storage_saving_pct": arm.saving_pct,
        "arm_steps_each": arm.cost.steps_each,
        "arm_steps": arm.cost.steps,
        "arm_train_images": arm.cost.images,
        "arm_train_wall_s": arm.cost.wall_s,
        "arm_kmac_per_px_enc": work_kmac_per_px(arm.curve)[0],
        "arm_kmac_per_px_dec": work_kmac_per_px(arm.curve)[1],
        **_numbers("", arm.shared),
        **_numbers("all_", arm.every),
        "note": arm.note,
    }


def _numbers(prefix: str, found: Comparison) -> dict[str, Any]:
    """prefix: all_ for every rate of the variable model, none for those at the arm's lmbdas."""
    spread = found.images
    return {
        f"{prefix}points": found.points,
        f"{prefix}bd_rate_pct": found.bd_rate_pct,
        f"{prefix}range_low_db": found.psnr_low_db,
        f"{prefix}range_high_db": found.psnr_high_db,
        f"{prefix}overlap_pct": found.overlap_pct,
        f"{prefix}left_out": "; ".join(found.left_out),
        f"{prefix}refused": found.refused,
        f"{prefix}images": found.image_count,
        f"{prefix}image_mean_pct": spread and spread.mean,
        f"{prefix}image_ci95_low_pct": spread and spread.low,
        f"{prefix}image_ci95_high_pct": spread and spread.high,
        f"{prefix}images_refused": found.images_refused,
    }


_POINT = ("lmbda", "lmbda_code", "bpp", "psnr_db", "rate_gap_pct", "rd_loss", "steps", "params_m", "spec_id")


def point_table(models: Sequence[VariableModel]) -> pd.DataFrame:
    """One row per model, arm and lmbda, by rising lmbda; the variable model's own arm is called variable."""
    parts = []
    for model in models:
        own = rows_of([model.curve]).sort_values("lmbda")[list(_POINT)]
        own.insert(0, "arm", "variable")
        own["trained_lmbda"] = own["lmbda"].isin(model.trained)
        # Of several seeds the points are means, and no file has the mean of their bytes.
        single = model.steps[0] if len(model.steps) == 1 and not model.steps[0].refused else None
        mean = dict(zip(single.lmbdas, single.mean_bytes, strict=True)) if single else {}
        own["mean_bytes"] = own["lmbda"].map(mean)
        for arm in model.arms:
            rows = rows_of([arm.curve]).sort_values("lmbda")[list(_POINT)]
            rows.insert(0, "arm", arm.name)
            parts.append(rows.assign(model=model.name))
        parts.append(own.assign(model=model.name))
    table = pd.concat(parts, ignore_index=True)
    return table[["model", "arm", *_POINT, "trained_lmbda", "mean_bytes"]]
