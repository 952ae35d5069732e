"""Codecs that come as Python packages. PSNR is the aim: where an encoder has a tuning for it, that is chosen.

All run on one thread per image, for the runner codes several images at a time.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import json
from types import ModuleType
from typing import Any

import numpy as np

from analysis.codecs.codec import Codec, CodecError, Coded, UnavailableError
from analysis.codecs.container import Samples, samples_of

_YCBCR_444 = Samples("4:4:4", 8, "BT.601", full_range=True)


def hevc() -> Codec:
    """HEVC intra in an HEIC file, by x265."""
    heif = _package("pillow_heif", "pillow-heif")
    info = heif.libheif_info()
    if not info["encoders"].get("x265"):
        raise UnavailableError("this pillow-heif comes without x265; install another build of pillow-heif")

    def code(pixels: np.ndarray, quality: float) -> Coded:
        height_px, width_px, _ = pixels.shape
        out = io.BytesIO()
        options = {"preset": "slow", "tune": "psnr"}
        heif.encode(
            "RGB",
            (width_px, height_px),
            pixels.tobytes(),
            out,
            quality=int(quality),
            chroma=444,
            enc_params=options,
        )
        file = out.getvalue()
        _require(samples_of(file), _YCBCR_444)
        return Coded(len(file), np.asarray(heif.read_heif(io.BytesIO(file)).to_pillow().convert("RGB")))

    decoders = ", ".join(info["decoders"].values())
    return Codec(
        name="hevc",
        title="HEVC intra 4:4:4 (HEIC, x265)",
        encoder="HEIC, chroma=444, preset=slow, tune=psnr",
        version=f"pillow-heif {heif.__version__}; libheif {info['libheif']}; {info['HEIF']}; {decoders}",
        colour=str(_YCBCR_444),
        parameter="quality",
        values=(0, 6, 11, 16, 21, 26, 31, 36, 46, 56, 62),
        low=0,
        high=100,
        whole=True,
        code=code,
    )


def av1() -> Codec:
    """AV1 in an AVIF file, by libaom."""
    features = _pillow("PIL.features")
    if not features.check("avif"):
        raise UnavailableError("this Pillow comes without AVIF; install Pillow 11.3 or newer from PyPI")
    avif = importlib.import_module("PIL._avif")
    if not avif.encoder_codec_available("aom"):
        raise UnavailableError("this Pillow writes AVIF without libaom; install Pillow from PyPI")

    def code(pixels: np.ndarray, quality: float) -> Coded:
        options = {"subsampling": "4:4:4", "speed": 4, "codec": "aom", "advanced": {"tune": "psnr"}}
        file = _save(
            pixels, "AVIF", quality=int(quality), max_threads=1, autotiling=False, range="full", **options
        )
        _require(samples_of(file), _YCBCR_444)
        return Coded(len(file), _open(file, "AVIF"))

    codecs = avif.codec_versions().replace(":", " ").replace(" [enc]", "").replace(" [dec]", "")
    return Codec(
        name="av1",
        title="AV1 intra 4:4:4 (AVIF, libaom)",
        encoder="AVIF, subsampling=4:4:4, speed=4, tune=psnr, one tile",
        version=f"{_pillow_version()}; libavif {features.version('avif')}; {codecs}",
        colour=str(_YCBCR_444),
        parameter="quality",
        values=(0, 5, 10, 20, 30, 40, 50, 60, 70, 80),
        low=0,
        high=99,  # 100 is lossless
        whole=True,
        code=code,
    )


def jpegxl() -> Codec:
    """JPEG XL, VarDCT in XYB, by libjxl."""
    _package("pillow_jxl", "pillow-jxl-plugin")  # its import teaches Pillow the format

    def code(pixels: np.ndarray, quality: float) -> Coded:
        file = _save(pixels, "JXL", quality=quality, effort=7, num_threads=0)
        return Coded(len(file), _open(file, "JXL"))

    version = importlib.metadata.version("pillow-jxl-plugin")
    return Codec(
        name="jpegxl",
        title="JPEG XL (libjxl)",
        encoder="JPEG XL codestream, effort=7",
        version=f"{_pillow_version()}; pillow-jxl-plugin {version}; {_libjxl_version()}",
        colour="XYB, 4:4:4",
        parameter="quality",
        values=(0, 5, 20, 25, 30, 45, 60, 75, 85, 90),  # 6 to 18: half resolution, and worse than 20
        low=0,
        high=99.9,  # 100 is lossless
        whole=False,
        code=code,
    )


def webp() -> Codec:
    """WebP, lossy: VP8, which has no chroma format but 4:2:0."""
    features = _pillow("PIL.features")
    if not features.check("webp"):
        raise UnavailableError("this Pillow comes without WebP; install Pillow from PyPI")

    def code(pixels: np.ndarray, quality: float) -> Coded:
        file = _save(pixels, "WEBP", quality=quality, method=6)
        return Coded(len(file), _open(file, "WEBP"))

    return Codec(
        name="webp",
        title="WebP (libwebp)",
        encoder="WebP lossy, method=6",
        version=f"{_pillow_version()}; libwebp {features.version('webp')}",
        colour="YCbCr 4:2:0, BT.601, limited range, 8 bit",
        parameter="quality",
        values=(0, 2, 5, 15, 25, 50, 65, 75, 85, 92),
        low=0,
        high=100,
        whole=False,
        code=code,
    )


def jpeg2000() -> Codec:
    """JPEG 2000 with the irreversible 9/7 wavelet, by OpenJPEG; the parameter is the compression ratio."""
    features = _pillow("PIL.features")
    if not features.check("jpg_2000"):
        raise UnavailableError("this Pillow comes without JPEG 2000; install Pillow from PyPI")

    def code(pixels: np.ndarray, ratio: float) -> Coded:
        options = {"irreversible": True, "quality_mode": "rates", "quality_layers": [ratio]}
        file = _save(pixels, "JPEG2000", no_jp2=True, mct=1, **options)
        return Coded(len(file), _open(file, "JPEG2000"))

    return Codec(
        name="jpeg2000",
        title="JPEG 2000 (OpenJPEG)",
        encoder="JPEG 2000 codestream, 9/7 wavelet, one layer by rate",
        version=f"{_pillow_version()}; OpenJPEG {features.version('jpg_2000')}",
        colour="YCbCr 4:4:4 (ICT), BT.601, full range",
        parameter="ratio",
        values=(480, 240, 160, 96, 64, 40, 24, 16, 12, 8),
        low=1.01,
        high=10_000,
        whole=False,
        code=code,
    )


def jpeg() -> Codec:
    """JPEG, sequential, with Huffman tables made for the image."""
    features = _pillow("PIL.features")

    def code(pixels: np.ndarray, quality: float) -> Coded:
        file = _save(pixels, "JPEG", quality=int(quality), subsampling="4:4:4", optimize=True)
        return Coded(len(file), _open(file, "JPEG"))

    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return Codec(
        name="jpeg",
        title="JPEG 4:4:4",
        encoder="JPEG, sequential, optimised Huffman tables, 4:4:4",
        version=f"{_pillow_version()}; {library}",
        colour="YCbCr 4:4:4, BT.601, full range, 8 bit",
        parameter="quality",
        values=(1, 3, 5, 10, 15, 25, 35, 50, 65, 75, 85, 92, 95),
        low=1,
        high=100,
        whole=True,
        code=code,
    )


def _require(found: Samples, expected: Samples) -> None:
    if found != expected:
        raise CodecError(f"the encoder wrote {found} instead of {expected}; this version cannot be used")


def _save(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    _pillow("PIL.Image").fromarray(pixels).save(out, format=form, **options)
    return out.getvalue()


def _open(file: bytes, form: str) -> np.ndarray:
    with _pillow("PIL.Image").open(io.BytesIO(file), formats=(form,)) as image:
        return np.asarray(image.convert("RGB"))


def _pillow(module: str) -> ModuleType:
    return _package(module, "pillow")


def _package(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UnavailableError(f"needs {name}: pip install 'rdc[all]'") from None


def _pillow_version() -> str:
    return f"Pillow {importlib.metadata.version('pillow')}"


def _libjxl_version() -> str:
    """From the list of parts that the package carries; the library itself does not tell Python."""
    for path in importlib.metadata.files("pillow-jxl-plugin") or []:
        if path.name.endswith(".cyclonedx.json"):
            parts = json.loads(path.read_text(encoding="utf-8")).get("components", [])
            for part in parts:
                if "+libjxl-" in part.get("version", ""):
                    return "libjxl " + part["version"].split("+libjxl-")[1]
    return "libjxl of a version that is not told"
