"""The sentences at the top of the page, of numbers small enough to check by head."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_results import grid, write_sweep

from analysis.frontier import rank
from analysis.frontier import report as frontier_report
from analysis.load import read
from analysis.objectives import DEFAULT_OBJECTIVES
from analysis.report.verdict import Verdict, undertrained, verdict
from analysis.rows import typed

LOSS, WORK = DEFAULT_OBJECTIVES
GOALS = "both loss and decode work"


def architectures(*rows: dict[str, Any]) -> pd.DataFrame:
    """Typed rows, named a, b, c, ... where they have no name."""
    named = [{"label": "abcdef"[n % 6], "arch_id": f"id{n}", **row} for n, row in enumerate(rows)]
    return typed(pd.DataFrame(named))


def said_of(
    *rows: tuple[float, float], objectives: tuple[str, ...] = DEFAULT_OBJECTIVES, **every: Any
) -> Verdict:
    """rows: values of the objectives. every: columns that are the same for all."""
    frame = architectures(*(dict(zip(objectives, row, strict=True)) | every for row in rows))
    return verdict(rank(frame, objectives), objectives)


def test_the_answer_names_the_best_what_it_gains_and_what_that_costs() -> None:
    # 1.5 is a quarter below 2.0; 10 is 2.5 times 4; c is beaten by b.
    found = said_of((2.0, 4.0), (1.5, 10.0), (1.8, 12.0))
    assert found.lines[:2] == (
        "Best of 3: b, 25.0 % lower loss than the cheapest (a) for 2.5 times its decode work.",
        f"2 of 3 architectures are on the frontier: for the other one another is at least as good in {GOALS} "
        "and better in one.",
    )
    assert found.best == 1


def test_a_frontier_that_rules_nobody_out_says_so() -> None:
    found = said_of((2.0, 4.0), (1.5, 10.0))
    assert found.lines[1] == (
        "2 of 2 architectures are on the frontier: none rules another out, for none is at least as good "
        f"as another in {GOALS} and better in one."
    )


def test_one_that_beats_all_is_the_cheapest_too() -> None:
    found = said_of((2.0, 4.0), (1.5, 3.0), (1.6, 3.5))
    assert found.lines[0] == "Best of 3: b, which has the lowest decode work too."
    assert found.lines[1].startswith(
        "1 of 3 architectures is on the frontier: for each of the other 2 another"
    )


def test_equal_ones_are_not_kept_silent_and_of_the_same_loss_the_cheaper_is_best() -> None:
    found = said_of((2.0, 4.0), (1.5, 12.0), (1.5, 8.0), (1.5, 8.0))
    assert found.best == 2
    assert found.lines[0] == (
        "Best of 4: c (and 1 equal to it), 25.0 % lower loss than the cheapest (a) "
        "for 2.0 times its decode work."
    )
    assert said_of((1.5, 4.0), (1.5, 4.0)).lines[0] == (
        "Best of 2: a (and 1 equal to it), which has the lowest decode work too."
    )


def test_one_architecture_is_compared_with_nothing() -> None:
    found = said_of((1.65, 7411.25), rate_saving_vs_bpg_pct=-131.25)
    assert found.lines[0] == (
        "One architecture was measured, a: loss 1.65 bit/px and decode work 7,411 kMAC/px. "
        "There is none to compare it with."
    )
    assert found.lines[1].startswith("Against BPG at equal PSNR the best needs 2.3 times its bits. Loss is")


def test_the_best_is_the_first_of_those_whom_a_slow_search_finds() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 8, 40):
        points = [(float(x), float(y)) for x, y in rng.integers(1, 5, (count, 2))]
        found = said_of(*points)
        assert found.best == points.index(min(points))
        beaten = [any(u <= x and v <= y and (u, v) != (x, y) for u, v in points) for x, y in points]
        assert count == 1 or found.lines[1].startswith(f"{beaten.count(False)} of {count} ")


@pytest.mark.parametrize(
    ("saving_pct", "said"),
    [
        (12.34, "saves 12.3 % of its bits"),
        (0.6, "saves 0.6 % of its bits"),
        (0.04, "needs as many bits"),
        (-0.04, "needs as many bits"),
        (-5.0, "needs 5.0 % more bits"),
        (-30.0, "needs 1.30 times its bits"),
        (-131.25, "needs 2.3 times its bits"),
        (-1900.0, "needs 20 times its bits"),
    ],
)
def test_bpg_is_named_in_bits_where_it_can_be_compared(saving_pct: float, said: str) -> None:
    found = said_of((2.0, 4.0), (1.5, 10.0), rate_saving_vs_bpg_pct=saving_pct)
    assert found.lines[2].startswith(f"Against BPG at equal PSNR the best {said}. Loss is bits")


def test_without_a_saving_nothing_is_said_of_bpg() -> None:
    rows = [{LOSS: 2.0, WORK: 4.0, "rate_saving_vs_bpg_pct": -10.0}, {LOSS: 1.5, WORK: 9.0}]
    found = verdict(rank(architectures(*rows), DEFAULT_OBJECTIVES), DEFAULT_OBJECTIVES)
    assert not any("BPG" in line for line in found.lines), "the saving of another is not the best one's"


@pytest.mark.parametrize(
    ("objectives", "rows", "said"),
    [
        (
            ("rd_loss", "time_dec_total_ms"),
            [(2.0, 40.0), (1.9, 42.0)],
            "Best of 2: b, 5.0 % lower loss than the cheapest (a) for 5.0 % more decode time.",
        ),
        (
            ("kmac_per_px_dec", "psnr_db"),
            [(4.0, 28.0), (400.0, 30.5)],
            "Best of 2 in PSNR: b, 2.5 dB higher PSNR than the cheapest (a) for 100 times its decode work.",
        ),
        (
            ("psnr_db", "bpp"),
            [(28.0, 0.4), (30.0, 0.5)],
            "Best of 2 in PSNR: b, 2 dB higher PSNR than the best in rate of the coded file (a) "
            "with 25.0 % higher rate of the coded file.",
        ),
        (
            ("ms_ssim", "params_m"),
            [(0.95, 1.0), (0.97, 1.5)],
            "Best of 2 in MS-SSIM: b, 0.02 higher MS-SSIM than the cheapest (a) "
            "for 1.50 times its parameters.",
        ),
        (
            ("params_m", "time_dec_total_ms"),
            [(1.0, 40.0), (2.0, 20.0)],
            "Best of 2 in parameters: a, 50.0 % lower parameters than the best in decode time (b) "
            "for 2.0 times its decode time.",
        ),
        (
            ("rd_loss", "kmac_per_px_dec", "params_m"),
            [(2.0, 4.0, 1.0), (1.5, 9.0, 2.0)],
            "Best of 2: b, with loss 1.5 bit/px.",
        ),
    ],
)
def test_other_objectives_are_told_in_their_own_words(
    objectives: tuple[str, ...], rows: list[tuple[float, ...]], said: str
) -> None:
    frame = architectures(*(dict(zip(objectives, row, strict=True)) for row in rows))
    assert verdict(rank(frame, objectives), objectives).lines[0] == said


def test_a_cost_of_nothing_is_no_divisor() -> None:
    found = said_of((2.0, 0.0), (1.5, 3.0))
    assert found.lines[0] == (
        "Best of 2: b, 25.0 % lower loss than the cheapest (a) with 3 kMAC/px higher decode work."
    )


@pytest.mark.parametrize(
    ("shares", "origins", "said"),
    [
        (
            (0.025, 0.025),
            ("", ""),
            "Undertrained: 0.025 % of the study's 2,000,000 steps: orders may change.",
        ),
        ((0.025, 0.1), ("", ""), "Undertrained: 0.025 to 0.1 % of the study's 2,000,000 steps: orders may"),
        ((0.025, 100.0), ("", ""), "Undertrained: 0.025 to 100 % of the study's"),
        (
            (5.0, 5.0),
            ("x", "y"),
            "Undertrained: 5 % of the study's 2,000,000 steps, warm-started: orders may",
        ),
        (
            (5.0, 5.0),
            ("x", ""),
            "Undertrained: 5 % of the study's 2,000,000 steps, some warm-started: orders",
        ),
    ],
)
def test_too_little_training_is_warned_of_first(
    shares: tuple[float, float], origins: tuple[str, str], said: str
) -> None:
    rows = [
        {LOSS: 2.0 - n, WORK: 4.0 + n, "percent_of_paper_steps": share, "warm_start": origin}
        for n, (share, origin) in enumerate(zip(shares, origins, strict=True))
    ]
    found = verdict(rank(architectures(*rows), DEFAULT_OBJECTIVES), DEFAULT_OBJECTIVES)
    assert found.warning.startswith(said)
    assert not any("rained" in line for line in found.lines), "it is said once"


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (100.0, "Trained for 100 % of the study's 2,000,000 steps."),
        (math.nan, "How far these models were trained is not recorded."),
    ],
)
def test_what_needs_no_warning_is_said_last(share: float, said: str) -> None:
    found = said_of((2.0, 4.0), (1.5, 10.0), percent_of_paper_steps=share)
    assert found.warning == ""
    assert found.lines[-1] == f"Loss is bits per pixel plus weighted error. {said}"


def test_a_real_comparison_agrees_with_the_frontier_command(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", grid()))
    found = frontier_report(source, tmp_path / "out", print_table=False, draw=False)
    said = verdict(found.architectures, DEFAULT_OBJECTIVES)
    ordered = found.architectures.sort_values("rd_loss", kind="stable")
    assert said.lines[0].startswith(f"Best of 12: {ordered['label'].iloc[0]}, ")
    assert said.lines[1].startswith(f"{len(found.frontier)} of 12 architectures")
    assert undertrained(found.architectures) == said.warning
