"""BD-rate and BD-PSNR of two curves, and the rate saving of one point, without a silent assumption.

BD-rate and the rate saving interpolate log rate over PSNR, BD-PSNR interpolates PSNR over log rate, as
G. Bjontegaard, VCEG-M33 (2001), does with one cubic polynomial through all points (`cubic`). The others are
those of common practice: `pchip`, which is what others call piecewise cubic, Akima's, and straight lines.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator, PPoly
from scipy.optimize import brentq

from analysis.errors import AnalysisError
from analysis.settings import METHODS, MIN_OVERLAP, MIN_POINTS, Method

# Anchors come back with every trial; their curves are fitted once.
_CACHED_FITS = 1024
# Rounding alone makes a flat stretch of an interpolant fall by this much per dB.
_FLAT = 1e-9


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
        points = sorted(zip(map(float, self.bpp), map(float, self.psnr_db), strict=True))
        for bpp, psnr_db in points:
            if not (bpp > 0 and math.isfinite(bpp) and math.isfinite(psnr_db)):
                raise AnalysisError(
                    f"curve {self.name!r} has the point ({bpp} bpp, {psnr_db} dB); "
                    "bpp must be greater than 0 and both finite"
                )
        for (bpp, psnr_db), (next_bpp, next_psnr_db) in itertools.pairwise(points):
            if (next_bpp, next_psnr_db) == (bpp, psnr_db):
                raise AnalysisError(
                    f"curve {self.name!r} has {bpp:.4f} bpp at {psnr_db:.3f} dB twice; leave one out"
                )
            if not (next_bpp > bpp and next_psnr_db > psnr_db):
                raise AnalysisError(
                    f"curve {self.name!r} is not monotone: {bpp:.4f} bpp has {psnr_db:.3f} dB, "
                    f"{next_bpp:.4f} bpp has {next_psnr_db:.3f} dB; leave a point out, or train longer"
                )
        object.__setattr__(self, "bpp", tuple(p[0] for p in points))
        object.__setattr__(self, "psnr_db", tuple(p[1] for p in points))


@dataclasses.dataclass(frozen=True)
class BdRate:
    """BD-rate with the range that it stands for.

    bd_rate_pct: mean rate change of the tested curve at equal PSNR, negative is better.
    psnr_low_db, psnr_high_db: the integrated range. bpp_low, bpp_high: the anchor's rate at its ends.
    overlap: share of the tested curve's PSNR range that lies inside the anchor's, before any narrowing.
    """

    bd_rate_pct: float
    psnr_low_db: float
    psnr_high_db: float
    bpp_low: float
    bpp_high: float
    overlap: float


@dataclasses.dataclass(frozen=True)
class BdPsnr:
    """bd_psnr_db: mean PSNR change at equal rate over bpp_low..bpp_high, positive is better."""

    bd_psnr_db: float
    bpp_low: float
    bpp_high: float


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

    min_bpp, max_bpp then narrow that range to where the anchor's interpolated rate lies between them; no
    point is dropped, so the interpolation stays the same.
    """
    _require_points(anchor, test)
    low_db, high_db, overlap = _shared(anchor.psnr_db, test.psnr_db)
    if overlap < max(min_overlap, 1e-9):
        raise AnalysisError(
            f"curve {test.name!r} ({_range_text(test)}) has {100 * overlap:.0f} % of its range inside that "
            f"of {anchor.name!r} ({_range_text(anchor)}); at least {100 * min_overlap:.0f} % is needed"
        )
    low_db, high_db = _narrow(anchor, method, (low_db, high_db), min_bpp, max_bpp)
    for curve in (anchor, test):
        _require_rising(curve, method, low_db, high_db)
    change = mean_log_rate_change(anchor, test, method, low_db, high_db)
    at_ends = [math.exp(float(_log_rate(anchor, method)(end))) for end in (low_db, high_db)]
    return BdRate(100.0 * math.expm1(change), low_db, high_db, at_ends[0], at_ends[1], overlap)


def bd_psnr(
    anchor: Curve,
    test: Curve,
    *,
    method: Method = "pchip",
    min_bpp: float | None = None,
    max_bpp: float | None = None,
    min_overlap: float = MIN_OVERLAP,
) -> BdPsnr:
    """Mean PSNR change of `test` against `anchor` over the log rates that both reach, and min_ to max_bpp."""
    _require_points(anchor, test)
    fits = [_psnr(curve, method) for curve in (anchor, test)]
    low, high, overlap = _shared(*(np.log(curve.bpp).tolist() for curve in (anchor, test)))
    if overlap < max(min_overlap, 1e-9):
        raise AnalysisError(
            f"curve {test.name!r} ({_rates_text(test)}) has {100 * overlap:.0f} % of its log rates inside "
            f"those of {anchor.name!r} ({_rates_text(anchor)}); at least {100 * min_overlap:.0f} % is needed"
        )
    low = max(low, math.log(min_bpp)) if min_bpp is not None else low
    high = min(high, math.log(max_bpp)) if max_bpp is not None else high
    if low >= high:
        raise AnalysisError(f"curves {anchor.name!r} and {test.name!r} share no rate in the range asked for")
    for curve in (anchor, test):
        _require_rising(curve, method, low, high, over_rate=True)
    return BdPsnr(_mean_gap(fits[0], fits[1], low, high), math.exp(low), math.exp(high))


