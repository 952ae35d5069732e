"""How one model learns a range of rates, and what it then codes."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdc.bitstream import MAX_RATE_CODE
from rdc.checkpoint import model_hash, save_model
from rdc.data import PixelCache
from rdc.ddp import Alone
from rdc.evaluate import Evaluation, evaluate
from rdc.files import read_jsonl
from rdc.fresh_decode import decodes_alike
from rdc.learner import Learner
from rdc.models.codec import Codec, build
from rdc.models.rate_control.modulator import Params
from rdc.trial import run_trial
from rdc.validation import validate
from tests.rdc.variable_rate import MODULATOR, restless

DEFAULTS = Params()
CURVE = [round(share * MAX_RATE_CODE / 24) for share in range(25)]


def image(height_px: int = 70, width_px: int = 90, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height_px, width_px, generator=torch.Generator().manual_seed(1))


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
    # Of a curve that spans 0.4 dB; rounding moves single points of these small images by hundredths.
    assert np.abs(expected - qualities[1]).mean() < 0.05


def test_the_files_are_as_large_as_estimated_at_every_rate(curve: list[Evaluation]) -> None:
    assert all(one.rate_agrees for one in curve), [one.rate_gap_pct for one in curve]


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
