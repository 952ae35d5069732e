"""The file of a wanted size: a search over the rate codes of a model of variable rate, each really coded.

Sizes rise with the code, but not from each code to the next: the search keeps the best file that it has seen.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from rdc.bitstream import MAX_RATE_CODE, encode_image, require_size, stream_of, to_bytes
from rdc.errors import UserError
from rdc.models.codec import Codec, pad

TOLERANCE = 0.02  # of the wanted size, within which a file is what was asked for
NEAR_ENOUGH = 0.002  # where the search stops
NEIGHBOURS = 4  # codes on each side that are tried where bisection found nothing


@dataclasses.dataclass(frozen=True)
class Rate:
    """What a user asks for by an option of `compress`; nothing: the rate that the codec is set to."""

    lmbda: float | None = None
    target_bpp: float | None = None
    target_bytes: int | None = None

    def __post_init__(self) -> None:
        for option, value in self._asked().items():
            if not 0 < value < math.inf:
                raise UserError(f"{option} {value}: must be a number greater than 0")

    def check(self, codec: Codec, trained_lmbda: float | None, *, name: str) -> None:
        """UserError if a model of one rate, in the file `name`, is asked for another."""
        if codec.rate_code is None and self._asked():
            own = "" if trained_lmbda is None else f", that of lmbda {trained_lmbda:g}"
            raise UserError(
                f"{next(iter(self._asked()))}: {name} codes at one rate{own}; leave the option out, or train "
                "a model with rate_control=modulator"
            )

    def encode(self, codec: Codec, x: Tensor, model_hash: bytes) -> bytes:
        """The file of x, (1, 3, H, W) in [0, 1]; UserError where the rate is not to be had."""
        if self.target_bpp is not None:
            return encode_to_size(codec, x, model_hash, self.target_bpp * x.shape[-2] * x.shape[-1] / 8)
        if self.target_bytes is not None:
            return encode_to_size(codec, x, model_hash, self.target_bytes, at_most=True)
        if self.lmbda is not None:
            codec.set_lmbda(self.lmbda)
        return encode_image(codec, x, model_hash)

    def _asked(self) -> dict[str, float]:
        values = {f"--{key.replace('_', '-')}": value for key, value in vars(self).items()}
        return {option: value for option, value in values.items() if value is not None}


@torch.no_grad()
def encode_to_size(
    codec: Codec, x: Tensor, model_hash: bytes, wanted_bytes: float, *, at_most: bool = False
) -> bytes:
    """The bytes of a file within TOLERANCE of the wanted size. x: (1, 3, H, W) in [0, 1].

    at_most: and not larger. The codec, one of variable rate, is left at the file's rate. UserError where no
    file has that size: it tells the sizes that there are.
    """
    search = _Search(codec, x, model_hash, wanted_bytes, at_most=at_most)
    ends = (0, MAX_RATE_CODE)
    search.try_codes(*ends)
    under, over = sorted(ends, key=search.size)
    if search.size(under) <= wanted_bytes < search.size(over):
        while abs(over - under) > 1 and not search.misses_by_at_most(NEAR_ENOUGH):
            middle = (under + over) // 2
            search.try_codes(middle)
            under, over = (middle, over) if search.size(middle) <= wanted_bytes else (under, middle)
        if not search.misses_by_at_most(TOLERANCE):
            search.try_codes(*range(max(0, under - NEIGHBOURS), min(MAX_RATE_CODE, under + NEIGHBOURS) + 1))
    if not search.misses_by_at_most(TOLERANCE):
        raise UserError(search.complaint())
    assert search.best is not None, "a file that misses by little is there"
    codec.rate_code, data = search.best
    return data


class _Search:
    """What has been coded so far. best: (code, file) of the nearest permitted size, None if there is none."""

    def __init__(
        self, codec: Codec, x: Tensor, model_hash: bytes, wanted_bytes: float, *, at_most: bool
    ) -> None:
        height, width = x.shape[-2:]
        require_size(height, width)
        self.best: tuple[int, bytes] | None = None
        self._codec = codec
        self._hash = model_hash
        self._wanted = wanted_bytes
        self._at_most = at_most
        self._sizes: dict[int, int] = {}
        self._px = (height, width)
        self._y = codec.analysis(pad(x, codec.stride)[0])  # the same at every rate

    def try_codes(self, *codes: int) -> None:
        for code in codes:
            if code in self._sizes:
                continue
            self._codec.rate_code = code
            data = to_bytes(stream_of(self._codec.compress_latent(self._y), self._px, self._hash))
            self._sizes[code] = len(data)
            if self._miss(len(data)) < self._best_miss():
                self.best = (code, data)

    def size(self, code: int) -> int:
        """Bytes of the file at a code that has been tried."""
        return self._sizes[code]

    def misses_by_at_most(self, share: float) -> bool:
        return self._best_miss() <= share * self._wanted

    def complaint(self) -> str:
        """Why nothing that was tried will do, and what is to be had."""
        lmbdas = self._codec.spec.rate_control.lmbdas
        wanted = self._in_words(self._wanted)
        smallest, largest = sorted((self.size(0), self.size(MAX_RATE_CODE)))
        if smallest <= self._wanted <= largest:
            by_distance = sorted(set(self._sizes.values()), key=lambda size: abs(size - self._wanted))
            near = " or ".join(map(self._in_words, sorted(by_distance[:2])))
            return f"{wanted}: no file of this image comes within {TOLERANCE:.0%}; ask for {near}"
        return (
            f"{wanted}: with lmbda from {lmbdas[0]:g} to {lmbdas[-1]:g} this model codes this image to "
            f"{self._in_words(smallest)} up to {self._in_words(largest)}; ask for a size between them, or "
            "use a model of other rates"
        )

    def _best_miss(self) -> float:
        return float("inf") if self.best is None else self._miss(len(self.best[1]))

    def _miss(self, size: int) -> float:
        """Bytes beside the wanted size, infinitely many for what is not permitted."""
        return float("inf") if self._at_most and size > self._wanted else abs(size - self._wanted)

    def _in_words(self, size: float) -> str:
        return f"{size:.0f} bytes ({8 * size / (self._px[0] * self._px[1]):.4g} bpp)"
