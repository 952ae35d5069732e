"""What `python -m analysis claims` prints: a line per claim, then what is missing, then the details."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.claims.statements import STATEMENTS, Statement
from analysis.claims.statistics import LEVEL, Quantity
from analysis.claims.verdicts import NOT_ENOUGH, Finding
from analysis.rows import SAVINGS
from analysis.text import WIDTH, basis, files_line, paragraph

if TYPE_CHECKING:
    from analysis.claims.report import Checked

_ALIGNED = "<<<>>>"
_MEASURED = (
    "A vs B: how many per cent the mean rd_loss of A is below that of B; frontier: per cent of the range of "
    "ln cost; inverted: per cent of the pairs that timing noise leaves apart. Where a claim has several "
    "conditions, the least certain one is shown; -v shows all"
)


def claims_text(
    tested: Sequence[Checked], problems: Iterable[str], files: Iterable[Path], *, verbose: bool
) -> str:
    """The whole printed report; the study's own table in a section of its own."""
    lines = [paragraph("note", problem) for problem in problems]
    for of in tested:
        lines += [paragraph("note", note) for note in of.evidence.notes]
        lines += [textwrap.fill(_title(of), WIDTH), "", _table(of), ""]
        lines += _missing(of)
        lines += _basis(of)
        lines += _details(of) if verbose else []
        lines.append("")
    if not verbose:
        lines.append(paragraph("more", "-v prints how each claim was tested and every number behind it"))
    lines.append(files_line(files))
    return "\n".join(lines)


def _title(of: Checked) -> str:
    if of.evidence.is_published:
        return f"The study's statements, tested on its own published table ({of.evidence.name})"
    count = len(of.evidence.architectures)
    return f"The study's statements, tested on {of.evidence.name}: {count} architectures at {_share(of)}"


def _share(of: Checked) -> str:
    steps = of.evidence.architectures["percent_of_paper_steps"].max()
    budget = of.evidence.architectures["budget"].iloc[0] or "a budget without a name"
    return budget if math.isnan(steps) else f"{steps:.3g} % of the study's training steps ({budget})"


def _table(of: Checked) -> str:
    heads = ["statement", "verdict", "measured", "", f"{100 * LEVEL:g} % interval", "n"]
    body = []
    for statement, finding in zip(STATEMENTS, of.findings, strict=True):
        shown = _telling(finding)
        numbers = [shown.name, _value(shown), _interval(shown)] if shown else ["-", "", ""]
        body.append([f"{statement.number} {statement.short}", finding.verdict, *numbers, finding.n])
    widths = [max(len(row[place]) for row in [heads, *body]) for place in range(len(heads))]
    lines = ["  ".join(map(_aligned, row, widths, _ALIGNED)).rstrip() for row in [heads, *body]]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def _aligned(cell: str, width: int, to: str) -> str:
    return f"{cell:{to}{width}}"


def _telling(finding: Finding) -> Quantity | None:
    """The condition that stands furthest on the wrong side, or is least certain, measured before counted."""
    measured = [condition for condition in finding.conditions if not condition.quantity.exact]
    if not measured:
        return None
    known = [condition for condition in measured if condition.quantity.has_interval]
    if not known:
        wrong = [condition for condition in measured if not condition.holds]
        return (wrong or measured)[0].quantity
    return max(known, key=lambda condition: condition.p_for()).quantity


def _value(quantity: Quantity) -> str:
    unit = {"%": " %", "x": " x", "points": " points"}[quantity.unit]
    sign = "+" if quantity.unit != "x" else ""
    return f"{quantity.estimate:{sign}.3g}{unit}"


def _interval(quantity: Quantity) -> str:
    if quantity.exact:
        return "counted"
    low, high = quantity.interval()
    return "none" if math.isnan(low) else f"{low:+.3g} .. {high:+.3g}"


def _missing(of: Checked) -> list[str]:
    """What would have to be there, and the command that makes it."""
    from analysis.claims.report import command

    lines = []
    for statement, finding in zip(STATEMENTS, of.findings, strict=True):
        if finding.verdict != NOT_ENOUGH:
            continue
        lines.append(paragraph(f"{statement.number} lacks", finding.missing))
        run = command(of.evidence, statement)
        if run:
            lines.append(f"{'':14}{run}")  # not wrapped, to be copied
    return [*lines, ""] if lines else []


def _basis(of: Checked) -> list[str]:
    if of.evidence.is_published:
        return [
            paragraph(
                "basis",
                "seven models; loss is their rate over that of BPG; no noise is known, so no interval",
            ),
            paragraph("", "the study's sentences rest on many more architectures than these rows"),
        ]
    covers = [finding.covers for finding in of.findings if finding.covers]
    # Rate savings play no part here.
    rows = of.evidence.architectures.assign(**dict.fromkeys(SAVINGS, math.nan), rate_saving_note="")
    lines = basis(rows)
    lines.append(paragraph("scope", f"the verdicts are about {_share(of)}; more training may change them"))
    lines.append(paragraph("measured", _MEASURED))
    if covers:
        lines.append(paragraph("intervals", _intervals_cover(of)))
    return [*lines, paragraph("many claims", _many(of))]


def _intervals_cover(of: Checked) -> str:
    return (
        f"cover, for losses, {of.evidence.covers()}; for orders of runtime, other architectures. "
        "Bootstrap, expanded percentile (Hesterberg 2015); the same images for all architectures"
    )


def _many(of: Checked) -> str:
    known = [p for p in of.p_holm if p is not None]
    if not known:
        return "none was tested"
    names = [
        str(statement.number)
        for statement, finding, p in zip(STATEMENTS, of.findings, of.p_holm, strict=True)
        if p is not None and p < 1 - LEVEL and finding.verdict != NOT_ENOUGH
    ]
    kept = f"verdicts of {', '.join(names)} stand" if names else "no verdict stands"
    return (
        f"{len(known)} of {len(STATEMENTS)} tested; intervals and verdicts are not adjusted for that. "
        f"With Holm's adjustment {kept} at {100 * (1 - LEVEL):.0f} %"
    )


def _details(of: Checked) -> list[str]:
    lines = [""]
    for statement, finding, p_holm in zip(STATEMENTS, of.findings, of.p_holm, strict=True):
        lines += _one(statement, finding, p_holm)
    return lines


def _one(statement: Statement, finding: Finding, p_holm: float | None) -> list[str]:
    from analysis.claims.report import condition_text

    lines = [f"{statement.number} {statement.sentence}", paragraph("  verdict", finding.verdict)]
    lines.append(paragraph("  needs", statement.needs))
    lines.append(paragraph("  tested by", statement.method))
    for condition in finding.conditions:
        quantity = condition.quantity
        value = f"{quantity.name}: {_value(quantity)} ({_interval(quantity)})"
        lines.append(paragraph("  measured", f"{value}; must be {condition_text(condition)}"))
    for quantity in finding.others:
        lines.append(paragraph("  besides", f"{quantity.name}: {_value(quantity)} ({_interval(quantity)})"))
    if finding.n:
        lines.append(paragraph("  of", f"{finding.n}; interval covers {finding.covers}"))
    if finding.p is not None and p_holm is not None:
        lines.append(paragraph("  p", f"{finding.p:.2g}; Holm's {p_holm:.2g}"))
    lines += [paragraph("  note", note) for note in finding.notes]
    if finding.missing:
        lines.append(paragraph("  lacks", finding.missing))
    return [*lines, ""]
