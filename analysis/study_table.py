"""The study's Table 1 for any sweep: size, work, decode speed per device, rate saving, frontier.

Layout after Minnen & Johnston, ICIP 2023, Table 1. Decode speed is megapixels of the source image per second,
one image at a time, of the networks alone (as there) and with entropy coding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.anchors import Anchor, load_anchor
from analysis.bdrate import bd_rate, rate_saving_pct
from analysis.comparable import Choice, average_seeds, comparable, distinct_labels
from analysis.curves import TrialCurve, trial_curves
from analysis.errors import AnalysisError
from analysis.frontier import DEFAULT_OBJECTIVES, rank
from analysis.load import Source
from analysis.published import presets
from analysis.rows import dataset_mismatch
from analysis.runtimes import RUNTIME_COLUMNS
from analysis.runtimes import SETTING as RUNTIME_KEY

ANCHOR = "bpg"
_CURVE_KEY = ("arch_id", "curve_id", "budget_id", "dataset_hash")
# What tells a preset of the study from a narrower or otherwise changed model: the relative error allowed.
_SAME_SIZE = 0.002
_COPIED = (
    "label", "arch_id", "curve_id", "budget_id", "transform", "entropy_model", "hyper_transform",
    "params_m", "params_dec_m", "kflop_per_px_dec", "rd_loss", "bpp", "psnr_db", "lmbda", "seeds",
    "on_frontier",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, order=True)
class Timed:
    """What a decode speed was measured on."""

    device: str
    device_slug: str
    threads: int
    precision: str
    height_px: int
    width_px: int

    @property
    def key(self) -> str:
        return f"{self.device_slug}__{self.threads}t__{self.precision}__{self.height_px}x{self.width_px}"

    @property
    def title(self) -> str:
        size = f"image of {self.height_px} x {self.width_px} px (height x width)"
        return f"{self.device}, {self.threads} thread{'s' * (self.threads > 1)}, {self.precision}, {size}"


@dataclasses.dataclass(frozen=True)
class StudyTable:
    """rows: one per compared architecture, cheapest first. compared: the same, with all columns of trials.

    rows hold _COPIED, model and size, dec_net_mpps__KEY and dec_total_mpps__KEY per setting in `timed`, and
    rate_saving_vs_bpg_pct with saving_kind ("curve", "point" or ""), saving_lmbdas, saving_range_low_db,
    saving_range_high_db and saving_refused, the reason why there is none. message: what was chosen.
    """

    rows: pd.DataFrame
    compared: pd.DataFrame
    timed: tuple[Timed, ...]
    message: str


def study_table(
    source: Source, *, choice: Choice | None = None, runtimes: Sequence[pd.DataFrame] = ()
) -> StudyTable:
    """The architectures that may be compared with each other. runtimes: further tables of other machines.

    AnalysisError if there are none.
    """
    objectives = list(DEFAULT_OBJECTIVES)
    source.require(["label", "lmbda", *objectives])
    selection = comparable(source.frame, objectives, choice)
    if selection.rows.empty:
        raise AnalysisError(
            f"no trial of {source.name} can be compared; `analysis frontier` gives the reasons"
        )
    compared = rank(average_seeds(distinct_labels(selection.rows)), objectives)
    compared = compared.sort_values(objectives[::-1], kind="stable", ignore_index=True)
    times = all_runtimes([source.runtimes, *runtimes])
    times = times[times["arch_id"].isin(compared["arch_id"])]
    timed = settings_of(times)
    rows = pd.concat(
        [
            _names(compared),
            compared[list(_COPIED)],
            _speeds(compared, times, timed),
            _savings(source, compared),
        ],
        axis=1,
    )
    return StudyTable(rows, compared, timed, selection.message)


def all_runtimes(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of RUNTIME_COLUMNS; of one setting measured twice, the later table's row."""
    found = [table[list(RUNTIME_COLUMNS)] for table in tables if not table.empty]
    if not found:
        return tables[0]
    return pd.concat(found, ignore_index=True).drop_duplicates(list(RUNTIME_KEY), keep="last")


def settings_of(times: pd.DataFrame) -> tuple[Timed, ...]:
    """Every device, thread count, precision and image size that a table of runtimes has, in order."""
    names = [field.name for field in dataclasses.fields(Timed)]
    found = times[names].dropna().drop_duplicates().itertuples(index=False)
    return tuple(sorted(Timed(str(d), str(s), int(t), str(p), int(h), int(w)) for d, s, t, p, h, w in found))


def mpps(milliseconds: pd.Series, timed: Timed) -> pd.Series:
    """Megapixels per second of images that take so long."""
    return timed.height_px * timed.width_px / 1e3 / milliseconds


