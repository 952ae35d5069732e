"""model.safetensors: weights, coding tables and the spec in one file that never runs code when loaded."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rdc.bitstream import HASH_BYTES
from rdc.errors import UserError
from rdc.files import atomic_write_bytes, is_intact, sealed
from rdc.models.codec import Codec, build
from rdc.models.layers import coding
from rdc.spec import ModelSpec, canonical, parse_model, to_plain

SCHEMA_VERSION = 1
METADATA_KEY = "rdc"

_GROUP = r"latent_codec\.y\.latent_codec\.y(\d+)"  # of channels; every one has the same coding tables
# Names in CompressAI's state dicts -> ours; its older releases wrote the underscored ones.
_COMPRESSAI_NAMES = (
    (re.compile(r"^module\."), ""),
    (re.compile(r"^latent_codec\.hyper\."), ""),
    (re.compile(r"^(g_[as]\.\d+)\.conv1\."), r"\1.conv.0."),
    (re.compile(r"^(g_[as]\.\d+)\.conv2\."), r"\1.conv.2."),
    (re.compile(r"^(g_[as]\.\d+)\.conv3\."), r"\1.conv.4."),
    (re.compile(r"^(g_[as]\.\d+)\.conv_a\."), r"\1.trunk."),
    (re.compile(r"^(g_[as]\.\d+)\.conv_b\."), r"\1.gate."),
    (re.compile(r"^(entropy_bottleneck)\._matrix(\d+)$"), r"\1.matrices.\2"),
    (re.compile(r"^(entropy_bottleneck)\._bias(\d+)$"), r"\1.biases.\2"),
    (re.compile(r"^(entropy_bottleneck)\._factor(\d+)$"), r"\1.factors.\2"),
    (re.compile(r"^(h_a|h_s|entropy_bottleneck|gaussian_conditional)\."), r"entropy_model.\1."),
    (re.compile(r"^(context_prediction|entropy_parameters)\."), r"entropy_model.context.\1."),
    (re.compile(r"^latent_codec\.y\.channel_context\.y(\d+)\."), r"entropy_model.context.groups.\1.channel."),
    (re.compile(rf"^{_GROUP}\.context_prediction\."), r"entropy_model.context.groups.\1.spatial."),
    (re.compile(rf"^{_GROUP}\.entropy_parameters\."), r"entropy_model.context.groups.\1.aggregate."),
    (re.compile(rf"^{_GROUP}\.y\.gaussian_conditional\."), "entropy_model.gaussian_conditional."),
)
# Bounds of GDN and the mask of the context: constants of the layers here.
_COMPRESSAI_CONSTANTS = re.compile(r"\.(beta|gamma)_reparam\.|(^|\.)context_prediction\.mask$")

_METADATA: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("model", lambda value: isinstance(value, dict), "a mapping"),
    (
        "model_hash",
        lambda value: (
            isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * HASH_BYTES}}}", value) is not None
        ),
        f"{2 * HASH_BYTES} hexadecimal digits",
    ),
    (
        "extra",
        lambda value: isinstance(value, dict) and value.get("precision", "fp32") in ("fp32", "bf16"),
        "a mapping, with precision fp32 or bf16",
    ),
)


def save_model(path: str | Path, codec: Codec, *, extra: Mapping[str, Any]) -> str:
    """Write the codec atomically; returns the file's SHA-256 (hex).

    extra: what else the file should say about itself (lmbda, spec_id, ...), as JSON types.
    """
    if not codec.has_tables:
        raise UserError(f"{path}: the codec has no coding tables yet; call update() before saving it")
    metadata = sealed(
        {
            "schema_version": SCHEMA_VERSION,
            "model": to_plain(codec.spec),
            "model_hash": model_hash(codec).hex(),
            "extra": dict(extra),
        }
    )
    tensors = {name: t.detach().cpu().contiguous() for name, t in codec.state_dict().items()}
    data = safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(metadata, allow_nan=False)})
    atomic_write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def load_model(path: str | Path) -> tuple[Codec, dict[str, Any]]:
    """(codec on the CPU in evaluation mode, ready to code; metadata as `save_model` wrote it).

    A model of variable rate codes at the lmbda that the file was saved for, until it is given another one.
    """
    metadata = read_metadata(path)
    try:
        tensors = safetensors.torch.load_file(str(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: is damaged ({_one_line(error)}); get it again") from None
    codec = build(model_spec(metadata, path))
    _load(codec, tensors, name=str(path))
    codec.eval()
    if model_hash(codec).hex() != metadata["model_hash"]:
        raise UserError(f"{path}: is damaged (its content does not match its own hash); get it again")
    if "lmbda" in metadata["extra"]:
        codec.set_lmbda(metadata["extra"]["lmbda"])
    return codec, metadata


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_model` wrote beside the tensors, without loading them."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: is not a checkpoint, or is damaged ({_one_line(error)})") from None
    try:
        metadata: dict[str, Any] = json.loads(text or "null")
        version = metadata["schema_version"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path}: was not written by rdc (no {METADATA_KEY!r} metadata in it)") from None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: has schema version {version}, this program reads {SCHEMA_VERSION}; "
            "use the release that wrote it, or train again"
        )
    if not is_intact(metadata):
        raise UserError(f"{path}: its metadata is damaged (its checksum does not match); get it again")
    for key, is_right, expected in _METADATA:
        if not is_right(metadata.get(key)):
            raise UserError(
                f"{path}: its metadata is damaged ({key}={metadata.get(key)!r:.40}, expected {expected}); "
                "get it again"
            )
    return metadata


def model_spec(metadata: Mapping[str, Any], path: str | Path) -> ModelSpec:
    """The architecture that `read_metadata` found in the file at path."""
    try:
        return parse_model(metadata["model"])
    except UserError as error:
        raise UserError(f"{path}: holds a model that this version does not know: {error}") from None


def model_hash(model: Codec | str | Path) -> bytes:
    """8 bytes that name exactly these weights, tables and spec; a path is that of a checkpoint."""
    if not isinstance(model, Codec):
        return bytes.fromhex(read_metadata(model)["model_hash"])
    digest = hashlib.sha256(json.dumps(canonical(model.spec), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(struct.pack("<i", len(name)) + name.encode() + str(array.dtype).encode())
        digest.update(struct.pack(f"<{array.ndim + 1}q", array.ndim, *array.shape))
        digest.update(array.data)
    return digest.digest()[:HASH_BYTES]


def load_compressai_state_dict(codec: Codec, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights of CompressAI's models, and coding tables where `compressai_tensors` finds them of use.

    What fits: ScaleHyperprior, MeanScaleHyperprior, JointAutoregressiveHierarchicalPriors, Cheng2020Anchor,
    Cheng2020Attention and Elic2022Official, into a codec of the same widths and of the parts that rdc.zoo
    gives each of them, which for the first three and the last are those of the presets scale_hyperprior,
    mean_scale_hyperprior, joint_autoregressive and elic. Names and shapes do not tell norms and activations
    apart: a codec with others takes the weights and computes something else.
    """
    _load(codec, compressai_tensors(codec, state_dict), name="the CompressAI state dict")
    codec.update()


