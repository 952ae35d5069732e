"""`python -m analysis runtime`: do FLOPs tell how long decoding takes, and does its order hold elsewhere?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.correlation import Correlation, correlate
from analysis.errors import AnalysisError
from analysis.files import write_csv
from analysis.ranks import Inversions, Measured, inversions
from analysis.roofline import TERMS, error_pct, fit, with_prediction
from analysis.runtime_rows import ASPECTS, PUBLISHED, Times
from analysis.runtime_text import report_text

EVERY_MODEL = "all"


def report(times: Times, out: Path) -> None:
    """Write runtime_correlation.csv, runtime_ranks.csv and roofline.csv, and print what they say."""
    correlations, ranks = correlation_table(times.rows), rank_table(times.rows)
    rooflines = roofline_table(times.rows)
    files = [write_csv(correlations, out / "runtime_correlation.csv")]
    if not ranks.empty:
        files.append(write_csv(ranks, out / "runtime_ranks.csv"))
    if not rooflines.empty:
        files.append(write_csv(rooflines, out / "roofline.csv"))
    print(report_text(times, correlations, ranks, rooflines, files))


def correlation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per setting and group (EVERY_MODEL, or a family): how FLOPs and decode time go together.

    pairs, inversions: pairs of models, and those of which the one with fewer FLOPs is slower; clear where
    their quartiles are apart. note: why there is no correlation.
    """
    found = []
    for setting, group_name, group in _groups(rows):
        upside_down = inversions(Measured.exact(group["kflop_per_px_dec"]), _measured(group))
        found.append(
            {
                "setting": setting,
                **group.iloc[0][["origin", *ASPECTS]],
                "group": group_name,
                "models": len(group),
                **_correlation(group["kflop_per_px_dec"], group["ms_per_mp"]),
                "pairs": upside_down.pairs,
                "inversions": len(upside_down.found),
                "clear_inversions": _clear(upside_down, group),
            }
        )
    table = pd.DataFrame(found)
    return table.astype({"clear_inversions": "Int64"})


def rank_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per model of every two settings that differ in one aspect and share models: its two ranks.

    inverted_with: models that it changes places with, beyond quartiles where there are any. kendall, pairs,
    inversions, clear_inversions: of the whole comparison. Ties share the lower rank.
    """
    found: list[dict[str, Any]] = []
    by_setting = {name: group.set_index("arch_id") for name, group in rows.groupby("setting", sort=False)}
    for (x_name, x_all), (y_name, y_all) in itertools.combinations(by_setting.items(), 2):
        differs = _difference(x_all, y_all)
        shared = [arch_id for arch_id in x_all.index if arch_id in y_all.index]
        if differs is None or len(shared) < 2:
            continue
        comparison = {"setting_x": str(x_name), "setting_y": str(y_name), "differs": differs}
        found += _ranked(x_all.loc[shared], y_all.loc[shared], comparison)
    table = pd.DataFrame(found)
    return table if table.empty else table.astype({"clear_inversions": "Int64"})


def roofline_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per model and setting whose operators were counted: predicted, fitted and measured time."""
    if not set(TERMS) <= set(rows):
        return pd.DataFrame()
    tables = []
    for _, group in with_prediction(rows).groupby("setting", sort=False):
        group = group.rename(columns={"dec_net_ms": "measured_ms"})
        fitted = fit(group[list(TERMS)].to_numpy("float64"), group["measured_ms"].to_numpy("float64"))
        group["fitted_ms"] = fitted.left_out_ms if fitted else np.nan
        group["fitted_error_pct"] = error_pct(group["fitted_ms"], group["measured_ms"])
        for term, factor in zip(TERMS, fitted.factors if fitted else (np.nan,) * 3, strict=True):
            group[f"fitted_factor_{term.removesuffix('_ms')}"] = factor
        tables.append(group)
    if not tables:
        return pd.DataFrame()
    columns = [
        "setting", *ASPECTS, "label", "family", "arch_id", "kflop_per_px_dec", "kflop_per_px_dec_executed",
        "bytes_per_px_dec", "operators_dec", "serial_steps_dec", "measured_ms", "predicted_ms", "error_pct",
        "bound_by", *TERMS, "fitted_ms", "fitted_error_pct",
        *(f"fitted_factor_{term.removesuffix('_ms')}" for term in TERMS),
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[columns]


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(setting, group, its rows): all models of a setting, then each of its families if there are several."""
    for setting, every in rows.groupby("setting", sort=False):
        yield str(setting), EVERY_MODEL, every
        if every["family"].nunique() > 1:
            for family, group in every.groupby("family"):
                yield str(setting), str(family), group


def _correlation(x: pd.Series, y: pd.Series) -> dict[str, Any]:
    names = ("pearson", "spearman", "kendall")
    try:
        found: Correlation = correlate(x, y)
    except AnalysisError as error:
        empty = {f"{name}{end}": np.nan for name in names for end in ("", "_low", "_high")}
        return {**empty, "note": str(error)}
    estimates = {name: getattr(found, name) for name in names}
    return {
        f"{name}{end}": getattr(estimate, field)
        for name, estimate in estimates.items()
        for end, field in (("", "value"), ("_low", "low"), ("_high", "high"))
    } | {"note": ""}


def _difference(x: pd.DataFrame, y: pd.DataFrame) -> str | None:
    """The one aspect in which two settings differ; None if it is none or several."""
    aspects = ["origin", *ASPECTS]
    different = [name for name in aspects if x[name].iloc[0] != y[name].iloc[0]]
    return different[0] if len(different) == 1 and different != ["origin"] else None


def _ranked(x: pd.DataFrame, y: pd.DataFrame, comparison: dict[str, Any]) -> list[dict[str, Any]]:
    turned = inversions(_measured(x), _measured(y))
    correlation = _correlation(x["ms_per_mp"], y["ms_per_mp"])
    labels = list(x["label"])
    partners: dict[int, list[str]] = {place: [] for place in range(len(x))}
    for i, j in turned.found if (x["origin"] == PUBLISHED).any() else turned.clear:
        partners[i].append(labels[j])
        partners[j].append(labels[i])
    whole = {
        "models": len(x),
        "pairs": turned.pairs,
        "inversions": len(turned.found),
        "clear_inversions": _clear(turned, x),
        **{name: value for name, value in correlation.items() if name.startswith("kendall")},
    }
    rank_x, rank_y = (table["ms_per_mp"].rank(method="min").astype(int) for table in (x, y))
    return [
        {
            **comparison,
            "label": labels[place],
            "family": x["family"].iloc[place],
            "arch_id": arch_id,
            "ms_per_mp_x": x["ms_per_mp"].iloc[place],
            "ms_per_mp_y": y["ms_per_mp"].iloc[place],
            "rank_x": rank_x.iloc[place],
            "rank_y": rank_y.iloc[place],
            "inverted_with": "; ".join(partners[place]),
            **whole,
        }
        for place, arch_id in enumerate(x.index)
    ]


def _clear(found: Inversions, rows: pd.DataFrame) -> int | None:
    """None where no spread is known: then nobody can tell what is clear."""
    return None if (rows["origin"] == PUBLISHED).any() else len(found.clear)


def _measured(rows: pd.DataFrame) -> Measured:
    columns = ("ms_per_mp", "low_ms_per_mp", "high_ms_per_mp")
    return Measured(*(rows[name].to_numpy("float64") for name in columns))
