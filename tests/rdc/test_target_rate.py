"""Files of a wanted size: the search by itself, and `python -m rdc compress` as a user types it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rdc.__main__ import main
from rdc.bitstream import MAX_OVERHEAD_BYTES, MAX_RATE_CODE, encode_image, from_bytes
from rdc.checkpoint import load_model, model_hash, save_model
from rdc.data import PixelCache
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.models.rate_control.modulator import Params
from rdc.spec import parse_model
from rdc.target_rate import Rate, encode_to_size
from tests.rdc.shared import TINY_MODEL
from tests.rdc.variable_rate import MODULATOR

HEADER_BYTES = 29  # for these sides, and a first string of 128 bytes or more: 2 bytes of length


class Sizes:
    """A codec that codes nothing, to files of given sizes: rising with the code, and a little up and down."""

    stride = 1
    rate_code: int | None = 0

    def __init__(self, smallest: int, largest: int, wobble: int = 0) -> None:
        self.spec = parse_model(TINY_MODEL | {"rate_control": MODULATOR})
        self.smallest, self.largest, self.wobble = smallest, largest, wobble
        self.analyses, self.coded = 0, 0

    def analysis(self, x: torch.Tensor) -> torch.Tensor:
        self.analyses += 1
        return x

    def size(self, code: int) -> int:
        share = code / MAX_RATE_CODE
        wobble = self.wobble * math.sin(12.9898 * code) if 0 < code < MAX_RATE_CODE else 0
        return round(self.smallest * (self.largest / self.smallest) ** share + wobble)

    def compress_latent(self, y: torch.Tensor) -> dict[str, Any]:
        assert self.rate_code is not None
        self.coded += 1
        strings = [[bytes(self.size(self.rate_code) - HEADER_BYTES)], [b""]]
        return {"strings": strings, "symbols_crc32": [0], "rate_code": self.rate_code}


def found(codec: Sizes, wanted: float, *, at_most: bool = False) -> bytes:
    return encode_to_size(codec, torch.zeros(1, 3, 200, 300), bytes(8), wanted, at_most=at_most)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 12), st.booleans())
@example(0.0, 12, True)
@example(1.0, 12, False)
def test_every_size_of_the_range_is_met(share: float, wobble: int, at_most: bool) -> None:
    """Sizes that go up and down by half of what is tolerated, from code to code."""
    codec = Sizes(1200, 9000, wobble)
    wanted = 1200 * 7.5**share
    data = found(codec, wanted, at_most=at_most)
    assert abs(len(data) - wanted) <= 0.02 * wanted
    assert not at_most or len(data) <= wanted
    assert from_bytes(data).rate_code == codec.rate_code
    assert len(data) == codec.size(codec.rate_code or 0)
    assert codec.analyses == 1, "g_a's output is the same at every rate"
    assert codec.coded <= 2 + 16 + 8


def test_the_search_ends_early_when_it_is_near() -> None:
    codec = Sizes(1200, 9000)
    # 0.2 % of a factor of 7.5 is a 1,000th of the range: about 10 halvings.
    found(codec, 3000)
    assert codec.coded <= 14


def test_an_end_of_the_range_is_near_enough_for_a_size_beside_it() -> None:
    assert len(found(Sizes(1200, 9000), 9100)) == 9000
    assert len(found(Sizes(1200, 9000), 1190)) == 1200
    with pytest.raises(UserError, match=r"^1190 bytes .* to 1200 bytes"):
        found(Sizes(1200, 9000), 1190, at_most=True)


@pytest.mark.parametrize("wanted", [500, 20_000])
def test_a_size_out_of_reach_is_refused_with_what_there_is(wanted: int) -> None:
    # 200 x 300 px: 1200 bytes are 0.16 bpp, 9000 bytes 1.2 bpp.
    message = (
        rf"^{wanted} bytes \(\S+ bpp\): with lmbda from 0.0018 to 0.18 this model codes this image to 1200 "
        r"bytes \(0.16 bpp\) up to 9000 bytes \(1.2 bpp\); ask for a size between them"
    )
    with pytest.raises(UserError, match=message):
        found(Sizes(1200, 9000), wanted)


def test_a_gap_between_sizes_is_named_with_the_sizes_beside_it() -> None:
    class Leaps(Sizes):
        def size(self, code: int) -> int:
            return 1000 if code < 30_000 else 2000

    with pytest.raises(UserError, match=r"^1500 bytes .*within 2%; ask for 1000 bytes .* or 2000 bytes"):
        found(Leaps(1, 2), 1500)
    assert len(found(Leaps(1, 2), 2000)) == 2000


def test_a_code_beside_the_one_that_bisection_ends_at_is_found() -> None:
    class Lonely(Sizes):
        def size(self, code: int) -> int:
            return 1500 if code == 29_996 else 1000 if code < 30_000 else 2000

    # Halving 0..65535 goes by 29,983 and 29,999 and ends between 29,999 and 30,000.
    codec = Lonely(1, 2)
    assert len(found(codec, 1500)) == 1500
    assert codec.rate_code == 29_996


def test_a_model_whose_rate_does_not_change_says_so_by_its_range() -> None:
    with pytest.raises(UserError, match=r"to 1000 bytes \(0.1333 bpp\) up to 1000 bytes"):
        found(Sizes(1000, 1000), 1500)
    assert len(found(Sizes(1000, 1000), 1010)) == 1000


def test_a_model_whose_rates_fall_is_searched_all_the_same() -> None:
    assert len(found(Sizes(9000, 1200), 3000)) == pytest.approx(3000, rel=0.002)


def test_an_image_too_large_for_a_file_is_refused_before_it_is_analysed() -> None:
    codec = Sizes(1200, 9000)
    with pytest.raises(UserError, match="px cannot be coded"):
        encode_to_size(codec, torch.empty(1, 3, 1, 2**16 + 1), bytes(8), 5.0)  # type: ignore[arg-type]
    assert codec.analyses == 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"lmbda": 0.0}, "^--lmbda 0.0: must be a number greater than 0$"),
        ({"lmbda": math.nan}, "^--lmbda nan: must be"),
        ({"target_bpp": -0.5}, "^--target-bpp -0.5: must be a number greater than 0$"),
        ({"target_bpp": math.inf}, "^--target-bpp inf: must be"),
        ({"target_bytes": 0}, "^--target-bytes 0: must be"),
    ],
)
def test_rates_that_make_no_sense_are_refused(asked: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rate(**asked)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ as a user does


@pytest.fixture(scope="module")
def folder(variable_rate: tuple[Codec, PixelCache], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image, a model of variable rate, and one of a single rate."""
    folder = tmp_path_factory.mktemp("rates")
    codec, images = variable_rate
    Image.fromarray(np.array(images.image(0))).save(folder / "image.png")
    save_model(folder / "model.safetensors", codec, extra={"lmbda": 0.025})
    plain = build(parse_model(TINY_MODEL))
    plain.update(update_quantiles=True)
    save_model(folder / "plain.safetensors", plain, extra={"lmbda": 0.013})
    return folder


