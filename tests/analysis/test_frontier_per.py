from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_results import families, grid, result, timing, timings_of, write_sweep

from analysis.comparable import Choice
from analysis.errors import AnalysisError
from analysis.frontier import report
from analysis.frontier_per import PerReport
from analysis.frontier_per import report as report_per
from analysis.load import Source, read
from analysis.pareto import dominates


def per(source: Source, folder: Path, which: str, **options: object) -> PerReport:
    """The tables alone."""
    return report_per(source, folder, which, print_table=False, **options)  # type: ignore[arg-type]


@pytest.fixture
def several(tmp_path: Path) -> Source:
    trees = families(widths=(32, 64, 128))
    return read(write_sweep(tmp_path / "s", trees, timings=timings_of(trees)))


def test_each_device_has_the_frontier_of_its_own_times(several: Source, tmp_path: Path) -> None:
    found = per(several, tmp_path / "o", "device")
    table = pd.read_csv(tmp_path / "o" / "frontier_by_device.csv", float_precision="round_trip")
    keys = ["device", "threads", "precision", "height_px", "width_px"]
    assert table.groupby(keys).size().tolist() == [21] * 5
    runtimes = several.runtimes.set_index(["arch_id", *keys])["dec_total_ms"]
    for setting, rows in table.groupby(keys):
        cost = rows[["rd_loss", "time_dec_total_ms"]].to_numpy()
        for (_, row), own in zip(rows.iterrows(), cost, strict=True):
            assert row["time_dec_total_ms"] == runtimes[(row["arch_id"], *setting)]
            assert row["on_frontier"] == (not any(dominates(other, own) for other in cost))
    on_which = table[table["on_frontier"]].groupby("device")["arch_id"].agg(set)
    assert on_which["cpu:synthetic"] != on_which["gpu:synthetic"]
    assert found.text.count("*") == table["on_frontier"].sum() + 1
    assert "[1] cpu:synthetic, 1 thread(s), bf16, 512 x 768 px (height x width): " in found.text
    assert "time columns are those of" not in found.text


