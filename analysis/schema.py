"""The contract of the results table: every column with its unit, direction, origin and counting rule.

The table reader, the frontier, the plots, the export and the experiment tracker all go through COLUMNS,
so that a number has one name, one unit and one meaning wherever it is shown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from analysis.errors import AnalysisError

# The file that the tracker attaches to every trial run, and from which a table is read back.
RESULT_ARTIFACT = "result.json"
# The page that `python -m analysis report` writes beside the results; all text in it is public already.
PAGE_FILE = "report.html"

# A version rises when something that a file holds changes its name or its meaning; what is added does not
# raise it. Older files are upgraded when they are read (analysis.upgrade), newer ones refused.
TABLE_VERSION = 2  # of the table of trials
IMAGE_TABLE_VERSION = 1  # of the table of per-image scores
RESULT_VERSION = 1  # of result.json
TIMING_VERSION = 1  # of a timing JSON
VERSION_COLUMN = "table_version"
HISTORY = (
    ("trials", 2, "`extra_layers` is called `layers`; `table_version` says which version a table has."),
    ("trials", 1, "The first one. Tables without `table_version` are read as version 1."),
    ("images", 1, "The first one."),
    ("runtimes", 1, "The first one."),
    ("result.json", 1, "The first one. `budget_id` and later keys may be missing in old files."),
    ("timing JSON", 1, "The first one."),
)

Origin = Literal["result", "timing", "derived"]
Kind = Literal["text", "int", "float", "bool"]
Direction = Literal["encode", "decode"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the results table.

    origin, path: the dotted place in a trial's result.json ("result") or in its architecture's timing
        JSON ("timing"); "derived" columns are computed by this package and have no path.
    metric: the MLflow metric key under which the tracker logs it; None for what is not a metric.
    divisor: stored value over divisor gives the column's unit.
    gated: the direction by whose `share_left` a count with all channels open is multiplied.
    """

    name: str
    unit: str
    description: str
    kind: Kind = "float"
    better: Literal["low", "high", "-"] = "-"
    origin: Origin = "result"
    path: str = ""
    metric: str | None = None
    divisor: float = 1.0
    gated: Direction | None = None


def _text(name: str, path: str, description: str, *, origin: Origin = "result") -> Column:
    return Column(name=name, unit="-", kind="text", path=path, description=description, origin=origin)


def _number(
    name: str,
    unit: str,
    better: Literal["low", "high", "-"],
    path: str,
    metric: str | None,
    description: str,
    *,
    kind: Kind = "float",
    origin: Origin = "result",
    divisor: float = 1.0,
    gated: Direction | None = None,
) -> Column:
    return Column(
        name=name,
        unit=unit,
        better=better,
        path=path,
        metric=metric,
        description=description,
        kind=kind,
        origin=origin,
        divisor=divisor,
        gated=gated,
    )


def _time(name: str, path: str, metric: str, description: str) -> Column:
    return _number(name, "ms", "low", path, metric, description, origin="timing")


