"""One model for a range of rates: codes, factors, streams, training."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdc import zoo
from rdc.bitstream import MAX_RATE_CODE, decode_image, encode_image, from_bytes, to_bytes
from rdc.checkpoint import load_model, model_hash, save_model
from rdc.complexity import measure
from rdc.data import PixelCache
from rdc.ddp import Alone
from rdc.errors import UserError
from rdc.evaluate import Evaluation, evaluate
from rdc.files import read_jsonl
from rdc.fresh_decode import decodes_alike
from rdc.learner import Learner
from rdc.models.codec import Codec, build
from rdc.models.layers.wavelet import start_as_wavelet
from rdc.models.rate_control.modulator import Params
from rdc.spec import COMPONENT_GROUPS, component_names, parse_model
from rdc.trial import run_trial
from rdc.validation import validate
from tests.rdc.shared import TINY_MODEL, legal_combinations
from tests.rdc.variable_rate import MODULATOR, louder, restless, tiny

CODES = st.integers(0, MAX_RATE_CODE)
DEFAULTS = Params()
RANGES = st.tuples(st.floats(1e-4, 1.0), st.floats(1.5, 1e4)).map(
    lambda drawn: Params(lmbdas=(drawn[0], drawn[0] * drawn[1]))
)
CURVE = [round(share * MAX_RATE_CODE / 24) for share in range(25)]


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
    # Half way in logarithm: sqrt(0.0018 * 0.18) = 0.018, between the two middle codes.
    # 0.07 * (0.3 / 0.07) rounds to more than 0.3.
    rounded = Params(lmbdas=(0.07, 0.3))
    assert rounded.code_of(rounded.lmbda_of(MAX_RATE_CODE)) == MAX_RATE_CODE
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


# ----------------------------------------------------------------------------------------------- training


def test_a_batch_of_as_many_images_as_lmbdas_sees_each_once() -> None:
    size = len(DEFAULTS.lmbdas)
    orders = set()
    for step in range(20):
        drawn = DEFAULTS.lmbdas_of_images(0, 2 * size, seed=3, step=step)
        assert sorted(drawn[:size]) == sorted(drawn[size:]) == list(DEFAULTS.lmbdas)
        orders |= {tuple(drawn[:size]), tuple(drawn[size:])}
    assert len(orders) > 35
    counts = np.zeros((size, size), int)
    for step in range(800):
        for place, lmbda in enumerate(DEFAULTS.lmbdas_of_images(0, size, seed=0, step=step)):
            counts[place, DEFAULTS.lmbdas.index(lmbda)] += 1
    # 100 expected, standard deviation 9.4: no place in the batch prefers a rate.
    assert counts.min() > 60
    assert counts.max() < 140


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 40),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(0, 2**63 - 1),
    st.integers(0, 99),
)
def test_an_images_lmbda_depends_on_its_place_alone(
    count: int, cuts: list[int], seed: int, step: int
) -> None:
    whole = DEFAULTS.lmbdas_of_images(0, count, seed=seed, step=step)
    edges = sorted({0, count, *(min(cut, count) for cut in cuts)})
    parts = [
        DEFAULTS.lmbdas_of_images(first, end - first, seed=seed, step=step)
        for first, end in itertools.pairwise(edges)
    ]
    assert [lmbda for part in parts for lmbda in part] == whole


def learner_of(make_trial: Any, **changes: Any) -> Learner:
    spec, _ = make_trial(model={"rate_control": MODULATOR}, batch_size=8, **changes)
    torch.manual_seed(spec.seed)
    codec = build(spec.model).train()
    return Learner(codec, spec.recipe, lmbda=spec.lmbda, seed=spec.seed)


def test_each_images_error_is_weighed_with_its_own_lmbda(make_trial: Any) -> None:
    learner = learner_of(make_trial, rate_ramp_steps=4)
    restless(learner.codec)
    x = image(64, 64, batch=8)
    learner._seed_noise(1, 0)
    lmbdas = DEFAULTS.lmbdas_of_images(0, 8, seed=0, step=1)
    with torch.no_grad():
        out = learner.codec(x, [DEFAULTS.code_of(lmbda) for lmbda in lmbdas])
    errors = [(x[i] - out["x_hat"][i]).double().square().mean() for i in range(8)]
    expected = sum(lmbda * 255**2 * error for lmbda, error in zip(lmbdas, errors, strict=True)) / 8
    bits = -sum(p.double().log2().sum() for p in out["likelihoods"].values())
    loss, bpp, mse, distortion, _ = learner.update(x, 1).tolist()
    assert bpp == pytest.approx(float(bits) / (8 * 64 * 64), rel=1e-5)
    assert mse == pytest.approx(float(sum(errors)) / 8, rel=1e-5)
    assert distortion == pytest.approx(float(expected), rel=1e-5)
    assert loss == pytest.approx(0.5 * bpp + distortion, rel=1e-5)


class Later(Alone):
    """A process of a team that has the batch's images from 3 on."""

    def place(self, images: int, batch_size: int) -> tuple[int, int]:
        return batch_size, 3


