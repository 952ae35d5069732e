"""Decode coded files in a newly started interpreter that knows only the checkpoint and the files.

`python -m rdc.fresh_decode CHECKPOINT FILE...` prints one JSON line per file: the SHA-256 of its 8-bit
pixels, or why it cannot be decoded. Nothing of the process that coded the files can reach it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import storing
from rdc.lean_import import lean_compressai
from rdc.processes import die_with, package_path

_TIMEOUT_S = 600.0


def decodes_alike(
    checkpoint: Path, files: Sequence[bytes], pixel_sha256: Sequence[str], *, device: str, threads: int
) -> tuple[bool, str | None]:
    """(whether a new interpreter decodes all files to these pixels, the first difference in words)."""
    with storing(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="rdc-decode-") as folder:
        paths = [Path(folder, f"{number:04}.rdc") for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        answers = _run(checkpoint, paths, device=device, threads=threads)
    for number, (answer, expected) in enumerate(zip(answers, pixel_sha256, strict=True)):
        if "error" in answer:
            return False, f"image {number}: {answer['error']}"
        if answer["pixel_sha256"] != expected:
            return False, f"image {number}: a new interpreter decodes other pixels"
    return True, None


def _run(checkpoint: Path, paths: Sequence[Path], *, device: str, threads: int) -> list[dict[str, Any]]:
    options = ["--device", device, "--threads", str(threads), "--parent", str(os.getpid())]
    done = subprocess.run(
        [sys.executable, "-m", "rdc.fresh_decode", *options, str(checkpoint.resolve()), *map(str, paths)],
        env={**os.environ, "PYTHONPATH": package_path()},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(answers) != len(paths):
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the decoding interpreter ended with {done.returncode}: {last_line}")
    return answers


def _answer(codec: Any, own_hash: bytes, path: str) -> dict[str, str]:
    import torch

    from rdc import bitstream
    from rdc.evaluate import pixel_digest
    from rdc.metrics import to_8bit

    try:
        with torch.no_grad():
            x_hat = bitstream.decode_image(codec, bitstream.read_bytes(path), own_hash, name=path)
    except UserError as error:
        return {"error": str(error)}
    return {"pixel_sha256": pixel_digest(to_8bit(x_hat).cpu())}


def main(arguments: Sequence[str]) -> None:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m rdc.fresh_decode")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parent", type=int, help="process whose end ends this one")
    parser.add_argument("checkpoint")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        die_with(options.parent)

    lean_compressai()

    from rdc.checkpoint import load_model, model_hash
    from rdc.machine import resolve_device, set_threads

    set_threads(options.threads)
    codec, metadata = load_model(options.checkpoint)
    codec.set_transform_precision(metadata["extra"].get("precision", "fp32"))
    codec.to(resolve_device(options.device))
    own_hash = model_hash(codec)
    for path in options.files:
        print(json.dumps(_answer(codec, own_hash, path)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