# One column in two or three lines reads better than one argument per line.
# fmt: off
_IDENTITY = (
    _text("spec_id", "spec_id", "Id of the trial: model, recipe, data, precision, lmbda and seed."),
    _text("curve_id", "curve_id", "Id shared by trials that differ only in lmbda and seed."),
    _text("arch_id", "arch_id", "Id of the architecture alone."),
    _text("label", "label", "Short readable name of the architecture."),
    _text("family", "family", "transform/entropy model/hyper-transform."),
    _text("status", "status", "ok, rate_mismatch, decode_mismatch or failed; only ok enters a frontier."),
    _number("lmbda", "1", "-", "spec.lmbda", None, "Weight of 255^2 MSE against bpp in the loss."),
    _number(
        "seed", "1", "-", "spec.seed", None,
        "Random seed; seeds of one curve_id are averaged.", kind="int",
    ),
    _text("transform", "spec.model.transform.name", "Analysis and synthesis transform."),
    _text("entropy_model", "spec.model.entropy_model.name", "Entropy model."),
    _text("hyper_transform", "spec.model.hyper_transform.name", "Hyper-analysis and hyper-synthesis."),
    _text("channels", "spec.model.depth.channels", "Widths of the encoder stages, joined by '-'."),
    _number(
        "latent_channels", "1", "-", "spec.model.depth.latent_channels", None,
        "Channels of the latent y.", kind="int",
    ),
    _text("layers", "spec.model.depth.layers", "Layers of each stage, joined by '-'."),
    _text("stage", "stage", "Stage of the sweep that the trial belongs to; empty where it has none."),
    _text(
        "rate_control", "spec.model.rate_control.name",
        "How the model's rate is set: none (one model per lmbda), or what makes it variable.",
    ),
    _text(
        "trained_lmbdas", "spec.model.rate_control.lmbdas",
        "lmbdas that a model of variable rate is trained for, joined by '-'.",
    ),
    _number(
        "lmbda_code", "1", "-", "evaluation.lmbda_code", None,
        "Rate code of a model of variable rate, 0 to 65535 over its range of lmbda.", kind="int",
    ),
)

_QUALITY = (
    _text(
        "dataset", "evaluation.dataset",
        "Evaluation set; 'kodak' only if its decoded pixels are the known 24.",
    ),
    _text("dataset_hash", "evaluation.dataset_hash", "Content hash of the decoded evaluation images."),
    _number(
        "eval_images", "images", "-", "evaluation.images", None,
        "Size of the evaluation set.", kind="int",
    ),
    _text("eval_source", "data.eval.source", "Where the evaluation images come from."),
    _number(
        "bpp", "bit/px", "low", "evaluation.bpp", "eval/bpp",
        "Coded file, header included, over source pixels; mean over images.",
    ),
    _number(
        "bpp_payload", "bit/px", "low", "evaluation.bpp_payload", "eval/bpp_payload",
        "Entropy coder's bytes alone over source pixels; mean over images.",
    ),
    _number(
        "bpp_estimated", "bit/px", "low", "evaluation.bpp_estimated", "eval/bpp_estimated",
        "-log2 likelihood of the coded symbols, at most what the coder's tables need, over source pixels; "
        "mean over images.",
    ),
    _number(
        "rate_gap_pct", "%", "-", "evaluation.rate_gap_pct", "eval/rate_gap_pct",
        "100 (payload - estimate) / estimate, both summed over the set.",
    ),
    _number(
        "psnr_db", "dB", "high", "evaluation.psnr_db", "eval/psnr_db",
        "Mean of the per-image RGB PSNR, 8-bit rounded reconstruction.",
    ),
    _number(
        "psnr_of_mean_mse_db", "dB", "high", "evaluation.psnr_of_mean_mse_db", "eval/psnr_of_mean_mse_db",
        "RGB PSNR of the mean of the per-image MSE.",
    ),
    _number(
        "mse", "1", "low", "evaluation.mse", "eval/mse",
        "Mean over images of the MSE on the [0, 1] scale, 8-bit rounded reconstruction.",
    ),
    _number(
        "ms_ssim", "1", "high", "evaluation.ms_ssim", "eval/ms_ssim",
        "Mean of the per-image MS-SSIM, 8-bit rounded reconstruction.",
    ),
    _number(
        "ms_ssim_db", "dB", "high", "evaluation.ms_ssim_db", "eval/ms_ssim_db",
        "Mean of the per-image -10 log10(1 - MS-SSIM); not the dB of the mean.",
    ),
    _number(
        "rd_loss", "bit/px", "low", "evaluation.rd_loss", "eval/rd_loss",
        "Mean over images of bpp + lmbda 255^2 mse, coded file and 8-bit rounded pixels.",
    ),
    _number(
        "padded_px_ratio", "1", "-", "evaluation.padded_px_ratio", None,
        "Pixels coded over source pixels; padding costs bits and work.",
    ),
    Column(
        name="rate_saving_vs_bpg_pct", unit="%", better="high", origin="derived",
        metric="eval/rate_saving_vs_bpg_pct",
        description="100 (1 - bpp / bpp of BPG at the same mean PSNR), Kodak only, never extrapolated.",
    ),
    Column(
        name="rate_saving_vs_vtm_pct", unit="%", better="high", origin="derived",
        metric="eval/rate_saving_vs_vtm_pct",
        description="100 (1 - bpp / bpp of VTM at the same mean PSNR), Kodak only, never extrapolated.",
    ),
    Column(
        name="rate_saving_note", unit="-", kind="text", origin="derived",
        description="Why a rate saving is missing; empty where both exist.",
    ),
)

