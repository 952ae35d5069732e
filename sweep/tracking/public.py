"""What may leave a sweep's folder for a server: no credentials, no absolute paths, no names of hosts."""

from __future__ import annotations

import functools
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdc.files import CHECKSUM, sealed
from sweep.tracking.address import redact

TEXT_SUFFIXES = (".csv", ".html", ".json", ".txt")
HOST = "HOST"

# A database's file in an address; the scheme alone says what kind of server it is.
_FILE_ADDRESS = re.compile(r"\b(sqlite|file)(\+\w+)?:/{2,}[^\s'\",]*")
# From the root or a home on, and not within a word, an address, a fraction or an HTML tag.
_PATH = re.compile(r"(?<![\w:/.<~…*-])(?:~\w*(?=/)|/[\w.@+%~-]+)(?:/[\w.@+%=~-]+)*/?")


def public_text(text: str) -> str:
    """The text with …/NAME for /absolute/path/NAME and HOST for this machine's name."""
    text = _FILE_ADDRESS.sub(lambda found: f"{found[1]}:…/{_last(found[0])}", redact(text))
    text = _PATH.sub(lambda found: f"…/{_last(found[0])}", text)
    for name in _host_names():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", HOST, text)
    return text


def public_tree(tree: Any) -> Any:
    """The same of every text in what JSON can hold. Keys and single words, which may name anything, stay."""
    if isinstance(tree, Mapping):
        return {key: public_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [public_tree(value) for value in tree]
    return public_text(tree) if isinstance(tree, str) and re.search(r"[\s/]", tree) else tree


def public_copy(path: Path) -> str | None:
    """The text to upload instead of the file; None if the file itself may go up."""
    if path.suffix not in TEXT_SUFFIXES:
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        tree = json.loads(text) if path.suffix == ".json" else None
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
    return None if shown == text else shown


def _unsealed(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != CHECKSUM}


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


@functools.cache
def _host_names() -> tuple[str, ...]:
    """This machine's names, the longest first. Too short or too common a word says nothing of a host."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    return tuple(sorted((n for n in names if len(n) > 2 and n != "localhost"), key=len, reverse=True))