def compress(
    capsys: pytest.CaptureFixture[str], folder: Path, *options: str, model: str = "model"
) -> tuple[int, str, str]:
    command = ["compress", str(folder / "image.png"), "-o", str(folder / "image.rdc")]
    status = main([*command, "--checkpoint", str(folder / f"{model}.safetensors"), *options])
    return status, *capsys.readouterr()


def sizes(folder: Path) -> tuple[int, int, int]:
    """(smallest, largest file, pixels) of the image, by its own means."""
    codec, _ = load_model(folder / "model.safetensors")
    pixels = np.asarray(Image.open(folder / "image.png"))
    x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
    found = []
    for codec.rate_code in (0, MAX_RATE_CODE):
        found.append(len(encode_image(codec, x, model_hash(codec))))
    return found[0], found[1], pixels.shape[0] * pixels.shape[1]


def test_the_rate_is_that_of_the_trial_unless_another_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, lmbda in (((), 0.025), (("--lmbda", "0.18"), 0.18), (("--lmbda", "0.0123"), 0.0123)):
        status, out, _ = compress(capsys, folder, *options)
        code = Params().code_of(lmbda)
        assert status == 0
        assert out.endswith(f"171x203 px, lmbda {lmbda:g} (rate code {code})\n")
        assert from_bytes((folder / "image.rdc").read_bytes()).rate_code == code


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_a_target_is_met_by_the_file_that_is_written(
    folder: Path, share: float, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    smallest, largest, pixels = sizes(folder)
    assert largest > 1.05 * smallest, "the test must be able to fail"
    wanted = round(smallest + share * (largest - smallest))
    status, out, error = compress(capsys, folder, "--target-bytes", str(wanted))
    assert (status, error) == (0, "")
    size = (folder / "image.rdc").stat().st_size
    assert 0.98 * wanted <= size <= wanted
    assert out.startswith(f"{folder / 'image.rdc'}: {size} bytes")

    status, _, _ = compress(capsys, folder, "--target-bpp", str(8 * wanted / pixels))
    assert status == 0
    size = (folder / "image.rdc").stat().st_size
    assert abs(size - wanted) <= 0.02 * wanted
    command = ["decompress", str(folder / "image.rdc"), "-o", str(tmp_path / "a.png")]
    assert main([*command, "--checkpoint", str(folder / "model.safetensors")]) == 0


def test_mistakes_are_one_line_that_says_what_can_be_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smallest, largest, pixels = sizes(folder)
    (folder / "image.rdc").unlink(missing_ok=True)
    reachable = f"to {smallest} bytes ({8 * smallest / pixels:.4g} bpp) up to {largest} bytes"
    one_rate = "plain.safetensors codes at one rate, that of lmbda 0.013; leave the option out, or train a"
    cases: list[tuple[tuple[str, ...], str, str]] = [
        (("--target-bytes", "100"), "model", reachable),
        (("--target-bpp", "9"), "model", reachable),
        (("--target-bpp", "0"), "model", "--target-bpp 0.0: must be a number greater than 0"),
        (("--target-bytes", "-7"), "model", "--target-bytes -7: must be a number greater than 0"),
        (("--lmbda", "0.5"), "model", "lmbda=0.5: lies outside of the range that the model is trained for"),
        (("--lmbda", "nan"), "model", "--lmbda nan: must be a number greater than 0"),
        (("--lmbda", "0.013"), "plain", f"--lmbda: {folder}/{one_rate}"),
        (("--target-bpp", "0.5"), "plain", f"--target-bpp: {folder}/{one_rate}"),
        (("--target-bytes", "500"), "plain", f"--target-bytes: {folder}/{one_rate}"),
    ]
    for options, model, message in cases:
        status, out, error = compress(capsys, folder, *options, model=model)
        assert (status, out) == (2, ""), options
        assert error.count("\n") == 1, error
        assert message in error
    assert not (folder / "image.rdc").exists()


def test_two_rates_at_once_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        compress(capsys, folder, "--lmbda", "0.01", "--target-bpp", "0.5")
    assert caught.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_describe_tells_the_range(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe = ["describe", "--size", "64x96", "--checkpoint"]
    assert main([*describe, str(folder / "model.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "lmbda, one model for all: 0.0018 to 0.18\n" in out
    assert "  rate_control " in out
    assert main([*describe, str(folder / "model.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lmbda_range"] == [0.0018, 0.18]
    assert main([*describe, str(folder / "plain.safetensors"), "--json"]) == 0
    assert "lmbda_range" not in json.loads(capsys.readouterr().out)


def test_the_stand_in_writes_headers_as_long_as_it_says() -> None:
    codec = Sizes(1200, 9000)
    codec.rate_code = 5
    assert len(found(codec, 1200)) - from_bytes(found(codec, 1200)).payload_bytes == HEADER_BYTES
    assert HEADER_BYTES <= MAX_OVERHEAD_BYTES
