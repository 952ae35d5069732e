"""Table 1 as text, CSV, LaTeX and Markdown, and the study's own numbers in a block of their own."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import text
from analysis.anchors import load_anchor
from analysis.files import atomic, write_csv
from analysis.latex import booktabs
from analysis.latex_export import provenance
from analysis.load import Source
from analysis.published import SPEEDS, TITLE, table1
from analysis.rows import SAVINGS
from analysis.study_table import ANCHOR, StudyTable, Timed

FORMATS = ("text", "csv", "latex", "markdown")
_CALLED = {
    "conv": "Conv", "elic": "ELIC", "swint": "SwinT", "charm": "CHARM",
    "mean_scale_hyperprior": "mean-scale", "scale_hyperprior": "scale",
}  # fmt: skip
_SETTINGS_PER_BLOCK = 3  # of decode speed, so that a line fits a terminal


@dataclasses.dataclass(frozen=True)
class _Laid:
    """A table ready for printing: two heading lines, cells, and how many columns are texts."""

    heads: list[tuple[str, str]]
    body: list[list[str]]
    texts: int = 4


def write(source: Source, table: StudyTable, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Print what is to be printed and write the files of the other formats."""
    makers: dict[str, tuple[str, Callable[[Path], object]]] = {
        "csv": ("study_table.csv", lambda path: write_csv(table.rows, path)),
        "latex": ("study_table.tex", lambda path: _write(path, latex(source, table))),
        "markdown": ("study_table.md", lambda path: _write(path, markdown(source, table))),
    }
    files = []
    for name, (file_name, make) in makers.items():
        if name in formats:
            make(folder / file_name)
            files.append(folder / file_name)
    if "text" in formats:
        print(printed(source, table))
    if files:
        print(text.files_line(files))
    return files


def printed(source: Source, table: StudyTable) -> str:
    """What `python -m analysis table` prints: the table, decode speeds, what they rest on, the study's."""
    lines = [
        text.paragraph("note", line) for line in (*source.problems, *source.notes, table.message) if line
    ]
    lines += [_title(source, table) + "\n", _columns(_core(table)), ""]
    for start in range(0, len(table.timed), _SETTINGS_PER_BLOCK):
        shown = table.timed[start : start + _SETTINGS_PER_BLOCK]
        lines += ["Decode speed, MP/s", _columns(_speeds(table, shown, start)), ""]
    lines += [text.paragraph(head, body) for head, body in footnotes(table)]
    lines += ["", published_text(table)]
    return "\n".join(lines)


def latex(source: Source, table: StudyTable) -> str:
    laid = _whole(table)
    notes = [f"{head}: {body}" for head, body in (*footnotes(table), *_published_notes(table))]
    caption = f"{_title(source, table)}. {provenance(table.compared)}"
    ours = booktabs(
        laid.heads, laid.body, caption=caption, label="tab:study", texts=laid.texts, notes=notes[:-1]
    )
    theirs = _published()
    published = booktabs(
        theirs.heads,
        theirs.body,
        caption=f"Published: {TITLE}.",
        label="tab:published",
        texts=theirs.texts,
        notes=notes[-1:],
    )
    return f"{ours}\n{published}"


def markdown(source: Source, table: StudyTable) -> str:
    lines = [f"## {_title(source, table)}", "", *_pipes(_whole(table)), ""]
    lines += [f"- {head}: {_plain(body)}" for head, body in footnotes(table)]
    lines += ["", f"## Published: {TITLE}", "", *_pipes(_published()), ""]
    lines += [f"- {head}: {_plain(body)}" for head, body in _published_notes(table)]
    return "\n".join([*lines, ""])


