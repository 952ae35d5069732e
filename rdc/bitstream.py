"""The coded file: a small header, the entropy coder's streams, and checksums that refuse damage and mix-ups.

Layout (varint: 7 bits per byte, low bits first, the top bit says that more follow):

    bytes   content
    3       "RDC"
    1       format version: 2 with a rate code, 1 without
    8       hash of the model that coded it (rdc.checkpoint.model_hash)
    2       version 2 only: rate code, low byte first (rdc.models.rate_control.modulator)
    varint  height, then width, in pixels
    varint  number of streams, then the length of each but the last, in bytes
    4       CRC-32 of the symbols, as the model's `compress` gives it
    ...     the streams, one after the other
    4       CRC-32 of all bytes before
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.files import atomic_write_bytes

MAGIC = b"RDC"
VERSION = 2  # the newest; what needs no rate code is written as version 1
HASH_BYTES = 8
RATE_CODE_BYTES = 2
MAX_RATE_CODE = 256**RATE_CODE_BYTES - 1
MAX_SIDE_PX = 2**16
MAX_PIXELS = 2**27  # a header can claim any size; this bounds the memory that believing it takes
MAX_STREAMS = 64
MAX_OVERHEAD_BYTES = 32  # for two streams of up to 256 MiB

_SMALLEST = len(MAGIC) + 1 + HASH_BYTES + 3 + 4 + 4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One coded image.

    strings: the entropy coder's bytes, one per latent (y, then z). symbols_crc32: see Hyperprior.compress.
    rate_code: what a model of variable rate coded it at; None for a model of one rate.
    """

    model_hash: bytes
    height_px: int
    width_px: int
    strings: tuple[bytes, ...]
    symbols_crc32: int
    rate_code: int | None = None

    def __post_init__(self) -> None:
        require_size(self.height_px, self.width_px)
        if not 1 <= len(self.strings) <= MAX_STREAMS:
            raise UserError(f"{len(self.strings)} streams: a file holds 1..{MAX_STREAMS}")
        if len(self.model_hash) != HASH_BYTES:
            raise UserError(f"a model hash has {HASH_BYTES} bytes, got {len(self.model_hash)}")
        if self.rate_code is not None:
            require_rate_code(self.rate_code)

    @property
    def payload_bytes(self) -> int:
        """What the entropy coder wrote; the rest of the file is overhead."""
        return sum(map(len, self.strings))


def require_size(height_px: int, width_px: int) -> None:
    """UserError unless a file can hold an image of this size."""
    for side in (height_px, width_px):
        if not 1 <= side <= MAX_SIDE_PX:
            raise UserError(f"an image side of {side} px cannot be coded: it must lie in 1..{MAX_SIDE_PX}")
    if height_px * width_px > MAX_PIXELS:
        raise UserError(
            f"{width_px}x{height_px} px is more than one file may hold ({MAX_PIXELS} px); "
            "cut the image into tiles"
        )


def require_rate_code(code: int) -> None:
    """UserError unless it is one that a file can hold."""
    if not 0 <= code <= MAX_RATE_CODE:
        raise UserError(f"rate code {code}: must lie in 0..{MAX_RATE_CODE}")


def to_bytes(stream: Stream) -> bytes:
    """The whole file."""
    lengths = [len(string) for string in stream.strings]
    numbers = (stream.height_px, stream.width_px, len(lengths), *lengths[:-1])
    code = b"" if stream.rate_code is None else stream.rate_code.to_bytes(RATE_CODE_BYTES, "little")
    body = b"".join(
        (
            MAGIC,
            bytes([2 if code else 1]),
            stream.model_hash,
            code,
            *map(_varint, numbers),
            stream.symbols_crc32.to_bytes(4, "little"),
            *stream.strings,
        )
    )
    return body + zlib.crc32(body).to_bytes(4, "little")


