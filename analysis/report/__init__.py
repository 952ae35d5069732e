"""One page that holds a whole comparison: opened from a file, without a network and without this package."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.files import atomic
from analysis.load import Source
from analysis.objectives import DEFAULT_OBJECTIVES, check_objectives
from analysis.public import public_text
from analysis.report import folder, payload

BIG_BYTES = 20_000_000
_HERE = Path(__file__).parent
_SCRIPTS = ("data.js", "figure.js", "detail.js", "table.js", "curves.js", "pictures.js", "main.js")


@dataclasses.dataclass(frozen=True)
class Page:
    """A written page. notes: what it leaves out, and whether it is large, one line each."""

    path: Path
    size_bytes: int
    notes: tuple[str, ...]


def write_page(source: Source, path: Path, *, objectives: Sequence[str] = DEFAULT_OBJECTIVES) -> Page:
    """Compare as `python -m analysis frontier` does, and write it all into one HTML file.

    A source without a comparable trial gives a page that says so.
    """
    wanted = check_objectives(objectives)
    source.require(["label", "lmbda", *wanted])
    tree = contents(source, wanted)
    page = _html(tree)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    size_bytes = path.stat().st_size
    notes = tree["left_out"]
    if size_bytes > BIG_BYTES:
        notes.append(f"{path.name} has {size_bytes / 1e6:.0f} MB; browsers take it, mail may not")
    return Page(path, size_bytes, tuple(notes))


def contents(source: Source, objectives: list[str]) -> dict[str, Any]:
    """Everything that the page shows, as JSON."""
    frame = payload.public_frame(source.frame)
    table = payload.Table(frame)
    groups, left_out = payload.groups(frame, source.images, objectives)
    versions = folder.versions(source.folder)
    shown = folder.pictures(source.folder, _to_look_at(frame, groups[0].architectures))
    # These fill the table with means over seeds; its columns come last.
    comparisons = [
        payload.group_json(group, title, table, objectives, versions)
        for group, title in zip(groups, payload.titles(groups), strict=True)
    ]
    curves = payload.curves_json(frame, table)
    return {
        "name": public_text(source.name),
        "named": public_text(folder.named(source)),
        "objectives": objectives,
        "columns": payload.columns_json(frame),
        "families": payload.families_json(frame),
        "groups": comparisons,
        "curves": curves,
        "references": payload.references_json(frame),
        "pictures": shown,
        "failures": payload.failures_json(frame),
        "asides": [public_text(line) for line in payload.asides(groups[0], frame)],
        "notes": [public_text(line) for line in (*source.problems, *source.notes)],
        "left_out": left_out,
        "specs": folder.specifications(source.folder, frame["spec_id"]),
        "trials": table.trials,
        "table": table.columns(),
    }


def _to_look_at(frame: pd.DataFrame, architectures: pd.DataFrame) -> pd.DataFrame:
    """Trials on the default group's images: those of the frontier, theirs at other rates, then the best."""
    if architectures.empty:
        return frame.iloc[:0]
    first = architectures.iloc[0]
    usable = frame[(frame["status"] == "ok") & (frame["dataset_hash"] == first["dataset_hash"])]
    best = set(architectures.loc[architectures["on_frontier"], "arch_id"])
    other = ~usable["arch_id"].isin(best)
    other_rate = (usable["lmbda"] != first["lmbda"]) | (usable["budget_id"] != first["budget_id"])
    order = usable.assign(_other=other, _rate=other_rate).sort_values(
        ["_other", "_rate", "rd_loss", "seed"], kind="stable"
    )
    once = order.drop_duplicates(["arch_id", "budget_id", "lmbda"])
    return once[["spec_id", "arch_id"]].head(10 * folder.MAX_ARCHITECTURES)


def _html(tree: dict[str, Any]) -> str:
    """The template with everything in it. Whatever the scripts are not named by hash, browsers do not run."""
    from itables import options
    from plotly.offline import get_plotlyjs

    bundle = Path(options.dt_bundle)
    own = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    scripts = [_in_script(get_plotlyjs()), _in_script(f'(() => {{\n"use strict";\n{own}\n}})();\n')]
    first = tree["groups"][0]
    parts = {
        "policy": _policy(scripts),
        "title": html.escape(tree["name"]),
        "named": html.escape(tree["named"]),
        "table_style": bundle.with_suffix(".css").read_text(encoding="utf-8"),
        "style": (_HERE / "page.css").read_text(encoding="utf-8"),
        "warning": f'<p class="warning">{html.escape(first["warning"])}</p>' if first["warning"] else "",
        "verdict": "".join(f"<p>{html.escape(line)}</p>" for line in first["verdict"]),
        "method": "".join(
            f"<dt>{html.escape(head)}</dt><dd>{html.escape(body)}</dd>" for head, body in first["method"]
        ),
        "data": json.dumps(tree, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "datatables": base64.b64encode(bundle.read_bytes()).decode(),
        "plotly": scripts[0],
        "script": scripts[1],
    }
    template = (_HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _in_script(code: str) -> str:
    """JavaScript as it may stand in an HTML file; in its strings and patterns \\/ means the same as /."""
    assert "<!--" not in code, "an HTML parser would look for the end of the script elsewhere"
    return re.sub(r"</(script)", r"<\\/\1", code, flags=re.IGNORECASE)


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is fetched, and only these scripts run (and the table's, which they load from a blob)."""
    hashes = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {allowed} blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )


__all__ = ["BIG_BYTES", "Page", "contents", "write_page"]
