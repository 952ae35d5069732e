"""The coded file: what goes in comes out, and nothing else does."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdc import bitstream
from rdc.bitstream import (
    MAX_OVERHEAD_BYTES,
    MAX_RATE_CODE,
    Stream,
    decode_image,
    encode_image,
    from_bytes,
    to_bytes,
)
from rdc.checkpoint import model_hash
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.spec import parse_model
from tests.rdc.shared import TINY_MODEL

STREAMS = st.builds(
    Stream,
    model_hash=st.binary(min_size=8, max_size=8),
    height_px=st.integers(1, 2**13),
    width_px=st.integers(1, 2**13),
    strings=st.lists(st.binary(max_size=200), min_size=1, max_size=5).map(tuple),
    symbols_crc32=st.integers(0, 2**32 - 1),
    rate_code=st.none() | st.integers(0, MAX_RATE_CODE),
)
SMALL = Stream(model_hash=b"8 bytes.", height_px=300, width_px=7, strings=(b"yyy", b"zz"), symbols_crc32=5)
CODED_AT = dataclasses.replace(SMALL, rate_code=0xABCD)


def sealed(body: bytes) -> bytes:
    """A file whose checksum is right, whatever its content."""
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    made = build(parse_model(TINY_MODEL))
    made.update(update_quantiles=True)
    return made.eval()


@settings(deadline=None)
@given(STREAMS)
def test_every_stream_comes_back(stream: Stream) -> None:
    assert from_bytes(to_bytes(stream)) == stream


@settings(deadline=None)
@given(STREAMS, st.data())
def test_any_change_of_a_byte_is_refused(stream: Stream, data: st.DataObject) -> None:
    file = bytearray(to_bytes(stream))
    position = data.draw(st.integers(0, len(file) - 1))
    file[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UserError, match=r"not an RDC file|format version|damaged or cut short"):
        from_bytes(bytes(file))


@settings(deadline=None)
@given(STREAMS, st.data())
def test_any_shorter_file_is_refused(stream: Stream, data: st.DataObject) -> None:
    file = to_bytes(stream)
    with pytest.raises(UserError, match=r"not an RDC file|cut short"):
        from_bytes(file[: data.draw(st.integers(0, len(file) - 1))])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"\x01", b"\x02"]), st.binary(max_size=60))
def test_a_forged_header_never_raises_anything_else(version: bytes, tail: bytes) -> None:
    try:
        from_bytes(sealed(b"RDC" + version + tail))
    except UserError:
        return


def test_overhead_is_bounded() -> None:
    largest = Stream(
        model_hash=bytes(8), height_px=2**16, width_px=2**11, strings=(bytes(2**22), b""), symbols_crc32=1
    )
    # 3 magic + 1 version + 8 hash + 3 + 2 sides + 1 count + 4 length + 4 + 4 checksums = 30.
    assert len(to_bytes(largest)) - largest.payload_bytes == 30
    coded_at = dataclasses.replace(largest, rate_code=0)
    assert len(to_bytes(coded_at)) - coded_at.payload_bytes == 30 + 2 <= MAX_OVERHEAD_BYTES
    # A Kodak image: 2-byte sides and a 3-byte length make 28.
    kodak = Stream(
        model_hash=bytes(8), height_px=512, width_px=768, strings=(bytes(2**15), b""), symbols_crc32=1
    )
    assert len(to_bytes(kodak)) - kodak.payload_bytes == 28


def test_layout_is_frozen() -> None:
    # Written out by hand: 300 = 0x2c | 0x80, 0x02; then 7; two streams, the first of 3 bytes.
    body = b"RDC\x01" + b"8 bytes." + b"\xac\x02\x07\x02\x03" + b"\x05\0\0\0" + b"yyyzz"
    assert to_bytes(SMALL) == sealed(body)
    assert to_bytes(CODED_AT) == sealed(b"RDC\x02" + body[4:12] + b"\xcd\xab" + body[12:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"photo: is not an RDC file"),
        (b"\x89PNG\r\n", r"photo: is not an RDC file; it does not start with RDC"),
        (b"RDC\x01abc", r"photo: is cut short; 7 bytes"),
        (sealed(b"RDC\x03" + to_bytes(SMALL)[4:-4]), r"format version 3, this program reads up to 2"),
        (sealed(b"RDC\x00" + to_bytes(SMALL)[4:-4]), r"damaged or cut short"),
        (to_bytes(SMALL)[:-1], r"damaged or cut short"),
        (sealed(b"RDC\x01" + bytes(8) + b"\0\x07\x01" + bytes(4)), r"side of 0 px cannot be coded"),
        (
            sealed(b"RDC\x01" + bytes(8) + b"\xff\xff\xff\x01\x07\x01" + bytes(4)),
            r"cannot be coded: it must lie in 1\.\.65536",
        ),
        (
            sealed(b"RDC\x01" + bytes(8) + b"\x80\x80\x04\x80\x80\x04\x01" + bytes(4)),
            r"cut the image into tiles",
        ),
        (
            sealed(b"RDC\x01" + bytes(8) + b"\x07\x07\x00" + bytes(8)),
            r"header contradicts itself \(0 streams\)",
        ),
        (sealed(b"RDC\x01" + bytes(8) + b"\x07\x07\x7f" + bytes(8)), r"contradicts itself \(127 streams\)"),
        (sealed(b"RDC\x01" + bytes(8) + b"\x07\x07\x02\x7f" + bytes(8)), r"streams longer than the file"),
        (sealed(b"RDC\x01" + bytes(8) + b"\xff" * 9), r"contradicts itself \(a number without an end\)"),
    ],
)
def test_refusals_say_why(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_bytes(data, name="photo")


def test_files_are_written_whole_and_read_back(tmp_path: Path) -> None:
    size = bitstream.write(tmp_path / "a.rdc", SMALL)
    assert size == (tmp_path / "a.rdc").stat().st_size
    assert bitstream.read(tmp_path / "a.rdc") == SMALL
    with pytest.raises(UserError, match=r"b\.rdc: cannot be read \(No such file"):
        bitstream.read(tmp_path / "b.rdc")


def test_an_image_comes_back_from_its_bytes(codec: Codec) -> None:
    x = torch.rand(3, 33, 50, generator=torch.Generator().manual_seed(0))
    key = model_hash(codec)
    x_hat = decode_image(codec, encode_image(codec, x, key), key)
    assert torch.equal(x_hat, codec(x[None])["x_hat"].clamp(0, 1))


def test_another_model_is_refused(codec: Codec) -> None:
    data = encode_image(codec, torch.rand(1, 3, 16, 16), model_hash(codec))
    other = build(codec.spec)
    other.update()
    with pytest.raises(UserError, match=r"was coded by model [0-9a-f]{16}, this checkpoint is [0-9a-f]{16}"):
        decode_image(other, data, model_hash(other))


def test_symbols_that_diverge_are_refused(codec: Codec) -> None:
    """As when a decoder's hyper-synthesis computes other scales: a sound file, other symbols."""
    key = model_hash(codec)
    good = from_bytes(encode_image(codec, torch.rand(1, 3, 16, 16), key))
    y, z = good.strings
    forged = Stream(
        model_hash=key,
        height_px=16,
        width_px=16,
        strings=(y, bytes(len(z))),
        symbols_crc32=good.symbols_crc32,
    )
    with pytest.raises(UserError, match="decoded symbols differ from the encoder's"):
        decode_image(codec, to_bytes(forged), key)


def test_a_stream_count_that_does_not_fit_the_model_is_refused(codec: Codec) -> None:
    key = model_hash(codec)
    odd = Stream(model_hash=key, height_px=16, width_px=16, strings=(b"", b"", b""), symbols_crc32=0)
    with pytest.raises(UserError, match="holds 3 streams, this model needs 2"):
        decode_image(codec, to_bytes(odd), key)


@pytest.mark.parametrize(("height_px", "width_px"), [(2**16, 2**16), (2**34, 8), (20_000, 20_000)])
def test_a_stream_that_claims_a_huge_image_is_refused_by_name_before_anything_is_allocated(
    height_px: int, width_px: int
) -> None:
    """A whole file with right checksums; the model is never asked for anything."""
    numbers = b"".join(map(bitstream._varint, (height_px, width_px, 1)))
    body = b"RDC\x01" + bytes(8) + numbers + bytes(4) + b"payload"
    data = body + zlib.crc32(body).to_bytes(4, "little")
    with pytest.raises(UserError, match=r"^big\.rdc: .*(px can|px is more than one file may hold)"):
        bitstream.decode_image(None, data, bytes(8), name="big.rdc")
