"""`python -m benchmarks [NAME ...]`: run the benchmarks of this folder in turn, then print their tables.

Each is a script of its own, `benchmarks/NAME.py`, with its options behind `--help`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KNOWN = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def run(name: str) -> tuple[int, str]:
    """Exit code of a benchmark, and what it printed and how long it took; its progress goes to stderr."""
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, str(FOLDER / f"{name}.py")], stdout=subprocess.PIPE, text=True)
    minutes = (time.monotonic() - started_s) / 60
    return done.returncode, f"== {name} ({minutes:.1f} min)\n{done.stdout}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(KNOWN)}")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(KNOWN))
    if unknown:
        parser.error(f"{unknown[0]}: there is no such benchmark; known: {', '.join(KNOWN)}")
    outcomes = []
    for name in options.names or KNOWN:
        print(f"running {name}", file=sys.stderr, flush=True)
        outcomes.append(run(name))
    print("\n".join(text for _, text in outcomes))
    return max(code for code, _ in outcomes)


if __name__ == "__main__":
    sys.exit(main())
