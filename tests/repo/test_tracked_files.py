"""What is committed says what the project is, and nothing of the machine or the people that wrote it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
KIB = 1024

# A package comes by its name from whatever registry the reader has; a path is relative or the reader's own.
FORBIDDEN = re.compile(
    r"(?i)--(extra-)?index-url|--find-links|python"
    r"hosted|pypi\.[a-z]{2,}/|/root/|/home/[a-z]|/work/"
    r"|\b(TODO|FIXME|XXX)\b"
)


def tracked() -> list[Path]:
    """Files of the working tree that git has or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).is_file()]


def test_no_file_names_a_registry_a_personal_path_or_a_chore() -> None:
    hits = []
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".png", ".jpg", ".safetensors", ".npz", ".bin"}:
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if FORBIDDEN.search(line):
                hits.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert hits == []


def test_no_tracked_file_is_large() -> None:
    large = [str(path.relative_to(ROOT)) for path in tracked() if path.stat().st_size > 600 * KIB]
    assert large == []
