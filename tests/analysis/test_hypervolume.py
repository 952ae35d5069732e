import itertools
import math
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from synthetic_results import families, grid, result, write_sweep

from analysis import hypervolume, hypervolume_report
from analysis.comparable import average_seeds
from analysis.errors import AnalysisError
from analysis.frontier import rank, write_report
from analysis.load import read

Floats = npt.NDArray[np.float64]
OBJECTIVES = ("rd_loss", "kmac_per_px_dec")

clouds = st.integers(2, 4).flatmap(
    lambda k: hnp.arrays(
        np.float64, st.tuples(st.integers(1, 7), st.just(k)), elements=st.integers(0, 9).map(float)
    )
)


def slow_volume(points: Floats, reference: Floats) -> float:
    """Union of the boxes from each point to the reference, by inclusion and exclusion."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            sides = [
                max(0.0, r - max(column)) for r, column in zip(reference, np.transpose(some), strict=True)
            ]
            total += (-1) ** (size + 1) * math.prod(sides)
    return total


def table(rows: list[tuple[float, float]], ended_at: list[float] | None = None) -> pd.DataFrame:
    """Architectures with (rd_loss, kMAC/px)."""
    losses, kmacs = zip(*rows, strict=True)
    names = [f"a{n}" for n in range(len(rows))]
    frame = pd.DataFrame({"arch_id": names, "curve_id": names, "label": names, "family": "f"})
    frame = frame.assign(rd_loss=losses, kmac_per_px_dec=kmacs, ended_at=ended_at or range(len(rows)))
    return rank(frame.astype({"ended_at": "float64"}), OBJECTIVES)


@settings(max_examples=80)
@given(clouds, st.integers(5, 12))
def test_volumes_are_those_of_inclusion_and_exclusion(points: Floats, corner: int) -> None:
    reference = np.full(points.shape[1], float(corner))
    k = points.shape[1]
    space = hypervolume.Space(("rd_loss",) * k, (False,) * k, np.zeros(k), reference)
    assert space.volume(points) == pytest.approx(slow_volume(points, reference), abs=1e-9)


def test_a_volume_by_hand_and_its_share_of_the_box() -> None:
    # Costs count by log10: (1, 10) and (3, 1) become (1, 1) and (3, 0); the derived reference is a tenth of
    # the ranges 2 and 1 beyond (3, 1): (3.2, 1.1). Boxes 2.2 x 0.1 and 0.2 x 1.1, of which 0.2 x 0.1 are
    # shared: 0.22 + 0.22 - 0.02 = 0.42. The box from the ideal (1, 0) is 2.2 x 1.1 = 2.42.
    architectures = table([(1.0, 10.0), (3.0, 1.0), (3.5, 500.0)])
    space = hypervolume.space_of(architectures, OBJECTIVES)
    assert space is not None
    assert space.logs == (False, True)
    volume = hypervolume.total(architectures, space)
    assert volume == pytest.approx(0.42)
    assert space.percent(volume) == pytest.approx(100 * 0.42 / 2.42)
    assert space.reference_values() == pytest.approx({"rd_loss": 3.2, "kmac_per_px_dec": 10**1.1})
    assert space.describe() == "rd_loss 3.2 (derived); kmac_per_px_dec 12.59 (derived, log10)"


def test_a_reference_of_ones_own_is_taken_as_it_is() -> None:
    # To (4, 100), in log10 (4, 2): boxes 3 x 1 and 1 x 2, of which 1 x 1 are shared: 4.
    architectures = table([(1.0, 10.0), (3.0, 1.0)])
    space = hypervolume.space_of(architectures, OBJECTIVES, {"rd_loss": 4.0, "kmac_per_px_dec": 100.0})
    assert space is not None
    assert hypervolume.total(architectures, space) == pytest.approx(4.0)
    near = hypervolume.space_of(architectures, OBJECTIVES, {"rd_loss": 0.5})
    assert near is not None
    assert hypervolume.total(architectures, near) == 0.0
    assert np.isnan(near.percent(0.0))


def test_what_is_better_high_has_its_reference_below() -> None:
    architectures = table([(1.0, 10.0), (3.0, 1.0)]).assign(psnr_db=[34.0, 30.0])
    objectives = ("psnr_db", "kmac_per_px_dec")
    space = hypervolume.space_of(rank(architectures, objectives), objectives)
    assert space is not None
    assert space.reference_values()["psnr_db"] == pytest.approx(29.6)
    given_one = hypervolume.space_of(rank(architectures, objectives), objectives, {"psnr_db": 20.0})
    assert given_one is not None
    assert given_one.reference_values()["psnr_db"] == 20.0


def test_costs_of_zero_are_not_taken_the_logarithm_of() -> None:
    space = hypervolume.space_of(table([(1.0, 10.0), (3.0, 0.0)]), OBJECTIVES)
    assert space is not None
    assert space.logs == (False, False)


def test_one_architecture_has_no_extent_unless_the_reference_is_given() -> None:
    alone = table([(1.0, 10.0)])
    assert hypervolume.space_of(alone, OBJECTIVES) is None
    assert hypervolume.space_of(alone, OBJECTIVES, {"rd_loss": 2.0}) is None
    space = hypervolume.space_of(alone, OBJECTIVES, {"rd_loss": 2.0, "kmac_per_px_dec": 100.0})
    assert space is not None
    assert hypervolume.total(alone, space) == pytest.approx(1.0)


rows = st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(1, 6).map(float)), min_size=2, max_size=8)


@settings(max_examples=60)
@given(rows, st.data())
def test_the_history_is_the_volume_of_each_beginning(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    ended_at = data.draw(st.permutations([float(n) for n in range(len(rows))]))
    architectures = table(rows, ended_at)
    reference = {"rd_loss": 5.0, "kmac_per_px_dec": 5.0}
    space = hypervolume.space_of(architectures, OBJECTIVES, reference)
    assert space is not None
    history = hypervolume.history(architectures, architectures, space)
    in_order = architectures.sort_values("ended_at")
    assert history["arch_id"].tolist() == in_order["arch_id"].tolist()
    for count in range(1, len(rows) + 1):
        expected = slow_volume(space.points(in_order.head(count)), space.reference)
        assert history["hypervolume"].iloc[count - 1] == pytest.approx(expected, abs=1e-9)
    assert history["hypervolume"].is_monotonic_increasing
    assert history["hypervolume"].iloc[-1] == pytest.approx(hypervolume.total(architectures, space))


def test_an_architecture_is_ready_when_its_last_seed_is(tmp_path: Path) -> None:
    trials = [result(64, seed=0), result(64, seed=1), result(32), result(96)]
    for tree, ended_at in zip(trials, (100.0, 400.0, 200.0, 300.0), strict=True):
        tree["training"]["ended_at"] = ended_at
    found = write_report(write_sweep(tmp_path / "s", trials), print_table=False, draw=False)
    history = pd.read_csv(tmp_path / "s" / "hypervolume.csv")
    assert history["label"].str.split("-").str[0].tolist() == ["conv 32", "conv 96", "conv 64"]
    assert history["ended_at"].tolist() == [200.0, 300.0, 400.0]
    assert history["hours"].tolist() == pytest.approx([0, 100 / 3600, 200 / 3600])
    assert history["architectures"].tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(history, found.history, check_dtype=False)


def written(trees: list[dict[str, Any]], folder: Path, *, draw: bool) -> hypervolume_report.Written:
    """The hypervolume of a sweep of these results, written to folder/o."""
    rows = read(write_sweep(folder / uuid.uuid4().hex, trees)).frame
    architectures = rank(average_seeds(rows), OBJECTIVES)
    return hypervolume_report.write(rows, architectures, OBJECTIVES, folder / "o", draw=draw)


def test_without_times_there_is_no_history_and_no_stale_file(tmp_path: Path) -> None:
    files = written(grid(), tmp_path, draw=True).files
    assert [path.name for path in files] == ["hypervolume.csv", "hypervolume.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    untimed = [dict(tree, training={**tree["training"], "ended_at": None}) for tree in grid()]
    bare = written(untimed, tmp_path, draw=True)
    assert bare.left_out == ("hypervolume.csv: the source does not say when trials ended (ended_at)",)
    assert "% of the box from the frontier's best values to the reference" in bare.text
    assert not list((tmp_path / "o").iterdir())
    partly = written([*untimed[:2], *grid()[2:]], tmp_path, draw=False)
    assert partly.left_out == ("hypervolume.csv: 2 of 12 architectures do not say when they ended",)
    assert len(partly.history) == 10
    alone = written(grid()[:1], tmp_path, draw=False)
    assert "it needs two architectures that differ in every objective, or --reference" in alone.left_out[0]


def test_the_figure_names_who_raised_the_volume_and_says_what_it_is() -> None:
    # The second is as good as the first; the third is beyond the reference of 100 kMAC/px.
    rows = [(2.0, 10.0), (2.0, 10.0), (1.0, 500.0), (1.5, 20.0)]
    architectures = table(rows).assign(eval_images=24, dataset="kodak", budget="b", steps=500, warm_start="w")
    architectures = architectures.assign(percent_of_paper_steps=0.025, lmbda=0.013)
    space = hypervolume.space_of(architectures, OBJECTIVES, {"rd_loss": 3.0, "kmac_per_px_dec": 100.0})
    assert space is not None
    history = hypervolume.history(architectures, architectures, space)
    figure = hypervolume_report.figure(history, architectures, space)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["a0", "a3"]
    raised, in_vain = [line for line in axes.lines if line.get_marker() == "o"]
    assert np.asarray(raised.get_xdata()).tolist() == [1, 4]
    assert np.asarray(in_vain.get_xdata()).tolist() == [3]
    assert (in_vain.get_color(), in_vain.get_markerfacecolor()) == ("0.6", "white")
    small_print = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "Hypervolume in rate-distortion loss and decode complexity over 4 architectures" in small_print
    assert "rate-distortion loss 3 bit/px (given); decode complexity 200 kFLOP/px (given)" in small_print
    assert "0: not better than the reference" in small_print
    assert "4 of 4 points warm-started from other weights" in small_print


def test_the_last_volume_of_a_sweep_is_the_report_s(tmp_path: Path) -> None:
    found = write_report(write_sweep(tmp_path / "s", families()), print_table=False, draw=False)
    percent = found.history["hypervolume_pct"].iloc[-1]
    assert f"{percent:.1f} % of the box" in " ".join(found.text.split())
    assert found.history["joined_frontier"].sum() >= len(found.frontier)


def test_references_are_read_and_refused() -> None:
    assert hypervolume.parse_reference("rd_loss=2,kmac_per_px_dec=5e2") == {
        "rd_loss": 2.0,
        "kmac_per_px_dec": 500.0,
    }
    with pytest.raises(AnalysisError, match=r"--reference 'rd_loss': must be OBJECTIVE=NUMBER"):
        hypervolume.parse_reference("rd_loss")
    with pytest.raises(AnalysisError, match="--reference 'bpp=1,bpp=2': gives bpp twice; keep one"):
        hypervolume.parse_reference("bpp=1,bpp=2")
    architectures = table([(1.0, 10.0), (3.0, 1.0)])
    for reference, message in (
        ({"bpp": 1.0}, "--reference bpp: is no objective here; objectives: rd_loss, kmac_per_px_dec"),
        ({"rd_loss": math.inf}, "--reference rd_loss=inf: must be finite"),
        ({"kmac_per_px_dec": 0.0}, "kmac_per_px_dec=0: counts by its logarithm; must be greater than 0"),
    ):
        with pytest.raises(AnalysisError, match=message):
            hypervolume.space_of(architectures, OBJECTIVES, reference)