def compressai_tensors(codec: Codec, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of CompressAI as one for this codec, whose fit is not checked yet.

    Tables that the file lacks are empty, for `update` to build. So are those of the Gaussians where they are
    not for the scales that our coder picks from: they follow from the scales alone and hold nothing learned.
    """
    own = codec.state_dict()
    tensors = turned_convolutions(compressai_names(state_dict), own)
    tables = {key: torch.empty(0, dtype=own[key].dtype) for key in own if codec.is_table(key)}
    scales = [tensors.get(key, empty) for key, empty in tables.items() if _is_scales(key)]
    if not all(table.numel() and _has_our_scales(table) for table in scales):
        tensors |= {key: empty for key, empty in tables.items() if ".gaussian_conditional." in key}
    return tables | tensors


def compressai_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of CompressAI, of whatever release, under the names of ours."""
    renamed = {}
    for name, tensor in state_dict.items():
        if not _COMPRESSAI_CONSTANTS.search(name):
            for pattern, ours in _COMPRESSAI_NAMES:
                name = pattern.sub(ours, name)
            renamed[name] = tensor
    return renamed


def turned_convolutions(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors, with kernels of transposed convolutions where those of `own` convolve.

    Elic2022Official's h_s ends in a transposed convolution of stride 1: a convolution whose kernel is turned
    round and has its first two axes exchanged.
    """
    out = dict(tensors)
    for key, tensor in tensors.items():
        turned = tensor.transpose(0, 1) if tensor.dim() == 4 else tensor
        if key in own and turned.shape == own[key].shape != tensor.shape:
            out[key] = turned.flip(2, 3).contiguous()
    return out


def _load(codec: Codec, tensors: Mapping[str, Tensor], *, name: str) -> None:
    check_fit(codec, tensors, name=name)
    codec.load_state_dict(tensors)


def check_fit(codec: Codec, tensors: Mapping[str, Tensor], *, name: str) -> None:
    """UserError unless names and shapes are those of this architecture, and scales those of our coder.

    Other tables may have any size.
    """
    own = codec.state_dict()
    problems = [f"{key} is missing" for key in own if key not in tensors]
    problems += [f"{key} is not part of this model" for key in tensors if key not in own]
    problems += [
        f"{key} has shape {list(tensors[key].shape)}, this model needs {list(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape and not codec.is_table(key)
    ]
    if problems:
        raise UserError(
            f"{name}: does not fit {codec.spec.family} with {list(codec.spec.depth.channels)} channels and "
            f"{codec.spec.depth.latent_channels} latent channels: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
        )
    for key, tensor in tensors.items():
        if _is_scales(key) and not _has_our_scales(tensor):
            raise UserError(
                f"{name}: {key} holds other scales than the {coding.SCALE_LEVELS} from {coding.SCALE_MIN} to "
                f"{coding.SCALE_MAX:g} that symbols are coded with; save it from a codec after "
                "update(force=True)"
            )


def _is_scales(key: str) -> bool:
    return key.rpartition(".")[2] == "scale_table"


def _has_our_scales(table: Tensor) -> bool:
    """Whether rows of these tables mean what rdc takes them to mean; an empty one is still to be built."""
    if not table.numel():
        return True
    ours = torch.tensor(coding.scale_levels())
    # Neighbours are 13 % apart; torch versions differ by 1e-6 in where they place them.
    return table.shape == ours.shape and torch.allclose(table.float().cpu(), ours, rtol=1e-4, atol=0.0)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
