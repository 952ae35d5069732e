"""model.safetensors: strict, named errors, and a hash that follows the content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from rdc.checkpoint import METADATA_KEY, load_model, model_hash, read_metadata, save_model
from rdc.errors import UserError
from rdc.files import sealed
from rdc.models.codec import Codec, build
from rdc.spec import parse_model, to_plain


def codec(**depth: Any) -> Codec:
    torch.manual_seed(0)
    made = build(
        parse_model(
            {
                "transform": {"name": "conv"},
                "entropy_model": {"name": "scale_hyperprior"},
                "hyper_transform": {"name": "conv"},
                "depth": {"channels": [4, 4, 4], "latent_channels": 6, **depth},
                "gating": {"name": "none"},
                "rate_control": {"name": "none"},
            }
        )
    )
    made.update(update_quantiles=True)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def rewrite(path: Path, change: Any) -> None:
    """Save the file again after `change(metadata, tensors)`, as another program would."""
    metadata = read_metadata(path)
    tensors = safetensors.torch.load_file(path)
    change(metadata, tensors)
    safetensors.torch.save_file(tensors, path, {METADATA_KEY: json.dumps(sealed(metadata))})


def test_everything_comes_back(path: Path) -> None:
    saved = codec()
    digest = save_model(path, saved, extra={"lmbda": 0.013, "spec_id": "abc", "none": None})
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded, metadata = load_model(path)
    assert not loaded.training
    assert loaded.has_tables
    assert loaded.spec == saved.spec
    assert metadata["extra"] == {"lmbda": 0.013, "spec_id": "abc", "none": None}
    assert metadata["model"] == to_plain(saved.spec)
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert model_hash(path) == model_hash(loaded) == model_hash(saved)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file stays behind"


def test_the_hash_follows_weights_tables_and_spec() -> None:
    hashes = [model_hash(codec())]
    changed = codec()
    with torch.no_grad():
        next(changed.parameters())[0, 0, 0, 0] += 1e-6
    hashes.append(model_hash(changed))
    tables = codec()
    tables.entropy_model.entropy_bottleneck._offset[0] += 1
    hashes.append(model_hash(tables))
    plain = to_plain(codec().spec)
    plain["entropy_model"]["indexing"] = "ceil"  # no tensor differs, but the decoder does
    other = build(parse_model(plain))
    other.load_state_dict(codec().state_dict())
    hashes.append(model_hash(other))
    assert len(set(hashes)) == 4
    assert model_hash(codec()) == hashes[0]
    contiguous = codec()
    contiguous.to(memory_format=torch.contiguous_format)
    assert model_hash(contiguous) == hashes[0], "the layout in memory must not matter"


def test_a_codec_without_tables_is_not_saved(path: Path) -> None:
    with pytest.raises(UserError, match=r"no coding tables yet; call update\(\)"):
        save_model(path, build(codec().spec), extra={})
    assert not path.exists()


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors: there is no such checkpoint"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04pickle" * 100])
def test_foreign_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: is not a checkpoint, or is damaged"):
        load_model(path)


def test_foreign_safetensors_are_refused(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"was not written by rdc \(no 'rdc' metadata"):
        load_model(path)


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
def test_a_file_cut_short_is_refused(path: Path, keep: float) -> None:
    save_model(path, codec(), extra={})
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UserError, match="is not a checkpoint, or is damaged"):
        load_model(path)


def test_a_flipped_bit_in_the_weights_is_refused(path: Path) -> None:
    save_model(path, codec(), extra={})
    data = bytearray(path.read_bytes())
    data[-len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged \(its content does not match its own hash\)"):
        load_model(path)


def test_another_schema_version_is_refused(path: Path) -> None:
    save_model(path, codec(), extra={})
    rewrite(path, lambda metadata, _: metadata.update(schema_version=99))
    with pytest.raises(UserError, match="has schema version 99, this program reads 1"):
        load_model(path)


def test_an_unknown_component_is_named(path: Path) -> None:
    save_model(path, codec(), extra={})
    rewrite(path, lambda metadata, _: metadata["model"]["transform"].update(name="os"))
    with pytest.raises(
        UserError, match="a model that this version does not know: transform='os' is not known"
    ):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: metadata.pop("model"), r"model=None, expected a mapping"),
        (lambda metadata: metadata.update(model=[1]), r"model=\[1\], expected a mapping"),
        (lambda metadata: metadata.pop("model_hash"), "model_hash=None, expected 16 hexadecimal digits"),
        (
            lambda metadata: metadata.update(model_hash="zz"),
            "model_hash='zz', expected 16 hexadecimal digits",
        ),
        (lambda metadata: metadata.pop("extra"), "extra=None, expected a mapping"),
        (lambda metadata: metadata.update(extra={"precision": "fp8"}), "with precision fp32 or bf16"),
        (lambda metadata: metadata.update(extra={"precision": []}), "with precision fp32 or bf16"),
    ],
)
def test_incomplete_metadata_is_named(path: Path, change: Any, message: str) -> None:
    save_model(path, codec(), extra={})
    rewrite(path, lambda metadata, _: change(metadata))
    with pytest.raises(
        UserError, match=rf"model\.safetensors: its metadata is damaged \(.*{message}"
    ) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, tensors: tensors.pop("g_a.0.weight"), r"g_a\.0\.weight is missing"),
        (lambda _, tensors: tensors.update(extra=torch.zeros(1)), "extra is not part of this model"),
        (
            lambda _, tensors: tensors.update({"g_a.0.bias": torch.zeros(5)}),
            r"g_a\.0\.bias has shape \[5\], this model needs \[4\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(path: Path, change: Any, message: str) -> None:
    save_model(path, codec(), extra={})
    rewrite(path, change)
    with pytest.raises(UserError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_of_any_size_load() -> None:
    """A new codec cannot know how long the saved tables are."""
    wide = codec()
    with torch.no_grad():
        wide.entropy_model.entropy_bottleneck.matrices[0].sub_(3)
    wide.update(force=True, update_quantiles=True)
    fresh = codec()
    fresh.load_state_dict(wide.state_dict())
    assert torch.equal(
        fresh.entropy_model.entropy_bottleneck._quantized_cdf,
        wide.entropy_model.entropy_bottleneck._quantized_cdf,
    )
