"""Reports that only some sweeps call for: what asks whether one does, and what writes it."""

from __future__ import annotations

import importlib
from pathlib import Path

from analysis.load import Source

# Report, and command, -> column by which its trials are known, and the module that writes it. The module is
# imported only then; its `write(source, folder)` gives back what there is to say at the end of a sweep.
REPORTS = {
    "gating": ("gating", "analysis.gating_report"),
    "variable_rate": ("rate_control", "analysis.variable_rate_report"),
}


def write_more(source: Source, folder: Path) -> str:
    """Write every report that the source calls for; what there is to say of them, '' if nothing.

    They are views of results that are there without them: nothing about one may end a sweep.
    """
    said = []
    for name, (column, module) in REPORTS.items():
        if not _has(source, column):
            continue
        try:
            said.append(importlib.import_module(module).write(source, folder))
        except Exception as error:
            cause = " ".join(str(error).split())[:300]
            said.append(f"no {name} report: {cause}; python -m analysis {name} writes it again")
    return "\n".join(text for text in said if text)


def _has(source: Source, column: str) -> bool:
    """Whether a good trial has something other than none there."""
    frame = source.frame
    return bool((~frame[column].isin(("", "none")) & (frame["status"] == "ok")).any())
