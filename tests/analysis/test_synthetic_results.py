"""The synthetic sweep is no oracle if its own numbers disagree."""

import math
from pathlib import Path

import pytest
from synthetic_results import families, result, timings_of, write_sweep

from analysis.load import read


@pytest.mark.parametrize(
    "tree", [*families((32, 192)), result(images=1), result(dataset="clic", images=41), result(lmbda=0.18)]
)
def test_the_scores_of_the_images_have_the_stated_means(tree: dict[str, object]) -> None:
    stated = tree["evaluation"]
    assert isinstance(stated, dict)
    images = stated["per_image"]
    assert len(images) == stated["images"]
    for name in ("bpp", "bpp_payload", "bpp_estimated", "psnr_db", "mse", "ms_ssim", "rd_loss"):
        assert math.fsum(i[name] for i in images) / len(images) == pytest.approx(stated[name], rel=1e-11)
    for image in images:
        assert image["mse"] == pytest.approx(10 ** (-image["psnr_db"] / 10))
        assert image["bpp_estimated"] > 0
        assert 0 < image["ms_ssim"] < 1
    ms_ssim_db = math.fsum(-10 * math.log10(1 - i["ms_ssim"]) for i in images) / len(images)
    assert ms_ssim_db == pytest.approx(stated["ms_ssim_db"], rel=1e-9)


def test_a_sweep_of_families_has_scores_and_timings_of_two_devices(tmp_path: Path) -> None:
    trees = families((32, 64))
    source = read(write_sweep(tmp_path / "s", trees, timings=timings_of(trees)))
    assert not source.problems
    assert len(source.images) == 24 * len(trees) == 24 * 14
    assert source.frame["family"].nunique() == 7
    assert len(source.runtimes) == 5 * 14
    assert set(source.runtimes["device_slug"]) == {"cpu-synthetic", "gpu-synthetic"}
