"""One model for a range of rates: codes, factors, streams."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdc import zoo
from rdc.bitstream import MAX_RATE_CODE, decode_image, encode_image, from_bytes, to_bytes
from rdc.checkpoint import load_model, model_hash, save_model
from rdc.complexity import measure
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.models.layers.wavelet import start_as_wavelet
from rdc.models.rate_control.modulator import Params
from rdc.spec import COMPONENT_GROUPS, component_names, parse_model
from tests.rdc.shared import TINY_MODEL, legal_combinations
from tests.rdc.variable_rate import MODULATOR, louder, restless, tiny

CODES = st.integers(0, MAX_RATE_CODE)
DEFAULTS = Params()
RANGES = st.tuples(st.floats(1e-4, 1.0), st.floats(1.5, 1e4)).map(
    lambda drawn: Params(lmbdas=(drawn[0], drawn[0] * drawn[1]))
)


def image(height_px: int = 70, width_px: int = 90, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height_px, width_px, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------------- codes and lmbdas


def test_the_default_lmbdas_are_those_of_the_zoo() -> None:
    assert DEFAULTS.lmbdas == zoo.LMBDAS


@settings(deadline=None)
@given(RANGES, CODES)
@example(DEFAULTS, 0)
@example(DEFAULTS, MAX_RATE_CODE)
def test_a_code_comes_back_from_its_lmbda(params: Params, code: int) -> None:
    lmbda = params.lmbda_of(code)
    assert params.lmbdas[0] <= lmbda <= params.lmbdas[-1]
    assert params.code_of(lmbda) == code


@settings(deadline=None)
@given(RANGES, st.floats(0, 1))
def test_the_nearest_code_is_taken(params: Params, share: float) -> None:
    lowest, highest = params.lmbdas
    lmbda = min(highest, lowest * (highest / lowest) ** share)
    step = math.log(highest / lowest) / MAX_RATE_CODE
    missed = abs(math.log(params.lmbda_of(params.code_of(lmbda)) / lmbda))
    assert missed <= (0.5 + 1e-6) * step + 1e-12


def test_codes_rise_with_lmbda_and_end_where_the_range_ends() -> None:
    lmbdas = [DEFAULTS.lmbda_of(code) for code in range(MAX_RATE_CODE + 1)]
    assert all(low < high for low, high in itertools.pairwise(lmbdas))
    assert (lmbdas[0], lmbdas[-1]) == (0.0018, 0.18)
    # 0.07 * (0.3 / 0.07) rounds to more than 0.3.
    rounded = Params(lmbdas=(0.07, 0.3))
    assert rounded.code_of(rounded.lmbda_of(MAX_RATE_CODE)) == MAX_RATE_CODE
    # Half way in logarithm: sqrt(0.0018 * 0.18) = 0.018, between the two middle codes.
    assert lmbdas[MAX_RATE_CODE // 2] < 0.018 < lmbdas[MAX_RATE_CODE // 2 + 1]
    codes = [DEFAULTS.code_of(lmbda) for lmbda in DEFAULTS.lmbdas]
    assert codes[0] == 0
    assert codes[-1] == MAX_RATE_CODE
    assert codes == sorted(codes)


@pytest.mark.parametrize("lmbda", [0.0017, 0.19, 0.0, -1.0, math.nan, math.inf])
def test_an_lmbda_outside_of_the_range_is_refused(lmbda: float) -> None:
    with pytest.raises(UserError, match=r"lmbda=\S+: lies outside of the range .* 0\.0018 to 0\.18; choose"):
        DEFAULTS.code_of(lmbda)


@pytest.mark.parametrize("code", [-1, MAX_RATE_CODE + 1])
def test_a_code_that_no_file_can_hold_is_refused(code: int) -> None:
    with pytest.raises(UserError, match=rf"rate code {code}: must lie in 0\.\.65535"):
        DEFAULTS.lmbda_of(code)
    with pytest.raises(UserError, match=r"must lie in 0\.\.65535"):
        dataclasses.replace(from_bytes(encode_image(tiny(), image(), bytes(8))), rate_code=code)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmbdas": []}, r"rate_control.lmbdas=\[\]: needs at least two"),
        ({"lmbdas": [0.01]}, r"rate_control.lmbdas=\[0.01\]: needs at least two.*use rate_control=none"),
        (
            {"lmbdas": [0.02, 0.01]},
            r"lmbdas=\[0.02, 0.01\]: needs .* in rising order and each once",
        ),
        (
            {"lmbdas": [0.01, 0.01]},
            r"lmbdas=\[0.01, 0.01\]: needs .* in rising order and each once",
        ),
        ({"lmbdas": [0.0, 0.01]}, r"rate_control.lmbdas=0.0: must be greater than 0"),
        ({"lmbdas": [-0.1, 0.01]}, r"rate_control.lmbdas=-0.1: must be greater than 0"),
        ({"lmbdas": [0.01, math.inf]}, r"rate_control.lmbdas=inf: must be a finite number"),
        ({"lmbdas": [math.nan, 0.01]}, r"rate_control.lmbdas=nan: must be a finite number"),
        ({"lmbdas": ["a", 0.01]}, r"rate_control.lmbdas.0='a'"),
        ({"hidden": 0}, r"rate_control.hidden=0: must be at least 1"),
        ({"inverse": "none"}, r"rate_control.inverse='none': input should be 'learned' or 'reciprocal'"),
        ({"per": "pixel"}, r"rate_control.per='pixel': input should be 'channel' or 'scalar'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_model(TINY_MODEL | {"rate_control": MODULATOR | changes})
    assert "\n" not in str(caught.value)


def test_a_trial_outside_of_its_models_range_is_refused(make_trial: Any) -> None:
    make_trial(model={"rate_control": MODULATOR}, lmbda=0.18)
    with pytest.raises(UserError, match=r"lmbda=0.2: lies outside of the range .* 0\.0018 to 0\.18"):
        make_trial(model={"rate_control": MODULATOR}, lmbda=0.2)


# --------------------------------------------------------------------------------- the start is no change


def every_network() -> dict[str, dict[str, Any]]:
    """Every entropy model with the plainest transforms, and all transforms with the plainest of these."""
    depth = {"channels": [8, 12, 16], "latent_channels": 20, "layers": [1, 0, 2]}
    found = {}
    for name, config in legal_combinations(depth).items():
        transform, entropy_model, hyper_transform, *added = [config[g]["name"] for g in COMPONENT_GROUPS]
        plain = (transform, hyper_transform) == ("conv", "conv") or entropy_model == "mean_scale_hyperprior"
        if added == ["none", "none"] and (plain or transform == "cheng2020"):
            found[name] = config
    return found


@pytest.mark.parametrize("config", every_network().values(), ids=every_network())
def test_a_fresh_modulator_changes_no_bit(config: dict[str, Any]) -> None:
    """The same seed gives the same weights, noise, symbols, bytes and pixels, and draws on from one place."""
    outcomes = []
    for rate_control in ({"name": "none"}, MODULATOR):
        torch.manual_seed(5)
        codec = build(parse_model({**config, "rate_control": rate_control}))
        state = {key: t for key, t in codec.state_dict().items() if not codec.is_addition(key)}
        drawn = torch.rand(4)
        codec.update(update_quantiles=True)
        noisy, seen = codec(image()), codec.eval()(image())
        outcomes.append((codec.compress(image())["strings"], state, drawn, noisy, seen))
    (plain_strings, *plain), (strings, *modulated) = outcomes
    assert strings == plain_strings
    assert_same(plain, modulated)


def assert_same(one: Any, other: Any) -> None:
    """Tensors in whatever mappings and sequences, bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
        return
    assert len(one) == len(other)
    keys = list(one) if isinstance(one, dict) else range(len(one))
    for key in keys:
        assert_same(one[key], other[key])


