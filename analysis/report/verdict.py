"""What came out of a comparison, in a few sentences for a reader who knows nothing of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import text
from analysis.objectives import LOG_PREFIXES, costs
from analysis.report.words import plain
from analysis.schema import column

# In a sentence that has the whole name, or the meaning, beside it.
_SHORT = {"rd_loss": "loss", "kmac_per_px_dec": "decode work", "kflop_per_px_dec": "decode work"}
_LOSS = "Loss is bits per pixel plus weighted error."
# Of these a share says nothing: their zero is not "none of it".
_DIFFERENCES = ("dB", "%", "1")
# From this factor on "times" is easier to read than "% more".
_TIMES = 1.1
_LABEL_WIDTH = 60


@dataclasses.dataclass(frozen=True)
class Verdict:
    """warning: why it may change, '' if nothing speaks for that. lines: the answer, in reading order.

    best: place of the best architecture among those compared; None where there is none.
    """

    warning: str
    lines: tuple[str, ...]
    best: int | None


def verdict(architectures: pd.DataFrame, objectives: Sequence[str]) -> Verdict:
    """Which architecture is best and at what price, whom the frontier rules out, and how far from BPG.

    architectures: as of `analysis.frontier`, with on_frontier.
    """
    if architectures.empty:
        return Verdict("", ("No trial can be compared; the reasons stand below.",), None)
    goal, price = _roles(objectives)
    best = _leader(architectures, [goal, price, *objectives])
    warning = undertrained(architectures)
    rest = [
        *_against_bpg(architectures.iloc[best], goal),
        *([_LOSS] if "rd_loss" in objectives else []),
        *([] if warning else [trained(architectures)]),
    ]
    lines = [_best(architectures, best, goal, price, objectives), *_frontier(architectures, objectives)]
    return Verdict(warning, (*lines, *([" ".join(rest)] if rest else [])), best)


def undertrained(rows: pd.DataFrame) -> str:
    """A warning, if any of these had less than the study's training; never of what is not recorded."""
    share = rows["percent_of_paper_steps"].dropna()
    if share.empty or share.min() >= 100:
        return ""
    shares = f"{share.min():.3g}"
    if f"{share.max():.3g}" != shares:
        shares += f" to {share.max():.3g}"
    warm = rows["warm_start"] != ""
    started = ", warm-started" if warm.all() else ", some warm-started" if warm.any() else ""
    return f"Undertrained: {shares} % of the study's 2,000,000 steps{started}: orders may change."


def trained(rows: pd.DataFrame) -> str:
    """How far, where nothing warns of it."""
    share = rows["percent_of_paper_steps"].min()
    if pd.isna(share):
        return "How far these models were trained is not recorded."
    return f"Trained for {share:.3g} % of the study's 2,000,000 steps."


def _roles(objectives: Sequence[str]) -> tuple[str, str]:
    """(what is wanted, what is paid for it): the first that is no cost, and the first other one."""
    goal = next((name for name in objectives if not _is_cost(name)), objectives[0])
    return goal, next(name for name in objectives if name != goal)


def _is_cost(name: str) -> bool:
    return name.startswith(LOG_PREFIXES)


def _leader(architectures: pd.DataFrame, names: Sequence[str]) -> int:
    """Place of the best in the first of the columns; of equals the best in the next one, then the first."""
    return int(np.lexsort(costs(architectures, names).T[::-1])[0])


