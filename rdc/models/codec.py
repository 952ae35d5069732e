"""An image codec put together from its components: g_a, entropy model, g_s."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc.bitstream import MAX_RATE_CODE
from rdc.errors import UserError
from rdc.spec import ModelSpec, component

TABLE_NAMES = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")


def padded_hw(height_px: int, width_px: int, *, stride: int) -> tuple[int, int]:
    """Size of an image after padding to multiples of stride."""
    return -(-height_px // stride) * stride, -(-width_px // stride) * stride


def latent_hw(height_px: int, width_px: int, *, stride: int) -> tuple[int, int]:
    """Positions of a latent with this stride: as many as the padded image has."""
    return -(-height_px // stride), -(-width_px // stride)


def pad(x: Tensor, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """Repeat the last row and column until both sides are multiples of stride: (padded x, (H, W) before)."""
    height, width = x.shape[-2:]
    new_height, new_width = padded_hw(height, width, stride=stride)
    if (new_height, new_width) != (height, width):
        x = F.pad(x, (0, new_width - width, 0, new_height - height), mode="replicate")
    return x, (height, width)


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo `pad`."""
    return x[..., : size[0], : size[1]]


def padded_px_ratio(height_px: int, width_px: int, *, stride: int) -> float:
    """Coded pixels per source pixel."""
    new_height, new_width = padded_hw(height_px, width_px, stride=stride)
    return new_height * new_width / (height_px * width_px)


