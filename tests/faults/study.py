"""Whether the study of a search that has ended holds each architecture once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend


def problem_with_study(folder: Path, spec_ids: set[str]) -> str | None:
    """What is wrong with the study in the sweep's folder; None if nothing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.load_study(study_name=None, storage=storage)
    trials = study.get_trials(deepcopy=False)
    running = [trial.number for trial in trials if trial.state.name in ("RUNNING", "WAITING")]
    if running:
        return f"trials {running} of the study still run"
    complete = [
        trial for trial in trials if trial.state.name == "COMPLETE" and "dup_of" not in trial.user_attrs
    ]
    told = Counter(spec_id for trial in complete for spec_id in _spec_ids(trial))
    if told != Counter(spec_ids):
        return f"the study has been told {dict(told)} instead of each of {sorted(spec_ids)} once"
    return None


def _spec_ids(trial: Any) -> list[str]:
    return list(trial.user_attrs["spec_ids"])
