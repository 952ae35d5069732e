"""Runtimes on devices: one row per architecture, device, threads, precision and image size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

_TEXT = ("arch_id", "label", "family", "device", "device_slug", "precision", "weights")
_INT = ("threads", "height_px", "width_px")
_STAGES = tuple(
    f"{short}_{stage}_{part}ms"
    for short in ("dec", "enc")
    for stage in ("net", "entropy", "total")
    for part in ("", "q25_", "q75_")
)
RUNTIME_COLUMNS = (*_TEXT, *_INT, "kflop_per_px_dec", "params_m", *_STAGES)

_LONG = {"dec": "decode", "enc": "encode", "net": "network_ms", "entropy": "entropy_ms", "total": "total_ms"}


def timing_row(timing: Mapping[str, Any], *, trial: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A timing JSON as a row of RUNTIME_COLUMNS. trial: a row of the same architecture, for its cost."""
    size = timing["image_px"]
    height_px, width_px = size if isinstance(size, list) else (int(side) for side in str(size).split("-"))
    row = {name: timing.get(name) for name in (*_TEXT, "threads")}
    row |= {"height_px": height_px, "width_px": width_px}
    row |= {name: (trial or {}).get(name) for name in ("kflop_per_px_dec", "params_m")}
    for name in _STAGES:
        short, stage, *quartile = name.removesuffix("_ms").split("_")
        spread = (timing.get(_LONG[short]) or {}).get(_LONG[stage]) or {}
        row[name] = spread.get(quartile[0] if quartile else "median")
    return row


def runtime_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Rows -> typed table with every one of RUNTIME_COLUMNS; text is never missing but ''."""
    frame = pd.DataFrame(list(rows), columns=list(RUNTIME_COLUMNS))
    for name in RUNTIME_COLUMNS:
        if name in _TEXT:
            frame[name] = (
                frame[name].astype("object").where(frame[name].notna(), "").map(str).astype("object")
            )
        else:
            frame[name] = frame[name].astype("Int64" if name in _INT else "float64")
    return frame
