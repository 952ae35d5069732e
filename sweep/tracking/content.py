"""What a tracked run says: parameters, metrics, tags and descriptions, read from a sweep's files.

Nothing here knows the tracker's client, so every number a run shows can be tested as a plain value.
"""

from __future__ import annotations

import csv
import getpass
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis import schema
from sweep.tracking.address import redact

PARAM_VALUE_CHARS = 500  # what every MLflow server since 2.0 takes
CURVE_PREFIXES = ("train/", "val/")
# Categorical colours that stay apart for colour-blind readers (Okabe and Ito, without black and yellow).
FAMILY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SWEEP_COLOUR = "#7F7F7F"


class Point(NamedTuple):
    """One value of one metric; t_ms: unix time in milliseconds."""

    key: str
    value: float
    step: int
    t_ms: int


def curve_points(row: Mapping[str, Any]) -> list[Point]:
    """One line of metrics.jsonl -> its finite training and validation values; none for an event."""
    if "step" not in row or "event" in row:
        return []
    return [
        Point(key, float(value), int(row["step"]), round(1000 * row["t"]))
        for key, value in row.items()
        if key.startswith(CURVE_PREFIXES) and _is_finite(value)
    ]


def file_metrics(tree: Mapping[str, Any], origin: str) -> dict[str, float]:
    """Final metrics of a result.json (origin "result") or timing JSON ("timing"), under the schema's keys.

    The values are those of the results table, bit for bit: both read the same column of the same file.
    """
    row = {
        col.name: schema.read_value(tree, col) for col in schema.COLUMNS if col.origin == origin and col.path
    }
    return schema.metrics(row)


def table_metrics(row: Mapping[str, str]) -> dict[str, float]:
    """What a row of trials.csv adds to a trial's result.json: rate savings, and the times of the chosen device."""
    names = [col.name for col in schema.COLUMNS if col.origin != "result" and col.metric]
    return schema.metrics({name: float(row[name]) for name in names if row.get(name)})


def sweep_params(sweep: Mapping[str, Any]) -> dict[str, str]:
    """The sweep's settings, without those of the tracker: its address may hold a password."""
    return params({key: value for key, value in (sweep.get("config") or {}).items() if key != "tracking"})


def params(spec: Mapping[str, Any]) -> dict[str, str]:
    """Flattened trial spec: `transform`, `depth.channels`, `lmbda`; at most 100, each at most 500 characters."""
    flat: dict[str, str] = {}
    for path, value in _flatten(spec):
        name = path.removeprefix("model.").removeprefix("recipe.").removesuffix(".name")
        flat[name] = _shorten(_param_text(value), PARAM_VALUE_CHARS)
    return dict(list(flat.items())[:100])


