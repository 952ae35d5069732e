"""The Markdown descriptions of runs and experiment: the verdict first, because MLflow folds what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweep.tracking.content import file_metrics
from sweep.tracking.public import public_text

# Column of frontier.csv -> its head in the description.
FRONTIER_HEADS = {
    "label": "architecture",
    "kflop_per_px_dec": "kFLOP/px",
    "rd_loss": "rd_loss",
    "bpp": "bpp",
    "psnr_db": "PSNR dB",
    "rate_saving_vs_bpg_pct": "saves % vs BPG",
    "time_dec_total_ms": "decode ms",
    "params_m": "M params",
}

HOW_TO_READ = (
    "rd_loss = mean over the evaluation images of coded bpp + lmbda * 255^2 * MSE; lower is better. "
    "kFLOP/px = thousand floating-point operations per pixel to decode (2 per multiply-accumulate). "
    "A trial is on the frontier when no other has both a lower rd_loss and a lower decode cost. "
    "Plots and tables are under Artifacts; frontier.csv there holds the same numbers as the runs."
)

EXPERIMENT_NOTE = """\
**Sweeps of neural image codecs.** One run per trained codec, coloured by family; one parent run per sweep.

| metric | meaning |
|---|---|
| eval/rd_loss | mean over the evaluation images of coded bpp + lmbda * 255^2 * MSE; lower is better |
| eval/bpp | bits of the coded file, header included, per source pixel |
| eval/psnr_db | mean of the per-image RGB PSNR of the 8-bit reconstruction |
| cost/kflop_per_px_dec | thousand floating-point operations per pixel to decode (2 per multiply-accumulate) |
| time/dec_total_ms | median decode time with nothing else on the machine, entropy decoding included |
| train/..., val/... | curves by training step, with the estimated instead of the coded rate |
"""


def trial_note(result: Mapping[str, Any], ranking: Mapping[str, str] | None = None) -> str:
    """ranking: the trial's `ranking_tags`, once the analysis has compared the trials."""
    if result["status"] == "failed":
        error = result.get("error") or {}
        what = public_text(f"{error.get('class', 'unknown')}: {error.get('message', '')}")
        return f"**Failed:** {what}. See log.txt under Artifacts."
    evaluation = result.get("evaluation") or {}
    on_images = f"{evaluation.get('dataset', 'unknown images')} ({evaluation.get('images', '?')} images)"
    lines = [f"{_verdict(result['status'], ranking)} {_numbers(result)} on {on_images}."]
    training = result.get("training") or {}
    share, slope = training.get("percent_of_paper_steps"), training.get("rd_loss_slope_per_1k_steps")
    if share is not None:
        still = ""
        if slope is not None:
            still = f"; at the end the validation rd_loss changed by {slope:+.3g} per 1,000 steps"
        lines.append(f"Trained {training['steps']:,} steps, {share:.3g} % of the paper's{still}.")
    return "\n\n".join(lines)


def open_note(status: str, step: int | None, steps: int | None) -> str:
    """Of a trial without a result. status: its tag. step: the last one that is known, of steps in all."""
    if status == "running":
        return ""
    reached = f" at step {step:,}" + (f" of {steps:,}" if steps else "") if step else ""
    if status == "paused":
        return (
            f"**Stopped early by the search{reached}.** It keeps its checkpoint, and may be promoted later."
        )
    return f"**Interrupted{reached}.** The same command goes on from its checkpoint."


def sweep_note(
    valid: int,
    planned: int,
    best: Mapping[str, Any] | None,
    frontier: Sequence[Mapping[str, str]],
    *,
    stopped: int = 0,
    search: Mapping[str, Any] | None = None,
) -> str:
    """valid: trials with a valid point. best: the result of the lowest rd_loss, where that can be said.

    frontier: rows of frontier.csv; none while the sweep runs. stopped: trials that a search stopped early.
    search: the group of the configuration; None for a grid.
    """
    verdict = f"{valid} of {planned} trials gave a valid point"
    verdict += f", {stopped} were stopped early" if stopped else ""
    verdict = f"**{verdict}{f'; on the frontier: {len(frontier)}' if frontier else ''}.**"
    if best is not None:
        verdict += f" Lowest rd_loss: {best['label']}, {_numbers(best)}."
    if search is not None:
        verdict += f" Chosen by {search.get('name')} for {', '.join(search.get('objectives') or ())}."
    parts = [verdict]
    if frontier:
        shown = [name for name in FRONTIER_HEADS if any(row.get(name) for row in frontier)]
        rows = [[_cell(row[name]) for name in shown] for row in frontier]
        parts.append(_table([FRONTIER_HEADS[name] for name in shown], rows))
    return "\n\n".join([*parts, HOW_TO_READ])


def _verdict(status: str, ranking: Mapping[str, str] | None) -> str:
    if status != "ok":
        return f"**Not valid ({status.replace('_', ' ')}): stays off the frontier.**"
    if ranking is None:
        return "**Finished.**"
    verdicts = {
        "yes": "On the frontier.",
        "no": f"Dominated by {ranking['dominated_by']}.",
        "n/a": "Not compared with the others.",
    }
    return f"**{verdicts[ranking['frontier']]}**"


def _numbers(result: Mapping[str, Any]) -> str:
    values = file_metrics(result, "result")
    shown = (
        ("eval/rd_loss", "rd_loss {:.4f}"),
        ("cost/kflop_per_px_dec", "{:.1f} kFLOPs/px to decode"),
        ("eval/bpp", "{:.3f} bpp"),
        ("eval/psnr_db", "{:.2f} dB PSNR"),
    )
    return ", ".join(text.format(values[key]) for key, text in shown if key in values)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # MLflow sets columns tight against each other, hence the wide space at each cell's end.
    lines = [f"| {' &emsp; | '.join(cells)} &emsp; |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _cell(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text
