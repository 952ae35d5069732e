"""BD-rates image by image: trials against an anchor file with points of single images."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_results import result, write_sweep

from analysis.anchors import Anchor, load_anchor
from analysis.bdrate import Curve, bd_rate, rate_saving_pct
from analysis.bdrate_images import MIN_IMAGES, ImageScores, spread
from analysis.bdrate_report import BdRateReport, report
from analysis.errors import AnalysisError
from analysis.images import image_frame
from analysis.load import read
from analysis.settings import Settings

LMBDAS = (0.0035, 0.0067, 0.013, 0.025)
PER_IMAGE = Settings(average="per_image")


def sweep(folder: Path, *lmbdas: float, images: int = 24, seeds: tuple[int, ...] = (0,)) -> Path:
    trials = [
        result(lmbda=lmbda, seed=seed, dataset="own", images=images)
        for lmbda in lmbdas or LMBDAS
        for seed in seeds
    ]
    return write_sweep(folder, trials)


def anchor_of(folder: Path, factors: dict[str, float], path: Path, names: tuple[str, ...] = ()) -> Anchor:
    """The sweep's own points, every image's rate times its factor (1 where none is given)."""
    source = read(folder)
    lmbdas = source.frame.set_index("spec_id")["lmbda"]
    lines = ["dataset,image,setting,bpp,psnr_db"]
    for _, row in source.images.iterrows():
        image = row["image"].removesuffix(".png")
        if not names or image in names:
            bpp = row["bpp"] * factors.get(image, 1.0)
            lines.append(f"own,{image},{lmbdas[row['spec_id']]},{bpp!r},{row['psnr_db']!r}")
    path.write_text("\n".join(lines) + "\n")
    return load_anchor(str(path))


def run(folder: Path, anchor: Anchor, settings: Settings = PER_IMAGE) -> BdRateReport:
    return report(read(folder), folder, [anchor], settings, print_table=False)


def test_each_image_is_compared_with_itself_and_then_averaged(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    # On image n the anchor needs 1 + n/10 of the rate, so BD-rate there is 100 (1 / (1 + n/10) - 1) exactly.
    factors = {f"own{n:03}": 1 + n / 10 for n in range(1, 25)}
    wanted = [100 * (1 / factor - 1) for factor in factors.values()]
    found = run(folder, anchor_of(folder, factors, tmp_path / "own.csv"))
    (row,) = [row for _, row in found.table.iterrows()]
    assert row["bd_rate_pct"] == pytest.approx(np.mean(wanted), abs=1e-9)
    assert row["median_pct"] == pytest.approx(np.median(wanted), abs=1e-9)
    assert (row["q25_pct"], row["q75_pct"]) == pytest.approx(tuple(np.quantile(wanted, (0.25, 0.75))))
    assert row["ci95_low_pct"] < row["bd_rate_pct"] < row["ci95_high_pct"]
    assert (row["images"], row["images_refused"], row["average"]) == (24, "", "per_image")
    assert row["overlap_pct"] == pytest.approx(100)
    own = read(folder).images
    assert row["range_low_db"] == pytest.approx(own["psnr_db"].min())
    assert row["range_high_db"] == pytest.approx(own["psnr_db"].max())
    # The curve of means is another number, computed by hand from the means.
    by_curve = run(folder, load_anchor(str(tmp_path / "own.csv")), Settings()).table.iloc[0]
    rows = read(folder).frame.sort_values("bpp")
    own_curve = Curve("own", tuple(rows["bpp"]), tuple(rows["psnr_db"]))
    means = load_anchor(str(tmp_path / "own.csv")).curve
    assert by_curve["bd_rate_pct"] == pytest.approx(bd_rate(means, own_curve).bd_rate_pct, abs=1e-9)
    assert abs(by_curve["bd_rate_pct"] - row["bd_rate_pct"]) > 0.1
    assert pd.isna(by_curve["images"])


def test_seeds_are_averaged_image_by_image(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s", seeds=(0, 1))
    source = read(folder)
    joined = [";".join(group["spec_id"]) for _, group in source.frame.sort_values("bpp").groupby("lmbda")]
    points = ImageScores(source.images).points("x", joined)
    first = source.images[source.images["spec_id"].isin(joined[0].split(";"))]
    of_image = first[first["image"] == "own001.png"]
    assert points["own001"][0] == pytest.approx((of_image["bpp"].mean(), of_image["psnr_db"].mean()))


def test_single_points_save_per_image_too(tmp_path: Path) -> None:
    curves = sweep(tmp_path / "curves")
    anchor = anchor_of(curves, {"own001": 2.0}, tmp_path / "own.csv")
    folder = sweep(tmp_path / "s", 0.013)
    row = run(folder, anchor).table.iloc[0]
    scores = read(folder).images
    wanted = [
        rate_saving_pct(
            anchor.images[score["image"].removesuffix(".png")], bpp=score["bpp"], psnr_db=score["psnr_db"]
        )
        for _, score in scores.iterrows()
    ]
    assert row["rate_saving_pct"] == pytest.approx(np.mean(wanted), abs=1e-9)
    assert row["rate_saving_pct"] == pytest.approx(50 / 24, abs=1e-6)  # half on one image, nothing on 23
    assert row["images"] == 24


def test_images_without_a_value_are_named_and_too_many_refuse_the_mean(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    path = tmp_path / "own.csv"
    anchor_of(folder, {}, path)
    frame = pd.read_csv(path)

    def shifted(count: int) -> Anchor:
        """The anchor's first images lie 60 dB higher, where ours never are."""
        images = [f"own{n:03}" for n in range(1, count + 1)]
        moved = frame.assign(psnr_db=frame["psnr_db"] + 60.0 * frame["image"].isin(images))
        moved.to_csv(path, index=False)
        return load_anchor(str(path))

    row = run(folder, shifted(2)).table.iloc[0]  # 2 of 24: 8 %
    assert (row["images"], row["images_refused"], row["refused"]) == (22, "own001;own002", "")
    assert row["bd_rate_pct"] == pytest.approx(0.0, abs=1e-9)
    found = run(folder, shifted(3))  # 12 %
    assert pd.isna(found.table["bd_rate_pct"].iloc[0])
    printed = " ".join(found.text.split())
    assert "3 of 24 images have no value, and a mean over the rest would be of easier or harder" in printed
    assert "own001: curve 'conv 64-64-64/96 scale on own001'" in printed
    text = " ".join(run(folder, shifted(1)).text.split())
    assert "left out conv 64-64-64/96 scale against own: no value on own001" in text


