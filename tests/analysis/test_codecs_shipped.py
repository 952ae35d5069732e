"""The curves of conventional codecs on Kodak that were measured for this package."""

from __future__ import annotations

import pytest

from analysis.anchors import load_anchor
from analysis.anchors.table import PSNR_RULE
from analysis.bdrate import bd_rate

CODECS = ("hevc", "av1", "jpegxl", "webp", "jpeg2000", "jpeg")


@pytest.mark.parametrize("name", CODECS)
def test_each_has_all_images_a_wide_range_and_its_versions(name: str) -> None:
    anchor = load_anchor(name)
    assert anchor.dataset == "kodak"
    assert len(anchor.images) == 24
    assert not anchor.odd_images
    assert anchor.psnr_rule == PSNR_RULE
    assert anchor.caution == ""
    assert len(anchor.curve.bpp) >= 8
    assert anchor.curve.bpp[0] < 0.15
    assert anchor.curve.bpp[-1] > 1.85
    assert anchor.title.endswith("measured")
    assert "content 8b23b5458757" in anchor.source


def test_hevc_repeats_a_measurement_made_elsewhere() -> None:
    # Means over Kodak of another program that called the same x265: quality 6, 26 and 56.
    curve = load_anchor("hevc").curve
    points = dict(zip(curve.bpp, curve.psnr_db, strict=True))
    for bpp, psnr_db in ((0.083270, 25.958180), (0.385857, 31.420829), (1.872213, 40.733686)):
        nearest = min(points, key=lambda known: abs(known - bpp))
        assert nearest == pytest.approx(bpp, abs=2e-6)
        assert points[nearest] == pytest.approx(psnr_db, abs=2e-6)


@pytest.mark.parametrize(
    ("name", "against_bpg", "against_compressai"),
    [
        ("hevc", 18.9, 13.3),
        ("av1", 1.9, -0.4),
        ("jpegxl", 69.6, None),
        ("webp", 48.6, 44.9),
        ("jpeg2000", 24.1, 21.0),
        ("jpeg", 159.0, 128.1),
    ],
)
def test_bd_rates_are_those_of_the_documentation(
    name: str, against_bpg: float, against_compressai: float | None
) -> None:
    curve = load_anchor(name).curve
    assert bd_rate(load_anchor("bpg").curve, curve).bd_rate_pct == pytest.approx(against_bpg, abs=0.06)
    if against_compressai is not None:
        found = bd_rate(load_anchor("bpg_compressai").curve, curve).bd_rate_pct
        assert found == pytest.approx(against_compressai, abs=0.06)