_LEFT = " With gates: times the share of operations that they leave (gating_*)."
_COST = (
    _number(
        "kmac_per_px_dec", "kMAC/px", "low", "complexity.decode.parity_kmac_per_px", "cost/kmac_per_px_dec",
        "Decoder's thousand multiply-accumulates per source pixel, parity count (convolutions and matrix "
        "products at the counted image size)." + _LEFT, gated="decode",
    ),
    _number(
        "kmac_per_px_dec_dense", "kMAC/px", "-", "complexity.decode.parity_kmac_per_px",
        "cost/kmac_per_px_dec_dense",
        "The same with all channels open: what the architecture would cost without its gates.",
    ),
    _number(
        "kflop_per_px_dec", "kFLOP/px", "low", "complexity.decode.parity_kflop_per_px",
        "cost/kflop_per_px_dec",
        "Twice the decoder's kMAC/px.", gated="decode",
    ),
    _number(
        "kmac_per_px_dec_executed", "kMAC/px", "low", "complexity.decode.executed_kmac_per_px",
        "cost/kmac_per_px_dec_executed",
        "Decoder's kMAC/px of the operators that really run." + _LEFT, gated="decode",
    ),
    _number(
        "kflop_per_px_dec_executed", "kFLOP/px", "low", "complexity.decode.executed_kflop_per_px",
        "cost/kflop_per_px_dec_executed",
        "Twice the decoder's executed kMAC/px.", gated="decode",
    ),
    _number(
        "kmac_per_px_enc", "kMAC/px", "low", "complexity.encode.parity_kmac_per_px", "cost/kmac_per_px_enc",
        "Encoder's kMAC/px, parity count." + _LEFT, gated="encode",
    ),
    _number(
        "kmac_per_px_enc_dense", "kMAC/px", "-", "complexity.encode.parity_kmac_per_px",
        "cost/kmac_per_px_enc_dense",
        "The same with all channels open.",
    ),
    _number(
        "kflop_per_px_enc", "kFLOP/px", "low", "complexity.encode.parity_kflop_per_px",
        "cost/kflop_per_px_enc",
        "Twice the encoder's kMAC/px.", gated="encode",
    ),
    _number(
        "kmac_per_px_enc_executed", "kMAC/px", "low", "complexity.encode.executed_kmac_per_px",
        "cost/kmac_per_px_enc_executed",
        "Encoder's kMAC/px of the operators that really run." + _LEFT, gated="encode",
    ),
    _number(
        "params_m", "million", "low", "complexity.params.total", "cost/params_m",
        "Trainable parameters of the whole codec.", divisor=1e6,
    ),
    _number(
        "params_dec_m", "million", "low", "complexity.params.total_without_g_a", "cost/params_without_g_a_m",
        "Trainable parameters without the analysis transform g_a.", divisor=1e6,
    ),
)



def _gated(name: str, unit: str, path: str, description: str) -> Column:
    """Empty for models without gates. No direction: a model without gates would win by having no number."""
    return _number(
        f"gating_{name}", unit, "-", f"evaluation.gating.{path}", f"gating/{name}", description
    )


def _reduction(name: str, description: str) -> Column:
    return Column(
        name=f"gating_{name}", unit="x", origin="derived", metric=f"gating/{name}", description=description
    )


