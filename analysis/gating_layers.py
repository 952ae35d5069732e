"""What the gates of each layer decided, from the results of a sweep folder: no table holds it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

LAYER_COLUMNS = (
    "spec_id", "layer", "in_channels", "open_share", "open_share_std", "natural_zero", "macs_share",
)  # fmt: skip


def layer_frame(folder: Path, spec_ids: Iterable[str]) -> pd.DataFrame:
    """One row per trial and gated layer, in the order of the network; none where the folder holds no results.

    open_share: mean over images of open over all input channels, with its standard deviation. natural_zero:
    share of channels that are zero everywhere; NaN where no energy was computed.
    """
    rows: list[tuple[Any, ...]] = []
    for spec_id in spec_ids:
        rows += [(spec_id, *row) for row in _layers(folder / "trials" / spec_id / "result.json")]
    frame = pd.DataFrame(rows, columns=list(LAYER_COLUMNS))
    return frame.astype({name: "float64" for name in LAYER_COLUMNS[2:]})


def _layers(path: Path) -> list[tuple[Any, ...]]:
    try:
        layers = json.loads(path.read_bytes())["evaluation"]["gating"]["layers"]
        return [
            (
                str(layer["name"]).removeprefix("entropy_model."),
                layer["in_channels"],
                layer["open"] / layer["in_channels"],
                layer["open_std"] / layer["in_channels"],
                layer["natural_zero"],
                layer["macs_share"],
            )
            for layer in layers
        ]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return []  # the table's numbers do not rest on it
