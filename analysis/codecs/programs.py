"""Codecs that are programs of the user: BPG and VTM. The commands are pure functions of what they are given.

Options as CompressAI's benchmark passes them. Its conversion of colours truncates; ours rounds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np

from analysis.codecs import colour
from analysis.codecs.codec import Codec, CodecError, Coded, UnavailableError
from analysis.codecs.process import last_line, output_of, run
from analysis.files import is_file

TIMEOUT_S = 7200.0  # VTM takes minutes for a Kodak image, and longer for larger ones


@dataclasses.dataclass(frozen=True)
class Programs:
    """Where the user's programs are; None: on PATH, decoders also beside their encoders."""

    bpgenc: str | None = None
    bpgdec: str | None = None
    vtm_encoder: str | None = None
    vtm_decoder: str | None = None
    vtm_cfg: str | None = None
    timeout_s: float = TIMEOUT_S


def bpg_encode_command(bpgenc: str, source: str, coded: str, quantiser: int) -> list[str]:
    """PNG to BPG: 4:4:4, 8 bit, YCbCr (BT.601, full range), x265 at the default compression level 8."""
    fixed = ["-f", "444", "-e", "x265", "-c", "ycbcr", "-b", "8", "-m", "8"]
    return [bpgenc, *fixed, "-q", str(quantiser), "-o", coded, source]


def bpg_decode_command(bpgdec: str, coded: str, decoded: str) -> list[str]:
    """BPG to an 8-bit PNG; the name of `decoded` ends in .png."""
    return [bpgdec, "-b", "8", "-o", decoded, coded]


def vtm_encode_command(
    encoder: str, cfg: str, source: str, coded: str, *, width_px: int, height_px: int, quantiser: int
) -> list[str]:
    """Raw planar YUV 4:4:4 of 8 bit to a VVC stream of one frame; odd sizes are padded and cut off again."""
    files = ["-i", source, "-c", cfg, "-q", str(quantiser), "-o", "/dev/null", "-b", coded]
    frame = ["-wdt", str(width_px), "-hgt", str(height_px), "-fr", "1", "-f", "1"]
    form = ["--InputChromaFormat=444", "--InputBitDepth=8", "--ConformanceWindowMode=1"]
    return [encoder, *files, *frame, *form]


def vtm_decode_command(decoder: str, coded: str, decoded: str) -> list[str]:
    """VVC stream to raw planar YUV of 8 bit."""
    return [decoder, "-b", coded, "-o", decoded, "-d", "8"]


def bpg(programs: Programs) -> Codec:
    """BPG by bpgenc and bpgdec."""
    encoder = _program(programs.bpgenc, "bpgenc", "--bpgenc")
    decoder = _program(programs.bpgdec, "bpgdec", "--bpgdec", beside=encoder)

    def code(pixels: np.ndarray, quantiser: float) -> Coded:
        with tempfile.TemporaryDirectory(prefix="rdc-anchors-") as folder:
            source, coded, decoded = (f"{folder}/{name}" for name in ("in.png", "coded.bpg", "out.png"))
            _write_png(source, pixels)
            run(bpg_encode_command(encoder, source, coded, int(quantiser)), programs.timeout_s)
            size_bytes = _size(coded, encoder)
            run(bpg_decode_command(decoder, coded, decoded), programs.timeout_s)
            _size(decoded, decoder)
            return Coded(size_bytes, _read_png(decoded, decoder, pixels))

    version = _banner(encoder, r"BPG Image Encoder version (\S+)", "-h")
    return Codec(
        name="bpg",
        title="BPG 4:4:4",
        encoder="bpgenc -f 444 -e x265 -c ycbcr -b 8 -m 8",
        version=f"bpgenc {version}; bpgenc {_sha256(encoder)}; bpgdec {_sha256(decoder)}",
        colour="YCbCr 4:4:4, BT.601, full range, 8 bit",
        parameter="q",
        values=(50, 47, 44, 42, 39, 37, 34, 32, 29, 27, 24, 22),
        low=0,
        high=51,
        whole=True,
        code=code,
    )