def _names(compared: pd.DataFrame) -> pd.DataFrame:
    """model: the study's letter, '' for others. size: widths, latent channels and layers, or the label."""
    known = presets().to_dict("records")
    letters, sizes = [], []
    for row in compared.to_dict("records"):
        letters.append(next((str(preset["model"]) for preset in known if _is(row, preset)), ""))
        layers = "" if set(row["layers"]) <= {"0", "-"} else f" +{row['layers']}"
        added = "".join(f" {name}" for name in _additions(row))
        sizes.append(
            f"{row['channels']}/{row['latent_channels']}{layers}{added}" if row["channels"] else row["label"]
        )
    return pd.DataFrame({"model": letters, "size": sizes}, index=compared.index, dtype=object)


def _additions(row: Mapping[Hashable, Any]) -> list[str]:
    """Gates and rate control, which no model of the study has."""
    return [str(row[name]) for name in ("gating", "rate_control") if row.get(name, "") not in ("", "none")]


def _is(row: Mapping[Hashable, Any], preset: Mapping[Hashable, Any]) -> bool:
    """Whether an architecture is that preset, by its depth and by what is counted on it."""
    names = ("transform", "entropy_model", "hyper_transform", "channels", "layers")
    return (
        not _additions(row)
        and all(row[name] == preset[name] for name in names)
        and all(
            abs(row[name] - preset[name]) <= _SAME_SIZE * preset[name]
            for name in ("params_m", "kflop_per_px_dec")
        )
    )


def _speeds(compared: pd.DataFrame, times: pd.DataFrame, timed: Sequence[Timed]) -> pd.DataFrame:
    found = {}
    for part in ("net", "total"):
        for setting in timed:
            at = times
            for field in dataclasses.fields(Timed):
                at = at[at[field.name] == getattr(setting, field.name)]
            ms = at.drop_duplicates("arch_id", keep="last").set_index("arch_id")[f"dec_{part}_ms"]
            found[f"dec_{part}_mpps__{setting.key}"] = mpps(compared["arch_id"].map(ms), setting)
    return pd.DataFrame(found, index=compared.index)


def _savings(source: Source, compared: pd.DataFrame) -> pd.DataFrame:
    """Of the whole curve where there is one, else of the point; never extrapolated."""
    of_them = source.frame[source.frame["curve_id"].isin(compared["curve_id"])]
    curves = {
        (curve.arch_id, curve.curve_id, curve.budget_id, curve.rows["dataset_hash"].iat[0]): curve
        for curve in trial_curves(of_them)
    }
    found = [
        _saving(curves.get(tuple(row[name] for name in _CURVE_KEY)), row)
        for row in compared.to_dict("records")
    ]
    return pd.DataFrame(found, index=compared.index)


def _saving(curve: TrialCurve | None, row: Mapping[Hashable, Any]) -> dict[str, object]:
    found: dict[str, object] = {
        "rate_saving_vs_bpg_pct": None,
        "saving_kind": "",
        "saving_lmbdas": "",
        "saving_range_low_db": None,
        "saving_range_high_db": None,
        "saving_refused": "",
    }
    if curve is None:
        return found | {"saving_refused": "no bpp or psnr_db"}
    anchor = load_anchor(ANCHOR)
    facts = {name: row[name] for name in ("dataset", "eval_images")}
    if mismatch := dataset_mismatch(facts, anchor.dataset):
        return found | {"saving_refused": mismatch}
    try:
        return found | (_of_curve(curve, anchor) if curve.is_curve else _of_point(row, anchor))
    except AnalysisError as error:
        return found | {"saving_refused": str(error)}


def _of_curve(curve: TrialCurve, anchor: Anchor) -> dict[str, object]:
    """BD-rate is the mean change of the rate; what is saved is its negative."""
    found = bd_rate(anchor.curve, curve.curve())
    return {
        "rate_saving_vs_bpg_pct": -found.bd_rate_pct,
        "saving_kind": "curve",
        "saving_lmbdas": " ".join(f"{lmbda:g}" for lmbda in curve.rows["lmbda"]),
        "saving_range_low_db": found.psnr_low_db,
        "saving_range_high_db": found.psnr_high_db,
    }


def _of_point(row: Mapping[Hashable, Any], anchor: Anchor) -> dict[str, object]:
    saving = rate_saving_pct(anchor.curve, bpp=row["bpp"], psnr_db=row["psnr_db"])
    return {
        "rate_saving_vs_bpg_pct": saving,
        "saving_kind": "point",
        "saving_lmbdas": f"{row['lmbda']:g}",
    }