def footnotes(table: StudyTable) -> list[tuple[str, str]]:
    """(head, sentence): marks, data, budget, averaging, devices."""
    notes = _saving_notes(table)
    # The lines on rate savings and time are those of single points and one device; ours say more.
    plain = table.compared.assign(
        **dict.fromkeys(SAVINGS, np.nan), rate_saving_note="", time_dec_total_ms=np.nan
    )
    for line in text.basis(plain):
        head, _, body = " ".join(line.split()).partition(" on ")
        notes.append((f"{head} on", body) if head in ("trained", "evaluated") else _undertrained(line))
    notes.append(("parameters", "trainable ones of the whole codec, and without the analysis transform g_a"))
    notes.append(("rd_loss", f"at lmbda {table.compared['lmbda'].iloc[0]:g}; seeds are averaged first"))
    if table.timed:
        notes.append(
            (
                "decode speed",
                "megapixels of the source image per second, one image at a time, from median times; networks "
                "alone as in the study, and the whole decode with entropy coding",
            )
        )
        notes += [(f"[{n}]", setting.title) for n, setting in enumerate(table.timed, start=1)]
    else:
        notes.append(("decode speed", "not measured; `python -m rdc time` writes tables for --runtimes"))
    return notes


def published_text(table: StudyTable) -> str:
    """The study's own numbers, apart from ours, and how they differ."""
    lines = [f"published: {TITLE}\n", _columns(_published()), ""]
    lines += [text.paragraph(head, body) for head, body in _published_notes(table)]
    return "\n".join(lines)


def _title(source: Source, table: StudyTable) -> str:
    count = int(table.rows["on_frontier"].sum())
    return (
        f"Table 1 for {source.name}: {len(table.rows)} architectures, {count} on the frontier, cheapest first"
    )


def _saving_notes(table: StudyTable) -> list[tuple[str, str]]:
    anchor = load_anchor(ANCHOR)
    notes = [
        (
            "rate saving",
            f"against {anchor.title} at equal mean PSNR, Kodak; positive: needs less rate. Over the whole "
            "curve where an architecture has at least 4 lmbdas (minus its BD-rate: pchip, the range of PSNR "
            "that both reach)",
        )
    ]
    kinds = set(table.rows["saving_kind"])
    if "point" in kinds:
        notes.append(("*", "of a single point, for want of a curve; not to be compared with those of curves"))
    refused = _refusals(table)
    notes += [(mark, f"no rate saving: {reason}") for reason, mark in refused.items()]
    return notes


def _refusals(table: StudyTable) -> dict[str, str]:
    """Reason -> its mark, in the order of the rows; more reasons than letters share the last one."""
    reasons = list(dict.fromkeys(reason for reason in table.rows["saving_refused"] if reason))
    return {reason: chr(ord("a") + n) if n < 26 else f"a{n}" for n, reason in enumerate(reasons)}


def _undertrained(line: str) -> tuple[str, str]:
    head, _, body = " ".join(line.split()).partition(" ")
    return head, body


def _core(table: StudyTable) -> _Laid:
    heads = [("", "model"), ("", "transform"), ("entropy", "model"), ("hyper-", "transform")]
    heads += [("params", "M"), ("without", "g_a, M"), ("decode", "kFLOP/px"), ("saves vs", "BPG %"), ("", "")]
    heads += [("", "rd_loss"), ("on the", "frontier")]
    marks = _refusals(table)
    body = []
    for name, row in zip(_called(table), table.rows.to_dict("records"), strict=True):
        mark = {"point": "*", "curve": ""}.get(row["saving_kind"], marks.get(row["saving_refused"], ""))
        body.append(
            [
                *name,
                text.cell(row["params_m"], ".2f"),
                text.cell(row["params_dec_m"], ".2f"),
                text.cell(row["kflop_per_px_dec"], ".1f"),
                text.cell(row["rate_saving_vs_bpg_pct"], "+.1f"),
                mark,
                text.cell(row["rd_loss"], ".4f"),
                "yes" if row["on_frontier"] else "",
            ]
        )
    return _Laid(heads, body)


