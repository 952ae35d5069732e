"""CompressAI's zoo in terms of our components, so that its checkpoints are measured like our own models.

A file that its zoo serves, or that its training script writes, is loaded into the same networks here, trained
no further, and coded by our coder with its rule for choosing scales. What it was trained on, and how long,
nobody here knows: results say so, and are compared with each other, not with trainings of a known budget.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.spec import ExternalWeights, ModelSpec, parse_model

# What its models of quality 1, 2, ... were trained with, where the metric is MSE.
LMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)

Groups = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ZooModel:
    """What model=compressai asks for.

    checkpoint: a .pth.tar file; null: the architecture alone, to be trained here.
    lmbda: what the checkpoint was trained with; null: what its quality was, in the zoo.
    """

    name: str
    quality: int
    checkpoint: str | None = None
    lmbda: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ARCHITECTURES:
            extra = f" ({_LEFT_OUT[self.name]})" if self.name in _LEFT_OUT else ""
            raise UserError(
                f"compressai.name={self.name}: is not known here{extra}; known: {', '.join(ARCHITECTURES)}"
            )
        qualities = len(ARCHITECTURES[self.name].small) + len(ARCHITECTURES[self.name].large)
        if not 1 <= self.quality <= qualities:
            raise UserError(f"compressai.quality={self.quality}: {self.name} has qualities 1 to {qualities}")
        if self.lmbda is not None and self.lmbda <= 0:
            raise UserError(f"compressai.lmbda={self.lmbda}: must be greater than 0")
        if self.checkpoint is not None:
            self._check_file_name(Path(self.checkpoint).name)

    def _check_file_name(self, file_name: str) -> None:
        """UserError where a file named as the zoo names its own is for another model or loss.

        Nothing else tells qualities of one size apart, nor losses.
        """
        found = _FILE_NAME.match(file_name)
        if found is None:
            return
        name, quality = found["name"].replace("_", "-"), int(found["quality"])
        if (name, quality) != (self.name, self.quality):
            raise UserError(
                f"compressai.checkpoint={file_name}: is quality {quality} of {name} by its name, not "
                f"compressai.name={self.name} compressai.quality={self.quality}; correct these, or rename a "
                "file that is another one"
            )
        if found["metric"] == "ms-ssim" and self.lmbda is None:
            raise UserError(
                f"compressai.checkpoint={file_name}: was trained for MS-SSIM by its name, another loss than "
                f"the one that lmbda {self.trade_off} of its quality belongs to; give compressai.lmbda"
            )

    @property
    def trade_off(self) -> float:
        """The lmbda of the checkpoint."""
        return LMBDAS[self.quality - 1] if self.lmbda is None else self.lmbda

    @property
    def groups(self) -> Groups:
        """Configuration of every group of a model."""
        return ARCHITECTURES[self.name].groups(self.quality)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One name of the zoo. small, large: its qualities, by the two sizes in which it comes.

    widths: (N, M) of the small and of the large size.
    """

    make: Callable[[int, int], Groups]
    small: range
    large: range
    widths: tuple[tuple[int, int], tuple[int, int]]

    def groups(self, quality: int) -> Groups:
        channels, latent_channels = self.widths[quality in self.large]
        depth = {"channels": [channels] * 3, "latent_channels": latent_channels}
        rest = {"gating": {"name": "none"}, "rate_control": {"name": "none"}}
        return {"depth": depth, **rest, **self.make(channels, latent_channels)}


def _balle(entropy_model: str, activation: str) -> Callable[[int, int], Groups]:
    """Conv with GDN; hyper transforms as wide as the transform."""

    def make(channels: int, latent_channels: int) -> Groups:
        return {
            "transform": {"name": "conv", "norm": "gdn"},
            "hyper_transform": {"name": "conv", "activation": activation},
            "entropy_model": _entropy_model(entropy_model),
        }

    return make


def _cheng2020(*, attention: bool) -> Callable[[int, int], Groups]:
    def make(channels: int, latent_channels: int) -> Groups:
        return {
            "transform": {"name": "cheng2020", "attention": attention},
            "hyper_transform": {"name": "cheng2020"},
            "entropy_model": _entropy_model("joint_autoregressive"),
        }

    return make


