"""What the page holds: one table of rows by column, and groups, curves and references that point into it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import text
from analysis.anchors import load_anchor, names
from analysis.comparable import Choice, Selection, average_seeds, comparable, distinct_labels
from analysis.curves import curve_names, trial_curves
from analysis.figures import family_styles
from analysis.frontier import rank
from analysis.judgement import judge
from analysis.public import public_text
from analysis.report import words
from analysis.report.verdict import verdict
from analysis.rows import SENTENCES
from analysis.schema import COLUMNS, FRONTIER_COLUMNS, Column, objective_names

# One lmbda, budget and evaluation set each; a sweep of curves has a handful.
MAX_GROUPS = 12
# Symbols of plotly for the filled markers of matplotlib; data.js draws each of them too.
SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "D": "diamond",
    "d": "diamond-tall",
    "P": "cross",
    "X": "x",
    "*": "star",
    "p": "pentagon",
    "h": "hexagon",
    "H": "hexagon2",
    "8": "octagon",
}
_GROUP = ["dataset_hash", "budget_id", "lmbda"]
# Names of sets and budgets in the menu of groups.
_NAME_WIDTH = 16


@dataclasses.dataclass(frozen=True)
class Group:
    """Comparable trials and what `analysis.frontier` makes of them."""

    selection: Selection
    architectures: pd.DataFrame
    findings: tuple[tuple[str, str], ...]


class Table:
    """Trials first, then means over seeds; every row once, known by the trials that it stands for."""

    def __init__(self, trials: pd.DataFrame) -> None:
        self.trials = len(trials)
        self._parts = [trials]
        self._place = {spec_id: place for place, spec_id in enumerate(trials["spec_id"])}

    def places(self, rows: pd.DataFrame) -> list[int]:
        """Where these rows stand; means that are not there yet are added."""
        new = [at for at, spec_id in enumerate(rows["spec_id"]) if spec_id not in self._place]
        if new:
            self._place |= {rows["spec_id"].iloc[at]: len(self._place) + n for n, at in enumerate(new)}
            self._parts.append(rows.iloc[new])
        return [self._place[spec_id] for spec_id in rows["spec_id"]]

    def columns(self) -> dict[str, Any]:
        """Column name -> its values, packed; columns without any value are left out."""
        shared = [c for c in COLUMNS if c.name in self._parts[0]]
        merged = {
            c.name: [value for part in self._parts for value in _plain(part[c.name], c)] for c in shared
        }
        return {
            name: _packed(values)
            for name, values in merged.items()
            if any(v not in (None, "") for v in values)
        }


def compared(
    frame: pd.DataFrame, images: pd.DataFrame, objectives: list[str], choice: Choice | None
) -> Group:
    """As `python -m analysis frontier` compares. images: per-image scores, of which P(frontier) is made."""
    selection = comparable(frame, objectives, choice)
    averaged = average_seeds(distinct_labels(selection.rows))
    judgement = judge(rank(averaged, objectives), selection.rows, images, objectives)
    return Group(selection, judgement.architectures, judgement.findings)


def groups(frame: pd.DataFrame, images: pd.DataFrame, objectives: list[str]) -> tuple[list[Group], list[str]]:
    """(the default first, then the others by size; a line for each that the page leaves out)."""
    first = compared(frame, images, objectives, None)
    if first.architectures.empty:
        return [first], []
    taken = tuple(first.architectures[_GROUP].iloc[0])
    usable = frame[~first.selection.reasons.str.startswith(("status", "no value"))]
    sizes = usable.groupby(_GROUP, sort=True)["arch_id"].nunique().sort_values(ascending=False, kind="stable")
    others = [key for key in sizes.index if key != taken]
    found = [first]
    for dataset_hash, budget_id, lmbda in others[: MAX_GROUPS - 1]:
        choice = Choice(lmbda=lmbda, budget=budget_id, evaluation=dataset_hash)
        found.append(compared(frame, images, objectives, choice))
    left_out = others[MAX_GROUPS - 1 :]
    if not left_out:
        return found, []
    return found, [
        f"{len(left_out)} smaller groups of comparable trials are not on this page; "
        "python -m analysis frontier --lmbda, --budget and --eval choose them"
    ]


def public_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials without paths and hosts; tables from elsewhere may hold them."""
    changed = {}
    for name in SENTENCES:
        public = {value: public_text(value) for value in frame[name].unique()}
        changed[name] = frame[name].map(public)
    return frame.assign(**changed)


def group_json(
    group: Group, title: str, table: Table, objectives: Sequence[str], versions: Mapping[str, Any]
) -> dict[str, Any]:
    """One group of comparable trials; `rows` and `best` are places in the table."""
    architectures, selection = group.architectures, group.selection
    known = {c.name: c for c in (*FRONTIER_COLUMNS, *COLUMNS)}
    extra = [
        name
        for name in (*(c.name for c in FRONTIER_COLUMNS), "seeds")
        if name in architectures and name != "dominated_by"
    ]
    labels = dict(zip(architectures["arch_id"], architectures["label"], strict=True))
    rows = table.places(architectures)
    found = verdict(architectures, objectives)
    return {
        "title": title,
        "rows": rows,
        "labels": list(architectures["label"]),
        "dominated_by": [labels.get(name, "") for name in architectures["dominated_by"]],
        "extra": {
            name: _plain(architectures[name], known.get(name, Column(name=name, unit="-", description="")))
            for name in extra
        },
        "reasons": _packed(list(selection.reasons)),
        "warning": found.warning,
        "verdict": list(found.lines),
        "best": None if found.best is None else rows[found.best],
        "method": words.method(architectures, selection.rows, objectives, versions, group.findings),
        "dataset_hash": "" if architectures.empty else architectures["dataset_hash"].iloc[0],
    }


