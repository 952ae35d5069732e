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

from analysis.comparable import average_seeds
from analysis.errors import AnalysisError
from analysis.frontier import rank, report, write_report
from analysis.load import Source, read
from analysis.objectives import costs
from analysis.uncertainty import Bootstrap, Uncertainty, bootstrap, frontier_counts

Floats = npt.NDArray[np.float64]


def near_rivals(images: int = 6, seeds: int = 1) -> list[dict[str, Any]]:
    """Eight architectures whose order in rd_loss depends on the images and on the seeds."""
    random = np.random.default_rng(5)
    trees = []
    hard = random.uniform(0.5, 2.0, images)
    for width in (32, 40, 48, 56, 64, 72, 80, 96):
        for seed in range(seeds if width % 3 else 1):
            tree = result(width, seed=seed, images=images)
            scores = tree["evaluation"]["per_image"]
            for n, score in enumerate(scores):
                score["rd_loss"] = hard[n] * (1 + 0.05 * random.standard_normal())
                score["psnr_db"] = 30 / hard[n] + 0.3 * random.standard_normal()
            for name in ("rd_loss", "psnr_db"):
                tree["evaluation"][name] = float(np.mean([score[name] for score in scores]))
            trees.append(tree)
    return trees


def found(source: Source, objectives: list[str], settings: Bootstrap) -> tuple[pd.DataFrame, Uncertainty]:
    architectures = average_seeds(source.frame)
    return architectures, bootstrap(source.frame, architectures, source.images, objectives, settings)


def slow_bootstrap(
    source: Source, architectures: pd.DataFrame, objectives: list[str], settings: Bootstrap
) -> tuple[Floats, Floats]:
    """A plain loop over resamples, architectures, seeds and images, from the same draws.

    -> (share on the frontier, (resamples, architectures) of rd_loss)
    """
    scores = source.images.set_index(["spec_id", "image"])
    images = sorted(source.images["image"].unique())
    ordered = architectures.sort_values(["arch_id", "curve_id"])
    trials = source.frame.sort_values(["arch_id", "curve_id", "spec_id"])
    for_images, for_seeds = np.random.default_rng(settings.seed).spawn(2)
    n = len(images)
    image_counts = for_images.multinomial(n, np.full(n, 1 / n), settings.resamples)
    seeds = {arch_id: list(rows["spec_id"]) for arch_id, rows in trials.groupby("arch_id")}
    seed_counts = {
        arch_id: for_seeds.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), settings.resamples)
        for arch_id, ids in seeds.items()
        if len(ids) > 1
    }
    hits = np.zeros(len(architectures))
    losses = np.zeros((settings.resamples, len(architectures)))
    for draw in range(settings.resamples):
        drawn = architectures.copy()
        for name in {*objectives, "rd_loss"} & {"rd_loss", "psnr_db"}:
            for row, arch_id in zip(ordered.index, ordered["arch_id"], strict=True):
                total = weight = 0.0
                for place, spec_id in enumerate(seeds[arch_id]):
                    times = seed_counts[arch_id][draw][place] if arch_id in seed_counts else 1
                    values = scores[name].loc[spec_id].loc[images].to_numpy(dtype=np.float64)
                    total += times * np.dot(image_counts[draw], values) / n
                    weight += times
                drawn.at[row, name] = total / weight
        hits += rank(drawn, objectives)["on_frontier"].to_numpy()
        losses[draw] = drawn["rd_loss"]
    return hits / settings.resamples, losses


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "objectives",
    [
        ["rd_loss", "kmac_per_px_dec"],
        ["kmac_per_px_dec", "psnr_db"],
        ["rd_loss", "psnr_db"],
        ["rd_loss", "kmac_per_px_dec", "time_dec_total_ms"],
    ],
)
def test_probabilities_and_intervals_are_those_of_a_plain_loop(
    tmp_path: Path, objectives: list[str], seeds: int
) -> None:
    source = read(write_sweep(tmp_path / "s", near_rivals(seeds=seeds)))
    settings = Bootstrap(resamples=40, seed=7)
    architectures, fast = found(source, objectives, settings)
    shares, losses = slow_bootstrap(source, architectures, objectives, settings)
    assert fast.probability.tolist() == shares.tolist()
    assert ((shares > 0) & (shares < 1)).any()
    low, high = np.percentile(losses, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(fast.rd_loss_low, low, rtol=1e-12)
    np.testing.assert_allclose(fast.rd_loss_high, high, rtol=1e-12)
    assert (low < high).all()


tied = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.integers(0, 4).map(float)),
        hnp.arrays(np.float64, (5, n), elements=st.integers(0, 4).map(float)),
    )
)


