"""Symbols to bytes and back, and the tables that make it cheap."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models.base import get_scale_table
from hypothesis import given, settings
from hypothesis import strategies as st

from rdc.errors import UserError
from rdc.models.entropy_model.mean_scale_hyperprior import MeanScaleHyperprior
from rdc.models.layers import coding
from rdc.models.layers.gaussian import gaussian_likelihood
from tests.rdc.shared import gaussian_tables


def entropy_model(indexing: str = "nearest", z_channels: int = 3) -> MeanScaleHyperprior:
    return MeanScaleHyperprior(
        torch.nn.Identity(),
        torch.nn.Identity(),
        z_channels,
        latent_channels=3,
        quantiser="noise",
        indexing=indexing,  # type: ignore[arg-type]
        prior_filters=(3, 3),
    )


SYMBOL = st.one_of(st.integers(-3, 3), st.integers(-3000, 3000), st.integers(-(2**24) + 1, 2**24 - 1))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SYMBOL, st.integers(0, coding.SCALE_LEVELS - 1)), max_size=40))
def test_every_sequence_of_symbols_comes_back(pairs: list[tuple[int, int]]) -> None:
    """From none at all (the coder itself aborts on one symbol) to escapes far outside of the tables."""
    symbols = np.array([s for s, _ in pairs], dtype=np.int32)
    rows = np.array([r for _, r in pairs], dtype=np.int32)
    data = coding.encode(symbols, rows, gaussian_tables())
    assert len(data) <= longest_stream(len(pairs))
    assert np.array_equal(coding.decode(data, rows, gaussian_tables()), symbols)


def longest_stream(count: int) -> int:
    """A word of 16 bits, an escape of 8 pieces of 4: 52 bits. The coder's loss and its state come on top."""
    return 8 * max(count, 4) + 8


FORGED = """
import numpy as np
from rdc.errors import UserError
from rdc.lean_import import lean_compressai
from rdc.models.layers import coding

lean_compressai()
count = 150_000
size = 8 * count + 8
rows = np.zeros(count, np.int32)
for cdf in [0, 65535, 65536], [0, 1, 65536]:  # the escape is the last entry: rare, likely
    tables = coding.Tables([cdf], [3], [0])
    for data in (
        b"\\xff" * size,
        bytes(size),
        (15).to_bytes(4, "little") * (size // 4),  # a state that takes in one word for each piece
        np.random.default_rng(0).bytes(size),
    ):
        for start in (0, 4):  # other states of the coder at the end
            assert coding.decode(data[start:], rows, tables).shape == (count,)
        try:
            coding.decode(data + data[:1], rows, tables)
        except UserError as error:
            print(error)
"""


