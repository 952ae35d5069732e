"""Where data are looked for and kept: $RDC_DATA, and the cache folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rdc.errors import UserError
from rdc.files import StorageError


def cache_root() -> Path:
    """$RDC_CACHE, else $XDG_CACHE_HOME/rdc, else ~/.cache/rdc; all in it can be deleted at any time."""
    if named := os.environ.get("RDC_CACHE"):
        return Path(named).expanduser().absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser().absolute() / "rdc"
    return Path.home() / ".cache" / "rdc"


def data_root() -> Path | None:
    """$RDC_DATA as a folder; None if it is not set; UserError if it is set to something else."""
    named = os.environ.get("RDC_DATA")
    if not named:
        return None
    root = Path(named).expanduser()
    if not root.is_dir():
        raise UserError(f"RDC_DATA={named}: is not a folder; correct it, or unset it to use other images")
    return root


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Create a folder of the cache and work in it; a disk that refuses is a UserError with the way out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        raise StorageError(
            f"{folder}: the cache cannot be written ({getattr(cause, 'strerror', None) or error}); "
            "set RDC_CACHE to a folder with room that you may write to"
        ) from None
