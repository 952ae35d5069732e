"""BPG and VTM: their commands, and the whole path through stand-ins, failures included."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from analysis.codecs import process, programs
from analysis.codecs.codec import CodecError, UnavailableError, mean_squared_error
from analysis.codecs.colour import to_rgb, to_ycbcr
from analysis.codecs.programs import Programs
from tests.analysis.codec_images import photo
from tests.analysis.stand_ins import write_bpg, write_vtm


def test_commands_are_those_of_the_published_curves() -> None:
    encode = programs.bpg_encode_command("bpgenc", "in.png", "out.bpg", 37)
    assert " ".join(encode) == "bpgenc -f 444 -e x265 -c ycbcr -b 8 -m 8 -q 37 -o out.bpg in.png"
    decode = programs.bpg_decode_command("bpgdec", "in.bpg", "out.png")
    assert " ".join(decode) == "bpgdec -b 8 -o out.png in.bpg"
    encode = programs.vtm_encode_command(
        "EncoderApp", "intra.cfg", "in.yuv", "out.vvc", width_px=768, height_px=512, quantiser=37
    )
    assert " ".join(encode) == (
        "EncoderApp -i in.yuv -c intra.cfg -q 37 -o /dev/null -b out.vvc -wdt 768 -hgt 512 -fr 1 -f 1 "
        "--InputChromaFormat=444 --InputBitDepth=8 --ConformanceWindowMode=1"
    )
    decode = programs.vtm_decode_command("DecoderApp", "in.vvc", "out.yuv")
    assert " ".join(decode) == "DecoderApp -b in.vvc -o out.yuv -d 8"


def vtm_in(folder: Path, **more: object) -> Programs:
    write_vtm(folder)
    names = {"vtm_encoder": str(folder / "EncoderApp"), "vtm_cfg": str(folder / "intra.cfg")}
    return Programs(**{**names, **more})  # type: ignore[arg-type]


def test_bpg_goes_from_pixels_to_pixels(tmp_path: Path) -> None:
    encoder = write_bpg(tmp_path)
    codec = programs.bpg(Programs(bpgenc=str(encoder)))
    pixels = photo(33, 17)
    coarse, fine = codec.code(pixels, 50), codec.code(pixels, 20)
    np.testing.assert_array_equal(coarse.pixels, pixels)
    assert fine.size_bytes - coarse.size_bytes == 30  # of the stand-in's header, which counts
    digest = hashlib.sha256(encoder.read_bytes()).hexdigest()
    assert codec.version.startswith(f"bpgenc 0.9.8; bpgenc SHA-256 {digest}; bpgdec SHA-256 ")


@pytest.mark.parametrize("size", [(48, 40), (33, 17)])
def test_vtm_goes_through_our_conversion(size: tuple[int, int], tmp_path: Path) -> None:
    codec = programs.vtm(vtm_in(tmp_path))
    pixels = photo(*size)
    exact = codec.code(pixels, 0)  # the stand-in changes nothing at QP 0
    np.testing.assert_array_equal(exact.pixels, to_rgb(to_ycbcr(pixels)))
    assert mean_squared_error(pixels, codec.code(pixels, 47).pixels) > 1
    assert codec.version.startswith("VTM 9.1; EncoderApp SHA-256 ")
    cfg = hashlib.sha256((tmp_path / "intra.cfg").read_bytes()).hexdigest()
    assert codec.version.endswith(f"cfg SHA-256 {cfg}")


def test_programs_are_found_on_path_and_links_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bpg(tmp_path / "real")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bpgenc").symlink_to(tmp_path / "real" / "bpgenc")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert programs.bpg(Programs()).version.startswith("bpgenc 0.9.8")


def test_what_is_missing_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UnavailableError, match="needs bpgenc: put it on PATH, or name it with --bpgenc PATH"):
        programs.bpg(Programs())
    with pytest.raises(UnavailableError, match=r"--bpgenc .*nowhere: is no program that can be run"):
        programs.bpg(Programs(bpgenc=str(tmp_path / "nowhere")))
    encoder = write_bpg(tmp_path)
    (tmp_path / "bpgdec").unlink()
    with pytest.raises(UnavailableError, match="needs bpgdec"):
        programs.bpg(Programs(bpgenc=str(encoder)))
    with pytest.raises(UnavailableError, match="needs --vtm-cfg FILE"):
        programs.vtm(vtm_in(tmp_path, vtm_cfg=None))
    with pytest.raises(UnavailableError, match=r"absent.cfg: there is no such file"):
        programs.vtm(vtm_in(tmp_path, vtm_cfg=str(tmp_path / "absent.cfg")))
    (tmp_path / "EncoderApp").write_text("no program")
    with pytest.raises(UnavailableError, match="EncoderApp: cannot be started"):
        programs.vtm(Programs(vtm_encoder=str(tmp_path / "EncoderApp"), vtm_cfg=str(tmp_path / "intra.cfg")))


@pytest.mark.parametrize(
    ("mode", "match"),
    [
        ("exit", "^bpgenc failed with exit status 1: cannot do that$"),
        ("empty", "^bpgenc ended well but wrote nothing$"),
        ("noise", "^bpgdec wrote no PNG"),
    ],
)
def test_failures_of_bpg_are_one_line(mode: str, match: str, tmp_path: Path) -> None:
    codec = programs.bpg(Programs(bpgenc=str(write_bpg(tmp_path))))
    (tmp_path / "mode").write_text(mode)
    with pytest.raises(CodecError, match=match):
        codec.code(photo(), 37)


@pytest.mark.parametrize(
    ("mode", "match"),
    [
        ("exit", "^EncoderApp failed with exit status 1: cannot do that$"),
        ("empty", "^EncoderApp ended well but wrote nothing$"),
        ("size", "^DecoderApp wrote 5753 bytes of YUV; 48x40 pixels of 4:4:4 with 8 bit have 5760$"),
    ],
)
def test_failures_of_vtm_are_one_line(mode: str, match: str, tmp_path: Path) -> None:
    codec = programs.vtm(vtm_in(tmp_path))
    (tmp_path / "mode").write_text(mode)
    with pytest.raises(CodecError, match=match):
        codec.code(photo(), 37)


def test_a_png_of_another_size_is_refused(tmp_path: Path) -> None:
    codec = programs.bpg(Programs(bpgenc=str(write_bpg(tmp_path))))
    other = tmp_path / "other.png"
    programs._write_png(str(other), photo(16, 24))
    copy = f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; cp {other} "$2"\n'
    (tmp_path / "bpgdec").write_text(copy)
    with pytest.raises(CodecError, match=r"a PNG of 16x24 pixels of type RGB; expected 48x40"):
        codec.code(photo(), 37)


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.write_text('#!/bin/sh\nsleep 20 &\necho $! > "$1"\nwait\ntouch "$1.end"\n')
    hang.chmod(0o755)
    with pytest.raises(CodecError, match=r"hang was ended after 0.5 s without an end in sight"):
        process.run([str(hang), str(tmp_path / "pid")], 0.5)
    assert not (tmp_path / "pid.end").exists()  # it was ended, not waited for
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child of a program that was ended is still there")


def test_nothing_starts_after_all_was_ended(tmp_path: Path) -> None:
    process.end_running()
    try:
        with pytest.raises(CodecError, match=r"^interrupted$"):
            process.run(["/bin/sh", "-c", f"touch {tmp_path}/started"], 10)
    finally:
        process.allow_running()
    assert not (tmp_path / "started").exists()
    process.run(["/bin/sh", "-c", f"touch {tmp_path}/started"], 10)
    assert (tmp_path / "started").exists()


def test_a_crash_is_told_by_its_signal(tmp_path: Path) -> None:
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    with pytest.raises(CodecError, match="crash was ended by signal 11: it said nothing"):
        process.run([str(crash)], 10)
