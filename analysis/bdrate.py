"""BD-rate of two curves and rate saving of one point, without a silent assumption.

Both interpolate log rate over PSNR. BD-rate after G. Bjontegaard, VCEG-M33 (2001); the interpolators are
those of common practice: piecewise cubic (pchip), Akima, or one cubic polynomial through all points.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator
from scipy.optimize import brentq

from analysis.errors import AnalysisError
from analysis.settings import METHODS, MIN_OVERLAP, MIN_POINTS, Method


class OutsideRangeError(AnalysisError):
    """A point whose PSNR the anchor never reaches; there a rate saving does not exist."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Rate-distortion curve: at least two points, both coordinates strictly increasing.

    bpp: bit/px, greater than 0. psnr_db: finite. Points may be given in any order.
    """

    name: str
    bpp: tuple[float, ...]
    psnr_db: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.bpp) != len(self.psnr_db) or len(self.bpp) < 2:
            raise AnalysisError(f"curve {self.name!r} has {len(self.bpp)} points; needs at least 2")
        points = sorted(zip(self.bpp, self.psnr_db, strict=True))
        for bpp, psnr_db in points:
            if not (bpp > 0 and math.isfinite(bpp) and math.isfinite(psnr_db)):
                raise AnalysisError(
                    f"curve {self.name!r} has the point ({bpp} bpp, {psnr_db} dB); "
                    "bpp must be greater than 0 and both finite"
                )
        for (bpp, psnr_db), (next_bpp, next_psnr_db) in itertools.pairwise(points):
            if not (next_bpp > bpp and next_psnr_db > psnr_db):
                raise AnalysisError(
                    f"curve {self.name!r} is not monotone: {bpp:.4f} bpp has {psnr_db:.3f} dB, "
                    f"{next_bpp:.4f} bpp has {next_psnr_db:.3f} dB; train longer or leave a point out"
                )
        object.__setattr__(self, "bpp", tuple(p[0] for p in points))
        object.__setattr__(self, "psnr_db", tuple(p[1] for p in points))


@dataclasses.dataclass(frozen=True)
class BdRate:
    """BD-rate with the range that it stands for.

    bd_rate_pct: mean rate change of the tested curve at equal PSNR, negative is better.
    psnr_low_db, psnr_high_db: the integrated range.
    overlap: share of the tested curve's PSNR range that lies inside the anchor's, before any narrowing.
    """

    bd_rate_pct: float
    psnr_low_db: float
    psnr_high_db: float
    overlap: float


def bd_rate(
    anchor: Curve,
    test: Curve,
    *,
    method: Method = "pchip",
    min_bpp: float | None = None,
    max_bpp: float | None = None,
    min_overlap: float = MIN_OVERLAP,
) -> BdRate:
    """Mean rate change of `test` against `anchor` over the PSNR range that both reach.

    min_bpp, max_bpp narrow that range to where the anchor's interpolated rate lies between them; no point
    is dropped, so the interpolation stays the same.
    """
    for curve in (anchor, test):
        if len(curve.bpp) < MIN_POINTS:
            raise AnalysisError(
                f"curve {curve.name!r} has {len(curve.bpp)} points; BD-rate needs {MIN_POINTS}"
            )
    low_db, high_db = max(anchor.psnr_db[0], test.psnr_db[0]), min(anchor.psnr_db[-1], test.psnr_db[-1])
    overlap = max(high_db - low_db, 0.0) / (test.psnr_db[-1] - test.psnr_db[0])
    if overlap < max(min_overlap, 1e-9):
        raise AnalysisError(
            f"curve {test.name!r} ({_range_text(test)}) has {100 * overlap:.0f} % of its range inside that "
            f"of {anchor.name!r} ({_range_text(anchor)}); at least {100 * min_overlap:.0f} % is needed"
        )
    low_db, high_db = _narrow(anchor, method, (low_db, high_db), min_bpp, max_bpp)
    area = _integral(test, method, low_db, high_db) - _integral(anchor, method, low_db, high_db)
    return BdRate(100.0 * math.expm1(area / (high_db - low_db)), low_db, high_db, overlap)


def rate_saving_pct(anchor: Curve, *, bpp: float, psnr_db: float, method: Method = "pchip") -> float:
    """100 (1 - bpp / the anchor's bpp at that PSNR); positive is better, never extrapolated."""
    if not anchor.psnr_db[0] <= psnr_db <= anchor.psnr_db[-1]:
        side = "below" if psnr_db < anchor.psnr_db[0] else "above"
        raise OutsideRangeError(
            f"PSNR {psnr_db:.2f} dB is {side} the range of {anchor.name} ({_range_text(anchor)})"
        )
    return 100.0 * (1.0 - bpp / math.exp(float(_log_rate(anchor, method)(psnr_db))))


def _narrow(
    anchor: Curve, method: Method, range_db: tuple[float, float], min_bpp: float | None, max_bpp: float | None
) -> tuple[float, float]:
    low_db, high_db = range_db
    if min_bpp is not None:
        low_db = max(low_db, _psnr_at(anchor, min_bpp, method))
    if max_bpp is not None:
        high_db = min(high_db, _psnr_at(anchor, max_bpp, method))
    if low_db >= high_db:
        raise AnalysisError(
            f"no PSNR range is left where {anchor.name!r} has {min_bpp or 0:g}..{max_bpp or math.inf:g} bpp "
            f"and both curves reach; widen --min-bpp and --max-bpp"
        )
    return low_db, high_db


def _psnr_at(curve: Curve, bpp: float, method: Method) -> float:
    """PSNR at which the interpolated curve has this rate; its end points outside its rates."""
    if not bpp > 0:
        raise AnalysisError(f"bpp limit {bpp:g}: must be greater than 0")
    if bpp <= curve.bpp[0]:
        return curve.psnr_db[0]
    if bpp >= curve.bpp[-1]:
        return curve.psnr_db[-1]
    log_rate = _log_rate(curve, method)
    low_db, high_db = curve.psnr_db[0], curve.psnr_db[-1]
    miss = [float(log_rate(end)) - math.log(bpp) for end in (low_db, high_db)]
    if miss[0] >= 0 or miss[1] <= 0:  # a fitted cubic need not pass through its end points
        return low_db if miss[0] >= 0 else high_db
    return float(
        brentq(lambda psnr_db: float(log_rate(psnr_db)) - math.log(bpp), low_db, high_db, xtol=1e-12)
    )


def _log_rate(curve: Curve, method: Method) -> Any:
    """Natural log of bpp as a function of PSNR: one of scipy's interpolators, or numpy's poly1d."""
    log_bpp = np.log(curve.bpp)
    if method == "pchip":
        return PchipInterpolator(curve.psnr_db, log_bpp)
    if method == "akima":
        return Akima1DInterpolator(curve.psnr_db, log_bpp)
    if method == "cubic":
        return np.poly1d(np.polyfit(curve.psnr_db, log_bpp, 3))
    raise AnalysisError(f"method {method!r} is not known; known: {', '.join(METHODS)}")


def _range_text(curve: Curve) -> str:
    return f"{curve.psnr_db[0]:.2f}..{curve.psnr_db[-1]:.2f} dB"


def _integral(curve: Curve, method: Method, low_db: float, high_db: float) -> float:
    log_rate = _log_rate(curve, method)
    if isinstance(log_rate, np.poly1d):
        primitive = log_rate.integ()
        return float(primitive(high_db) - primitive(low_db))
    return float(log_rate.integrate(low_db, high_db))
