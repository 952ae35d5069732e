"""What the driver takes its trials from, and the plain case: the whole grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sweep.plan import PlannedTrial

# What of a result.json a driver keeps in memory, of thousands of trials.
Summary = dict[str, Any]
_KEPT = ("dataset", "images", "bpp", "psnr_db", "rd_loss", "padded_px_ratio", "gating")


class TrialSource(Protocol):
    """Says what runs next. Whoever asks for a trial runs it, and tells how it ended."""

    eager: bool  # whether trials may be asked for before there is a slot for them

    @property
    def done(self) -> bool:
        """Whether nothing is to run any more."""

    @property
    def to_come(self) -> int:
        """How many trials are not planned yet, only because others have to end first."""

    def ask(self, free_slots: int) -> list[PlannedTrial]:
        """At most that many trials; none while the next one depends on what is running."""

    def trials(self) -> Sequence[PlannedTrial]:
        """All of the sweep so far, also those that had their result already; grows at its end, by `ask`."""

    def tell(self, spec_id: str, result: Mapping[str, Any]) -> None:
        """How a trial ended: the summary of its result, or status "paused" and the step."""

    @property
    def wants_times(self) -> bool:
        """Whether nothing is asked for before the architectures that are trained have been timed."""

    def timed(self) -> None:
        """They have been, as far as that was possible."""

    def stopped(self) -> dict[str, int]:
        """spec_id -> step, of trials that were stopped early and keep their checkpoint."""

    def not_run(self) -> list[str]:
        """Trials that cannot run in this command, each with the reason, in a line."""

    def close(self) -> None:
        """Nothing is asked or told any more by this command."""


class Grid:
    """Every missing trial once, in the given order."""

    eager = True
    wants_times = False
    to_come = 0

    def __init__(self, trials: Sequence[PlannedTrial]) -> None:
        self._trials = tuple(trials)
        self._waiting = deque(trials)
        self._running: set[str] = set()

    @property
    def done(self) -> bool:
        return not self._waiting and not self._running

    def ask(self, free_slots: int) -> list[PlannedTrial]:
        asked = [self._waiting.popleft() for _ in range(min(free_slots, len(self._waiting)))]
        self._running |= {trial.spec_id for trial in asked}
        return asked

    def trials(self) -> Sequence[PlannedTrial]:
        return self._trials

    def tell(self, spec_id: str, result: Mapping[str, Any]) -> None:
        self._running.discard(spec_id)

    def timed(self) -> None:
        pass

    def stopped(self) -> dict[str, int]:
        return {}

    def not_run(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


def summary(result: Mapping[str, Any]) -> Summary:
    """The few fields of a result that decisions and messages need."""
    evaluation = result.get("evaluation") or {}
    return {
        "status": result["status"],
        "error": result.get("error"),
        "model_sha256": (result.get("model") or {}).get("sha256"),
        "evaluation": {key: evaluation.get(key) for key in _KEPT},
    }
