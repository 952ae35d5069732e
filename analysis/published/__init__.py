"""Numbers that the study published. They are shown beside ours, never mixed into them.

Source: Minnen & Johnston, "Advancing the Rate-Distortion-Computation Frontier for Neural Image Compression",
ICIP 2023, Table 1: models trained for 2,000,000 steps at one trade-off, about 0.46 bpp on Kodak; decode speed
of the networks without entropy coding; rate saving against BPG from rate-distortion curves on Kodak.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd

TITLE = "Minnen & Johnston, ICIP 2023, Table 1"
# Column of decode speed -> (device, images) that it was measured on.
SPEEDS = {
    "decode_mpps_kodak_v100": ("V100", "Kodak"),
    "decode_mpps_kodak_a100": ("A100", "Kodak"),
    "decode_mpps_clic_v100": ("V100", "CLIC"),
    "decode_mpps_clic_a100": ("A100", "CLIC"),
}
# What the abstract says of the study's own model: rate savings in per cent.
ABSTRACT_SAVINGS_PCT = {"bpg": 23.1, "vtm": 7.0, "elic": 3.0}


@functools.cache
def _table1() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / "table1.csv")


def table1() -> pd.DataFrame:
    """Models A to G: transform, entropy_model, hyper_transform, params_m, kflops_per_px_decode, decode speeds
    in megapixels per second (SPEEDS), rate_saving_vs_bpg_pct."""
    return _table1().copy()


@functools.cache
def _presets() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / "presets.csv")


def presets() -> pd.DataFrame:
    """Our models A to G at full width, as `python -m rdc describe model=rdc_a` counts them: by these a result
    is known as one of them. Names of components as in the results; channels and layers joined by '-'."""
    return _presets().copy()


GATING_TITLE = "Yin et al., ICASSP 2022 (poster)"


@functools.cache
def _gating() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / "gating.csv")


def gating() -> pd.DataFrame:
    """What GATING_TITLE, "Universal Efficient Variable-rate Neural Image Compression", reports of its gates.

    One row per model (entropy_model) and quality of CompressAI (with its lmbda): psnr_drop_pct, relative, and
    flop_reduction. It says neither what its operations leave out nor what becomes of the rate, nor against
    which training the drop is.
    """
    return _gating().copy()
