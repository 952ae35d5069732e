"""`from=SWEEP top=K`: the best architectures of a finished sweep, trained further from their weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.result import MODEL_FILE, read_finished
from rdc.spec import WarmStart, parse_trial
from sweep.plan import Candidate
from sweep.record import SWEEP_FILE
from sweep.settings import Settings


def frontier_candidates(settings: Settings) -> list[Candidate]:
    """The first `top` architectures of the frontier, lowest rd_loss first, each with its checkpoint."""
    assert settings.source is not None, "called for from=SWEEP only"
    folder = _sweep_folder(settings.source, settings.runs_dir)
    if folder == settings.folder:
        raise UserError(
            f"from={settings.source}: a sweep cannot start from itself; give the new one another name="
        )
    rows = _frontier(folder)
    if not rows:
        raise UserError(f"from={settings.source}: {folder} has no trial on its frontier; see its trials.csv")
    if settings.top is not None and settings.top > len(rows):
        raise UserError(f"top={settings.top}: the frontier of {folder} has {len(rows)} architectures")
    return [_candidate(folder, row) for row in rows[: settings.top]]


def _sweep_folder(source: str, runs_dir: Path) -> Path:
    """A sweep by its folder or by its name under runs_dir."""
    for folder in (runs_dir / source, Path(source).expanduser().resolve()):
        if (folder / SWEEP_FILE).exists():
            return folder
    known = sorted(path.parent.name for path in runs_dir.glob(f"*/{SWEEP_FILE}"))
    there = f"{runs_dir} has: {', '.join(known)}" if known else f"{runs_dir} has none yet"
    raise UserError(f"from={source}: there is no such sweep; {there}")


def _frontier(folder: Path) -> list[dict[str, Any]]:
    """One dict per frontier architecture with arch_id and the spec_id to start from, lowest rd_loss first."""
    from analysis.errors import AnalysisError
    from analysis.frontier import write_report

    try:
        report = write_report(folder, print_table=False, draw=False)
    except AnalysisError as error:
        raise UserError(f"from={folder.name}: {error}") from None
    trials = report.trials[report.trials["on_frontier"]]
    # Several seeds of one architecture: the best one's weights.
    best = trials.sort_values("rd_loss", kind="stable").drop_duplicates("arch_id")
    return [{"arch_id": str(row["arch_id"]), "spec_id": str(row["spec_id"])} for _, row in best.iterrows()]


def _candidate(folder: Path, row: dict[str, Any]) -> Candidate:
    trial = folder / "trials" / row["spec_id"]
    checkpoint = trial / MODEL_FILE
    result = read_finished(trial, spec_id=row["spec_id"])
    if result is None:
        raise UserError(f"{trial / 'result.json'}: is missing or damaged; run the sweep {folder.name} again")
    if not checkpoint.exists():
        raise UserError(
            f"{checkpoint}: is missing, and the trial has to start from it; delete {trial} and run the sweep "
            f"{folder.name} again"
        )
    spec = parse_trial(result["spec"])
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    warm_start = WarmStart(spec_id=spec.spec_id, checkpoint_sha256=digest, lmbda=spec.lmbda)
    point = (f"from {folder.name}/{spec.spec_id}",)
    return Candidate(point=point, model=spec.model, warm_start=warm_start, checkpoint=str(checkpoint))
