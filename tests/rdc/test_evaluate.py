"""Evaluation: what is averaged over what, agreement of estimate and files, decoding elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rdc import bitstream
from rdc.checkpoint import model_hash, save_model
from rdc.data import ImageSet, PixelCache, read_rgb
from rdc.evaluate import GRID_MAX_BYTES, Evaluation, ImageScores, evaluate, write_grid
from rdc.fresh_decode import decodes_alike
from rdc.models.codec import Codec, build
from rdc.models.layers import coding
from rdc.models.layers.wavelet import start_as_wavelet
from rdc.shown import SHOWN_SIDE_PX, write_shown

LMBDA = 0.013


@pytest.fixture
def codec(make_trial: Any) -> Codec:
    """Untrained, but with sensible rates: it starts as a wavelet codec."""
    spec, _ = make_trial(model={"depth": {"channels": [12, 16, 16], "latent_channels": 16}})
    torch.manual_seed(0)
    codec = build(spec.model).eval()
    start_as_wavelet(codec)
    codec.update(force=True, update_quantiles=True)
    return codec


def score(**changes: Any) -> ImageScores:
    values: dict[str, Any] = {
        "name": "a.png",
        "width_px": 100,
        "height_px": 100,
        "bpp": 1.1,
        "bpp_payload": 1.0,
        "bpp_estimated": 1.0,
        "psnr_db": 30.0,
        "mse": 0.001,
        "ms_ssim": 0.9,
        "rd_loss": 2.0,
    }
    return ImageScores(**(values | changes))


def evaluation(*images: ImageScores) -> Evaluation:
    return Evaluation(
        images=images, files=(), pixel_sha256=(), padded_px_ratio=1.0, precision="fp32", wall_s=1.0
    )


def test_every_number_is_that_of_the_real_files(codec: Codec, image_sets: Any) -> None:
    images = PixelCache(image_sets[1])
    result = evaluate(codec, images, lmbda=LMBDA)
    assert [image.name for image in result.images] == [file.name for file in image_sets[1].images]
    for image, file, data, digest in zip(
        result.images, image_sets[1].images, result.files, result.pixel_sha256, strict=True
    ):
        original = read_rgb(file.path).astype(float) / 255
        with torch.no_grad():
            x_hat = bitstream.decode_image(codec, data, model_hash(codec))
        pixels = np.rint(x_hat[0].permute(1, 2, 0).numpy() * 255)
        assert digest == hashlib.sha256(pixels.astype(np.uint8).tobytes()).hexdigest()
        decoded = pixels / 255
        assert decoded.shape == original.shape
        error = np.mean((original - decoded) ** 2)
        assert image.mse == pytest.approx(error, rel=1e-6)
        assert image.psnr_db == pytest.approx(-10 * math.log10(error))
        assert image.bpp == pytest.approx(8 * len(data) / (file.width_px * file.height_px))
        assert image.rd_loss == pytest.approx(image.bpp + LMBDA * 255**2 * error)
        assert 0 < image.bpp - image.bpp_payload <= 8 * bitstream.MAX_OVERHEAD_BYTES / file.pixels
        assert (image.ms_ssim is None) == (min(file.width_px, file.height_px) < 161)
    # Sides of 256 need no padding; 171 x 203 becomes 192 x 256, 64 x 96 becomes 64 x 128.
    coded = 256 * 256 + 192 * 256 + 64 * 128
    assert result.padded_px_ratio == pytest.approx(coded / (256 * 256 + 171 * 203 + 64 * 96))


def test_the_estimate_rates_the_symbols_that_are_in_the_file(codec: Codec, image_sets: Any) -> None:
    images = ImageSet(name="one", source="test", images=image_sets[1].images[:1])
    result = evaluate(codec, PixelCache(images), lmbda=LMBDA, with_ms_ssim=False)
    stream = bitstream.from_bytes(result.files[0])
    size = (stream.height_px, stream.width_px)
    with torch.no_grad():
        decoded = codec.decompress([[s] for s in stream.strings], codec.z_hw(*size), size)
        # g_a is not asked again: the Gaussian's mass around each decoded symbol, by its definition.
        model = codec.entropy_model
        z_hat = model._values(decoded_z(codec, stream), model._medians())
        mean, scale = model.split(model.h_s(z_hat))
    scale = scale.clamp_min(0.11).double()
    residual = (decoded["y_hat"] - mean).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = normal.cdf((0.5 - residual.abs()) / scale) - normal.cdf((-0.5 - residual.abs()) / scale)
    bits_y = torch.where(mass > 1e-9, (-mass.log2()).clamp_max(16), 24.0).sum()
    bits_z = -model._likelihood_z(z_hat).detach().log2().sum()
    estimated = result.images[0].bpp_estimated * result.images[0].pixels
    assert estimated == pytest.approx(float(bits_y + bits_z), rel=1e-4)
    assert {image.ms_ssim for image in result.images} == {None}
    assert result.to_dict()["ms_ssim_db"] is None


def decoded_z(codec: Codec, stream: bitstream.Stream) -> Any:
    """Symbols of z, read from the file: (1, channels, h, w)."""
    model = codec.entropy_model
    rows = model._z_rows((model.entropy_bottleneck.channels, *codec.z_hw(stream.height_px, stream.width_px)))
    return coding.decode(stream.strings[1], rows, model._tables()[1])[None]


def test_means_are_over_images_and_decibels_are_averaged_as_named() -> None:
    images = (
        score(mse=0.001, psnr_db=30.0, ms_ssim=0.9, width_px=200),
        score(mse=0.0001, psnr_db=40.0, ms_ssim=0.99, bpp=0.3, rd_loss=1.0),
    )
    values = evaluation(*images).to_dict()
    assert values["bpp"] == pytest.approx(0.7)
    assert values["rd_loss"] == pytest.approx(1.5)
    assert values["psnr_db"] == pytest.approx(35.0)
    # Mean error (0.001 + 0.0001) / 2 = 0.00055: 32.5964 dB, by hand.
    assert values["psnr_of_mean_mse_db"] == pytest.approx(32.5964, abs=1e-4)
    assert values["ms_ssim"] == pytest.approx(0.945)
    # Mean of 10 dB and 20 dB, not 12.6 dB, the decibels of the mean.
    assert values["ms_ssim_db"] == pytest.approx(15.0)
    assert len(values["per_image"]) == 2


def test_an_exact_reconstruction_gives_null_not_infinity() -> None:
    values = evaluation(score(mse=0.0, psnr_db=math.inf, ms_ssim=1.0)).to_dict()
    assert values["psnr_db"] is None
    assert values["psnr_of_mean_mse_db"] is None
    assert values["ms_ssim_db"] is None
    assert values["per_image"][0]["psnr_db"] is None
    assert values["ms_ssim"] == 1.0


@pytest.mark.parametrize(
    ("estimated", "payload", "agrees"),
    [
        # 1,000 x 1,000 pixels; 1 % above 0.2 bpp, 2 % below, in both directions
        (0.5, 0.5049, True),
        (0.5, 0.5051, False),
        (0.5, 0.4949, False),
        (0.1, 0.1019, True),
        (0.1, 0.1021, False),
    ],
)
def test_rates_agree_within_one_and_two_per_cent(estimated: float, payload: float, agrees: bool) -> None:
    image = score(width_px=1000, height_px=1000, bpp_estimated=estimated, bpp_payload=payload)
    assert evaluation(image).rate_agrees is agrees


def test_the_gap_is_summed_over_the_set() -> None:
    images = (
        score(width_px=1000, height_px=1000, bpp_estimated=0.5, bpp_payload=0.52),
        score(width_px=1000, height_px=1000, bpp_estimated=1.5, bpp_payload=1.49),
    )
    # (0.52 + 1.49) / 2.0 = 1.005
    assert evaluation(*images).rate_gap_pct == pytest.approx(0.5)
    assert evaluation(*images).rate_agrees


def test_a_new_interpreter_decodes_alike_and_differences_are_told(
    codec: Codec, image_sets: Any, tmp_path: Path
) -> None:
    codec.set_transform_precision("bf16")
    images = ImageSet(name="two", source="test", images=image_sets[1].images[:2])
    result = evaluate(codec, PixelCache(images), lmbda=LMBDA)
    path = tmp_path / "model.safetensors"
    save_model(path, codec, extra={"precision": "bf16"})
    # Two right files, then one whose coded symbols are not those that its checksum speaks of.
    stream = bitstream.from_bytes(result.files[0])
    wrong = bitstream.to_bytes(dataclasses.replace(stream, symbols_crc32=stream.symbols_crc32 ^ 1))
    digests = [*result.pixel_sha256, result.pixel_sha256[0]]
    identical, difference = decodes_alike(path, [*result.files, wrong], digests, device="cpu", threads=1)
    assert not identical
    assert difference is not None
    assert difference.startswith("image 2: ")
    assert "the decoded symbols differ from the encoder's" in difference


def test_an_interpreter_that_cannot_start_decoding_is_an_error(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the decoding interpreter ended with 1: .*no such checkpoint"):
        decodes_alike(tmp_path / "missing.safetensors", [b""], [""], device="cpu", threads=1)


def test_the_grid_shows_originals_beside_reconstructions_within_its_size(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 700, 900, generator=generator)
    panels = [(noise, 1 - noise, score(name=f"{number}.png")) for number in range(4)]
    path = tmp_path / "grid.png"
    write_grid(path, panels)
    assert path.stat().st_size <= GRID_MAX_BYTES
    grid = np.asarray(Image.open(path))
    side = (grid.shape[1] - 4) // 2
    left, right = grid[14 : 14 + side, :side].astype(int), grid[14 : 14 + side, side + 4 :].astype(int)
    assert np.abs(left + right - 255).max() <= 1


def test_the_shown_crops_are_the_middles_of_original_and_decoded_pixels(
    codec: Codec, image_sets: Any, tmp_path: Path
) -> None:
    result = evaluate(codec, PixelCache(image_sets[1]), lmbda=LMBDA, with_ms_ssim=False, shown_in=tmp_path)
    assert evaluate(codec, PixelCache(image_sets[1]), lmbda=LMBDA, with_ms_ssim=False).shown == ()
    entries = result.to_dict()["shown"]
    assert [entry["name"] for entry in entries] == [file.name for file in image_sets[1].images]
    # 256 x 256, 203 x 171 and 96 x 64 pixels are all within 256: whole images.
    sizes = [[0, 0, file.height_px, file.width_px] for file in image_sets[1].images]
    assert [entry["crop"] for entry in entries] == sizes
    for entry, file, data in zip(entries, image_sets[1].images, result.files, strict=True):
        with torch.no_grad():
            x_hat = bitstream.decode_image(codec, data, model_hash(codec))
        decoded = np.rint(x_hat[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        assert np.array_equal(np.asarray(Image.open(tmp_path / entry["file"])), decoded)
        assert np.array_equal(np.asarray(Image.open(tmp_path / entry["original"])), read_rgb(file.path))
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert files == {entry[key] for entry in entries for key in ("file", "original")}


def test_shown_crops_are_the_same_bytes_again_and_stay_apart_whatever_images_are_called(
    tmp_path: Path,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(1, 3, 300, 401, generator=generator) * 255).round() / 255
    names = ["../a b.png", "a_b.jpg", "c.png"]
    panels = [(name, x, 1 - x) for name in names]
    first = write_shown(tmp_path / "1", panels)
    assert write_shown(tmp_path / "2", panels) == first
    assert [shown.file for shown in first] == ["shown/0_a_b.png", "shown/1_a_b.png", "shown/2_c.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}
    # (300 - 256) / 2 = 22 and (401 - 256) / 2 = 72, rounded down
    assert {shown.crop for shown in first} == {(22, 72, SHOWN_SIDE_PX, SHOWN_SIDE_PX)}
    pixels = (x[0, :, 22:278, 72:328] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    for shown in first:
        assert np.array_equal(np.asarray(Image.open(tmp_path / "1" / shown.original)), pixels)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "1" / shown.file)), 255 - pixels)
        for file in (shown.file, shown.original):
            assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
