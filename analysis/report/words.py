"""Names for people, and the sentences on what the numbers rest on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import text
from analysis.public import public_text
from analysis.schema import column

# Every column that can be an axis, and what is told of a frontier, in words; units are in analysis.schema.
NAMES = {
    "bpp": "Rate of the coded file",
    "bpp_payload": "Rate without the file's header",
    "bpp_estimated": "Estimated rate",
    "psnr_db": "PSNR",
    "psnr_of_mean_mse_db": "PSNR of the mean error",
    "mse": "Mean squared error",
    "ms_ssim": "MS-SSIM",
    "ms_ssim_db": "MS-SSIM in decibels",
    "rd_loss": "Rate-distortion loss",
    "rate_saving_vs_bpg_pct": "Rate saving against BPG",
    "rate_saving_vs_vtm_pct": "Rate saving against VTM",
    "kmac_per_px_dec": "Decode work in MACs",
    "kflop_per_px_dec": "Decode work",
    "kmac_per_px_dec_executed": "Executed decode work in MACs",
    "kflop_per_px_dec_executed": "Executed decode work",
    "kmac_per_px_enc": "Encode work in MACs",
    "kflop_per_px_enc": "Encode work",
    "kmac_per_px_enc_executed": "Executed encode work in MACs",
    "params_m": "Parameters",
    "params_dec_m": "Parameters without analysis transform",
    "time_dec_net_ms": "Decode time of the networks",
    "time_dec_entropy_ms": "Entropy decoding time",
    "time_dec_total_ms": "Decode time",
    "time_dec_total_q25_ms": "Decode time, lower quartile",
    "time_dec_total_q75_ms": "Decode time, upper quartile",
    "time_enc_net_ms": "Encode time of the networks",
    "time_enc_entropy_ms": "Entropy encoding time",
    "time_enc_total_ms": "Encode time",
    "train_wall_s": "Training time",
    "val_rd_loss": "Validation loss, estimated rate",
    "peak_memory_mb": "Peak memory of training",
    "frontier_probability": "P(on the frontier)",
    "rd_loss_low": "Rate-distortion loss, 2.5 % point",
    "rd_loss_high": "Rate-distortion loss, 97.5 % point",
    "frontier_rank": "Frontier's rank",
}
RULES = (
    "Rates are bits of the whole coded file, header included, over source pixels; PSNR, MS-SSIM and rd_loss "
    "are computed per image on pixels clipped and rounded to 8 bits, then averaged over the images.",
    "rd_loss is bpp + lmbda 255² MSE, the quantity a codec is trained for; MSE on the scale [0, 1].",
    "Work is counted on the model that was built, per source pixel; one multiply-accumulate (MAC) is two "
    "FLOPs. Times are medians.",
    "Rate savings compare with a published curve at the same mean PSNR and are never extrapolated.",
)


def plain(name: str) -> str:
    """The column's name in the middle of a sentence."""
    known = NAMES[name]
    return known if known[:2].isupper() else known[0].lower() + known[1:]


def method(
    architectures: pd.DataFrame,
    trials: pd.DataFrame,
    objectives: Sequence[str],
    versions: Mapping[str, Any],
    findings: Sequence[tuple[str, str]],
) -> list[tuple[str, str]]:
    """(heading, text) of what the numbers rest on. findings: of analysis.judgement."""
    if architectures.empty:
        return [("frontier", "No trial can be compared.")]
    told = [_unwrapped(paragraph) for paragraph in text.basis(architectures)]
    seeds = int(architectures["seeds"].max())
    lines = [
        ("frontier", _meaning(architectures, objectives)),
        *findings,
        *told,
        ("images' identity", _hashes(architectures.iloc[0])),
        ("seeds", "One seed each." if seeds == 1 else f"Up to {seeds} seeds per architecture, averaged."),
        ("counting", " ".join(RULES)),
        ("coded and estimated", _gap(architectures)),
        ("trained on devices", _listed(trials["train_device"])),
        ("code", _code(trials, versions)),
    ]
    return [(head, public_text(body)) for head, body in lines if body]


def _meaning(rows: pd.DataFrame, objectives: Sequence[str]) -> str:
    better = {"low": "lower", "high": "higher"}
    goals = ", ".join(f"{name} ({better[column(name).better]} is better)" for name in objectives)
    return (
        f"What is compared shares one evaluation set, one training budget and lmbda "
        f"{rows['lmbda'].iloc[0]:g}. On the frontier are those that no other beats: none is at least as good "
        f"in {goals} and better in one of them. Figures compute it anew for the axes and families shown."
    )


def _unwrapped(paragraph: str) -> tuple[str, str]:
    """A paragraph of analysis.text as (head, body) in one line each."""
    lines = paragraph.splitlines()
    head = lines[0].split("  ")[0] if "  " in lines[0] else lines[0].split(" ")[0]
    known = next((name for name in _HEADS if lines[0].startswith(name)), head)
    body = textwrap.dedent("\n".join([lines[0][len(known) :], *lines[1:]]))
    return known, " ".join(body.split())


_HEADS = ("trained on", "undertrained", "training", "evaluated on", "rate saving", "timed on")


def _hashes(row: pd.Series) -> str:
    known = [
        f"{what} {row[name]}"
        for what, name in (("training", "train_data_hash"), ("evaluation", "dataset_hash"))
        if row[name]
    ]
    return f"Hashes of the decoded pixels: {', '.join(known)}." if known else ""


def _gap(rows: pd.DataFrame) -> str:
    gaps = rows["rate_gap_pct"].dropna()
    said = "bpp is that of coded files; bpp_estimated, from likelihoods, is a column of its own."
    if gaps.empty:
        return said
    return f"{said} Entropy-coded bytes over the estimate: {gaps.min():+.2f} to {gaps.max():+.2f} %."


def _code(trials: pd.DataFrame, versions: Mapping[str, Any]) -> str:
    known = ", ".join(f"{name} {value}" for name, value in versions.items())
    revisions = _listed(trials["git_revision"].str[:12])
    return "; ".join(filter(None, [known, f"git revision {revisions}" if revisions else ""]))


def _listed(values: pd.Series) -> str:
    return text.some([str(value) for value in values.unique() if value], 6)
