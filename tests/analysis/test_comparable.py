from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_results import result, write_sweep

from analysis.comparable import average_seeds
from analysis.load import read
from analysis.rows import rate_savings
from analysis.schema import COLUMNS


def trials(tmp_path: Path) -> pd.DataFrame:
    trees = [
        result(width, seed=seed) for seed in (0, 1, 2) for width in (32, 64, 96) if width != 32 or not seed
    ]
    for n, tree in enumerate(trees):
        tree["evaluation"]["rd_loss"] += 0.1 * n
        tree["training"]["ended_at"] = 1000.0 - n
    trees[1]["training"]["peak_memory_mb"] = None
    return read(write_sweep(tmp_path / "s", trees)).frame


def slow_average(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """One architecture after the other, in the order in which they first appear."""
    found = []
    for arch_id in dict.fromkeys(rows["arch_id"]):
        same = rows[rows["arch_id"] == arch_id]
        row = {**same.iloc[0].to_dict(), "seeds": len(same)}
        if len(same) > 1:
            for col in COLUMNS:
                if col.kind == "float":
                    values = [value for value in same[col.name] if not np.isnan(value)]
                    row[col.name] = sum(values) / len(values) if values else np.nan
            row |= {"ended_at": max(same["ended_at"]), "spec_id": ";".join(same["spec_id"])}
            row |= rate_savings(row)
        found.append(row)
    return found


def test_averages_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    rows = trials(tmp_path)
    averaged = average_seeds(rows)
    expected = pd.DataFrame(slow_average(rows)).astype(averaged.dtypes)
    pd.testing.assert_frame_equal(averaged, expected, check_dtype=False, rtol=1e-12)
    assert sorted(averaged["seeds"]) == [1, 3, 3]
    assert averaged.index.tolist() == [0, 1, 2]


def test_a_table_without_repeated_seeds_stays_as_it_is(tmp_path: Path) -> None:
    rows = trials(tmp_path)
    single = rows[rows["seed"] == 0]
    pd.testing.assert_frame_equal(
        average_seeds(single).drop(columns="seeds"), single.reset_index(drop=True), check_exact=True
    )


def test_nobody_averages_to_nobody(tmp_path: Path) -> None:
    assert average_seeds(trials(tmp_path).iloc[:0]).empty


@pytest.mark.parametrize("by", [["arch_id"], ["arch_id", "curve_id", "lmbda"]])
def test_groups_are_those_that_are_asked_for(tmp_path: Path, by: list[str]) -> None:
    rows = trials(tmp_path)
    assert len(average_seeds(rows, by)) == len(rows.drop_duplicates(by))