def _counts(short: str, long: Direction, coder: str) -> tuple[Column, ...]:
    rate = f"{long}_kmac_per_px"
    return (
        _gated(
            f"kmac_per_px_{short}", "kMAC/px", f"{rate}.mean",
            f"{coder}'s kMAC/px of the operators that ran, closed channels left out: counted while each "
            "evaluation image was coded; mean over images.",
        ),
        _gated(
            f"kmac_per_px_{short}_std", "kMAC/px", f"{rate}.std",
            "Standard deviation of the same over images.",
        ),
        _gated(
            f"kmac_per_px_{short}_masks", "kMAC/px", f"{rate}_by_masks.mean",
            "Theoretical: the count with all channels open less what the gates closed; mean over images.",
        ),
        _gated(
            f"kmac_per_px_{short}_dense", "kMAC/px", f"dense_{rate}",
            "With all channels open, on the same images; mean over images.",
        ),
        _gated(
            f"kmac_per_px_{short}_conv", "kMAC/px", f"conv_{rate}",
            "Of the transforms' convolutions alone, closed channels left out; mean over images.",
        ),
        _gated(
            f"kmac_per_px_{short}_conv_dense", "kMAC/px", f"dense_conv_{rate}",
            "The same with all channels open.",
        ),
    )


_GATING = (
    _text(
        "gating", "spec.model.gating.name",
        "Which input channels its convolutions compute: none (all), ecg (by energy, per image) or static.",
    ),
    _gated(
        "sparsity", "1", "sparsity",
        "Share of the gated convolutions' MACs that closed channels would take; over all images.",
    ),
    _gated(
        "natural_sparsity", "1", "natural_sparsity",
        "Share of those MACs for channels that are zero everywhere, without which nothing changes; not "
        "known for static.",
    ),
    _gated(
        "learned_sparsity", "1", "learned_sparsity",
        "Share of those MACs for channels that carry something and are closed; not known for static.",
    ),
    *_counts("enc", "encode", "Encoder"),
    *_counts("dec", "decode", "Decoder"),
    _reduction("reduction", "Encoder and decoder, all channels open over what ran (means over images)."),
    _reduction("reduction_dec", "The same of the decoder alone."),
    _reduction("reduction_dec_masks", "Theoretical: the same of the decoder, by masks."),
    _reduction("conv_reduction", "Encoder and decoder, convolutions of the transforms alone."),
    _reduction("conv_reduction_dec", "The same of the decoder alone."),
)

