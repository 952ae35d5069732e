"""What a sweep says at its end: the report, what went wrong, and what to type next."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.schema import PAGE_FILE
from sweep.plan import SweepPlan
from sweep.progress import duration
from sweep.tracking.address import redact_value


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """stopped_early: spec_id -> step, of trials that a search did not promote. reason: why the sweep ends
    before it is done, None if it is done. again: the command that continues. not_run: a line per trial that
    others' failures kept from running. to_come: how many trials still waited for others' results."""

    stopped_early: Mapping[str, int]
    reason: str | None
    again: str
    not_run: Sequence[str] = ()
    to_come: int = 0


def closing_text(
    plan: SweepPlan,
    results: Mapping[str, Mapping[str, Any]],
    report: str,
    ending: Ending,
    *,
    took_s: float,
) -> str:
    """report: the printed frontier of analysis. results: by spec_id, of trials that have ended."""
    return "\n".join(
        [
            "",
            report,
            *_troubles(plan, results),
            *(f"not run: {line}" for line in ending.not_run),
            *_stopped(plan, ending),
            _counts(results, took_s),
            *_unfinished(plan, results, ending),
            "next:",
            *_next_commands(plan, results),
        ]
    )


def written_report(folder: Path) -> str:
    """Write tables, figures and the page into the sweep's folder; returns what there is to say of them."""
    from analysis.errors import AnalysisError
    from analysis.frontier import report
    from analysis.load import read
    from analysis.more_reports import write_more

    try:
        source = read(folder)
        said = report(source, folder, print_table=False).text
    except AnalysisError as error:
        return f"no report: {error}"
    more = write_more(source, folder)
    trouble = _page_trouble(source, folder / PAGE_FILE)
    return "\n".join(filter(None, (said, more, trouble)))


def _page_trouble(source: Any, path: Path) -> str:
    """Write the page; what there is to say of it in one line, '' if nothing.

    It is a view of results that are there without it: nothing about it may end a sweep.
    """
    try:
        from analysis.report import write_page

        return "\n".join(write_page(source, path).notes)
    except Exception as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # an older one would show other trials
        cause = " ".join(str(error).split())[:300]
        return f"no {path.name}: {type(error).__name__}: {cause}; python -m analysis report writes it again"


def relative(path: Path) -> str:
    """The path as seen from the current folder, where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _troubles(plan: SweepPlan, results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = plan.names()
    lines = []
    for spec_id, result in results.items():
        if result["status"] != "ok":
            error = result.get("error") or {}
            cause = f"{error.get('class')}: {error.get('message')}"
            lines.append(f"{result['status']}: {names[spec_id]}: {cause}")
            lines.append(f"  {relative(plan.folder / 'trials' / spec_id / 'log.txt')}")
    return lines


def _stopped(plan: SweepPlan, ending: Ending) -> list[str]:
    names = plan.names()
    return [f"stopped early: {names[i]} at step {step}" for i, step in ending.stopped_early.items()]


def _unfinished(plan: SweepPlan, results: Mapping[str, Mapping[str, Any]], ending: Ending) -> list[str]:
    """Why the sweep ended before it was done, and how it goes on."""
    if ending.reason is None:
        if not ending.stopped_early:
            return []
        return [
            f"{len(ending.stopped_early)} trials were stopped early and keep their checkpoints; more "
            "search.trials may promote them, search.rungs=null trains all of them to the end"
        ]
    missing = sum(trial.spec_id not in results for trial in plan.trials)
    left = f"; {missing} trials are not finished and continue from their checkpoints" if missing else ""
    if ending.to_come:
        left += f"; {ending.to_come} more wait for results of others"
    return [f"ended early: {ending.reason}{left}", "continue with the same command:", f"  {ending.again}"]


def _counts(results: Mapping[str, Mapping[str, Any]], took_s: float) -> str:
    ok = sum(result["status"] == "ok" for result in results.values())
    failed = sum(result["status"] == "failed" for result in results.values())
    mismatches = len(results) - ok - failed
    text = f"{ok} trials ok, {failed} failed"
    if mismatches:
        text += f", {mismatches} with a mismatch and kept off the frontier"
    return f"{text}; this command took {duration(took_s)}"


def _next_commands(plan: SweepPlan, results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    page = plan.folder / PAGE_FILE
    commands = {}
    if page.exists():
        commands[f"open {relative(page)}"] = "all of it on one page, in a browser"
    ui = "make ui" if Path("Makefile").exists() else "python -m sweep.ui"
    commands[ui] = "curves, tables and images in MLflow"
    if not plan.settings.search.is_grid:
        commands[f"optuna-dashboard {_study(plan)}"] = "the search's study (pip install optuna-dashboard)"
    if _has_anchors(results):
        commands[f"python -m analysis bdrate {relative(plan.folder)}"] = "against BPG and VTM"
    commands["python -m sweep space=paper budget=paper dry_run=true"] = "what the study costs at full size"
    width = max(map(len, commands))
    return [f"  {command:<{width}}  {what}" for command, what in commands.items()]


def _study(plan: SweepPlan) -> str:
    """Where the study lies, as optuna-dashboard takes it, without credentials."""
    from sweep.search.study import JOURNAL_FILE

    storage = plan.settings.search.storage
    return shlex.quote(redact_value(storage) if storage else relative(plan.folder / JOURNAL_FILE))


def _has_anchors(results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a good trial was evaluated on the images of BPG's and VTM's curves."""
    from analysis.anchors import DEFAULT, load_anchor
    from analysis.rows import dataset_mismatch

    measured = [result["evaluation"] for result in results.values() if result["status"] == "ok"]
    rows = [{"dataset": found.get("dataset"), "eval_images": found.get("images")} for found in measured]
    return any(not dataset_mismatch(row, load_anchor(DEFAULT).dataset) for row in rows)