def vtm(programs: Programs) -> Codec:
    """VVC by VTM's EncoderApp and DecoderApp, from and to raw YUV that is converted here."""
    encoder = _program(programs.vtm_encoder, "EncoderApp", "--vtm-encoder", also="EncoderAppStatic")
    decoder = _program(
        programs.vtm_decoder, "DecoderApp", "--vtm-decoder", also="DecoderAppStatic", beside=encoder
    )
    if programs.vtm_cfg is None:
        raise UnavailableError("needs --vtm-cfg FILE: VTM's cfg/encoder_intra_vtm.cfg")
    cfg = programs.vtm_cfg
    if not is_file(Path(cfg)):
        raise UnavailableError(
            f"--vtm-cfg {cfg}: there is no such file; VTM has it as cfg/encoder_intra_vtm.cfg"
        )
    colour.self_test()

    def code(pixels: np.ndarray, quantiser: float) -> Coded:
        height_px, width_px, _ = pixels.shape
        with tempfile.TemporaryDirectory(prefix="rdc-anchors-") as folder:
            source, coded, decoded = (f"{folder}/{name}" for name in ("in.yuv", "coded.vvc", "out.yuv"))
            Path(source).write_bytes(colour.to_ycbcr(pixels).tobytes())
            encode = vtm_encode_command(
                encoder, cfg, source, coded, width_px=width_px, height_px=height_px, quantiser=int(quantiser)
            )
            run(encode, programs.timeout_s)
            size_bytes = _size(coded, encoder)
            run(vtm_decode_command(decoder, coded, decoded), programs.timeout_s)
            return Coded(size_bytes, _read_yuv(decoded, decoder, width_px, height_px))

    version = _banner(encoder, r"VTM Encoder Version (\S+)")
    hashes = f"EncoderApp {_sha256(encoder)}; DecoderApp {_sha256(decoder)}; cfg {_sha256(cfg)}"
    options = "--InputChromaFormat=444 --InputBitDepth=8 --ConformanceWindowMode=1"
    return Codec(
        name="vtm",
        title="VTM intra 4:4:4",
        encoder=f"EncoderApp -c {Path(cfg).name} {options}; DecoderApp -d 8",
        version=f"VTM {version}; {hashes}",
        colour=colour.COLOUR,
        parameter="QP",
        values=(47, 42, 37, 35, 32, 29, 27, 24, 22),
        low=0,
        high=63,
        whole=True,
        code=code,
    )


def _program(named: str | None, name: str, option: str, *, also: str = "", beside: str = "") -> str:
    """The path of a program: the one that was named, else one beside another, else the one on PATH."""
    if named is not None:
        if found := shutil.which(named):
            return str(Path(found).resolve())
        raise UnavailableError(f"{option} {named}: is no program that can be run")
    near = [str(Path(beside).parent / each) for each in (name, also) if beside and each]
    for each in (*near, name, also):
        if each and (found := shutil.which(each)):
            return str(Path(found).resolve())
    raise UnavailableError(f"needs {name}: put it on PATH, or name it with {option} PATH")


def _banner(program: str, pattern: str, *arguments: str) -> str:
    found = re.search(pattern, output_of([program, *arguments]))
    return found[1].rstrip(",;") if found else "of a version that it does not tell"


def _sha256(file: str) -> str:
    try:
        return "SHA-256 " + hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise UnavailableError(
            f"{file}: cannot be read ({error.strerror}); its SHA-256 is recorded"
        ) from None


def _size(file: str, program: str) -> int:
    """Bytes of what a program was to write."""
    path = Path(file)
    size_bytes = path.stat().st_size if path.is_file() else 0
    if not size_bytes:
        raise CodecError(f"{Path(program).name} ended well but wrote nothing")
    return size_bytes


def _read_yuv(file: str, program: str, width_px: int, height_px: int) -> np.ndarray:
    size_bytes, expected = _size(file, program), 3 * width_px * height_px
    if size_bytes != expected:
        raise CodecError(
            f"{Path(program).name} wrote {size_bytes} bytes of YUV; {width_px}x{height_px} pixels of "
            f"4:4:4 with 8 bit have {expected}"
        )
    return colour.to_rgb(np.fromfile(file, np.uint8).reshape(3, height_px, width_px))


def _write_png(file: str, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)


def _read_png(file: str, program: str, source: np.ndarray) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as image:
            mode, pixels = image.mode, np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise CodecError(f"{Path(program).name} wrote no PNG ({last_line(str(error))})") from None
    if mode != "RGB" or pixels.shape != source.shape:
        raise CodecError(
            f"{Path(program).name} wrote a PNG of {pixels.shape[1]}x{pixels.shape[0]} pixels of type {mode}; "
            f"expected {source.shape[1]}x{source.shape[0]} of RGB"
        )
    return pixels