def test_processes_and_passes_share_the_batchs_rates(make_trial: Any) -> None:
    def codes_seen(learner: Learner, x: torch.Tensor) -> list[int]:
        seen: list[int] = []
        learner.codec.register_forward_pre_hook(lambda module, given: seen.extend(given[1]))
        learner.update(x, 7)
        return seen

    x = image(64, 64, batch=8)
    whole = codes_seen(learner_of(make_trial), x)
    assert sorted(whole) == [DEFAULTS.code_of(lmbda) for lmbda in DEFAULTS.lmbdas]
    in_passes = learner_of(make_trial)
    in_passes.micro_batch = 3
    assert codes_seen(in_passes, x) == whole
    later = learner_of(make_trial)
    later._team = Later()
    assert codes_seen(later, x[3:]) == whole[3:]


def test_a_training_that_was_interrupted_ends_where_the_other_one_does(make_trial: Any) -> None:
    ends = []
    for name, stops in (("straight", [None]), ("stopped", [4, None])):
        for stop in stops:
            spec, run = make_trial(
                model={"rate_control": MODULATOR}, batch_size=3, run={"stop_at_step": stop}
            )
            run = dataclasses.replace(run, folder=str(Path(run.folder).with_name(name)))
            result = run_trial(spec, run)
        folder = Path(run.folder)
        ends.append((model_hash(folder / "model.safetensors"), result["evaluation"]["per_image"]))
        rows = [row for row in read_jsonl(folder / "metrics.jsonl") if "train/loss" in row]
        # Without a ramp the loss that is trained is the one that is reported.
        assert [row["train/rd_loss"] for row in rows] == pytest.approx([row["train/loss"] for row in rows])
        assert result["evaluation"]["lmbda_code"] == DEFAULTS.code_of(spec.lmbda)
    assert ends[0] == ends[1]


# -------------------------------------------------------------------------------------- a trained model


@pytest.fixture(scope="module")
def curve(variable_rate: tuple[Codec, PixelCache]) -> list[Evaluation]:
    """Real files at 25 rates, evenly in logarithm; most are between those that were trained."""
    codec, images = variable_rate
    params, before = codec.spec.rate_control, model_hash(codec)
    found = [evaluate(codec, images, lmbda=params.lmbda_of(code), with_ms_ssim=False) for code in CURVE]
    assert [one.lmbda_code for one in found] == CURVE
    assert model_hash(codec) == before, "one set of weights serves every rate"
    return found


def test_bytes_rise_with_every_code(curve: list[Evaluation]) -> None:
    sizes = np.array([[len(data) for data in one.files] for one in curve])
    assert (np.diff(sizes.sum(1)) > 0).all(), sizes.sum(1)
    falls = int((np.diff(sizes, axis=0) < 0).sum())
    assert falls <= 0.1 * sizes.size, f"{falls} of {sizes.size} steps of single images"


def test_quality_rises_with_the_rate(curve: list[Evaluation]) -> None:
    means = np.array([one.to_dict()["psnr_db"] for one in curve])
    assert means[-1] - means[0] > 0.15
    # A step of a 24th of the range is worth hundredths of a decibel: rounding may take some of one back.
    assert (np.diff(means) > -0.05).all()
    assert (means[6:] > means[:-6]).all()


def test_rates_between_the_trained_ones_lie_on_their_curve(
    variable_rate: tuple[Codec, PixelCache], curve: list[Evaluation]
) -> None:
    codec, images = variable_rate
    at_trained = [evaluate(codec, images, lmbda=lmbda, with_ms_ssim=False) for lmbda in DEFAULTS.lmbdas]
    rates, qualities = (
        [[one.to_dict()[key] for one in some] for some in (at_trained, curve)] for key in ("bpp", "psnr_db")
    )
    expected = np.interp(np.log(rates[1]), np.log(rates[0]), qualities[0])
    assert np.abs(expected - qualities[1]).max() < 0.06


def test_the_files_are_as_large_as_estimated_at_every_rate(curve: list[Evaluation]) -> None:
    """Within 3 %: the 5 kB of these three images are too little for 1 % to mean anything."""
    assert max(abs(one.rate_gap_pct) for one in curve) < 3


def test_factors_differ_between_channels_and_their_ratio_with_the_rate(
    variable_rate: tuple[Codec, PixelCache],
) -> None:
    codec, _ = variable_rate
    with torch.no_grad():
        low, high = codec.rate_control.factors([0, MAX_RATE_CODE])
    assert low.max() / low.min() > 2
    ratios = high / low
    assert ratios.max() / ratios.min() > 1.2
    # More bits: finer steps in nearly all channels.
    assert (ratios > 1).float().mean() > 0.8


def test_validation_is_at_the_trials_own_rate(variable_rate: tuple[Codec, PixelCache]) -> None:
    codec, images = variable_rate
    low, high = (validate(codec, images, lmbda) for lmbda in (0.0018, 0.18))
    assert low.bpp < high.bpp
    assert low.psnr_db < high.psnr_db
    assert codec.rate_code == MAX_RATE_CODE


def test_another_interpreter_decodes_every_rate(
    variable_rate: tuple[Codec, PixelCache], curve: list[Evaluation], tmp_path: Path
) -> None:
    codec, _ = variable_rate
    save_model(tmp_path / "model.safetensors", codec, extra={"lmbda": 0.013})
    some = [curve[0], curve[11], curve[24]]
    files = [data for one in some for data in one.files]
    digests = [digest for one in some for digest in one.pixel_sha256]
    assert len(set(digests)) == len(digests)
    answer = decodes_alike(tmp_path / "model.safetensors", files, digests, device="cpu", threads=1)
    assert answer == (True, None)
