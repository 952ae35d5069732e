"""Integer symbols <-> bytes with CompressAI's rANS coder, and the tables it needs.

Tables are built by CompressAI's own `update`; here they are only fitted, bounded, cached and handed over.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rdc.errors import UserError

SCALE_MIN, SCALE_MAX, SCALE_LEVELS = 0.11, 256.0, 64  # standard deviations the coder distinguishes
LIKELIHOOD_FLOOR = 1e-9
TABLE_BITS = 16.0  # frequencies are whole multiples of 2^-16, so no entry of a table costs more
ESCAPE_BITS = 24.0  # the escape's entry, 4 bits that say how many pieces of 4 follow, mostly one
# CompressAI's encoder reserves one word per symbol, but may write two words more than half the symbols:
# under four symbols it writes before its buffer.
MIN_SYMBOLS = 4
MAX_SYMBOL = 2**24  # beyond it fp32 cannot hold y_hat exactly; only a diverged model comes here
# A prior wider than this many symbols on one side of its median is cut; the rest uses the coder's escape.
# Tables have 16-bit frequencies, so each entry costs at least 1/65536.
MAX_PRIOR_REACH = 1024
_UNUSED_CDF = [0, 2**16]
# Bits of a symbol at most: 16 for its table, then an escape of 4 to say how many pieces of 4 follow, and 7.
MAX_SYMBOL_BYTES = 8
FINAL_STATE_BYTES = 8


class Tables(NamedTuple):
    """One cumulative table per row, without padding; a symbol s is stored as s - offset."""

    cdfs: list[list[int]]
    lengths: list[int]
    offsets: list[int]


def encode(symbols: np.ndarray, rows: np.ndarray, tables: Tables) -> bytes:
    """symbols, rows: integers of equal shape, read in C order; rows picks each symbol's table."""
    from compressai.ans import RansEncoder

    values, picks = symbols.ravel().tolist(), rows.ravel().tolist()
    padding = [0] * max(0, MIN_SYMBOLS - len(values))
    coded: bytes = RansEncoder().encode_with_indexes(values + padding, picks + padding, *tables)
    return coded


def estimated_bits(likelihoods: Mapping[str, Tensor]) -> float:
    """Bits that `encode` writes for symbols with these likelihoods, estimated; summed over all latents.

    -log2 likelihood, but where the coder cannot follow the model: no entry of its tables costs more than
    TABLE_BITS, and a symbol beyond its table, where the likelihood is at LIKELIHOOD_FLOOR or 30 bits, costs
    about ESCAPE_BITS.
    """
    total = 0.0
    for likelihood in likelihoods.values():
        inside = (-likelihood.float().log2()).clamp_max(TABLE_BITS)
        total += float(torch.where(likelihood > LIKELIHOOD_FLOOR, inside, ESCAPE_BITS).sum())
    return total


