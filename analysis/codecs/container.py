"""What an HEIC or AVIF file says of the samples in it: chroma format, bits, matrix and range."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

from analysis.codecs.codec import CodecError

_MATRICES = {0: "identity", 1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}
_CHROMA = {0: "4:0:0", 1: "4:2:0", 2: "4:2:2", 3: "4:4:4"}
_PARENTS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # boxes with boxes in them -> bytes before the first


@dataclasses.dataclass(frozen=True)
class Samples:
    """chroma: such as 4:4:4. matrix: by name, or the number of ITU-T H.273 that has none here."""

    chroma: str
    bits: int
    matrix: str
    full_range: bool

    def __str__(self) -> str:
        extent = "full range" if self.full_range else "limited range"
        return f"YCbCr {self.chroma}, {self.matrix}, {extent}, {self.bits} bit"


def samples_of(file: bytes) -> Samples:
    """From the properties hvcC (ISO/IEC 14496-15, 8.3.2) or av1C (AV1-ISOBMFF, 2.3), and colr (14496-12).

    Raises CodecError if the file has none, or several that differ.
    """
    boxes = list(_boxes(file))
    coded = {_coded(kind, body) for kind, body in boxes if kind in (b"hvcC", b"av1C")}
    colours = {_colour(body) for kind, body in boxes if kind == b"colr" and body[:4] == b"nclx"}
    if len(coded) != 1 or len(colours) != 1:
        raise CodecError("the file written does not say in one way how its samples are stored")
    return Samples(*coded.pop(), *colours.pop())


def _boxes(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of all boxes that are not only parents of others."""
    at = 0
    while at + 8 <= len(file):
        size, kind = struct.unpack_from(">I4s", file, at)
        head = 8
        if size == 1 and at + 16 <= len(file):
            (size,) = struct.unpack_from(">Q", file, at + 8)
            head = 16
        end = len(file) if size == 0 else at + size
        if end < at + head:
            return
        body = file[at + head : end]
        if kind in _PARENTS:
            yield from _boxes(body[_PARENTS[kind] :])
        else:
            yield kind, body
        at = end


def _coded(kind: bytes, body: bytes) -> tuple[str, int]:
    if len(body) < (18 if kind == b"hvcC" else 4):
        raise CodecError("the file written has a header that is cut off")
    if kind == b"hvcC":
        return _CHROMA[body[16] & 3], 8 + (body[17] & 7)
    flags = body[2]
    bits = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    if flags & 0x10:
        return "4:0:0", bits
    return {0b00: "4:4:4", 0b10: "4:2:2", 0b11: "4:2:0"}[(flags >> 2) & 3], bits


def _colour(body: bytes) -> tuple[str, bool]:
    if len(body) < 11:
        raise CodecError("the file written has a header that is cut off")
    (matrix,) = struct.unpack_from(">H", body, 8)
    return _MATRICES.get(matrix, f"matrix {matrix}"), bool(body[10] & 0x80)