def from_bytes(data: bytes, *, name: str = "the data") -> Stream:
    """Inverse of `to_bytes`; UserError says why `name` cannot be read."""
    if data[: len(MAGIC)] != MAGIC:
        raise UserError(f"{name}: is not an RDC file; it does not start with {MAGIC.decode()}")
    if len(data) < _SMALLEST:
        raise UserError(f"{name}: is cut short; {len(data)} bytes are less than any RDC file has")
    version = data[len(MAGIC)]
    if version > VERSION:
        raise UserError(
            f"{name}: has format version {version}, this program reads up to {VERSION}; use a newer release"
        )
    body, crc = data[:-4], int.from_bytes(data[-4:], "little")
    if version < 1 or zlib.crc32(body) != crc:
        raise UserError(f"{name}: is damaged or cut short (its checksum does not match); get it again")
    return _parse(body, name, has_rate_code=version == 2)


def write(path: str | Path, stream: Stream) -> int:
    """Write the file atomically; returns its size in bytes."""
    data = to_bytes(stream)
    atomic_write_bytes(path, data)
    return len(data)


def read(path: str | Path) -> Stream:
    """Read a file; UserError says why it cannot be."""
    return from_bytes(read_bytes(path), name=str(path))


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes; UserError names one that cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def encode_image(codec: Any, x: Any, model_hash: bytes) -> bytes:
    """One image as the bytes of its file. x: (1, 3, H, W) or (3, H, W) in [0, 1], any H and W."""
    images = x if x.ndim == 4 else x[None]
    height, width = (int(side) for side in images.shape[-2:])
    require_size(height, width)  # before the network spends time and memory on it
    return to_bytes(stream_of(codec.compress(images), (height, width), model_hash))


def stream_of(coded: Mapping[str, Any], size: tuple[int, int], model_hash: bytes) -> Stream:
    """What Codec.compress_latent gave for one image of this height and width, ready to be written."""
    return Stream(
        model_hash=model_hash,
        height_px=size[0],
        width_px=size[1],
        strings=tuple(string for (string,) in coded["strings"]),
        symbols_crc32=coded["symbols_crc32"][0],
        rate_code=coded["rate_code"],
    )


def decode_image(codec: Any, data: bytes, model_hash: bytes, *, name: str = "the data") -> Any:
    """The bytes of a file -> x_hat, (1, 3, H, W) in [0, 1]; refuses damage, other models, wrong symbols."""
    stream = from_bytes(data, name=name)
    if stream.model_hash != model_hash:
        raise UserError(
            f"{name}: was coded by model {stream.model_hash.hex()}, this checkpoint is {model_hash.hex()}; "
            "decode with the checkpoint that coded it"
        )
    if len(stream.strings) != codec.num_streams:
        raise UserError(f"{name}: holds {len(stream.strings)} streams, this model needs {codec.num_streams}")
    try:
        codec.check_rate_code(stream.rate_code)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    size = (stream.height_px, stream.width_px)
    strings = [[string] for string in stream.strings]
    return codec.decompress(
        strings, codec.z_hw(*size), size, [stream.symbols_crc32], rate_code=stream.rate_code
    )["x_hat"]


def _parse(body: bytes, name: str, *, has_rate_code: bool) -> Stream:
    start = len(MAGIC) + 1
    model_hash, at = body[start : start + HASH_BYTES], start + HASH_BYTES
    rate_code = None
    if has_rate_code:
        rate_code, at = int.from_bytes(body[at : at + RATE_CODE_BYTES], "little"), at + RATE_CODE_BYTES
    try:
        height, at = _read_varint(body, at)
        width, at = _read_varint(body, at)
        count, at = _read_varint(body, at)
        if not 1 <= count <= MAX_STREAMS:
            raise ValueError(f"{count} streams")
        lengths = []
        for _ in range(count - 1):
            length, at = _read_varint(body, at)
            lengths.append(length)
        if at + 4 + sum(lengths) > len(body):
            raise ValueError("streams longer than the file")
    except ValueError as error:
        raise UserError(f"{name}: its header contradicts itself ({error}); get the file again") from None
    symbols_crc32, at = int.from_bytes(body[at : at + 4], "little"), at + 4
    strings = []
    for length in lengths:
        strings.append(body[at : at + length])
        at += length
    try:
        return Stream(
            model_hash=model_hash,
            height_px=height,
            width_px=width,
            strings=(*strings, body[at:]),
            symbols_crc32=symbols_crc32,
            rate_code=rate_code,
        )
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, position after it)."""
    number = 0
    for i, byte in enumerate(data[at : at + 5]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, at + i + 1
    raise ValueError("a number without an end")