def test_a_forged_stream_decodes_to_something_and_no_worse() -> None:
    """Megabytes that ask for a multiple of themselves, in a process that a wild read would end."""
    done = subprocess.run([sys.executable, "-c", FORGED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused = (
        "a stream of 1200009 bytes holds 150000 symbols, which take at most 1200008: "
        "the file is forged or damaged; get it again"
    )
    assert done.stdout.splitlines() == 8 * [refused]


@pytest.mark.parametrize("data", [b"", b"\0" * 4, b"\xff" * 40, bytes(range(40))])
def test_a_short_forged_stream_decodes_too(data: bytes) -> None:
    for shape in [(0,), (1,), (50, 40)]:
        assert coding.decode(data, np.full(shape, 63, dtype=np.int32), gaussian_tables()).shape == shape


def test_a_stream_too_long_for_its_symbols_is_refused() -> None:
    with pytest.raises(UserError, match=r"4000000 bytes holds 16 symbols, which take at most 136"):
        coding.decode(b"\xff" * 4_000_000, np.zeros((4, 4), np.int32), gaussian_tables())


def forced_reads(data: bytes, cdfs: list[list[int]], picks: list[int]) -> int:
    """The slow definition: bytes that the coder takes in, following its specification bit by bit."""
    words = itertools.chain((w for (w,) in struct.iter_unpack("<I", data)), itertools.repeat(0))
    state, taken = next(words) | next(words) << 32, 2

    def refill(state: int) -> int:
        nonlocal taken
        if state >= 2**31:
            return state
        taken += 1
        return state << 32 | next(words)

    for pick in picks:
        cdf, low = cdfs[pick], state & 0xFFFF
        symbol = next(i for i, edge in enumerate(cdf[1:]) if edge > low)
        state = refill((cdf[symbol + 1] - cdf[symbol]) * (state >> 16) + low - cdf[symbol])
        if symbol == len(cdf) - 2:
            pieces, piece = 0, 15
            while piece == 15:
                piece = state & 15
                state, pieces = refill(state >> 4), pieces + piece
            for _ in range(pieces):
                state = refill(state >> 4)
    return 4 * taken


@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(
        st.sampled_from([0, 15, 2**32 - 1, 2**31, 2**28 - 1]) | st.integers(0, 2**32 - 1),
        min_size=2,
        max_size=20,
    ),
    escape=st.sampled_from([1, 256, 257, 2**15, 65535]),
    count=st.integers(20, 60),
)
def test_the_slack_covers_what_a_forged_stream_reads(words: list[int], escape: int, count: int) -> None:
    data = struct.pack(f"<{len(words)}I", *words)
    cdf = [0, 65536 - escape, 65536]
    tables = coding.Tables([cdf], [3], [0])
    assert forced_reads(data, [cdf], [0] * count) <= len(coding.with_slack(data, count, tables))


@pytest.mark.parametrize("indexing", ["nearest", "ceil"])
def test_rows_equal_the_slow_search(indexing: str) -> None:
    torch.manual_seed(0)
    model = entropy_model(indexing)
    model.update()
    levels = model.gaussian_conditional.scale_table
    scales = torch.cat([torch.rand(500), 300 * torch.rand(500), levels, torch.tensor([0.0, -1.0, 1e9])])
    rows = torch.from_numpy(model.rows(scales))
    if indexing == "ceil":
        expected = model.gaussian_conditional.build_indexes(scales)
    else:
        expected = (scales.clamp_min(0.11).log()[:, None] - levels.log()).abs().argmin(1)
    assert torch.equal(rows.long(), expected.long())
    assert rows[1000:1064].tolist() == list(range(64)), "a scale that is a level must get that level"


@pytest.mark.parametrize(("indexing", "bound_pct"), [("nearest", 0.5), ("ceil", 1.5)])
def test_coded_bits_stay_close_to_the_estimate(indexing: str, bound_pct: float) -> None:
    """Latents drawn from the model's own Gaussians, scales over the whole table."""
    torch.manual_seed(0)
    model = entropy_model(indexing).eval()
    model.update()
    scale = torch.exp(torch.empty(1, 64, 48, 48).uniform_(np.log(0.12), np.log(60)))
    mean = torch.randn_like(scale)
    y = mean + scale * torch.randn_like(scale)
    y_hat = torch.round(y - mean) + mean
    estimated = -torch.log2(model._likelihood_y(y_hat, mean, scale)).sum().item()
    symbols = coding.to_symbols(torch.round(y - mean))
    data = coding.encode(symbols, model.rows(scale), coding.tables_of(model.gaussian_conditional))
    excess_pct = 100 * (8 * len(data) / estimated - 1)
    assert -0.05 < excess_pct < bound_pct


def test_nearest_costs_less_than_ceil() -> None:
    torch.manual_seed(0)
    scale = torch.exp(torch.empty(100_000).uniform_(np.log(0.12), np.log(20)))
    symbols = torch.round(scale * torch.randn_like(scale)).to(torch.int32).numpy()
    sizes = {}
    for indexing in ("nearest", "ceil"):
        model = entropy_model(indexing)
        sizes[indexing] = len(coding.encode(symbols, model.rows(scale), gaussian_tables()))
    assert sizes["nearest"] < sizes["ceil"]


def test_quantiles_are_where_the_prior_has_them() -> None:
    torch.manual_seed(0)
    prior = EntropyBottleneck(16, filters=(3, 3))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    assert prior.loss().item() > 10
    coding.fit_quantiles(prior)
    # The auxiliary loss is the distance of the three logits from their targets, summed: zero when exact.
    assert prior.loss().item() < 1e-2
    fitted = prior.quantiles.detach().clone()
    prior.update(force=True, update_quantiles=True)
    assert torch.allclose(fitted, prior.quantiles, rtol=1e-3, atol=2e-3)  # CompressAI's own search


def test_extreme_priors_stay_fast_and_exact() -> None:
    """One channel nearly flat, one nearly a step, one centred far away: small tables, exact symbols."""
    torch.manual_seed(0)
    model = entropy_model(z_channels=3)
    prior = model.entropy_bottleneck
    with torch.no_grad():
        prior.matrices[0][0].fill_(-12.0)
        prior.matrices[0][1].fill_(200.0)
        prior.biases[-1][2].fill_(-3000.0)
    started = time.process_time()
    model.update(force=True, update_quantiles=True)
    assert time.process_time() - started < 5
    median = prior.quantiles[:, 0, 1]
    assert (prior.quantiles[:, 0] - median[:, None]).abs().max() <= coding.MAX_PRIOR_REACH
    assert median[2] > 100
    symbols = np.random.default_rng(0).integers(-5000, 5000, (3, 20, 20)).astype(np.int32)
    symbols[1:] //= 1000
    rows = model._z_rows(symbols.shape)
    tables = coding.tables_of(prior)
    assert np.array_equal(coding.decode(coding.encode(symbols, rows, tables), rows, tables), symbols)


def test_a_diverged_prior_is_refused() -> None:
    model = entropy_model()
    with torch.no_grad():
        model.entropy_bottleneck.biases[0][0] = torch.nan
    with pytest.raises(UserError, match="prior of z holds values that are not finite"):
        model.update(force=True, update_quantiles=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 2.0**25])
