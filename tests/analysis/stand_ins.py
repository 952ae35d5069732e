"""Small programs with the command line of BPG and VTM, and codecs of their own behind it.

A file `mode` beside them says how they are to fail: exit, empty, size, hang, stall, noise; else they work.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HEAD = f"""#!{sys.executable} -S
import os, pathlib, sys, time, zlib
here = pathlib.Path(__file__).resolve().parent
mode = (here / "mode").read_text() if (here / "mode").exists() else ""
words = sys.argv[1:]
with open(here / "calls", "a") as calls:
    calls.write(" ".join([pathlib.Path(__file__).name, *words]) + "\\n")
def after(name):
    return words[words.index(name) + 1]
def act(out, content):
    if mode == "exit":
        print("first a warning", file=sys.stderr)
        sys.exit("cannot do that")
    if mode == "hang":
        time.sleep(60)
    if mode == "stall":  # after two images: one call for the version, two for each
        parent, end = os.getppid(), time.monotonic() + 60
        while len((here / "calls").read_text().splitlines()) > 5 and time.monotonic() < end:
            if os.getppid() != parent:
                sys.exit("left alone")
            time.sleep(0.05)
    pathlib.Path(out).write_bytes(b"" if mode == "empty" else content)
"""

# Coded: the source file with every byte or row left as it is, compressed; its size depends on -q.
_BPGENC = (
    _HEAD
    + """
if "-h" in words or not words:
    print("BPG Image Encoder version 0.9.8\\nusage: bpgenc [options] infile.[jpg|png]")
    sys.exit(1)
assert after("-f") == "444" and after("-e") == "x265" and after("-c") == "ycbcr" and after("-b") == "8"
act(after("-o"), b"BPG" + bytes(52 - int(after("-q"))) + pathlib.Path(words[-1]).read_bytes())
"""
)
_BPGDEC = (
    _HEAD
    + """
coded = pathlib.Path(words[-1]).read_bytes()
act(after("-o"), b"no PNG" if mode == "noise" else coded[coded.index(b"\\x89PNG"):])
"""
)
_VTM_ENCODER = (
    _HEAD
    + """
print("\\nVVCSoftware: VTM Encoder Version 9.1 [Linux][GCC 9.3.0][64 bit] [SIMD=AVX2]")
if not words:
    sys.exit(1)
width, height, step = int(after("-wdt")), int(after("-hgt")), 1 + int(after("-q")) // 8
assert pathlib.Path(after("-c")).read_text().startswith("InternalBitDepth")
assert "--InputChromaFormat=444" in words and "--InputBitDepth=8" in words
assert "--ConformanceWindowMode=1" in words and after("-fr") == after("-f") == "1"
planes = pathlib.Path(after("-i")).read_bytes()
assert len(planes) == 3 * width * height
coarse = bytes(min(value // step * step + step // 2, 255) for value in planes)
act(after("-b"), zlib.compress(coarse))
"""
)
_VTM_DECODER = (
    _HEAD
    + """
assert after("-d") == "8"
planes = zlib.decompress(pathlib.Path(after("-b")).read_bytes())
act(after("-o"), planes[:-7] if mode == "size" else planes)
"""
)


def write_bpg(folder: Path) -> Path:
    """bpgenc, with bpgdec beside it. Lossless, whatever -q says."""
    return _write(folder, {"bpgenc": _BPGENC, "bpgdec": _BPGDEC})


def write_vtm(folder: Path) -> Path:
    """EncoderApp, with DecoderApp and a configuration beside it. Samples become multiples of a step."""
    encoder = _write(folder, {"EncoderApp": _VTM_ENCODER, "DecoderApp": _VTM_DECODER})
    (folder / "intra.cfg").write_text("InternalBitDepth : 10\n")
    return encoder


def _write(folder: Path, programs: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder / next(iter(programs))