def titles(groups: Sequence[Group]) -> list[str]:
    """What a menu calls each group: its lmbda, what else tells it from the others, and how many are in it."""
    if groups[0].architectures.empty:
        return ["nothing to compare"]
    firsts = pd.DataFrame([group.architectures.iloc[0] for group in groups])
    several = {name: firsts[name].nunique() > 1 for name in ("dataset_hash", "budget_id")}
    called = []
    for _, first in firsts.iterrows():
        parts = [f"lmbda {first['lmbda']:g}"]
        if several["budget_id"]:
            warm = " warm" if first["warm_start"] else ""
            parts.append(f"{text.shorten(first['budget'] or 'unnamed', _NAME_WIDTH)}{warm}")
        if several["dataset_hash"]:
            parts.append(text.shorten(first["dataset"] or "unnamed set", _NAME_WIDTH))
        called.append(", ".join(parts))
    return [
        f"{name}{_ids(first, several) if called.count(name) > 1 else ''} ({len(group.architectures):,})"
        for name, group, (_, first) in zip(called, groups, firsts.iterrows(), strict=True)
    ]


def _ids(first: pd.Series, several: Mapping[str, bool]) -> str:
    """Tells groups apart whose names are the same."""
    return "".join(f" #{first[name][:4]}" for name in ("budget_id", "dataset_hash") if several[name])


def curves_json(frame: pd.DataFrame, table: Table) -> list[dict[str, Any]]:
    """Rate-distortion curves and single points of all good trials, on whatever images, by rising rate."""
    curves = trial_curves(frame)
    places = table.places(curves[0].table.frame) if curves else []
    return [
        {
            "label": name,
            "family": str(curve.values("family")[0]),
            "dataset_hash": str(curve.values("dataset_hash")[0]),
            "rows": places[curve.start : curve.end],
        }
        for curve, name in zip(curves, curve_names(curves), strict=True)
    ]


def references_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Published curves, each with the hashes of those evaluation sets that hold its images."""
    from analysis.rows import dataset_mismatch

    firsts = [
        {str(key): value for key, value in row.items()}
        for _, row in frame.drop_duplicates(["dataset_hash", "dataset", "eval_images"]).iterrows()
    ]
    found = []
    for name in names():
        anchor = load_anchor(name)
        fitting = sorted({row["dataset_hash"] for row in firsts if not dataset_mismatch(row, anchor.dataset)})
        if fitting:
            found.append(
                {
                    "name": name,
                    "title": anchor.title,
                    "note": f"PSNR: {anchor.psnr_rule}. Averaging: {anchor.averaging}. {anchor.note}",
                    "bpp": list(anchor.curve.bpp),
                    "psnr_db": list(anchor.curve.psnr_db),
                    "dataset_hashes": fitting,
                }
            )
    return found


def families_json(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Colour and symbol as in the figures that `python -m analysis frontier` draws."""
    return {
        family: {"colour": colour, "symbol": SYMBOLS[marker]}
        for family, (colour, marker) in family_styles(frame["family"]).items()
    }


def columns_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """What the page says of every column that has values."""
    axes = set(objective_names())
    return [
        {
            "name": c.name,
            "words": words.NAMES.get(c.name, c.name),
            "unit": "" if c.unit in ("-", "1") else c.unit,
            "better": c.better,
            "kind": c.kind,
            "description": c.description,
            "is_axis": c.name in axes,
        }
        for c in (*COLUMNS, *FRONTIER_COLUMNS)
        if c.name not in frame or _has_values(frame[c.name])
    ]


def failures_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Trials without usable numbers, and why."""
    bad = frame[frame["status"] != "ok"]
    return [
        {
            "label": row["label"],
            "spec_id": row["spec_id"],
            "lmbda": None if pd.isna(row["lmbda"]) else row["lmbda"],
            "status": row["status"],
            "reason": ": ".join(filter(None, [row["error_class"], row["error_message"]]))
            or "no cause recorded",
        }
        for _, row in bad.iterrows()
    ]


def asides(group: Group, frame: pd.DataFrame) -> list[str]:
    """Why trials took no part in the default comparison, one line per reason."""
    return text.left_aside(frame.assign(off_frontier_reason=group.selection.reasons))


def _has_values(values: pd.Series) -> bool:
    return bool((values.notna() & (values != "")).fillna(False).any())


def _plain(values: pd.Series, col: Column) -> list[Any]:
    """As JSON takes it: None where there is no value, also for what is not finite."""
    if col.kind == "float":
        return [float(v) if not pd.isna(v) and math.isfinite(v) else None for v in values]
    if col.kind == "text":
        return [str(v) for v in values]
    return [None if pd.isna(v) else v.item() if hasattr(v, "item") else v for v in values]


def _packed(values: list[Any]) -> dict[str, Any]:
    """{"same"}: one value for all rows. {"of", "at"}: the different ones, and which each row has. {"all"}."""
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return {"same": different[0], "n": len(values)}
    if 2 * len(different) > len(values):
        return {"all": values}
    place = {value: index for index, value in enumerate(different)}
    return {"of": different, "at": [place[value] for value in values]}