def test_one_device_alone_gives_what_its_times_as_an_objective_give(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", grid()))
    alone = report(
        source,
        tmp_path / "o",
        objectives=["rd_loss", "time_dec_total_ms"],
        print_table=False,
        draw=False,
    )
    table = per(source, tmp_path / "o", "device").table
    on_frontier = table.loc[table["on_frontier"], "arch_id"]
    assert set(on_frontier) == set(alone.frontier["arch_id"])
    assert "on all" not in per(source, tmp_path / "o", "device").text


def test_repeated_timings_count_by_their_median_and_untimed_ones_not_at_all(tmp_path: Path) -> None:
    trees = grid()
    source = read(write_sweep(tmp_path / "s", trees, timings=[timing(tree) for tree in trees[:4]]))
    row = source.runtimes.iloc[[0]]
    more = [row.assign(dec_total_ms=row["dec_total_ms"] * factor) for factor in (10.0, 3.0)]
    source = Source(
        "s",
        source.folder,
        source.frame,
        images=source.images,
        runtimes=pd.concat([source.runtimes, *more], ignore_index=True),
    )
    table = per(source, tmp_path / "o", "device").table
    assert len(table) == 4
    repeated = table.set_index("arch_id").at[row["arch_id"].iloc[0], "time_dec_total_ms"]
    assert repeated == pytest.approx(3.0 * row["dec_total_ms"].iloc[0])


def test_other_times_can_be_the_objective(several: Source, tmp_path: Path) -> None:
    found = per(several, tmp_path, "device", objectives=["bpp", "time_enc_net_ms", "params_m"])
    assert {"bpp", "time_enc_net_ms", "params_m"} < set(found.table)
    assert found.table["is_knee"].isna().all()


def test_each_budget_has_its_frontier_on_the_same_images_and_lmbda(tmp_path: Path) -> None:
    trees = [
        *grid(),
        *(result(width, steps=5000, budget="long") for width in (32, 64, 96)),
        result(128, steps=5000, budget="long", status="failed"),
        result(160, steps=5000, budget="long", status="rate_mismatch"),
        result(192, steps=5000, budget="long", lmbda=0.025),
        result(32, steps=50, budget="clic", dataset="clic", images=41),
    ]
    source = read(write_sweep(tmp_path / "s", trees))
    found = per(source, tmp_path / "o", "budget")
    table = pd.read_csv(tmp_path / "o" / "frontier_by_budget.csv")
    assert table.groupby("budget").size().to_dict() == {"quick": 12, "long": 3}
    assert table["budget"].tolist() == ["quick"] * 12 + ["long"] * 3  # by steps
    quick = report(source, tmp_path / "o", print_table=False, draw=False)
    on_quick = table.loc[(table["budget"] == "quick") & table["on_frontier"], "arch_id"]
    assert set(on_quick) == set(quick.frontier["arch_id"])
    assert "[2] long, 5,000 steps = 0.25 % of the study's 2,000,000" in found.text
    with pytest.raises(AnalysisError, match="--per budget compares all budgets; leave out --budget long"):
        per(source, tmp_path / "o", "budget", choice=Choice(budget="long"))
    other = per(source, tmp_path / "o", "budget", choice=Choice(lmbda=0.025))
    assert other.table["budget"].tolist() == ["long"]


def test_more_groups_than_fit_are_left_to_the_table(tmp_path: Path) -> None:
    trees = [result(width, steps=100 * n, budget=f"b{n}") for n in range(1, 9) for width in (32, 64)]
    found = per(read(write_sweep(tmp_path / "s", trees)), tmp_path / "o", "budget")
    assert "[7] to [8] are in frontier_by_budget.csv" in found.text
    assert max(map(len, found.text.splitlines())) <= 120
    assert len(found.table) == 16


def test_of_several_timed_trials_of_an_architecture_the_compared_ones_count(tmp_path: Path) -> None:
    """What has gates is timed at every lmbda, and may take another time at each."""
    low, high = result(64, lmbda=0.0067), result(64, lmbda=0.013)
    others = [result(width, lmbda=0.013) for width in (32, 96)]
    times = [
        timing(tree, factor=factor) | {"spec_id": tree["spec_id"], "weights": f"trained {tree['spec_id']}"}
        for tree, factor in ((low, 9.0), (high, 1.0))
    ]
    times += [timing(tree) for tree in others]
    source = read(write_sweep(tmp_path / "s", [low, high, *others], timings=times))
    table = per(source, tmp_path / "o", "device").table.set_index("arch_id")
    assert table.loc[high["arch_id"], "time_dec_total_ms"] == times[1]["decode"]["total_ms"]["median"]
    assert len(table) == 3


def test_what_cannot_be_compared_per_device_or_budget_is_refused(tmp_path: Path) -> None:
    untimed = read(write_sweep(tmp_path / "s", grid(), timings=[]))
    with pytest.raises(AnalysisError, match="--per device: s holds no timings of several devices"):
        per(untimed, tmp_path, "device")
    timed = read(write_sweep(tmp_path / "t", grid()))
    with pytest.raises(AnalysisError, match="objectives rd_loss,params_m hold no time"):
        per(timed, tmp_path, "device", objectives=["rd_loss", "params_m"])
    other = Source("u", tmp_path, timed.frame, runtimes=timed.runtimes.assign(dec_total_ms=np.nan))
    with pytest.raises(AnalysisError, match="no architecture that can be compared has time_dec_total_ms"):
        per(other, tmp_path, "device")
    failed = read(write_sweep(tmp_path / "v", [result(status="failed")]))
    with pytest.raises(AnalysisError, match="no trial of v can be compared"):
        per(failed, tmp_path, "budget")