def test_a_wavelet_start_is_the_same_with_a_modulator() -> None:
    started = []
    for rate_control in ({"name": "none"}, MODULATOR):
        torch.manual_seed(5)
        codec = build(parse_model({**TINY_MODEL, "rate_control": rate_control}))
        start_as_wavelet(codec)
        started.append((dict(codec.named_parameters()), torch.rand(4), codec.eval()(image())["x_hat"]))
    plain, modulated = started
    assert_same({name: modulated[0][name] for name in plain[0]}, plain[0])
    assert_same(plain[1:], modulated[1:])


def test_the_seed_decides_the_modulators_own_weights() -> None:
    first, same, other = (tiny(seed).rate_control.encoder[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


# ------------------------------------------------------------------------------------------------ factors


@pytest.mark.parametrize("inverse", ["learned", "reciprocal"])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_factors_are_positive_and_finite_whatever_the_weights(inverse: str, scale: float) -> None:
    codec = tiny(rate_control=MODULATOR | {"inverse": inverse})
    with torch.no_grad():
        for parameter in codec.rate_control.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape))
    for undo in (False, True):
        factors = codec.rate_control.factors([0, 1, 32768, MAX_RATE_CODE], undo=undo)
        assert factors.shape == (4, 12)
        assert (factors > 0).all()
        assert factors.isfinite().all()