class Codec(nn.Module):
    """One architecture with weights. Images are (B, 3, H, W) in [0, 1], of any size.

    stride: multiple to which x is padded inside. num_streams: strings per image that `compress` gives.
    rate_code: what images are coded at by a model of variable rate (rdc.models.rate_control.modulator), the
    middle of its range until it is set; None for a model of one rate.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        transform = component("transform", spec.transform.name)
        entropy_model = component("entropy_model", spec.entropy_model.name)
        self.spec = spec
        self.stride: int = transform.STRIDE * component("hyper_transform", spec.hyper_transform.name).STRIDE
        self.g_a: nn.Module = transform.build_analysis(spec.transform, spec.depth)
        self.entropy_model: Any = entropy_model.build(spec)
        self.g_s: nn.Module = transform.build_synthesis(spec.transform, spec.depth)
        self.num_streams: int = self.entropy_model.num_streams
        self._transform_precision: Literal["fp32", "bf16"] = "fp32"
        rate_control = component("rate_control", spec.rate_control.name)
        self.rate_control: Any = rate_control.build(spec.rate_control, spec.depth.latent_channels)
        self.rate_code: int | None = None if self.rate_control is None else MAX_RATE_CODE // 2
        component("gating", spec.gating.name).install(spec.gating, self.parts())
        for part in (self.g_a, self.g_s):
            part.to(memory_format=torch.channels_last)

    @property
    def transform_precision(self) -> Literal["fp32", "bf16"]:
        return self._transform_precision

    def set_transform_precision(self, precision: Literal["fp32", "bf16"]) -> None:
        """bf16: convolutions of g_a and g_s run in bfloat16; what decides symbols' scales stays fp32."""
        self._transform_precision = precision

    def set_lmbda(self, lmbda: float) -> None:
        """Code images for this lmbda from now on; UserError outside of the range of a model of variable rate.

        A model of one rate codes on as before.
        """
        if self.rate_control is not None:
            self.rate_code = self.spec.rate_control.code_of(lmbda)

    def forward(self, x: Tensor, rate_codes: Sequence[int] | None = None) -> dict[str, Any]:
        """x_hat (not clipped), y_hat, likelihoods {y, z}; noise in training, rounding in evaluation mode.

        rate_codes: one per image, for a model of variable rate; None: its rate_code for all.
        """
        padded, size = pad(x, self.stride)
        out = self.entropy_model(self.modulated(self.analysis(padded), rate_codes))
        return {
            "x_hat": crop(self.synthesis(self.demodulated(out.y_hat, rate_codes)), size),
            "likelihoods": out.likelihoods,
            "y_hat": out.y_hat,
        }

    @torch.no_grad()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """strings [[y per image], [z per image]], shape of z, size of x, symbols_crc32 of each; rate_code."""
        padded, size = pad(x, self.stride)
        return {**self.compress_latent(self.analysis(padded)), "size": size}

    @torch.no_grad()
    def compress_latent(self, y: Tensor) -> dict[str, Any]:
        """As `compress` from what `analysis` gave, which is the same at every rate; without the size of x."""
        return {**self.entropy_model.compress(self.modulated(y)), "rate_code": self.rate_code}

    @torch.no_grad()
    def decompress(
        self,
        strings: Sequence[Sequence[bytes]],
        shape: Sequence[int],
        size: tuple[int, int] | None = None,
        symbols_crc32: Sequence[int] | None = None,
        *,
        rate_code: int | None = None,
    ) -> dict[str, Tensor]:
        """x_hat, clipped to [0, 1]; cropped if size is given, checked if the encoder's symbols_crc32 are.

        rate_code: the encoder's, whatever the own one is; UserError if a model of variable rate gets none, or
        one of one rate gets one.
        """
        self.check_rate_code(rate_code)
        y_hat = self.entropy_model.decompress(strings, shape, symbols_crc32)
        rate_codes = None if rate_code is None else [rate_code] * len(y_hat)
        x_hat = self.synthesis(self.demodulated(y_hat, rate_codes)).clamp(0, 1)
        return {"x_hat": crop(x_hat, size) if size else x_hat, "y_hat": y_hat}

    def analysis(self, x: Tensor) -> Tensor:
        """g_a in the chosen precision: x whose sides are multiples of the stride -> y, fp32."""
        with self._precision(x):
            y: Tensor = self.g_a(x.contiguous(memory_format=torch.channels_last))
        return y.float().contiguous()

    def synthesis(self, y_hat: Tensor) -> Tensor:
        """g_s in the chosen precision: y_hat -> x_hat, fp32, not clipped."""
        with self._precision(y_hat):
            x_hat: Tensor = self.g_s(y_hat.contiguous(memory_format=torch.channels_last))
        return x_hat.float()

    def modulated(self, y: Tensor, rate_codes: Sequence[int] | None = None) -> Tensor:
        """What the entropy model sees of y. rate_codes: as for `forward`."""
        if self.rate_control is None:
            return y
        out: Tensor = self.rate_control(y, self._rate_codes(y, rate_codes))
        return out

    def demodulated(self, y_hat: Tensor, rate_codes: Sequence[int] | None = None) -> Tensor:
        """What g_s sees of the entropy model's y_hat. rate_codes: as for `forward`."""
        if self.rate_control is None:
            return y_hat
        out: Tensor = self.rate_control(y_hat, self._rate_codes(y_hat, rate_codes), undo=True)
        return out

    def check_rate_code(self, rate_code: int | None) -> None:
        """UserError unless it is there for a model of variable rate, and for such a one only."""
        if rate_code is None and self.rate_control is not None:
            raise UserError(
                "holds no rate code, and this model has a range of rates; it was coded by another model"
            )
        if rate_code is not None and self.rate_control is None:
            raise UserError(
                f"holds rate code {rate_code}, and this model has one rate; it was coded by another model"
            )

    def encoder_networks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All networks that `compress` runs, without the entropy coder: (y as that sees it, z).

        For timing and counting.
        """
        y = self.modulated(self.analysis(pad(x, self.stride)[0]))
        z: Tensor = self.entropy_model.encoder_networks(y)
        return y, z

    def decoder_networks(self, y_hat: Tensor, z_hat: Tensor) -> Tensor:
        """All networks that `decompress` runs, without the entropy coder: x_hat, clipped but not cropped."""
        self.entropy_model.decoder_networks(z_hat)
        return self.synthesis(self.demodulated(y_hat)).clamp(0, 1)

    def parts(self) -> dict[str, nn.Module]:
        """The named networks; every parameter belongs to exactly one."""
        parts = {"g_a": self.g_a, **self.entropy_model.parts(), "g_s": self.g_s}
        return parts if self.rate_control is None else {**parts, "rate_control": self.rate_control}

    def update(self, force: bool = False, update_quantiles: bool = False) -> bool:
        """Build the coding tables from the weights; needed once after training, before coding."""
        updated: bool = self.entropy_model.update(force=force, update_quantiles=update_quantiles)
        return updated

    def aux_loss(self) -> Tensor:
        """Loss of the quantiles, for their own optimiser."""
        loss: Tensor = self.entropy_model.aux_loss()
        return loss

    @property
    def has_tables(self) -> bool:
        """Whether `update` has been called, or tables were loaded."""
        return all(t.numel() > 0 for name, t in self.named_buffers() if self.is_table(name))

    @staticmethod
    def is_table(key: str) -> bool:
        """Whether this entry of the state dict is a coding table, whose size depends on the weights."""
        return key.rpartition(".")[2] in TABLE_NAMES

    def z_hw(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Size of z for an image, as `decompress` needs it."""
        return latent_hw(height_px, width_px, stride=self.stride)

    @staticmethod
    def is_addition(key: str) -> bool:
        """Whether this entry of the state dict belongs to a gate or to rate control.

        These start as the identity, so that weights of a model without them are a start for one with them.
        """
        return ".channel_gate." in key or key.startswith("rate_control.")

    def gate_parameters(self) -> dict[str, nn.Parameter]:
        """The factors of all gates' thresholds, by name: (channels of its layer,) each."""
        return {name: p for name, p in self.named_parameters() if name.endswith(".channel_gate.alpha")}

    def gate_penalty(self) -> Tensor | None:
        """What the gates' thresholds add to the loss (Yin et al., ICASSP 2022); None if none is learned.

        The mean over the channels of each layer, so that gamma means the same at every width.
        """
        alphas = self.gate_parameters().values()
        if not alphas:
            return None
        target, gamma = self.spec.gating.alpha_target, self.spec.gating.gamma
        return gamma * torch.stack([(alpha - target).square().mean() for alpha in alphas]).sum()

    def quantile_parameters(self) -> list[nn.Parameter]:
        """What the auxiliary optimiser trains; the main one trains all other parameters."""
        return [p for name, p in self.named_parameters() if name.endswith(".quantiles")]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in torch; coding tables take the size of the saved ones, which is not known before."""
        for key, own in dict(self.named_buffers()).items():
            if self.is_table(key) and key in state_dict and own.shape != state_dict[key].shape:
                module, _, table = key.rpartition(".")
                empty = torch.empty(state_dict[key].shape, dtype=own.dtype, device=own.device)
                setattr(self.get_submodule(module), table, empty)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _rate_codes(self, latent: Tensor, given: Sequence[int] | None) -> Sequence[int]:
        assert self.rate_code is not None, "a model of variable rate has a rate from its birth"
        return [self.rate_code] * len(latent) if given is None else given

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        if self._transform_precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, dtype=torch.bfloat16)


def build(spec: ModelSpec) -> Codec:
    """A codec with fresh weights, drawn from torch's global generator."""
    return Codec(spec)
