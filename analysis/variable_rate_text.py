"""What `python -m analysis variable_rate` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import text
from analysis.curves import TrialCurve, rows_of
from analysis.load import Source
from analysis.variable_rate import ROLE_TEXT, Arm, Cost, Role, VariableModel, work_kmac_per_px
from analysis.variable_rate_bytes import ByteSteps, Violation
from analysis.variable_rate_published import (
    COMPRESSAI,
    MODULATOR_HIDDEN,
    PUBLISHED_PCT,
    Widths,
    compressai_saving_pct,
)

# Arms without which the comparison is not whole.
_WANTED: tuple[Role, ...] = ("each", "total")


def report_text(source: Source, models: Sequence[VariableModel], files: Sequence[Path]) -> str:
    """Every model by itself, then what all of it rests on."""
    lines = [text.paragraph("note", note) for note in (*source.problems, *source.notes)]
    lines.append(f"Variable rate in {source.name}\n")
    for model in models:
        lines += [*_of_model(model), ""]
    rows = rows_of([curve for model in models for curve in (model.curve, *(arm.curve for arm in model.arms))])
    lines += [
        text.paragraph(
            "BD-rate",
            "mean rate change of the variable model at equal PSNR against the fixed-rate ones, negative is "
            "better; pchip over the PSNR range that both reach, curves of means over the images; images: "
            "mean over one comparison per image, with the 95 % interval of that mean",
        ),
        text.paragraph("gap", "100 (coded - estimated) / estimated bits, both summed over the images"),
        *_undertrained(rows),
    ]
    sets = rows.drop_duplicates(["dataset", "eval_images"])
    named = [
        f"{row['dataset'] or 'not named'} ({text.cell(row['eval_images'], '.0f')} images)"
        for row in sets.to_dict("records")
    ]
    lines.append(text.paragraph("evaluated on", ", ".join(named)))
    return "\n".join([*lines, text.files_line(files)])


def summary_text(models: Sequence[VariableModel]) -> str:
    """A few lines per model, for the end of a sweep."""
    lines = []
    for model in models:
        rates = len(model.curve.values("lmbda"))
        if rates == 1:
            continue
        lines.append(f"variable rate: {model.name}, {rates} rates")
        lines += [text.paragraph("  against", _against(arm)) for arm in model.arms]
        lines += _lacking(model) + [_rising(steps) for steps in model.steps]
    return "\n".join(lines)


def _of_model(model: VariableModel) -> list[str]:
    rates = len(model.curve.values("lmbda"))
    if rates == 1:
        only = (
            f"{model.name}: measured at one rate only, lmbda {model.curve.values('lmbda')[0]:g}; nothing to"
        )
        more = "compare; a stage with measure=true measures more (docs/stages.md)"
        return [text.paragraph("one rate", f"{only} {more}")]
    lines = [f"{model.name}: {rates} rates of one model", _points(model), ""]
    if model.arms:
        lines += [_comparisons(model), ""]
    lines += [_costs(model), "", *_reasons(model), *_lacking(model)]
    lines += [*_storage(model), *map(_rising, model.steps), _gaps(model)]
    if model.unused:
        lines.append(text.paragraph("left out", text.some(model.unused, 6, "; ")))
    return lines


def _points(model: VariableModel) -> str:
    """The rates of all arms beside each other, by lmbda."""
    heads = [
        ("", "lmbda"),
        ("", "code"),
        ("mean", "bytes"),
        ("variable", "bpp"),
        ("PSNR", "dB"),
        ("gap", "%"),
    ]
    for arm in model.arms:
        heads += [(text.shorten(arm.name, 14), "bpp"), ("PSNR", "dB")]
    own = _by_lmbda(model.curve.rows)
    arms = [_by_lmbda(arm.curve.rows) for arm in model.arms]
    steps = model.steps[0] if len(model.steps) == 1 and not model.steps[0].refused else None
    bytes_of = dict(zip(steps.lmbdas, steps.mean_bytes, strict=True)) if steps else {}
    falls = {v.next_lmbda for v in steps.mean_violations()} if steps else set()
    body = []
    for lmbda in sorted(set().union(own, *arms)):
        row = own.get(lmbda, {})
        mark = "*" if lmbda in model.trained else ""
        size = text.cell(bytes_of.get(lmbda), ",.0f") + ("!" if lmbda in falls else "")
        cells = [f"{lmbda:.4g}{mark}", text.cell(row.get("lmbda_code"), ".0f"), size]
        cells += [text.cell(row.get(name), form) for name, form in (*_RD, ("rate_gap_pct", "+.2f"))]
        for points in arms:
            cells += [text.cell(points.get(lmbda, {}).get(name), form) for name, form in _RD]
        body.append(cells)
    signs = ["* trained lmbda"] if model.trained else []
    signs += ["! not more bytes than the rate before"] if falls else []
    return "\n".join([text.columns_text(heads, body), *(["; ".join(signs)] if signs else [])])


_RD = (("bpp", ".4f"), ("psnr_db", ".2f"))


def _by_lmbda(rows: pd.DataFrame) -> dict[float, dict[str, object]]:
    return {
        row["lmbda"]: {str(name): value for name, value in row.items()} for row in rows.to_dict("records")
    }


def _comparisons(model: VariableModel) -> str:
    heads = [
        ("variable model", "against"), ("", "models"),
        ("BD-rate %", "same lmbdas"), ("BD-rate %", "all rates"),
        ("over", "dB"), ("of own", "range %"), ("mean over", "images %"), ("95 % of", "that mean"),
    ]  # fmt: skip
    body = []
    for arm in model.arms:
        found, spread = arm.shared, arm.shared.images
        body.append(
            [
                text.shorten(arm.name, 24),
                str(len(arm.curve.values("lmbda"))),
                text.cell(found.bd_rate_pct, "+.2f"),
                text.cell(arm.every.bd_rate_pct, "+.2f"),
                _range(found.psnr_low_db, found.psnr_high_db, ".1f"),
                text.cell(found.overlap_pct, ".0f"),
                text.cell(spread.mean if spread else None, "+.2f"),
                _range(spread.low, spread.high, "+.2f") if spread else "-",
            ]
        )
    return text.columns_text(heads, body)


def _costs(model: VariableModel) -> str:
    heads = [
        ("", "trained"), ("", "models"), ("steps", "each"), ("steps", "in all"), ("crops", "in all"),
        ("wall", "s"), ("parameters", "stored"), ("storage saved", "by variable, %"),
        ("encode", "kMAC/px"), ("decode", "kMAC/px"),
    ]  # fmt: skip
    own = [*_cost_cells(model.cost), text.cell(model.params, ",.0f"), "-", *_work_cells(model.curve)]
    body = [["variable", "1", *own]]
    for arm in model.arms:
        models = str(len(arm.curve.values("lmbda")))
        stored = [text.cell(arm.params, ",.0f"), text.cell(arm.saving_pct, ".2f")]
        cells = [*_cost_cells(arm.cost), *stored, *_work_cells(arm.curve)]
        body.append([text.shorten(arm.name, 24), models, *cells])
    return text.columns_text(heads, body)


def _cost_cells(cost: Cost) -> list[str]:
    numbers = (cost.steps_each, cost.steps, cost.images, cost.wall_s)
    return [text.cell(number, ",.0f") for number in numbers]


def _work_cells(curve: TrialCurve) -> list[str]:
    """Means over the curve's points: with gates they differ from rate to rate."""
    return [text.cell(work, ".1f") for work in work_kmac_per_px(curve)]