def trial_tags(trial: Mapping[str, Any], result: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags of a trial's run; `trial` is the plan's entry, `result` its result.json once there is one."""
    spec = trial.get("spec") or {}
    tags = {"spec_id": trial["spec_id"], "family": family(trial, result), "status": "running"}
    if spec:
        tags["data_hash"] = spec.get("eval_data")
        tags["train_data_hash"] = spec.get("train_data")
    if result is not None:
        training, environment = result.get("training") or {}, result.get("environment") or {}
        tags |= {
            "status": result["status"],
            "arch_id": result.get("arch_id"),
            "curve_id": result.get("curve_id"),
            "budget": training.get("budget"),
            "precision": training.get("precision"),
            "device": training.get("device") or environment.get("device"),
            "node": training.get("node"),
            "attempt": str(result.get("attempt", 1)),
            "mlflow.source.git.commit": environment.get("git_revision"),
            "mlflow.note.content": trial_note(result),
        }
    return {key: str(value) for key, value in tags.items() if value not in (None, "")}


def sweep_tags(sweep: Mapping[str, Any]) -> dict[str, str]:
    budget = (sweep.get("config") or {}).get("budget") or {}
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": redact(str(sweep.get("command", ""))),
        "mlflow.source.git.commit": sweep.get("git_revision"),
        "git_dirty": sweep.get("git_dirty"),
        "budget": budget.get("name"),
    }
    return {key: str(value) for key, value in tags.items() if value not in (None, "")}


def datasets(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(role, name, digest, source) of the image sets that made this result."""
    return [
        (role, str(images.get("name")), str(images.get("content_hash")), str(images.get("source", "")))
        for role, images in (result.get("data") or {}).items()
        if isinstance(images, Mapping) and images.get("content_hash")
    ]


def family_colour(name: str) -> str:
    """The same family has the same colour in every sweep."""
    known = {"conv/mean_scale_hyperprior/conv": 0, "conv/scale_hyperprior/conv": 1}
    digest = hashlib.sha256(name.encode()).digest()[0]
    return FAMILY_COLOURS[known.get(name, 2 + digest % (len(FAMILY_COLOURS) - 2))]


def ranking_tags(
    row: Mapping[str, str], result: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, str]:
    """row: the trial's row of trials.csv; labels: arch_id -> label."""
    tags = {
        "frontier": _place(row),
        "dominated_by": labels.get(row.get("dominated_by", ""), ""),
        "mlflow.note.content": trial_note(
            result, {**row, "dominated_by": labels.get(row.get("dominated_by", ""), "")}
        ),
    }
    return tags


def trial_note(result: Mapping[str, Any], ranking: Mapping[str, str] | None = None) -> str:
    """Markdown, the verdict in its first line. ranking: the trial's row of trials.csv, if it is written."""
    if result["status"] == "failed":
        error = result.get("error") or {}
        return f"**Failed:** {error.get('class', 'unknown')}: {error.get('message', '')}. See log.txt under Artifacts."
    values = file_metrics(result, "result")
    evaluation = result.get("evaluation") or {}
    lines = [f"{_verdict(result['status'], ranking)} {_numbers(values)} on {_image_set(evaluation)}."]
    training = result.get("training") or {}
    if "percent_of_paper_steps" in training:
        slope = training.get("rd_loss_slope_per_1k_steps")
        still = "" if slope is None else f"; rd_loss was changing by {slope:+.3g} per 1,000 steps at the end"
        share = training["percent_of_paper_steps"]
        lines.append(f"Trained {training['steps']:,} steps, {share:.3g} % of the paper's{still}.")
    return "\n\n".join(lines)


def sweep_note(
    results: Sequence[Mapping[str, Any]], planned: int, frontier: Sequence[Mapping[str, str]]
) -> str:
    """Markdown for the parent run: verdict, then the frontier as a table, then how to read it."""
    good = [r for r in results if r["status"] == "ok"]
    best = min(good, key=lambda r: r["evaluation"]["rd_loss"], default=None)
    verdict = f"**{len(good)} of {planned} trials gave a valid point"
    verdict += f"; {len(frontier)} are on the frontier.**" if frontier else ".**"
    if best is not None:
        verdict += f" Lowest rd_loss: {best['label']}, {_numbers(file_metrics(best, 'result'))}."
    parts = [verdict]
    if frontier:
        shown = [(name, head) for name, head in NOTE_COLUMNS.items() if any(row.get(name) for row in frontier)]
        lines = [[head for _, head in shown], ["---"] * len(shown)]
        lines += [[_cell(row[name]) for name, _ in shown] for row in frontier]
        # Without them the interface sets the columns tight against each other.
        parts.append("\n".join(f"| {' &emsp; | '.join(line)} |" if line[0] != "---" else "|" + "---|" * len(line) for line in lines))
    parts.append(HOW_TO_READ)
    return "\n\n".join(parts)


EXPERIMENT_NOTE = (
    "**Sweeps of neural image codecs.** One run per trained codec, coloured by family; one parent run per sweep with "
    "its report and plots.\n\n"
    "| metric | meaning |\n|---|---|\n"
    "| eval/rd_loss | mean over the evaluation images of coded bpp + lmbda * 255^2 * MSE; lower is better |\n"
    "| eval/bpp | bits of the coded file, header included, per source pixel |\n"
    "| eval/psnr_db | mean of the per-image RGB PSNR of the 8-bit reconstruction |\n"
    "| cost/kflop_per_px_dec | thousand floating-point operations per pixel to decode, 2 per multiply-accumulate |\n"
    "| time/dec_total_ms | median decode time with nothing else on the machine, entropy decoding included |\n"
    "| train/..., val/... | curves by training step, with the estimated instead of the coded rate |"
)

NOTE_COLUMNS = {
    "label": "architecture",
    "kflop_per_px_dec": "kFLOP/px",
    "rd_loss": "rd_loss",
    "bpp": "bpp",
    "psnr_db": "PSNR dB",
    "rate_saving_vs_bpg_pct": "saves % vs BPG",
    "time_dec_total_ms": "decode ms",
    "params_m": "M params",
}

HOW_TO_READ)
    return "\n\n".join(parts)


