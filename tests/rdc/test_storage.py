"""What one model of variable rate saves against CompressAI's eight: parameters of the built models."""

from __future__ import annotations

import pytest

from analysis.variable_rate_published import COMPRESSAI, PUBLISHED_PCT, compressai_saving_pct, saving_pct
from rdc.complexity import on_meta
from rdc.spec import parse_model
from rdc.zoo import ARCHITECTURES, LMBDAS

ZOO = {
    "scale_hyperprior": "bmshj2018-hyperprior",
    "mean_scale_hyperprior": "mbt2018-mean",
    "joint_autoregressive": "mbt2018",
}


def params(name: str, quality: int, rate_control: str = "none") -> int:
    groups = ARCHITECTURES[name].groups(quality) | {"rate_control": {"name": rate_control}}
    return sum(p.numel() for p in on_meta(parse_model(groups)).parameters())


@pytest.mark.parametrize(
    ("entropy_model", "fixed", "wide", "saving"),
    [
        # Five models of 5,075,843 and three of 11,816,323; four and four of the others.
        ("scale_hyperprior", 60_828_184, 11_816_323, 80.4376),
        ("mean_scale_hyperprior", 98_358_808, 17_561_699, 82.0608),
        ("joint_autoregressive", 158_540_252, 25_504_596, 83.8605),
    ],
)
def test_the_saving_follows_from_real_parameter_counts(
    entropy_model: str, fixed: int, wide: int, saving: float
) -> None:
    """100 (1 - (wide + 83,072) / fixed): two networks 1 -> 128 -> 320 have 2 (256 + 128 * 320 + 320)."""
    name = ZOO[entropy_model]
    counted = [params(name, quality) for quality in range(1, len(LMBDAS) + 1)]
    variable = params(name, len(LMBDAS), "modulator")
    assert sum(counted) == fixed
    assert counted[-1] == wide
    assert variable - wide == 83_072
    assert saving_pct(variable, sum(counted)) == pytest.approx(saving, abs=1e-4)
    assert compressai_saving_pct(entropy_model) == pytest.approx(saving, abs=1e-4)
    assert [w.params for w in COMPRESSAI[entropy_model] for _ in range(w.models)] == counted
    # The published figures; that of the joint model would need 1.3 M parameters more than anything named.
    near = 0.03 if entropy_model != "joint_autoregressive" else 0.8
    assert saving == pytest.approx(PUBLISHED_PCT[entropy_model], abs=near)
