"""The claims tested, adjusted for their number, written as CSV and JSON, and printed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.evidence import Evidence, from_table1, gather
from analysis.claims.statements import STATEMENTS, Statement
from analysis.claims.statistics import DRAWS, LEVEL, holm
from analysis.claims.verdicts import NOT_ENOUGH, Condition, Finding
from analysis.comparable import Choice
from analysis.errors import AnalysisError
from analysis.files import atomic, write_csv
from analysis.load import Source
from analysis.text import undertraining

FORMAT_VERSION = 1
_BASIS = (
    "lmbda", "dataset", "dataset_hash", "eval_images", "budget", "budget_id", "semantics_version", "steps",
    "percent_of_paper_steps", "precision", "train_data", "train_data_hash", "train_device",
)  # fmt: skip
# Enough architectures of several families where no trained ones are at hand.
_MODELS = "rdc_a rdc_b rdc_c rdc_d rdc_e rdc_f rdc_g conv_charm swint_charm elic"


@dataclasses.dataclass(frozen=True, eq=False)
class Checked:
    """One body of evidence with a finding per statement. p_holm: adjusted for the statements tested on it."""

    evidence: Evidence
    findings: tuple[Finding, ...]
    p_holm: tuple[float | None, ...]

    @property
    def budget(self) -> str:
        """What the verdicts are about."""
        if self.evidence.is_published:
            return "the study's own training: 2,000,000 steps"
        rows = self.evidence.architectures
        trained = undertraining(rows)
        name = rows["budget"].iloc[0] or "not named"
        return f"budget {name}" + (f": {trained}" if trained else "; how far it trains is not recorded")


@dataclasses.dataclass(frozen=True, eq=False)
class ClaimsReport:
    """tested: the user's sweep, the study's table, or both. text: what was, or would have been, printed."""

    tested: tuple[Checked, ...]
    table: pd.DataFrame
    files: tuple[Path, ...]
    text: str


def check_claims(evidence: Evidence, statements: Sequence[Statement] = STATEMENTS) -> Checked:
    """Every statement on one body of evidence."""
    findings = tuple(statement.test(evidence) for statement in statements)
    known = [index for index, finding in enumerate(findings) if finding.p is not None]
    adjusted: list[float | None] = [None] * len(findings)
    for index, p in zip(known, holm([findings[index].p or 0.0 for index in known]), strict=True):
        adjusted[index] = p
    return Checked(evidence, findings, tuple(adjusted))


def report(
    sources: Sequence[Source],
    folder: Path,
    *,
    choice: Choice | None = None,
    runtimes: Sequence[pd.DataFrame] = (),
    published: bool = False,
    verbose: bool = False,
    print_text: bool = True,
) -> ClaimsReport:
    """Test, write claims.csv and claims.json, print; the output folder is made if needed."""
    from analysis.claims.text import claims_text

    if not sources and not published:
        raise AnalysisError("nothing to test: name a SOURCE, or --published for the study's own table")
    tested = []
    if sources:
        tested.append(check_claims(gather(sources, choice, runtimes)))
    if published:
        tested.append(check_claims(from_table1()))
    table = claims_table(tested)
    files = (write_csv(table, folder / "claims.csv"), _write_json(tested, folder / "claims.json"))
    problems = [problem for source in sources for problem in source.problems]
    printed = claims_text(tested, problems, files, verbose=verbose)
    if print_text:
        print(printed)
    return ClaimsReport(tuple(tested), table, files, printed)


def claims_table(tested: Sequence[Checked]) -> pd.DataFrame:
    """One row per body of evidence, statement and quantity; a statement without one has a single row."""
    rows = []
    for of, statement, finding, p_holm in _each(tested):
        common = {
            "evidence": of.evidence.name,
            "is_published": of.evidence.is_published,
            "number": statement.number,
            "claim": statement.id,
            "statement": statement.sentence,
            "verdict": finding.verdict,
            "budget": of.budget,
        }
        last = {
            "p": finding.p,
            "p_holm": p_holm,
            "n": finding.n,
            "covers": finding.covers,
            "missing": finding.missing,
            "command": command(of.evidence, statement) if finding.verdict == NOT_ENOUGH else "",
        }
        quantities = _quantities(finding) or [{}]
        rows += [{**common, **quantity, **last} for quantity in quantities]
    names = ["quantity", "unit", "estimate", "low", "high", "level", "condition"]
    frame = pd.DataFrame(rows)
    for name in names:
        frame[name] = frame.get(name)
    front = [name for name in frame.columns if name not in (*names, *last)]
    return frame[[*front, *names, *last]]


def command(evidence: Evidence, statement: Statement) -> str:
    """The command that makes what is missing; '' for the study's table, which nobody can extend.

    Trained with the budget and lmbda of the sweep, for else the two cannot be compared.
    """
    if evidence.is_published:
        return ""
    if statement.is_timed:
        what = f"--checkpoints {evidence.checkpoints}" if evidence.checkpoints else f"--models {_MODELS}"
        # Times of different arithmetic are not compared.
        known = evidence.runtimes["precision"][evidence.runtimes["precision"] != ""].mode()
        precision = f"--precision {known.iloc[0]} " if len(known) else ""
        return f"python -m rdc time {what} {precision}{statement.command}"
    first = evidence.architectures.iloc[0]
    same = [f"budget={first['budget']}"] if first["budget"] not in ("", "quick") else []
    same += [f"lmbda={first['lmbda']:g}"] if first["lmbda"] != 0.013 else []
    return " ".join(["python -m sweep", statement.command, *same])


def _each(tested: Sequence[Checked]) -> list[tuple[Checked, Statement, Finding, float | None]]:
    return [
        (of, statement, finding, p_holm)
        for of in tested
        for statement, finding, p_holm in zip(STATEMENTS, of.findings, of.p_holm, strict=True)
    ]


def _quantities(finding: Finding) -> list[dict[str, Any]]:
    conditions = {id(c.quantity): c for c in finding.conditions}
    rows = []
    for quantity in finding.quantities:
        low, high = quantity.interval()
        condition = conditions.get(id(quantity))
        rows.append(
            {
                "quantity": quantity.name,
                "unit": quantity.unit,
                "estimate": quantity.estimate,
                "low": low,
                "high": high,
                "level": LEVEL if quantity.draws is not None else None,
                "condition": condition_text(condition) if condition else "",
            }
        )
    return rows


def condition_text(condition: Condition) -> str:
    return f"{'<' if condition.below else '>'} {condition.bound:g}"


def _write_json(tested: Sequence[Checked], path: Path) -> Path:
    tree = {
        "format_version": FORMAT_VERSION,
        "level": LEVEL,
        "draws": DRAWS,
        "adjustment": "intervals and verdicts: none; p_holm: Holm, over the claims tested on this evidence",
        "evidence": [_evidence_tree(of) for of in tested],
    }
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(_plain(tree), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _evidence_tree(of: Checked) -> dict[str, Any]:
    evidence = of.evidence
    return {
        "name": evidence.name,
        "is_published": evidence.is_published,
        "budget": of.budget,
        "measure": evidence.measure,
        "architectures": len(evidence.architectures),
        "images": evidence.images,
        "seed_sd_ln": evidence.seed_sd,
        "seed_freedom": evidence.seed_freedom,
        "notes": list(evidence.notes),
        "basis": _basis(evidence),
        "claims": [
            {
                "number": statement.number,
                "id": statement.id,
                "statement": statement.sentence,
                "needs": statement.needs,
                "method": statement.method,
                "verdict": finding.verdict,
                "n": finding.n,
                "covers": finding.covers,
                "p": finding.p,
                "p_holm": p_holm,
                "quantities": _quantities(finding),
                "missing": finding.missing,
                "command": command(evidence, statement) if finding.verdict == NOT_ENOUGH else "",
                "notes": list(finding.notes),
                "comparisons": list(finding.rows),
            }
            for statement, finding, p_holm in zip(STATEMENTS, of.findings, of.p_holm, strict=True)
        ],
    }


def _basis(evidence: Evidence) -> dict[str, Any]:
    """What was trained and evaluated on."""
    first = evidence.architectures.iloc[0]
    return {name: first[name] for name in _BASIS if name in first}


def _plain(value: Any) -> Any:
    """For JSON: numbers of numpy and pandas as those of Python, what is missing or not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if value is None or value is pd.NA:
        return None
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return str(value)