def rate_saving_pct(anchor: Curve, *, bpp: float, psnr_db: float, method: Method = "pchip") -> float:
    """100 (1 - bpp / the anchor's bpp at that PSNR); positive is better, never extrapolated."""
    if not (bpp > 0 and math.isfinite(bpp)):
        raise AnalysisError(f"bpp {bpp:g}: must be greater than 0 and finite")
    if not anchor.psnr_db[0] <= psnr_db <= anchor.psnr_db[-1]:
        side = "below" if psnr_db < anchor.psnr_db[0] else "above"
        raise OutsideRangeError(
            f"PSNR {psnr_db:.2f} dB is {side} the range of {anchor.name} ({_range_text(anchor)})"
        )
    _require_rising(anchor, method, anchor.psnr_db[0], anchor.psnr_db[-1])
    return 100.0 * (1.0 - bpp / math.exp(float(_log_rate(anchor, method)(psnr_db))))


def mean_log_rate_change(anchor: Curve, test: Curve, method: Method, low_db: float, high_db: float) -> float:
    """Mean of ln(rate of `test` / rate of `anchor`) over a PSNR range inside both; nothing is checked."""
    return _mean_gap(_log_rate(anchor, method), _log_rate(test, method), low_db, high_db)


def _mean_gap(anchor: PPoly, test: PPoly, low: float, high: float) -> float:
    return float(test.integrate(low, high) - anchor.integrate(low, high)) / (high - low)


def _require_points(*curves: Curve) -> None:
    for curve in curves:
        if len(curve.bpp) < MIN_POINTS:
            raise AnalysisError(
                f"curve {curve.name!r} has {len(curve.bpp)} points; BD-rate needs {MIN_POINTS}"
            )


def _shared(anchor: Sequence[float], test: Sequence[float]) -> tuple[float, float, float]:
    """Ends of the range that two rising sequences share, and its share of the second one's range."""
    low, high = max(anchor[0], test[0]), min(anchor[-1], test[-1])
    return low, high, max(high - low, 0.0) / (test[-1] - test[0])


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


def _require_rising(
    curve: Curve, method: Method, low: float, high: float, *, over_rate: bool = False
) -> None:
    """Akima's curve may swing, and one cubic need not follow the points: where it falls, it is no rate."""
    for start, end in _falling(curve, method, over_rate):
        if start < high and end > low:
            span = [math.exp(x) if over_rate else x for x in (max(start, low), min(end, high))]
            raise AnalysisError(
                f"the {method} curve through {curve.name!r} falls from {span[0]:.4g} to {span[1]:.4g} "
                f"{'bpp' if over_rate else 'dB'}, where its points rise; --method pchip follows them"
            )


@functools.lru_cache(maxsize=_CACHED_FITS)
def _falling(curve: Curve, method: Method, over_rate: bool) -> tuple[tuple[float, float], ...]:
    """The ranges in which an interpolant falls; none for those that rise by construction."""
    if method in ("pchip", "piecewise"):
        return ()
    slope = (_psnr if over_rate else _log_rate)(curve, method).derivative()
    turns = slope.roots(extrapolate=False)
    ends = np.unique(np.concatenate([slope.x, turns[np.isfinite(turns)]]))
    falls = slope((ends[:-1] + ends[1:]) / 2) < -_FLAT
    return tuple((float(a), float(b)) for a, b in zip(ends[:-1][falls], ends[1:][falls], strict=True))


@functools.lru_cache(maxsize=_CACHED_FITS)
def _log_rate(curve: Curve, method: Method) -> PPoly:
    """Natural log of bpp as a function of PSNR."""
    return _through(np.array(curve.psnr_db), np.log(curve.bpp), method)


@functools.lru_cache(maxsize=_CACHED_FITS)
def _psnr(curve: Curve, method: Method) -> PPoly:
    """PSNR as a function of the natural log of bpp."""
    return _through(np.log(curve.bpp), np.array(curve.psnr_db), method)


def _through(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], method: Method) -> PPoly:
    if method not in _INTERPOLANTS:
        raise AnalysisError(f"method {method!r} is not known; known: {', '.join(METHODS)}")
    return _INTERPOLANTS[method](x, y)


def _straight_lines(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> PPoly:
    return PPoly(np.stack([np.diff(y) / np.diff(x), y[:-1]]), x)


def _fitted_cubic(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> PPoly:
    """Least squares; exact through four points. Fitted around the first point, where numbers are small."""
    return PPoly(np.polyfit(x - x[0], y, min(3, len(x) - 1))[:, None], x[[0, -1]])


_INTERPOLANTS: dict[Method, Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], PPoly]] = {
    "pchip": PchipInterpolator,
    "akima": Akima1DInterpolator,
    "cubic": _fitted_cubic,
    "piecewise": _straight_lines,
}


def _range_text(curve: Curve) -> str:
    return f"{curve.psnr_db[0]:.2f}..{curve.psnr_db[-1]:.2f} dB"


def _rates_text(curve: Curve) -> str:
    return f"{curve.bpp[0]:.4g}..{curve.bpp[-1]:.4g} bpp"
