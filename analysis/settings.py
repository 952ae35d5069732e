"""How BD-rates are computed. Apart from the computation, so that --help need not load scipy."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from analysis.errors import AnalysisError

Method = Literal["pchip", "akima", "cubic"]
METHODS: tuple[Method, ...] = get_args(Method)

# Four points are what the cubic of VCEG-M33 needs, and what makes a curve rather than a guess.
MIN_POINTS = 4
# Below this share of the tested curve's own PSNR range the mean speaks for too little of the curve.
MIN_OVERLAP = 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
    """min_bpp, max_bpp: range of the anchor's rate. min_overlap: least share of a curve's own PSNR range."""

    method: Method = "pchip"
    min_bpp: float | None = None
    max_bpp: float | None = None
    min_overlap: float = MIN_OVERLAP

    def __post_init__(self) -> None:
        for option, value in (("--min-bpp", self.min_bpp), ("--max-bpp", self.max_bpp)):
            if value is not None and not value > 0:
                raise AnalysisError(f"{option} {value:g}: must be greater than 0")
        if self.min_bpp is not None and self.max_bpp is not None and self.min_bpp >= self.max_bpp:
            raise AnalysisError(f"--min-bpp {self.min_bpp:g}: must be below --max-bpp {self.max_bpp:g}")
        if not 0 <= self.min_overlap <= 1:
            raise AnalysisError(
                f"--min-overlap {100 * self.min_overlap:g}: must lie between 0 and 100 per cent"
            )