def doubled(codec: Codec) -> Codec:
    """Factors 2 at the encoder and 1/4 at the decoder, at every rate."""
    with torch.no_grad():
        codec.rate_control.encoder[-1].bias.fill_(math.log(2))
        codec.rate_control.decoder[-1].bias.fill_(-math.log(4))
    return codec


def test_the_entropy_model_sees_the_scaled_latent_and_the_synthesis_the_rescaled_one() -> None:
    codec = doubled(louder(tiny()))
    x = image(64, 64)
    with torch.no_grad():
        y = codec.analysis(x)
        expected = codec.entropy_model(2 * y)
        seen = codec(x)
        assert torch.allclose(codec.modulated(y), 2 * y, rtol=1e-6)
        assert torch.allclose(seen["y_hat"], expected.y_hat, atol=1e-5)
        assert torch.allclose(seen["x_hat"], codec.synthesis(expected.y_hat / 4), atol=1e-5)
        assert torch.allclose(seen["likelihoods"]["y"], expected.likelihoods["y"], atol=1e-5)
        assert codec.entropy_model.compress(2 * y)["strings"] == codec.compress(x)["strings"]
        assert codec.entropy_model.compress(y)["strings"] != codec.compress(x)["strings"]


def test_a_reciprocal_inverse_undoes_the_scaling_and_has_no_network_of_its_own() -> None:
    codec = restless(tiny(rate_control=MODULATOR | {"inverse": "reciprocal"}))
    y = torch.randn(2, 12, 4, 5)
    codes = [7, 60000]
    assert torch.allclose(codec.demodulated(codec.modulated(y, codes), codes), y, rtol=1e-5)
    assert codec.rate_control.decoder is None
    learned = restless(tiny())
    assert not torch.allclose(learned.demodulated(learned.modulated(y, codes), codes), y, rtol=1e-2)


def test_each_image_of_a_batch_has_its_own_rate() -> None:
    codec = restless(louder(tiny()))
    x, codes = image(64, 64, batch=3), [0, 30000, MAX_RATE_CODE]
    together = codec(x, codes)
    for index, code in enumerate(codes):
        alone = codec(x[index : index + 1], [code])
        # In a batch g_a may add in another order: a value at the edge may round the other way.
        assert ((together["y_hat"][index] - alone["y_hat"][0]).abs() > 1e-3).float().mean() < 0.01
        assert (together["x_hat"][index] - alone["x_hat"][0]).abs().mean() < 1e-3
    assert not torch.allclose(codec(x[:1], [0])["y_hat"], codec(x[:1], [30000])["y_hat"])


def test_a_scalar_is_one_number_and_a_vector_is_not() -> None:
    codes = [0, 20000, MAX_RATE_CODE]
    scalar = restless(tiny(rate_control=MODULATOR | {"per": "scalar"}))
    assert scalar.rate_control.factors(codes).shape == (3, 1)
    y = torch.ones(3, 12, 2, 2)
    modulated = scalar.modulated(y, codes)
    assert all(one.unique().numel() == 1 for one in modulated)
    assert modulated.unique().numel() == 3
    vector = restless(tiny()).modulated(y, codes)
    assert all(one.unique().numel() == 12 for one in vector)