_TRAINING = (
    _text("budget", "training.budget", "Name of the training budget."),
    Column(
        name="budget_id", unit="-", kind="text", origin="derived",
        description="Id of trials trained alike: code, recipe, precision, training images, warm start.",
    ),
    _number(
        "semantics_version", "1", "-", "environment.semantics_version", None,
        "Raised when code changes the results of the same specification.", kind="int",
    ),
    _number("steps", "steps", "-", "training.steps", None, "Optimiser steps.", kind="int"),
    _number(
        "batch_size", "images", "-", "training.batch_size", None,
        "Crops per optimiser step.", kind="int",
    ),
    _number("crop_px", "px", "-", "training.crop_px", None, "Side of the square training crops.", kind="int"),
    _text("precision", "training.precision", "Arithmetic of the transforms in training: fp32 or bf16."),
    _text("train_data", "data.train.name", "Training set."),
    _text("train_data_hash", "data.train.content_hash", "Content hash of the decoded training images."),
    _number(
        "train_images", "images", "-", "data.train.images", None,
        "Size of the training set.", kind="int",
    ),
    _text("train_source", "data.train.source", "Where the training images come from."),
    _text(
        "warm_start", "spec.warm_start.spec_id",
        "Trial whose weights this one started from; empty if none.",
    ),
    _text(
        "weights_sha256", "spec.weights.checkpoint_sha256",
        "SHA-256 of the checkpoint whose weights were measured as they are; empty where the trial trained.",
    ),
    _text("train_device", "training.device", "Device that trained."),
    _number("train_wall_s", "s", "low", "training.wall_s", "cost/train_wall_s", "Wall time of training."),
    _number(
        "ended_at", "s", "-", "training.ended_at", None,
        "When training ended, in seconds since 1970-01-01 UTC.",
    ),
    _number(
        "percent_of_paper_steps", "%", "-", "training.percent_of_paper_steps",
        "budget/percent_of_paper_steps",
        "Steps over the study's 2,000,000.",
    ),
    _number(
        "percent_of_paper_pixels", "%", "-", "training.percent_of_paper_pixels",
        "budget/percent_of_paper_pixels",
        "Training pixels over the study's 2,000,000 x 32 crops of 256 x 256.",
    ),
    _number(
        "rd_loss_slope_per_1k_steps", "bit/px per 1k steps", "-", "training.rd_loss_slope_per_1k_steps",
        "budget/rd_loss_slope_per_1k_steps",
        "Change of the validation rd_loss over the last 20 % of the steps; negative: still improving.",
    ),
    _number(
        "val_rd_loss", "bit/px", "low", "training.val_rd_loss", "val/final_rd_loss",
        "rd_loss with the estimated rate on held-out training images.",
    ),
    _number(
        "peak_memory_mb", "MB", "low", "training.peak_memory_mb", "cost/peak_memory_mb",
        "Peak memory of training.",
    ),
    _number(
        "rollbacks", "1", "-", "training.rollbacks", None,
        "Returns to an earlier state in training.", kind="int",
    ),
    _number("attempt", "1", "-", "attempt", None, "How often the trial was started.", kind="int"),
    _text("git_revision", "environment.git_revision", "Revision of the code that ran."),
    _text("error_class", "error.class", "Class of the error that ended a failed trial."),
    _text("error_message", "error.message", "Its text."),
)


_TIME = (
    _text("time_device", "device", "Device of the timing columns.", origin="timing"),
    _number(
        "time_threads", "threads", "-", "threads", None,
        "CPU threads in timing.", kind="int", origin="timing",
    ),
    _text("time_precision", "precision", "Arithmetic in timing.", origin="timing"),
    _text("time_image_px", "image_px", "Height-width of the timed image.", origin="timing"),
    _text("time_image", "image", "Which image was timed, and what of it.", origin="timing"),
    _number(
        "time_load", "1", "-", "load_average_before", None,
        "Load of the machine in the minute before; what runs beside a timing makes it slower and uneven.",
        origin="timing",
    ),
    Column(
        name="time_alone", unit="-", kind="bool", origin="timing", path="alone",
        description="Whether nothing else ran on the node.",
    ),
    _time(
        "time_dec_net_ms", "decode.network_ms.median", "time/dec_net_ms",
        "Median decode time of the networks.",
    ),
    _time(
        "time_dec_entropy_ms", "decode.entropy_ms.median", "time/dec_entropy_ms",
        "Median entropy decoding time.",
    ),
    _time(
        "time_dec_total_ms", "decode.total_ms.median", "time/dec_total_ms",
        "Median decode time, coding included.",
    ),
    _time(
        "time_dec_total_q25_ms", "decode.total_ms.q25", "time/dec_total_q25_ms",
        "Lower quartile of the same.",
    ),
    _time(
        "time_dec_total_q75_ms", "decode.total_ms.q75", "time/dec_total_q75_ms",
        "Upper quartile of the same.",
    ),
    _time(
        "time_enc_net_ms", "encode.network_ms.median", "time/enc_net_ms",
        "Median encode time of the networks.",
    ),
    _time(
        "time_enc_entropy_ms", "encode.entropy_ms.median", "time/enc_entropy_ms",
        "Median entropy encoding time.",
    ),
    _time(
        "time_enc_total_ms", "encode.total_ms.median", "time/enc_total_ms",
        "Median encode time, coding included.",
    ),
)

# fmt: on

# In every row, because spreadsheets keep columns and lose comments and files beside a table.
_VERSION = Column(
    name=VERSION_COLUMN,
    unit="1",
    kind="int",
    origin="derived",
    description="Version of the table's columns.",
)