@settings(max_examples=80)
@given(tied)
def test_counts_with_a_fixed_cost_are_those_of_the_definition(pair: tuple[Floats, Floats]) -> None:
    fixed, drawn = pair
    expected = np.zeros(len(fixed), dtype=int)
    for values in drawn:
        for i in range(len(fixed)):
            beaten = (fixed <= fixed[i]) & (values <= values[i]) & ((fixed < fixed[i]) | (values < values[i]))
            expected[i] += not beaten.any()
    assert frontier_counts(fixed, drawn).tolist() == expected.tolist()


def test_blocks_give_what_one_piece_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = read(write_sweep(tmp_path / "s", near_rivals(seeds=2)))
    for objectives in (["rd_loss", "kmac_per_px_dec"], ["rd_loss", "psnr_db"]):
        _, whole = found(source, objectives, Bootstrap(50))
        with monkeypatch.context() as patch:
            patch.setattr("analysis.uncertainty._BLOCK", 100)
            _, parts = found(source, objectives, Bootstrap(50))
        np.testing.assert_array_equal(parts.probability, whole.probability)
        np.testing.assert_allclose(parts.rd_loss_low, whole.rd_loss_low, rtol=1e-12)
        np.testing.assert_allclose(parts.rd_loss_high, whole.rd_loss_high, rtol=1e-12)


def test_images_are_drawn_alike_for_all_so_that_a_constant_gap_is_certain(tmp_path: Path) -> None:
    # On every image 48 is 0.001 better than 32, while images differ by 1: unpaired draws would swap them.
    trees = [result(width, images=6) for width in (48, 32)]
    for tree, gap in zip(trees, (0.0, 0.001), strict=True):
        tree["complexity"]["decode"]["parity_kmac_per_px"] = 10.0
        for n, score in enumerate(tree["evaluation"]["per_image"]):
            score["rd_loss"] = 1.0 + n + gap
        tree["evaluation"]["rd_loss"] = 3.5 + gap
    architectures, sure = found(
        read(write_sweep(tmp_path / "s", trees)), ["rd_loss", "kmac_per_px_dec"], Bootstrap()
    )
    better = architectures["rd_loss"].to_numpy() == 3.5
    assert sure.probability[better].tolist() == [1.0]
    assert sure.probability[~better].tolist() == [0.0]
    assert (sure.rd_loss_high - sure.rd_loss_low > 1).all()  # the images' own spread