def _range(low: float | None, high: float | None, form: str) -> str:
    return "-" if low is None or high is None else f"{low:{form}}..{high:{form}}"


def _against(arm: Arm) -> str:
    count = len(arm.curve.values("lmbda"))
    change = arm.shared.bd_rate_pct
    said = f"BD-rate {change:+.2f} %" if change is not None else f"no BD-rate: {arm.shared.refused}"
    return f"{count} of {arm.name}, {ROLE_TEXT[arm.role]}: {said}; storage {arm.saving_pct:.2f} % less"


def _reasons(model: VariableModel) -> list[str]:
    """Which role each arm has, and why numbers are missing."""
    lines = [text.paragraph("against", f"{arm.name}: {ROLE_TEXT[arm.role]}") for arm in model.arms]
    for arm in model.arms:
        for what, found in (("same lmbdas", arm.shared), ("all rates", arm.every)):
            if found.left_out:
                why = "another point of the curve has less rate and more PSNR"
                lines.append(text.paragraph("left out", f"{what}: {', '.join(found.left_out)}: {why}"))
            if found.refused:
                lines.append(text.paragraph("no BD-rate", f"{arm.name}, {what}: {found.refused}"))
        if arm.shared.images_refused:
            lines.append(text.paragraph("no spread", f"{arm.name}: {arm.shared.images_refused}"))
        if arm.note:
            lines.append(text.paragraph("caution", f"{arm.name}: {arm.note}"))
    return lines


