"""Output files that are either whole or absent."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pandas as pd

from analysis.errors import AnalysisError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    AnalysisError for what the system refuses: a folder in that place, a full disk, no permission.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name is not to become longer than a system takes because of what is added to it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:50]}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)  # mkstemp keeps files from everyone else
        temporary.replace(path)
    except OSError as error:
        raise AnalysisError(
            f"cannot write {path}: {error.strerror}; choose another folder with --out"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Floats in the shortest form that reads back to the same number."""
    texts = [frame[name] for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    # Only quotes keep a lone carriage return, which progress bars leave in messages, from ending its row.
    returns = any("\r" in str(cell) for values in texts for cell in values.unique())
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, quoting=quoting)
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