def _elic(channels: int, latent_channels: int) -> Groups:
    return {
        "transform": {"name": "elic", "attention_relu": True},
        "hyper_transform": {"name": "conv", "synthesis_channels": [channels, channels * 3 // 2]},
        "entropy_model": _entropy_model("space_channel"),
        "depth": {"channels": [channels] * 3, "latent_channels": latent_channels, "layers": [3, 3, 3]},
    }


def _entropy_model(name: str) -> Groups:
    # Its training noise, its prior, and its index rule: the same bytes come out.
    return {"name": name, "quantiser": "noise", "indexing": "ceil", "prior_filters": [3, 3, 3, 3]}


ARCHITECTURES = {
    "bmshj2018-hyperprior": Architecture(
        _balle("scale_hyperprior", "relu"), range(1, 6), range(6, 9), ((128, 192), (192, 320))
    ),
    "mbt2018-mean": Architecture(
        _balle("mean_scale_hyperprior", "leaky_relu"), range(1, 5), range(5, 9), ((128, 192), (192, 320))
    ),
    "mbt2018": Architecture(
        _balle("joint_autoregressive", "leaky_relu"), range(1, 5), range(5, 9), ((192, 192), (192, 320))
    ),
    "cheng2020-anchor": Architecture(
        _cheng2020(attention=False), range(1, 4), range(4, 7), ((128, 128), (192, 192))
    ),
    "cheng2020-attn": Architecture(
        _cheng2020(attention=True), range(1, 4), range(4, 7), ((128, 128), (192, 192))
    ),
    # Not in its zoo: one of its models, and one size for every rate.
    "elic2022-official": Architecture(_elic, range(0), range(1, 9), ((192, 320), (192, 320))),
}

_FILE_NAME = re.compile(
    r"(?P<name>bmshj2018-factorized(-prior)?|bmshj2018-hyperprior|mbt2018(-mean)?|cheng2020[-_](anchor|attn))"
    r"(-(?P<metric>mse|ms-ssim))?-(?P<quality>\d)(-[0-9a-f]{8})?\.pth(\.tar)?$"
)

_NO_HYPER = "it has no hyper-latent, which every entropy model here codes"
_LEFT_OUT = {"bmshj2018-factorized": _NO_HYPER, "bmshj2018-factorized-relu": _NO_HYPER}


def external_weights(zoo: ZooModel, model: ModelSpec) -> ExternalWeights | None:
    """What a trial's id says about the checkpoint; UserError where it does not hold this architecture."""
    if zoo.checkpoint is None:
        return None
    path = Path(zoo.checkpoint).expanduser()
    state_dict = _read(path)
    if not _fits(model, state_dict):
        raise UserError(
            f"{path}: does not fit compressai.name={zoo.name} compressai.quality={zoo.quality}; "
            f"{_what_it_is(state_dict)}"
        )
    return ExternalWeights(
        source="compressai", name=zoo.name, quality=zoo.quality, checkpoint_sha256=_sha256(path)
    )


def load_external(codec: Any, weights: ExternalWeights, path: str | Path) -> None:
    """Put the checkpoint into the codec, coding tables included; UserError if the file is another one."""
    from rdc.checkpoint import load_compressai_state_dict

    path = Path(path).expanduser()
    if not path.exists() or _sha256(path) != weights.checkpoint_sha256:
        raise UserError(f"{path}: is not the checkpoint that this trial was planned with; plan it anew")
    load_compressai_state_dict(codec, _read(path))


def _read(path: Path) -> dict[str, Any]:
    """The state dict in a file: alone, as the zoo serves it, or as examples/train.py of CompressAI saves it.

    Nothing but tensors and plain values is unpickled.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols of files that it refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: cannot be read as a checkpoint of tensors and plain values alone ({reason}); "
            "save its state dict by itself with torch.save"
        ) from None
    inner = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping) or not inner or not all(map(torch.is_tensor, inner.values())):
        raise UserError(f"{path}: holds no state dict, neither alone nor under 'state_dict'")
    return dict(inner)


def _fits(model: ModelSpec, state_dict: Mapping[str, Any]) -> bool:
    from rdc.checkpoint import check_fit, compressai_tensors
    from rdc.complexity import on_meta

    codec = on_meta(model)
    try:
        check_fit(codec, compressai_tensors(codec, state_dict), name="")
    except UserError:
        return False
    return True


def _what_it_is(state_dict: Mapping[str, Any]) -> str:
    """Which of the known architectures a state dict belongs to."""
    found = []
    for name, architecture in ARCHITECTURES.items():
        for qualities in (architecture.small, architecture.large):
            if qualities and _fits(parse_model(architecture.groups(qualities[0])), state_dict):
                found.append(f"{name} of quality {qualities[0]} to {qualities[-1]}")
    return f"it fits {' or '.join(found)}" if found else f"it fits none of {', '.join(ARCHITECTURES)}"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