def test_factors_stay_fp32_where_the_transforms_run_in_bf16() -> None:
    codec = restless(louder(tiny()))
    codec.set_transform_precision("bf16")
    x = image(64, 64)
    assert {p.dtype for p in codec.rate_control.parameters()} == {torch.float32}
    y = codec.analysis(x)
    factors = codec.rate_control.factors([codec.rate_code])
    assert factors.dtype == torch.float32
    assert torch.equal(codec.modulated(y), y * factors[:, :, None, None])
    coded = codec.compress(x)
    decoded = codec.decompress(coded["strings"], coded["shape"], coded["size"], rate_code=coded["rate_code"])
    assert torch.equal(decoded["x_hat"], codec(x)["x_hat"].clamp(0, 1))


def test_it_is_a_part_with_a_cost_of_its_own_on_both_sides() -> None:
    described = measure(tiny(), 64, 96).to_dict()
    part = described["parts"]["rate_control"]
    # Two networks of 1 -> 128 -> 12: 2 * (128 + 128 + 128 * 12 + 12) = 3608.
    assert part["params"] == 3608
    # One of them on each side: 128 + 128 * 12 multiply-accumulates for 64 * 96 pixels.
    for direction in ("encode", "decode"):
        assert part[f"{direction}_executed_kmac_per_px"] == pytest.approx(1664 / 6144 / 1000)
        # Biases, and a product per value of the latent of 12 channels at stride 16.
        assert part[f"{direction}_elementwise_kop_per_px"] == pytest.approx(
            (128 + 12 + 12 * 32) / 6144 / 1000
        )
        assert described["serial_steps"][direction]["parts"]["rate_control"] == 0


# ---------------------------------------------------------------------------------------------- the stream


@pytest.mark.parametrize("entropy_model", component_names("entropy_model"))
def test_the_file_alone_tells_the_decoder_its_rate(entropy_model: str, tmp_path: Path) -> None:
    codec = restless(louder(tiny(entropy_model={"name": entropy_model}, depth=WIDE)))
    save_model(tmp_path / "model.safetensors", codec, extra={"lmbda": 0.18})
    decoder, _ = load_model(tmp_path / "model.safetensors")
    assert decoder.rate_code == MAX_RATE_CODE, "it would code at the rate of its trial"
    key, pixels = model_hash(codec), []
    for code in (0, 777, MAX_RATE_CODE):
        codec.rate_code = code
        data = encode_image(codec, image(), key)
        assert from_bytes(data).rate_code == code
        decoder.rate_code = MAX_RATE_CODE - code
        x_hat = decode_image(decoder, data, key)
        assert torch.equal(x_hat, codec(image())["x_hat"].clamp(0, 1))
        assert decoder.rate_code == MAX_RATE_CODE - code, "decoding is no setting"
        pixels.append(x_hat)
    assert not torch.equal(pixels[0], pixels[2])


WIDE = {"channels": [8, 8, 8], "latent_channels": 20}


def test_a_wrong_code_at_the_decoder_gives_the_same_symbols_and_another_image() -> None:
    codec = restless(louder(tiny()))
    x = image()
    coded = codec.compress(x)
    right, wrong = (
        codec.decompress(
            coded["strings"], coded["shape"], coded["size"], coded["symbols_crc32"], rate_code=code
        )
        for code in (coded["rate_code"], 0)
    )
    assert torch.equal(right["y_hat"], wrong["y_hat"])
    assert (right["x_hat"] - wrong["x_hat"]).abs().mean() > 1e-3


def test_files_without_a_code_and_models_with_one_refuse_each_other() -> None:
    plain = build(parse_model(TINY_MODEL)).eval()
    plain.update(update_quantiles=True)
    for codec, code, message in (
        (tiny(), None, "photo: holds no rate code, and this model has a range of rates"),
        (plain, 12, "photo: holds rate code 12, and this model has one rate"),
    ):
        key = model_hash(codec)
        stream = from_bytes(encode_image(codec, image(), key))
        assert (stream.rate_code is None) == (code is not None)
        forged = to_bytes(dataclasses.replace(stream, rate_code=code))
        with pytest.raises(UserError, match=message):
            decode_image(codec, forged, key, name="photo")


def test_a_model_of_one_rate_writes_what_it_wrote_before_there_were_others() -> None:
    plain = build(parse_model(TINY_MODEL)).eval()
    plain.update(update_quantiles=True)
    plain.set_lmbda(123.0)
    assert plain.rate_code is None
    assert encode_image(plain, image(), model_hash(plain))[3] == 1
