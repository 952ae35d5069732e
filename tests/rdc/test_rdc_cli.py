"""python -m rdc, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from rdc.__main__ import main
from rdc.bitstream import decode_image, encode_image
from rdc.checkpoint import METADATA_KEY, model_hash, read_metadata, save_model
from rdc.files import sealed
from rdc.metrics import to_8bit
from rdc.models.codec import build
from rdc.spec import arch_id, parse_model
from tests.rdc.shared import TINY_MODEL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image and two checkpoints."""
    folder = tmp_path_factory.mktemp("cli")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 45, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    for name, seed in (("model", 0), ("other", 1)):
        torch.manual_seed(seed)
        codec = build(parse_model(TINY_MODEL))
        codec.update(update_quantiles=True)
        save_model(folder / f"{name}.safetensors", codec, extra={"lmbda": 0.013})
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def coded(folder: Path) -> Path:
    path = folder / "image.rdc"
    arguments = ["compress", folder / "image.png", "-o", path, "--checkpoint", folder / "model.safetensors"]
    assert main([str(a) for a in arguments]) == 0
    return path


def test_a_new_process_decodes_what_another_coded(folder: Path, tmp_path: Path) -> None:
    """Through the real entry point, twice."""
    checkpoint = ["--checkpoint", str(folder / "model.safetensors")]
    commands = [
        ["compress", str(folder / "image.png"), "-o", str(tmp_path / "a.rdc"), *checkpoint],
        ["decompress", str(tmp_path / "a.rdc"), "-o", str(tmp_path / "a.png"), *checkpoint],
    ]
    outputs = []
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "rdc", *command], capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "libraries' chatter must not reach the user"
        outputs.append(done.stdout)
    size = (tmp_path / "a.rdc").stat().st_size
    assert f"{size} bytes, {8 * size / (70 * 45):.4f} bpp" in outputs[0]
    assert Image.open(tmp_path / "a.png").size == (45, 70)


def test_the_written_pixels_are_the_rounded_reconstruction(
    folder: Path, coded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = folder / "model.safetensors"
    status, out, _ = run(capsys, "decompress", coded, "-o", tmp_path / "b.png", "--checkpoint", checkpoint)
    assert (status, out) == (0, f"{tmp_path / 'b.png'}: 45x70 px\n")
    from rdc.checkpoint import load_model

    x_hat = decode_image(load_model(checkpoint)[0], coded.read_bytes(), model_hash(checkpoint))
    expected = np.round(x_hat[0].permute(1, 2, 0).numpy() * 255)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), expected)


def test_the_precision_of_the_trial_is_the_precision_of_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes and pixels are those that the trial's evaluation has, not those of fp32."""
    pixels = np.random.default_rng(1).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    torch.manual_seed(3)
    codec = build(parse_model(TINY_MODEL))
    with torch.no_grad():  # symbols that differ between the precisions
        list(codec.g_a.parameters())[-2].mul_(300)
    codec.update(update_quantiles=True)
    codec.eval()
    checkpoint = tmp_path / "model.safetensors"
    save_model(checkpoint, codec, extra={"precision": "bf16"})
    common: list[str | Path] = ["--checkpoint", checkpoint]
    assert run(capsys, "compress", tmp_path / "image.png", "-o", tmp_path / "a.rdc", *common)[0] == 0
    assert run(capsys, "decompress", tmp_path / "a.rdc", "-o", tmp_path / "a.png", *common)[0] == 0

    x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
    expected = {}
    for precision in ("fp32", "bf16"):
        codec.set_transform_precision(precision)
        data = encode_image(codec, x, model_hash(codec))
        x_hat = decode_image(codec, data, model_hash(codec))
        expected[precision] = (data, np.asarray((to_8bit(x_hat) * 255).round().byte()[0].permute(1, 2, 0)))
    assert expected["fp32"][0] != expected["bf16"][0], "the test must be able to fail"
    assert not np.array_equal(expected["fp32"][1], expected["bf16"][1]), "the test must be able to fail"
    assert (tmp_path / "a.rdc").read_bytes() == expected["bf16"][0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), expected["bf16"][1])


