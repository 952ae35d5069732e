"""What a sweep folder holds beside its results: configurations, versions, and crops to look at."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load import Source
from analysis.public import public_text

MAX_ARCHITECTURES = 12
MAX_BYTES = 16_000_000
MAX_FILE_BYTES = 1_000_000
HOW_TO_GET_THEM = (
    "There are no reconstructions to show. Trials keep crops of four images in trials/ID/shown of a sweep "
    "folder; older sweeps, tables and MLflow runs have none. A sweep run anew (name=OTHER) writes them."
)
_PNG = b"\x89PNG\r\n\x1a\n"


def named(source: Source) -> str:
    """The source and what it is, for a heading."""
    if (source.folder / "sweep.json").is_file() or (source.folder / "trials").is_dir():
        return f"sweep: {source.name}"
    return source.name if source.name.startswith("mlflow run") else f"table: {source.name}"


def specifications(folder: Path, spec_ids: Iterable[str]) -> list[Any]:
    """Of each trial its configuration as it may be shown; None where the folder holds none."""
    return [_public(_read(folder / "trials" / spec_id / "spec.json")) for spec_id in spec_ids]


def versions(folder: Path) -> dict[str, Any]:
    """Names and versions of what ran the sweep; {} if it is not recorded."""
    found = (_read(folder / "sweep.json") or {}).get("versions")
    return (
        {str(key): public_text(str(value)) for key, value in found.items()} if isinstance(found, dict) else {}
    )


def pictures(folder: Path, wanted: pd.DataFrame) -> dict[str, Any]:
    """Crops and reconstructions of as many trials as fit.

    wanted: trials, those first that matter most. Each file is taken once, and its bytes as they are.
    """
    blobs: dict[str, str] = {}
    images: dict[tuple[str, str], dict[str, Any]] = {}
    taken: dict[str, None] = {}
    size_bytes, left_out = 0, set()
    for row in wanted.to_dict("records"):
        trial = folder / "trials" / str(row["spec_id"])
        shown = _shown(trial)
        if not shown:
            continue
        if len({**taken, row["arch_id"]: None}) > MAX_ARCHITECTURES:
            left_out.add(row["arch_id"])
            continue
        new = {_digest(data): data for entry in shown for data in (entry["original"], entry["file"])}
        new = {key: data for key, data in new.items() if key not in blobs}
        if size_bytes + sum(map(len, new.values())) > MAX_BYTES:
            left_out.add(row["arch_id"])
            continue
        taken[row["arch_id"]] = None
        size_bytes += sum(map(len, new.values()))
        blobs |= {key: base64.b64encode(data).decode() for key, data in new.items()}
        for entry in shown:
            original = _digest(entry["original"])
            image = images.setdefault(
                (entry["name"], original),
                {
                    "name": public_text(entry["name"]),
                    "crop": entry["crop"],
                    "original": original,
                    "entries": [],
                },
            )
            scores = {name: entry["scores"].get(name) for name in ("bpp", "psnr_db", "width_px", "height_px")}
            image["entries"].append({"spec_id": row["spec_id"], "file": _digest(entry["file"]), **scores})
    return {
        "images": list(images.values()),
        "blobs": blobs,
        "note": _note(len(taken), left_out - taken.keys()) if images or left_out else HOW_TO_GET_THEM,
    }


def _note(count: int, left_out: set[str]) -> str:
    architectures = "1 architecture" if count == 1 else f"{count} architectures, those on the frontier first"
    said = f"Shown are middles of images, for {architectures}."
    if left_out:
        said += (
            f" {len(left_out)} more have reconstructions that are left out of this page to keep it small; "
            "they are in the folders trials/ID/shown."
        )
    return said


def _shown(trial: Path) -> list[dict[str, Any]]:
    """The crops that a trial's result names and that are there, with the scores of their images."""
    evaluation = (_read(trial / "result.json") or {}).get("evaluation") or {}
    entries, scores = evaluation.get("shown") or [], evaluation.get("per_image") or []
    by_name = {score.get("name"): score for score in scores if isinstance(score, Mapping)}
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, Mapping):
            continue
        files = {key: _png(trial, entry.get(key)) for key in ("original", "file")}
        crop = entry.get("crop")
        if all(files.values()) and isinstance(crop, list) and all(isinstance(side, int) for side in crop):
            score = by_name.get(entry.get("name"), {})
            found.append({"name": str(entry.get("name")), "crop": crop, "scores": score, **files})
    return found


def _png(trial: Path, name: Any) -> bytes | None:
    """The file's bytes, if it is a PNG of the trial's own folder: a result may come from a stranger."""
    if not isinstance(name, str):
        return None
    path = (trial / name).resolve()
    try:
        if not path.is_relative_to(trial.resolve()) or path.stat().st_size > MAX_FILE_BYTES:
            return None
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    return data if data.startswith(_PNG) else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None


def _public(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {str(key): _public(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_public(value) for value in tree]
    return _public_text(tree) if isinstance(tree, str) else tree


_public_text = functools.lru_cache(maxsize=4096)(public_text)
