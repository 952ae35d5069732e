"""Output files that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from analysis.errors import AnalysisError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise AnalysisError(
            f"cannot write {path}: {error.strerror}; choose another folder with --out"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp keeps files from everyone else
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Floats in the shortest form that reads back to the same number."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False)
    return path


def is_file(path: Path) -> bool:
    """False too for what the system cannot look up, such as a name of thousands of characters."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """As `is_file`."""
    try:
        return path.is_dir()
    except OSError:
        return False


def shorten(name: str, limit: int = 200) -> str:
    """For messages: a name is not to fill the terminal."""
    return name if len(name) <= limit else f"{name[: limit - 3]}..."
