"""Per-image scores of trials: what a mean over images is made of, for bootstraps and per-image BD-rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from analysis.errors import AnalysisError
from analysis.public import plain_text

IMAGE_COLUMNS = (
    "spec_id", "image", "width_px", "height_px", "bpp", "psnr_db", "mse", "ms_ssim", "rd_loss",
)  # fmt: skip


def image_rows(result: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """One tuple of IMAGE_COLUMNS per image of a trial's result.json; none where it holds none.

    AnalysisError for what are no scores.
    """
    scores = (result.get("evaluation") or {}).get("per_image") or []
    names = ("name", *IMAGE_COLUMNS[2:])
    if not isinstance(scores, list) or not all(map(_is_score, scores)):
        raise AnalysisError("has an evaluation.per_image that is no list of images with their scores")
    found = [(result["spec_id"], *(score.get(name) for name in names)) for score in scores]
    return [(spec_id, plain_text(str(name)), *numbers) for spec_id, name, *numbers in found]


def _is_score(score: object) -> bool:
    if not isinstance(score, Mapping) or not score.get("name"):
        return False
    return all(isinstance(score.get(name), (int, float, type(None))) for name in IMAGE_COLUMNS[2:])


def image_frame(rows: Iterable[tuple[Any, ...]] = ()) -> pd.DataFrame:
    """Columns as IMAGE_COLUMNS: ids and names as text, the rest as numbers, NaN where a score is missing."""
    frame = pd.DataFrame(list(rows), columns=list(IMAGE_COLUMNS))
    return frame.astype({name: "object" if name in ("spec_id", "image") else "float64" for name in frame})