def _best(architectures: pd.DataFrame, best: int, goal: str, price: str, objectives: Sequence[str]) -> str:
    row, count = architectures.iloc[best], len(architectures)
    if count == 1:
        values = " and ".join(_value(name, row[name]) for name in objectives)
        return f"One architecture was measured, {_name(row)}: {values}. There is none to compare it with."
    where = "" if goal == "rd_loss" else f" in {_short(goal)}"
    head = f"Best of {count:,}{where}: {_name(row)}{_equals(architectures, best, objectives)}"
    if len(objectives) > 2:
        return f"{head}, with {_value(goal, row[goal])}."
    first = architectures.iloc[_leader(architectures, [price, goal])]
    if bool((row[[goal, price]] == first[[goal, price]]).all()):
        extreme = "lowest" if column(price).better == "low" else "highest"
        return f"{head}, which has the {extreme} {_short(price)} too."
    least = "cheapest" if _is_cost(price) and not _is_cost(goal) else f"best in {_short(price)}"
    gain = _beside(goal, row[goal], first[goal])
    return f"{head}, {gain} than the {least} ({_name(first)}) {_paid(price, row[price], first[price])}."


def _equals(architectures: pd.DataFrame, best: int, objectives: Sequence[str]) -> str:
    cost = costs(architectures, objectives)
    others = int((cost == cost[best]).all(axis=1).sum()) - 1
    return f" (and {others} equal to it)" if others else ""


def _beside(name: str, value: float, other: float) -> str:
    """How far a value lies from another, the lower or the higher one being better."""
    word, unit = "lower" if value < other else "higher", column(name).unit
    if unit in _DIFFERENCES or min(value, other) <= 0:
        return f"{abs(value - other):.3g} {'' if unit == '1' else f'{unit} '}{word} {_short(name)}"
    return f"{_percent(100 * abs(value / other - 1))} {word} {_short(name)}"


def _paid(name: str, value: float, other: float) -> str:
    """What more it costs, or loses, than another."""
    if not _is_cost(name) or other <= 0:
        return f"with {_beside(name, value, other)}"
    ratio = value / other
    if ratio < _TIMES:
        return f"for {_percent(100 * (ratio - 1))} more {_short(name)}"
    return f"for {_times(ratio)} its {_short(name)}"


def _frontier(architectures: pd.DataFrame, objectives: Sequence[str]) -> list[str]:
    count, kept = len(architectures), int(architectures["on_frontier"].sum())
    if count == 1:
        return []
    names = [_short(name) for name in objectives]
    goals = f"{'both ' if len(names) == 2 else ''}{', '.join(names[:-1])} and {names[-1]}"
    head = f"{kept:,} of {count:,} architectures {'are' if kept > 1 else 'is'} on the frontier"
    if kept == count:
        whom = "none rules another out, for none is at least as good as another"
        return [f"{head}: {whom} in {goals} and better in one."]
    out = count - kept
    whom = "the other one" if out == 1 else f"each of the other {out:,}"
    return [f"{head}: for {whom} another is at least as good in {goals} and better in one."]


def _against_bpg(best: pd.Series, goal: str) -> list[str]:
    """Nothing where the saving does not exist, or where "the best" is about costs alone."""
    saving_pct = best["rate_saving_vs_bpg_pct"]
    if pd.isna(saving_pct) or _is_cost(goal):
        return []
    if abs(saving_pct) < 0.05:
        said = "needs as many bits"
    elif saving_pct > 0:
        said = f"saves {_percent(saving_pct)} of its bits"
    elif saving_pct > -100 * (_TIMES - 1):
        said = f"needs {_percent(-saving_pct)} more bits"
    else:
        said = f"needs {_times(1 - saving_pct / 100)} its bits"
    return [f"Against BPG at equal PSNR the best {said}."]


def _name(row: pd.Series) -> str:
    return text.shorten(str(row["label"]), _LABEL_WIDTH)


def _short(name: str) -> str:
    return _SHORT.get(name) or plain(name)


def _value(name: str, value: float) -> str:
    unit = column(name).unit
    return f"{_short(name)} {value:,.4g}{'' if unit in ('-', '1') else f' {unit}'}"


def _percent(value: float) -> str:
    return f"{value:,.1f} %" if value >= 1 else f"{value:.2g} %"


def _times(ratio: float) -> str:
    return f"{ratio:,.{2 if ratio < 2 else 1 if ratio < 10 else 0}f} times"