def test_an_image_that_the_anchor_has_no_curve_for_is_left_out(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    path = tmp_path / "own.csv"
    anchor_of(folder, {}, path)
    frame = pd.read_csv(path)
    frame.loc[frame["image"] == "own005", "psnr_db"] = 30.0
    frame.to_csv(path, index=False)
    row = run(folder, load_anchor(str(path))).table.iloc[0]
    assert (row["images"], row["images_refused"]) == (23, "own005")


def test_other_images_are_refused_by_name(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    anchor = anchor_of(folder, {}, tmp_path / "own.csv")
    frame = pd.read_csv(tmp_path / "own.csv").replace({"image": {"own007": "other"}})
    frame.to_csv(tmp_path / "own.csv", index=False)
    found = run(folder, load_anchor(str(tmp_path / "own.csv")))
    assert "were measured on other images: 2 are not in both, such as other" in found.table["refused"].iloc[0]
    assert anchor.image_count == 24


def test_another_number_of_images_is_another_set(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    fewer = anchor_of(folder, {}, tmp_path / "own.csv", names=("own001", "own002"))
    with pytest.raises(
        AnalysisError, match="anchor is the mean over 2 images, evaluation has 24; name a curve"
    ):
        run(folder, fewer, Settings())


def test_anchors_and_sources_without_images_are_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    with pytest.raises(
        AnalysisError,
        match=r"--average per_image: vtm has no points of single images; name .*analysis anchors",
    ):
        run(folder, load_anchor("vtm"))
    anchor = anchor_of(folder, {}, tmp_path / "own.csv")
    read(folder).frame.to_csv(tmp_path / "trials.csv", index=False)
    with pytest.raises(AnalysisError, match="the source holds no scores of single images; name the sweep"):
        report(read(tmp_path / "trials.csv"), tmp_path, [anchor], PER_IMAGE, print_table=False)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "i1.png"), ("b", "i2.png")], "x: its trials differ in images, such as i1"),
        ([("a", "i1.png")], "x: trial b has no scores of images"),
        ([("a", "i1.png"), ("a", "i1.jpg"), ("b", "i1.png")], "two of its images have one name"),
    ],
)
def test_scores_that_do_not_fit_are_refused(rows: list[tuple[str, str]], message: str) -> None:
    frame = image_frame((spec, image, 1, 1, 0.5, 30.0, 0.1, 0.9, 1.0) for spec, image in rows)
    with pytest.raises(AnalysisError, match=message):
        ImageScores(frame).points("x", ["a", "b"])


def test_the_interval_is_that_of_a_mean(tmp_path: Path) -> None:
    # 200 normal numbers of sd 10: the mean's standard error is about 0.71, its 95 % interval about +-1.4.
    values = np.random.default_rng(1).normal(5.0, 10.0, 200)
    found = spread(list(values))
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=0.25)
    assert found.high == pytest.approx(values.mean() + half, abs=0.25)
    assert spread(list(values)) == found  # the same numbers give the same interval
    few = spread([1.0] * (MIN_IMAGES - 1))
    assert (few.mean, few.low, few.high) == (1.0, None, None)


def test_the_printed_report_says_how_images_are_averaged(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "s")
    found = run(folder, anchor_of(folder, {"own001": 1.1}, tmp_path / "own.csv"))
    text = " ".join(found.text.split())
    for part in (
        "per_image: one comparison per image, then the mean over images",
        "points of 24 images",
        "BD-rates of the images, %",
        "95 % interval",
        "quartiles",
        "caution PSNR of own is not stated",
    ):
        assert part in text, part
    assert max(map(len, found.text.splitlines())) <= 120
