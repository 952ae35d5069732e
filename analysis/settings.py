"""How BD-rates are computed. Apart from the computation, so that --help need not load scipy."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from analysis.errors import AnalysisError

Method = Literal["pchip", "akima", "cubic", "piecewise"]
METHODS: tuple[Method, ...] = get_args(Method)
METHOD_TEXT: dict[Method, str] = {
    "pchip": "piecewise cubic that rises wherever the points do",
    "akima": "piecewise cubic after Akima",
    "cubic": "one cubic polynomial fitted through all points, as in VCEG-M33",
    "piecewise": "straight lines between the points",
}

Average = Literal["mean_curve", "per_image"]
AVERAGES: tuple[Average, ...] = get_args(Average)
AVERAGE_TEXT: dict[Average, str] = {
    "mean_curve": "one curve of means over the images",
    "per_image": "one comparison per image, then the mean over images",
}

# Four points are what the cubic of VCEG-M33 needs, and what makes a curve rather than a guess.
MIN_POINTS = 4
# Below this share of the tested curve's own PSNR range the mean speaks for too little of the curve.
MIN_OVERLAP = 0.5
# Images that cannot be compared are the hardest or the easiest: without many of them a mean is another mean.
MAX_REFUSED_IMAGES = 0.1


@dataclasses.dataclass(frozen=True)
class Settings:
    """min_bpp, max_bpp: range of the anchor's rate. min_overlap: least share of a curve's own PSNR range."""

    method: Method = "pchip"
    min_bpp: float | None = None
    max_bpp: float | None = None
    min_overlap: float = MIN_OVERLAP
    average: Average = "mean_curve"

    def __post_init__(self) -> None:
        for option, value in (("--min-bpp", self.min_bpp), ("--max-bpp", self.max_bpp)):
            if value is not None and not 0 < value < math.inf:
                raise AnalysisError(f"{option} {value:g}: must be greater than 0 and finite")
        if self.min_bpp is not None and self.max_bpp is not None and self.min_bpp >= self.max_bpp:
            raise AnalysisError(f"--min-bpp {self.min_bpp:g}: must be below --max-bpp {self.max_bpp:g}")
        if not 0 <= self.min_overlap <= 1:
            raise AnalysisError(
                f"--min-overlap {100 * self.min_overlap:g}: must lie between 0 and 100 per cent"
            )
        for option, chosen, known in (
            ("--method", self.method, METHODS),
            ("--average", self.average, AVERAGES),
        ):
            if chosen not in known:
                raise AnalysisError(f"{option} {chosen}: is not known; known: {', '.join(known)}")
