"""What was measured once, by content: pixels, codec, exact setting and versions. One small file each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from analysis.codecs.codec import Codec
from analysis.codecs.images import SourceImage
from analysis.errors import AnalysisError
from analysis.files import atomic

# Raised when the same file and pixels would give other numbers.
MEASURE_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Measured:
    """size_bytes: of the whole file. mse: over all RGB samples, 0 to 255; 0 where nothing was lost."""

    size_bytes: int
    mse: float


def default_folder() -> Path:
    """$RDC_CACHE/anchors, else $XDG_CACHE_HOME/rdc/anchors, else ~/.cache/rdc/anchors."""
    if named := os.environ.get("RDC_CACHE"):
        return Path(named).expanduser() / "anchors"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "rdc" / "anchors"


class Cache:
    """Entries are written whole or not at all; one that is damaged counts as none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AnalysisError(
                f"{folder}: the cache cannot be made ({error.strerror}); choose another with --cache FOLDER"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise AnalysisError(f"{folder}: the cache cannot be written; choose another with --cache FOLDER")

    def get(self, image: SourceImage, codec: Codec, value: float) -> Measured | None:
        key = _key(image, codec, value)
        try:
            entry = json.loads(self._path(key).read_bytes())
            if entry["key"] != key or entry["checksum"] != _checksum(entry):
                return None
            size_bytes, mse = entry["size_bytes"], entry["mse"]
            good = isinstance(size_bytes, int) and size_bytes > 0 and math.isfinite(mse) and mse >= 0
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Measured(size_bytes, mse) if good else None

    def put(self, image: SourceImage, codec: Codec, value: float, measured: Measured) -> None:
        key = _key(image, codec, value)
        entry = {"key": key, **dataclasses.asdict(measured)}
        try:
            with atomic(self._path(key)) as temporary:
                temporary.write_text(json.dumps({**entry, "checksum": _checksum(entry)}), encoding="utf-8")
        except (OSError, AnalysisError) as error:
            cause = error.strerror if isinstance(error, OSError) else "no room or no permission"
            raise AnalysisError(
                f"{self._folder}: the cache cannot be written ({cause}); choose another with --cache FOLDER"
            ) from None

    def _path(self, key: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[:40]}.json"


def _key(image: SourceImage, codec: Codec, value: float) -> dict[str, Any]:
    """Whatever could change the numbers; colour and encoder hold the fixed options."""
    return {
        "measure_version": MEASURE_VERSION,
        "pixels": image.sha256,
        "codec": codec.name,
        "encoder": codec.encoder,
        "version": codec.version,
        "colour": codec.colour,
        "setting": codec.setting(value),
    }


def _checksum(entry: dict[str, Any]) -> str:
    values = {name: value for name, value in entry.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