def test_the_seed_decides_and_the_order_of_trials_does_not(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", near_rivals(seeds=2)))
    objectives = ["rd_loss", "kmac_per_px_dec"]
    architectures, one = found(source, objectives, Bootstrap(200, 1))
    _, again = found(source, objectives, Bootstrap(200, 1))
    _, other = found(source, objectives, Bootstrap(200, 2))
    np.testing.assert_array_equal(one.probability, again.probability)
    assert (one.probability != other.probability).any()
    mixed = Source(
        source.name,
        source.folder,
        source.frame.iloc[::-1].reset_index(drop=True),
        images=source.images.sample(frac=1, random_state=3),
    )
    turned, mixed_up = found(mixed, objectives, Bootstrap(200, 1))
    expected = dict(zip(architectures["arch_id"], one.probability, strict=True))
    assert dict(zip(turned["arch_id"], mixed_up.probability, strict=True)) == expected


def test_several_seeds_widen_the_interval(tmp_path: Path) -> None:
    trees = [result(64, seed=seed) for seed in (0, 1)]
    for tree, gap in zip(trees, (0.0, 0.4), strict=True):
        for score in tree["evaluation"]["per_image"]:
            score["rd_loss"] = 1.0 + gap
        tree["evaluation"]["rd_loss"] = 1.0 + gap
    _, both = found(
        read(write_sweep(tmp_path / "s", [*trees, result(32)])), ["rd_loss", "kmac_per_px_dec"], Bootstrap()
    )
    architectures = average_seeds(read(tmp_path / "s").frame)
    place = architectures.index[architectures["seeds"] == 2][0]
    # Two seeds of 1.0 and 1.4 drawn twice: means 1.0, 1.2 and 1.4 with 1/4, 1/2 and 1/4.
    assert (both.rd_loss_low[place], both.rd_loss_high[place]) == pytest.approx((1.0, 1.4))


@pytest.mark.parametrize(
    ("break_it", "objectives", "why"),
    [
        (lambda trees: None, "ms_ssim_db,params_m", "ms_ssim_db depends on the images, but no plain mean"),
        (
            lambda trees: None,
            "rate_saving_vs_bpg_pct,params_m",
            "rate_saving_vs_bpg_pct depends on the images",
        ),
        (
            lambda trees: None,
            "params_m,time_dec_total_ms",
            "params_m and time_dec_total_ms do not depend on the evaluation images",
        ),
        (
            lambda trees: [tree["evaluation"].pop("per_image") for tree in trees],
            "rd_loss,params_m",
            "the source holds no scores per image",
        ),
        (
            lambda trees: trees[3]["evaluation"]["per_image"].pop(),
            "rd_loss,params_m",
            "1 of 12 trials, such as conv 96-96-96/144 scale, lack rd_loss of one of 24 images",
        ),
        (
            lambda trees: trees[3]["evaluation"]["per_image"].append(trees[3]["evaluation"]["per_image"][0]),
            "rd_loss,params_m",
            "or have it twice",
        ),
        (
            lambda trees: trees[3]["evaluation"].update(rd_loss=0.5),
            "rd_loss,params_m",
            "the scores per image of conv 96-96-96/144 scale do not have its rd_loss as their mean",
        ),
    ],
)
def test_what_cannot_be_resampled_has_no_number_and_a_reason(
    tmp_path: Path, break_it: Any, objectives: str, why: str
) -> None:
    trees = grid()
    break_it(trees)
    source = read(write_sweep(tmp_path / "s", trees))
    done = report(source, tmp_path / "o", objectives=objectives.split(","), print_table=False, draw=False)
    assert "P(frontier) not known:" in " ".join(done.text.split())
    assert why in " ".join(done.text.split())
    assert done.architectures["frontier_probability"].isna().all()
    assert "P(fron-" not in done.text


def test_one_image_leaves_nothing_to_resample(tmp_path: Path) -> None:
    trees = [result(width, images=1) for width in (32, 64)]
    done = write_report(write_sweep(tmp_path / "s", trees), print_table=False, draw=False)
    assert "one evaluation image leaves nothing to resample" in " ".join(done.text.split())


def test_the_report_says_what_was_resampled_and_what_is_not_covered(tmp_path: Path) -> None:
    one = " ".join(
        write_report(write_sweep(tmp_path / "s", families()), print_table=False, draw=False).text.split()
    )
    for part in (
        "1,000 resamples of the 24 evaluation images, the same for all architectures (paired bootstrap, seed",
        "one training seed each: how much another seed would change is not covered",
    ):
        assert part in one
    trees = [*families(widths=(32, 64)), *families(widths=(32,), seed=1)]
    some = write_report(write_sweep(tmp_path / "t", trees), print_table=False, draw=False).text
    assert "7 of 14 architectures have one: how much another seed" in " ".join(some.split())
    both = [*families(widths=(32,)), *families(widths=(32,), seed=1)]
    every = write_report(write_sweep(tmp_path / "u", both), print_table=False, draw=False).text
    assert "its 2 training seeds are resampled too" in " ".join(every.split())


def test_who_is_nearly_on_the_frontier_is_named(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", near_rivals())
    done = write_report(folder, print_table=False, draw=False)
    rows = done.architectures
    near = rows[~rows["on_frontier"] & (rows["frontier_probability"] >= 0.05)]
    assert len(near)
    best = near.sort_values("frontier_probability").iloc[-1]
    text = " ".join(done.text.split())
    assert f"nearly on it {best['label']} ({best['frontier_probability']:.0%})" in text
    table = pd.read_csv(folder / "trials.csv").set_index("arch_id")
    assert table.at[best["arch_id"], "frontier_probability"] == best["frontier_probability"]
    frontier = pd.read_csv(folder / "frontier.csv")
    assert (frontier["frontier_probability"] > 0).all()
    assert (frontier["rd_loss_low"] <= frontier["rd_loss"]).all()


def test_costs_of_the_report_are_left_alone(tmp_path: Path) -> None:
    source = read(write_sweep(tmp_path / "s", near_rivals()))
    architectures = average_seeds(source.frame)
    before = costs(architectures, ["rd_loss", "psnr_db"])
    bootstrap(source.frame, architectures, source.images, ["rd_loss", "psnr_db"], Bootstrap(5))
    np.testing.assert_array_equal(costs(architectures, ["rd_loss", "psnr_db"]), before)


@pytest.mark.parametrize(("resamples", "seed"), [(0, 0), (-1, 0), (2_000_000, 0), (10, -1)])
def test_settings_are_checked(resamples: int, seed: int) -> None:
    with pytest.raises(AnalysisError, match=r"--resamples|--seed"):
        Bootstrap(resamples, seed)