def _lacking(model: VariableModel) -> list[str]:
    """Arms that are not there, and models that an arm lacks."""
    lines = [
        text.paragraph("missing", f"no fixed-rate models that were {ROLE_TEXT[role]}")
        for role in _WANTED
        if model.arm(role) is None
    ]
    return lines + [
        text.paragraph("missing", f"{arm.name} has no good trial at {text.some(arm.missing, 8, '; ')}")
        for arm in model.arms
        if arm.missing
    ]


def _storage(model: VariableModel) -> list[str]:
    """Beside the published number, which is of eight models of two widths."""
    lines = []
    if model.entropy_model in COMPRESSAI:
        low, high = COMPRESSAI[model.entropy_model]
        real = compressai_saving_pct(model.entropy_model)
        lines.append(
            text.paragraph(
                "storage",
                f"published {PUBLISHED_PCT[model.entropy_model]:.2f} % (Yin et al., ICASSP 2022); arithmetic "
                f"from CompressAI's eight models, {_widths(low)} and {_widths(high)} channels, and a "
                f"modulator of {MODULATOR_HIDDEN} hidden units: {real:.2f} %. Ours above counts the "
                "parameters of these trials, whose fixed-rate models are all as wide as the variable one",
            )
        )
    return lines


def _widths(of: Widths) -> str:
    return f"{of.models} of ({of.channels}, {of.latent_channels})"


def _rising(steps: ByteSteps) -> str:
    seed = "" if steps.seed == 0 else f" (seed {steps.seed})"
    if steps.refused:
        return text.paragraph("bytes", f"not judged{seed}: {steps.refused}")
    if not steps.steps:
        return text.paragraph("bytes", f"not judged{seed}: a single rate")
    falls, of_images = steps.mean_violations(), steps.image_violations()
    said = f"mean over {len(steps.images)} images{seed} "
    if falls:
        said += f"does NOT rise strictly: {len(falls)} of {steps.steps} steps; first {_violation(falls[0])}"
    else:
        said += f"rises strictly over all {len(steps.lmbdas)} rates"
    total = steps.steps * len(steps.images)
    said += f"; single images: {len(of_images)} of {total} steps do not rise"
    if of_images:
        worst = max(of_images, key=lambda violation: violation.fall_pct)
        said += f", the largest {worst.image}, {_violation(worst)}"
    if steps.repeated:
        said += f"; {steps.repeated} trials left out whose rate another has"
    return text.paragraph("bytes", said)


def _violation(found: Violation) -> str:
    return (
        f"from lmbda {found.lmbda:.4g} to {found.next_lmbda:.4g}, {found.bytes:,.0f} to "
        f"{found.next_bytes:,.0f} bytes ({-found.fall_pct:+.2f} %)"
    )


def _gaps(model: VariableModel) -> str:
    rows = model.curve.rows.dropna(subset=["rate_gap_pct"])
    if rows.empty:
        return text.paragraph("gap", "coded against estimated bits: not told")
    worst = rows.iloc[int(rows["rate_gap_pct"].abs().argmax())]
    return text.paragraph(
        "gap",
        f"coded against estimated bits over {len(rows)} rates: {rows['rate_gap_pct'].min():+.2f} to "
        f"{rows['rate_gap_pct'].max():+.2f} %, the largest at lmbda {worst['lmbda']:.4g}",
    )


def _undertrained(rows: pd.DataFrame) -> list[str]:
    said = text.undertraining(rows)
    share = rows["percent_of_paper_steps"].max()
    head = "undertrained" if math.isfinite(share) and share < 100 else "training"
    return [text.paragraph(head, said)] if said else []