def _called(table: StudyTable) -> list[list[str]]:
    """model, transform, entropy model, hyper-transform; ids tell apart what would read alike."""
    rows = table.rows.to_dict("records")
    parts = ("transform", "entropy_model", "hyper_transform")
    names = [
        (
            row["model"] or text.shorten(row["size"], 30),
            *(_CALLED.get(row[part], row[part]) for part in parts),
        )
        for row in rows
    ]
    counts = collections.Counter(names)
    return [
        [name[0] if counts[name] == 1 else f"{name[0]} #{row['arch_id'][:4]}", *name[1:]]
        for name, row in zip(names, rows, strict=True)
    ]


def _speeds(table: StudyTable, shown: Sequence[Timed], start: int) -> _Laid:
    heads = [("", "model"), ("", "transform"), ("entropy", "model"), ("hyper-", "transform")]
    columns = []
    for part, title in (("net", "networks"), ("total", "whole")):
        for n, setting in enumerate(shown, start=start + 1):
            heads.append((title, f"[{n}]"))
            columns.append(table.rows[f"dec_{part}_mpps__{setting.key}"].tolist())
    body = [
        [*name, *(text.cell(values[n], ".2f") for values in columns)] for n, name in enumerate(_called(table))
    ]
    return _Laid(heads, body)


def _whole(table: StudyTable) -> _Laid:
    """Everything in one table, for paper and page."""
    core, speeds = _core(table), _speeds(table, table.timed, 0)
    return _Laid(
        [*core.heads, *speeds.heads[4:]],
        [[*left, *right[4:]] for left, right in zip(core.body, speeds.body, strict=True)],
    )


def _published() -> _Laid:
    heads = [("", "model"), ("", "transform"), ("entropy", "model"), ("hyper-", "transform")]
    heads += [
        ("params", "M"),
        ("decode", "kFLOP/px"),
        *((images, device) for device, images in SPEEDS.values()),
    ]
    heads.append(("saves vs", "BPG %"))
    forms = {"params_m": ".1f", "kflops_per_px_decode": ".1f", **dict.fromkeys(SPEEDS, ".1f")}
    forms["rate_saving_vs_bpg_pct"] = "+.2f"
    body = [
        [
            *(row[name] for name in ("model", "transform", "entropy_model", "hyper_transform")),
            *(text.cell(row[name], form) for name, form in forms.items()),
        ]
        for _, row in table1().iterrows()
    ]
    return _Laid(heads, body)


def _published_notes(table: StudyTable) -> list[tuple[str, str]]:
    share = table.compared["percent_of_paper_steps"].max()
    ours = (
        "ours do not say for how long they were trained"
        if pd.isna(share)
        else f"ours had at most {share:.3g} % of these steps"
    )
    return [
        (
            "published",
            f"trained for 2,000,000 steps of 32 crops of 256 x 256 px; {ours}: quality may be compared "
            "between the two tables only where training was alike. Speeds are MP/s of the networks alone, on "
            "the GPUs named. Parameters of A and B agree with our count without g_a, those of the others "
            "with the whole codec",
        )
    ]


def _columns(laid: _Laid) -> str:
    """As text.columns_text, with all texts flush left."""
    rows = [[head[line] for head in laid.heads] for line in (0, 1)] + laid.body
    widths = [max(len(row[n]) for row in rows) for n in range(laid.texts)]
    glued = [
        ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), *row[laid.texts :]]
        for row in rows
    ]
    heads = list(zip(glued[0], glued[1], strict=True))
    return text.columns_text(heads, glued[2:])


def _pipes(laid: _Laid) -> list[str]:
    titles = [" ".join(filter(None, head)) for head in laid.heads]
    sides = ["---"] * laid.texts + ["---:"] * (len(laid.heads) - laid.texts)
    rows = [titles, sides, *laid.body]
    return [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]


def _plain(cell: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\|*_<>[]`#":
        cell = cell.replace(sign, f"\\{sign}")
    return " ".join(cell.split())


def _write(path: Path, content: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