COLUMNS: tuple[Column, ...] = (*_IDENTITY, *_QUALITY, *_COST, *_GATING, *_TIME, *_TRAINING, _VERSION)

FRONTIER_COLUMNS: tuple[Column, ...] = (
    Column(
        name="on_frontier",
        unit="-",
        kind="bool",
        origin="derived",
        description="Whether the trial's architecture is on the frontier.",
    ),
    Column(
        name="dominated_by",
        unit="-",
        kind="text",
        origin="derived",
        description="arch_id of the frontier architecture that is nowhere worse and somewhere better.",
    ),
    Column(
        name="frontier_rank",
        unit="1",
        kind="int",
        origin="derived",
        description="0 on the frontier, 1 on the frontier of what remains without it, and so on.",
    ),
    Column(
        name="is_knee",
        unit="-",
        kind="bool",
        origin="derived",
        description="Whether it is the frontier point farthest below the chord between the frontier's ends, "
        "each objective normalised, costs by their logarithm; two objectives only.",
    ),
    Column(
        name="on_epsilon_frontier",
        unit="-",
        kind="bool",
        origin="derived",
        description="Whether it represents the frontier to within epsilon; empty where none was asked for.",
    ),
    Column(
        name="frontier_probability",
        unit="1",
        origin="derived",
        description="Share of the bootstrap resamples of the evaluation images (and of seeds where there are "
        "several) in which it is on the frontier.",
    ),
    Column(
        name="rd_loss_low",
        unit="bit/px",
        origin="derived",
        description="2.5 % point of the architecture's mean rd_loss over the same resamples.",
    ),
    Column(
        name="rd_loss_high",
        unit="bit/px",
        origin="derived",
        description="97.5 % point of the same.",
    ),
    Column(
        name="off_frontier_reason",
        unit="-",
        kind="text",
        origin="derived",
        description="Why it was not compared: its status, or another evaluation set, budget or lmbda.",
    ),
)


def column(name: str) -> Column:
    """The column of that name; an unknown name lists the choices."""
    for known in (*COLUMNS, *FRONTIER_COLUMNS):
        if known.name == name:
            return known
    raise AnalysisError(f"there is no column {name!r}; columns: {', '.join(c.name for c in COLUMNS)}")


def objective_names() -> list[str]:
    """Columns that have a direction and can therefore be objectives."""
    return [c.name for c in COLUMNS if c.better != "-"]


def read_path(tree: Mapping[str, Any], path: str) -> Any:
    """tree["a"]["b"] for path "a.b"; None where a part is missing or null."""
    value: Any = tree
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def read_value(tree: Mapping[str, Any], col: Column) -> Any:
    """The column's value in a result or timing tree, in the column's type; None where it is missing."""
    value = read_path(tree, col.path)
    if value is None:
        return None
    if col.kind == "text":
        return "-".join(map(str, value)) if isinstance(value, list) else str(value)
    if col.kind == "int":
        return len(value) if isinstance(value, list) else int(value)
    if col.kind == "bool":
        return bool(value)
    if col.gated is not None:
        left = share_left(tree, col.gated)
        return None if left is None else float(value) * left
    return float(value) / col.divisor


def share_left(tree: Mapping[str, Any], direction: Direction) -> float | None:
    """Operations that a result's gates left over those with all channels open, over its evaluation images.

    1 without gates; None where there are gates and nothing says what they closed.
    """
    if read_path(tree, "spec.model.gating.name") in (None, "none"):
        return 1.0
    counts = read_path(tree, "evaluation.gating") or {}
    ran, dense = (
        read_path(counts, path)
        for path in (f"{direction}_kmac_per_px.mean", f"dense_{direction}_kmac_per_px")
    )
    return None if ran is None or not dense else float(ran) / float(dense)


def metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """A table row -> MLflow metric key: value, finite values only."""
    found = {}
    for col in COLUMNS:
        value = row.get(col.name)
        if col.metric is not None and isinstance(value, (int, float)) and math.isfinite(value):
            found[col.metric] = float(value)
    return found