def decode(data: bytes, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """Inverse of `encode`: int32 symbols in the shape of rows."""
    from compressai.ans import RansDecoder

    values = RansDecoder().decode_with_indexes(
        with_slack(data, rows.size, tables), rows.ravel().tolist(), *tables
    )
    return np.asarray(values, dtype=np.int32).reshape(rows.shape)


class StreamDecoder:
    """`decode` in steps, for models in which the rows of later symbols depend on earlier symbols.

    data: what `encode` gave for the symbols of all steps, concatenated in the order of decoding.
    count: how many symbols that were.
    """

    def __init__(self, data: bytes, count: int, tables: Tables) -> None:
        from compressai.ans import RansDecoder

        self._decoder = RansDecoder()
        self._decoder.set_stream(with_slack(data, count, tables))
        self._tables = tables
        self._left = count

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols, read in C order: int32 in the shape of rows, which pick their tables."""
        assert rows.size <= self._left, f"{rows.size} symbols asked for, {self._left} are left in the stream"
        self._left -= rows.size
        picks = rows.ravel()
        values = self._decoder.decode_stream(picks.tolist(), *_only_used(self._tables, picks))
        return np.asarray(values, dtype=np.int32).reshape(rows.shape)


def _only_used(tables: Tables, picks: np.ndarray) -> Tables:
    """The same rows, with an empty distribution for those that no pick needs.

    Every call of the coder converts all tables from lists, which costs more than a small step's symbols.
    """
    used = np.bincount(picks, minlength=len(tables.cdfs)).tolist()
    cdfs = [cdf if n else _UNUSED_CDF for n, cdf in zip(used, tables.cdfs, strict=True)]
    lengths = [length if n else len(_UNUSED_CDF) for n, length in zip(used, tables.lengths, strict=True)]
    return Tables(cdfs, lengths, tables.offsets)


def with_slack(data: bytes, count: int, tables: Tables) -> bytes:
    """data and the zeros that keep a forged stream of `count` symbols from reading foreign memory.

    The decoder does not know where its input ends. An escape counts its pieces of 4 bits in unary: 4 bits of
    data, all ones, ask for 15 pieces more, so data can ask for 15 times its own size; hence a stream longer
    than any that `encode` writes is refused first. Beyond the data every word is zero, and a count ends
    within the 8 pieces that the decoder's state holds: at most 134 pieces, or 74 bytes with the symbol.
    Where escapes are rare, the state can hold few of such length: its 63 bits and the choice among 64 tables
    for each symbol do not buy more than one in seven symbols, 12 bytes on average.
    """
    coded = max(count, MIN_SYMBOLS)
    longest = MAX_SYMBOL_BYTES * coded + FINAL_STATE_BYTES
    if len(data) > longest:
        raise UserError(
            f"a stream of {len(data)} bytes holds {count} symbols, which take at most {longest}: "
            "the file is forged or damaged; get it again"
        )
    escapes_are_rare = all(cdf[-1] - cdf[-2] <= 2**8 for cdf in tables.cdfs)
    return data.ljust(16 * len(data) + (16 if escapes_are_rare else 80) * coded + 1024, b"\0")


def tables_of(model: Any) -> Tables:
    """The coder's tables of a CompressAI entropy model, cut to their real lengths; kept until they change."""
    cdf = model._quantized_cdf
    if cdf.numel() == 0:
        raise UserError("the codec has no coding tables yet: call update() before compress or decompress")
    kept = model.__dict__.get("_rdc_tables")
    if kept is None or kept[0] is not cdf or kept[1] != cdf._version:
        lengths, offsets = (t.reshape(-1).tolist() for t in (model._cdf_length, model._offset))
        cdfs = [row[:length] for row, length in zip(cdf.tolist(), lengths, strict=True)]
        kept = model.__dict__["_rdc_tables"] = (cdf, cdf._version, Tables(cdfs, lengths, offsets))
    tables: Tables = kept[2]
    return tables


def to_symbols(residual: Tensor) -> np.ndarray:
    """Rounded values -> int32 array, refusing what a diverged model produces."""
    values = residual.detach().cpu()
    if not bool((values.abs() < MAX_SYMBOL).all()):  # also true for NaN
        raise UserError(
            f"the latent holds values that are not finite or beyond {MAX_SYMBOL}: the model has diverged; "
            "use an earlier checkpoint or train with a lower learning rate"
        )
    return values.to(torch.int32).contiguous().numpy()


def checksum(*arrays: np.ndarray) -> int:
    """CRC-32 over integer arrays as little-endian int32 in C order."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array, dtype="<i4").tobytes(), crc)
    return crc


@functools.cache
def scale_levels() -> tuple[float, ...]:
    """Log-spaced standard deviations of the Gaussian tables, computed as CompressAI does."""
    return tuple(torch.exp(torch.linspace(math.log(SCALE_MIN), math.log(SCALE_MAX), SCALE_LEVELS)).tolist())


@functools.cache
def scale_bounds(indexing: str) -> Tensor:
    """Where one Gaussian table ends and the next begins: fp32, for torch.bucketize of scales.

    indexing: nearest (in log scale) or ceil (the next larger level).
    """
    levels = torch.tensor(scale_levels(), dtype=torch.float64)
    return (levels[:-1] if indexing == "ceil" else (levels[:-1] * levels[1:]).sqrt()).float()


@functools.cache
def _gaussian_tables() -> dict[str, Tensor]:
    from compressai.entropy_models import GaussianConditional

    model = GaussianConditional(None)
    model.update_scale_table(list(scale_levels()))
    return {
        name: getattr(model, name) for name in ("scale_table", "_quantized_cdf", "_cdf_length", "_offset")
    }


def update_gaussian(model: Any, *, force: bool) -> bool:
    """Fill a GaussianConditional's tables; they depend on the levels alone and are made once per process."""
    if model._offset.numel() > 0 and not force:
        return False
    device = model.scale_bound.device
    for name, table in _gaussian_tables().items():
        setattr(model, name, table.clone().to(device))
    return True


def fit_quantiles(prior: Any) -> None:
    """Set an EntropyBottleneck's quantiles to those of its distribution, exactly, by bisection in fp64.

    The auxiliary loss approaches the same values slowly. Reaches of more than MAX_PRIOR_REACH are cut.
    """
    target = prior.target.double()
    parameters = {name: p.detach().double() for name, p in prior.named_parameters()}
    low = torch.full((prior.channels, 1, len(target)), -1e6, dtype=torch.float64, device=target.device)
    high = -low
    for _ in range(60):  # 2e6 / 2^60 is below fp64's resolution of the answer
        middle = (low + high) / 2
        below = _logits(parameters, middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    quantiles = (low + high) / 2
    median = quantiles[..., 1:2]
    bounded = torch.clamp(quantiles, median - MAX_PRIOR_REACH, median + MAX_PRIOR_REACH)
    if not all(bool(p.isfinite().all()) for p in parameters.values()):
        raise UserError("the prior of z holds values that are not finite: the model has diverged")
    with torch.no_grad():
        prior.quantiles.copy_(bounded)


def _logits(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """EntropyBottleneck's cumulative logits in the precision of its arguments; x: (channels, 1, n)."""
    depth = sum(name.startswith("matrices.") for name in parameters)
    for i in range(depth):
        x = torch.nn.functional.softplus(parameters[f"matrices.{i}"]) @ x + parameters[f"biases.{i}"]
        if f"factors.{i}" in parameters:
            x = x + torch.tanh(parameters[f"factors.{i}"]) * torch.tanh(x)
    return x


_reproducible: ContextVar[bool] = ContextVar("reproducible", default=False)


@contextmanager
def reproducible() -> Iterator[None]:
    """fp32, without TF32 or autotuning: for what encoder and decoder must both compute alike."""
    of_products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    token = _reproducible.set(True)
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            torch.autocast("cuda", enabled=False),
            torch.autocast("cpu", enabled=False),
        ):
            yield
    finally:
        _reproducible.reset(token)
        torch.set_float32_matmul_precision(of_products)


def exact() -> AbstractContextManager[None]:
    """One thread inside `reproducible`, whatever the module's mode; as many as there are elsewhere.

    For layers whose CPU kernels add in an order that depends on the number of threads. Measured with torch
    2.15 at published widths: 1x1 and transposed convolutions, linear layers, and the 3x3 convolution of a
    small chessboard do at some sizes. 3x3 and 5x5 convolutions of slices and groups, where the work is, gave
    the same sums with 1 to 4 threads at every size tried.
    """
    return one_thread() if _reproducible.get() else nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """For products of few rows, beside `reproducible`.

    MKL chooses its kernel by the rows that each thread gets, and its kernels do not add in the same order:
    two threads gave other sums than one for 5, 6, 7, 9, 10 and 11 rows, whatever the other sides.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