def test_a_diverged_latent_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="not finite or beyond 16777216: the model has diverged"):
        coding.to_symbols(torch.tensor([0.0, value]))


def test_coding_without_tables_says_what_to_call() -> None:
    with pytest.raises(UserError, match=r"no coding tables yet: call update\(\)"):
        coding.tables_of(GaussianConditional(None))


def test_tables_follow_the_model() -> None:
    """The handed-over form is kept, but never beyond a change of the weights."""
    prior = EntropyBottleneck(2, filters=(3, 3))
    prior.update()
    first = coding.tables_of(prior)
    assert coding.tables_of(prior) is first
    with torch.no_grad():
        prior.biases[-1].add_(0.4)
    prior.update(force=True, update_quantiles=True)
    second = coding.tables_of(prior)
    assert second.cdfs != first.cdfs
    with torch.no_grad():
        prior._quantized_cdf[:, 1] += 1
    assert coding.tables_of(prior).cdfs != second.cdfs


def test_gaussian_tables_are_compressais() -> None:
    expected = GaussianConditional(None)
    expected.update_scale_table(get_scale_table())
    got = GaussianConditional(None)
    assert coding.update_gaussian(got, force=False)
    assert not coding.update_gaussian(got, force=False), "an up-to-date table is not rebuilt"
    for name in ("scale_table", "_quantized_cdf", "_cdf_length", "_offset"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name


def test_checksum_sees_every_array_and_order() -> None:
    a, b = np.arange(5, dtype=np.int32), np.arange(5, dtype=np.uint8)[::-1]
    assert coding.checksum(a, b) != coding.checksum(b, a)
    assert coding.checksum(a) == coding.checksum(a.astype(np.int64))


def test_the_estimate_follows_the_coder_where_predictions_are_bad() -> None:
    """Residuals with heavy tails under Gaussians that know nothing of them, as after a short training."""
    generator = np.random.default_rng(0)
    scale = torch.from_numpy(np.exp(generator.uniform(np.log(0.2), np.log(4), 200_000))).float()
    symbols = np.rint(scale.numpy() * generator.standard_t(2, scale.shape)).astype(np.int32)
    levels = torch.tensor(coding.scale_levels())
    rows = torch.bucketize(scale, (levels[:-1] * levels[1:]).sqrt()).int().numpy()
    likelihood = gaussian_likelihood(
        torch.from_numpy(symbols).float(), torch.zeros(()), levels[rows], scale_min=0.11, floor=1e-9
    )
    written = 8 * len(coding.encode(symbols, rows, gaussian_tables()))
    assert coding.estimated_bits({"y": likelihood}) == pytest.approx(written, rel=0.006)
    assert float(-likelihood.log2().sum()) > 1.03 * written, "these tails are not heavy enough to matter"
