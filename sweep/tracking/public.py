"""What may leave a sweep's folder for a server: no credentials, no absolute paths, no names of hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.public import HIDDEN, is_secret_name
from analysis.public import public_text as public_text
from analysis.schema import PAGE_FILE
from rdc.files import CHECKSUM, sealed

TEXT_SUFFIXES = (".csv", ".html", ".json", ".txt")
LONG_BYTES = 5_000_000  # of a log beyond that, the end says what went wrong


def public_tree(tree: Any) -> Any:
    """The same of every text in what JSON can hold. Keys and single words, which may name anything, stay."""
    if isinstance(tree, Mapping):
        return {key: _public_value(str(key), value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [public_tree(value) for value in tree]
    return public_text(tree) if isinstance(tree, str) and re.search(r"[\s/]", tree) else tree


def _public_value(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return public_tree(value)
    if is_secret_name(key):
        return HIDDEN
    if key == "address":  # of a cluster: a single word, and a host all the same
        return public_text(f"{key}={value}").removeprefix(f"{key}=")
    return public_tree(value)


def public_copy(path: Path) -> str | None:
    """The text to upload instead of the file; None if the file itself may go up."""
    if path.suffix not in TEXT_SUFFIXES or path.name == PAGE_FILE:
        return None
    text, is_whole = _text(path)
    try:
        tree = json.loads(text) if path.suffix == ".json" and is_whole else None
    except ValueError:
        tree = None
    if isinstance(tree, dict):
        shown = public_tree(tree)
        if shown == tree:
            return None
        # Whoever reads the copy back checks it as it would the file.
        shown = sealed(_unsealed(shown)) if CHECKSUM in shown else shown
        return json.dumps(shown, indent=2, ensure_ascii=False)
    shown = public_text(text)
    return None if shown == text and is_whole else shown


def _text(path: Path) -> tuple[str, bool]:
    """(the text, whether that is all of it): a log may be longer than anybody wants to upload."""
    with open(path, "rb") as file:
        left_out = file.seek(0, 2) - LONG_BYTES if path.suffix == ".txt" else 0
        file.seek(max(0, left_out))
        text = file.read().decode(errors="replace")
    if left_out <= 0:
        return text, True
    return f"[the first {left_out:,} bytes are left out]\n{text}", False


def _unsealed(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != CHECKSUM}