EXPERIMENT_NOTE = (
    "**Sweeps of neural image codecs.** One run per trained codec, coloured by family; one parent run per sweep with "
    "its report and plots.\n\n"
    "| metric | meaning |\n|---|---|\n"
    "| eval/rd_loss | mean over the evaluation images of coded bpp + lmbda * 255^2 * MSE; lower is better |\n"
    "| eval/bpp | bits of the coded file, header included, per source pixel |\n"
    "| eval/psnr_db | mean of the per-image RGB PSNR of the 8-bit reconstruction |\n"
    "| cost/kflop_per_px_dec | thousand floating-point operations per pixel to decode, 2 per multiply-accumulate |\n"
    "| time/dec_total_ms | median decode time with nothing else on the machine, entropy decoding included |\n"
    "| train/..., val/... | curves by training step, with the estimated instead of the coded rate |"
)

NOTE_COLUMNS = (
    "label", "kflop_per_px_dec", "rd_loss", "bpp", "psnr_db", "rate_saving_vs_bpg_pct", "time_dec_total_ms", "params_m",
)  # fmt: skip

HOW_TO_READ = (
    "rd_loss = mean over the evaluation images of coded bpp + lmbda * 255^2 * MSE; lower is better. "
    "kFLOP/px = thousand floating-point operations per pixel to decode (2 per multiply-accumulate). "
    "A trial is on the frontier when no other has both a lower rd_loss and a lower decode cost. "
    "Plots and tables are under Artifacts; frontier.csv there holds the same numbers as the runs."
)


def sweep_metrics(results: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The sweep's progress: after the n-th ended trial (step n) how many failed and the best rd_loss so far."""
    points: list[Point] = []
    best, failed = math.inf, 0
    ended = sorted(results, key=lambda r: ((r.get("training") or {}).get("ended_at") or 0.0, r["spec_id"]))
    for number, result in enumerate(ended, start=1):
        t_ms = round(1000 * ((result.get("training") or {}).get("ended_at") or 0.0))
        failed += result["status"] != "ok"
        if result["status"] == "ok":
            best = min(best, result["evaluation"]["rd_loss"])
        points += [Point("sweep/trials_ended", float(number), number, t_ms)]
        points += [Point("sweep/trials_without_valid_point", float(failed), number, t_ms)]
        if math.isfinite(best):
            points.append(Point("sweep/best_rd_loss", best, number, t_ms))
    return points


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV as text; a missing file has none."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _verdict(status: str, ranking: Mapping[str, str] | None) -> str:
    if status != "ok":
        return f"**Not valid ({status.replace('_', ' ')}): stays off the frontier.**"
    if ranking is None:
        return "**Finished.**"
    if ranking.get("on_frontier") == "True":
        return "**On the frontier.**"
    other = ranking.get("dominated_by")
    return f"**Dominated by {other}.**" if other else "**Off the frontier.**"


def _place(row: Mapping[str, str]) -> str:
    if row.get("off_frontier_reason"):
        return "n/a"
    return "yes" if row.get("on_frontier") == "True" else "no"


def _numbers(values: Mapping[str, float]) -> str:
    shown = (
        ("eval/rd_loss", "rd_loss {:.4f}"),
        ("cost/kflop_per_px_dec", "{:.1f} kFLOPs/px to decode"),
        ("eval/bpp", "{:.3f} bpp"),
        ("eval/psnr_db", "{:.2f} dB PSNR"),
    )
    return ", ".join(text.format(values[key]) for key, text in shown if key in values)


def _image_set(evaluation: Mapping[str, Any]) -> str:
    return f"{evaluation.get('dataset', 'unknown images')} ({evaluation.get('images', '?')} images)"


def family(trial: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    if result is not None and result.get("family"):
        return str(result["family"])
    model = (trial.get("spec") or {}).get("model") or {}
    groups = ("transform", "entropy_model", "hyper_transform")
    return "/".join(str((model.get(group) or {}).get("name", "?")) for group in groups) if model else ""


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _param_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        flat = all(isinstance(v, str | int | float) for v in value)
        return "-".join(map(str, value)) if flat else json.dumps(value)
    return str(value)


def _shorten(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _cell(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user id may have no name.
        return "unknown"