def test_a_model_of_another_version_is_named_with_its_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    metadata = read_metadata(folder / "model.safetensors")
    metadata["model"]["transform"]["name"] = "os"
    path = tmp_path / "newer.safetensors"
    safetensors.torch.save_file(tensors, path, {METADATA_KEY: json.dumps(sealed(metadata))})
    status, _, error = run(capsys, "describe", "--checkpoint", path)
    assert status == 2
    assert error.startswith(
        f"error: {path}: holds a model that this version does not know: transform='os' is not known"
    )


def test_mistakes_are_one_line_and_status_2(
    folder: Path, coded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, other, image = folder / "model.safetensors", folder / "other.safetensors", folder / "image.png"
    damaged = tmp_path / "damaged.rdc"
    data = bytearray(coded.read_bytes())
    data[40] ^= 4
    damaged.write_bytes(data)
    out = tmp_path / "out.png"
    cases: list[tuple[list[str | Path], str]] = [
        (["compress", image, "-o", image, "--checkpoint", model], "is also an input"),
        (["compress", image, "-o", model, "--checkpoint", model], "is also an input"),
        (["compress", image, "-o", tmp_path, "--checkpoint", model], "is a folder"),
        (
            ["compress", image, "-o", tmp_path / "no" / "a.rdc", "--checkpoint", model],
            "folder does not exist",
        ),
        (["compress", tmp_path / "none.png", "-o", tmp_path / "a.rdc", "--checkpoint", model], "none.png"),
        (["compress", image, "-o", tmp_path / "a.rdc", "--checkpoint", image], "is not a checkpoint"),
        (["compress", image, "-o", tmp_path / ("a" * 300), "--checkpoint", model], "File name too long"),
        (["decompress", coded, "-o", tmp_path / "out.jpg", "--checkpoint", model], "ends in .png"),
        (["decompress", damaged, "-o", out, "--checkpoint", model], "damaged or cut short"),
        (["decompress", image, "-o", out, "--checkpoint", model], "is not an RDC file"),
        (["decompress", coded, "-o", out, "--checkpoint", other], "decode with the checkpoint that coded it"),
        (["decompress", tmp_path / "no.rdc", "-o", out, "--checkpoint", model], "cannot be read"),
        (["describe", "model=rdc_z"], "rdc_z"),
        (["describe", "depth.channels=[8,8]"], "transform=conv needs 3 entries"),
        (["describe", "depth=n32", "--checkpoint", model], "describe one or the other"),
    ]
    for arguments, message in cases:
        status, printed, error = run(capsys, *arguments)
        assert (status, printed) == (2, ""), arguments
        assert error.startswith("error: "), arguments
        assert error.count("\n") == 1, error
        assert message in error, error
    assert not out.exists()


def test_describe_as_json_has_the_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "describe", "model=rdc_g", "--json")
    described = json.loads(out)
    assert status == 0
    assert described["image_px"] == [512, 768]
    assert described["family"] == "conv/mean_scale_hyperprior/conv"
    for direction in ("encode", "decode"):
        for count in ("parity", "executed"):
            mac, flop = (described[direction][f"{count}_k{unit}_per_px"] for unit in ("mac", "flop"))
            assert flop == pytest.approx(2 * mac)
    assert described["decode"]["parity_kflop_per_px"] == pytest.approx(117.4, rel=0.005)
    assert described["params"]["total"] == pytest.approx(12.8e6, rel=0.005)
    assert set(described["parts"]) == {"g_a", "h_a", "prior", "h_s", "g_s"}


def test_describe_reads_checkpoints_and_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = folder / "model.safetensors"
    status, out, _ = run(capsys, "describe", "--checkpoint", checkpoint, "--size", "64x96", "--json")
    described = json.loads(out)
    assert status == 0
    assert described["arch_id"] == arch_id(parse_model(TINY_MODEL))
    assert described["image_px"] == [64, 96]
    assert described["checkpoint"] == {"lmbda": 0.013}


def test_describe_as_text_names_units_and_parts(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "describe", "model=rdc_g")
    for word in ("kMAC/px", "kFLOP/px", "parity", "executed", "117.152", "12,822,659", "g_s"):
        assert word in out


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, rdc.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'compressai', 'hydra', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "compress" in done.stdout
