"""The small print of a figure: what its numbers rest on."""

from __future__ import annotations

import pandas as pd


def basis(rows: pd.DataFrame, *more: str) -> list[str]:
    """Lines about the images, the averaging and the training of these trials, then the given ones."""
    return [images_line(rows), training_line(rows), *(line for line in more if line)]


def images_line(rows: pd.DataFrame) -> str:
    """Which images were coded, and how their scores were averaged."""
    sets = []
    for _, first in rows.drop_duplicates(["dataset", "eval_images"]).iterrows():
        count = "" if pd.isna(first["eval_images"]) else f", {first['eval_images']} images"
        sets.append(f"{first['dataset'] or 'a set without a name'}{count}")
    seeds = int(rows["seeds"].max()) if "seeds" in rows and len(rows) else 1
    return (
        f"Images: {' and '.join(sets)}. Rate of whole coded files, PSNR of 8-bit pixels; each is the mean "
        f"over images{f', then over up to {seeds} seeds' if seeds > 1 else ''}."
    )


def training_line(rows: pd.DataFrame) -> str:
    """Budgets, steps, their share of the study's, and lmbdas."""
    budgets = []
    for _, group in rows.groupby("budget", sort=True):
        name, steps = group["budget"].iloc[0] or "without a name", group["steps"].max()
        share = group["percent_of_paper_steps"].max()
        text = f"budget {name}" + ("" if pd.isna(steps) else f", {steps:,} steps")
        if not pd.isna(share):
            text += f" = {share:.3g} % of the study's 2,000,000"
            text += " (undertrained: values, and perhaps their order, would change)" if share < 100 else ""
        budgets.append(text)
    lmbdas = sorted(rows["lmbda"].dropna().unique())
    shown = f"lmbda {', '.join(f'{lmbda:g}' for lmbda in lmbdas)}"
    if len(lmbdas) > 8:
        shown = f"{len(lmbdas)} lmbdas from {lmbdas[0]:g} to {lmbdas[-1]:g}"
    warm = int((rows["warm_start"] != "").sum())
    started = f" {warm} of {plural(len(rows), 'point')} warm-started from other weights." if warm else ""
    return f"Training: {'; '.join(budgets)}.{started} Trade-off: {shown}."


def saving_line(lowest_pct: float, codec: str = "BPG") -> str:
    """What a rate saving is, and what the lowest ones that a figure shows mean."""
    twice = f"; -100 %: twice {codec}'s bits" if lowest_pct < -50 else ""
    return (
        f"Rate saving: 100 (1 - bpp / {codec}'s bpp at the same PSNR), {codec}'s log rate interpolated over "
        f"PSNR, never extrapolated; negative: needs more bits than {codec}{twice}."
    )


def timing_line(rows: pd.DataFrame) -> str:
    """Device, threads, precision and image of the table's time columns."""
    timed = rows[rows["time_dec_total_ms"].notna()]
    if timed.empty:
        return ""
    first = timed.iloc[0]
    device = first["time_device"] or "a device without a name"
    threads = "" if pd.isna(first["time_threads"]) else f", {plural(int(first['time_threads']), 'thread')}"
    height_px, _, width_px = first["time_image_px"].partition("-")
    image = f", one image of {width_px} x {height_px} px" if width_px else ""
    alone = first["time_alone"]
    company = ", something else ran beside it" if not pd.isna(alone) and not alone else ""
    return f"Time: {device}{threads}, {first['time_precision']}{image}, median of repeats{company}."


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"
