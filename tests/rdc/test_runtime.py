"""The stopwatch: what it measures and records. No test here depends on how fast the machine is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rdc.checkpoint import save_model
from rdc.errors import UserError
from rdc.files import read_json
from rdc.models.codec import Codec, build
from rdc.runtime import measure, time_payload, timed_image
from rdc.spec import to_plain


@pytest.fixture
def codec(make_trial: Any) -> Codec:
    spec, _ = make_trial()
    torch.manual_seed(0)
    codec = build(spec.model)
    codec.update(force=True, update_quantiles=True)
    return codec


def payload(codec: Codec, out: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": to_plain(codec.spec),
        "checkpoint": None,
        "image": None,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "height_px": 128,
        "width_px": 192,
        "repeats": 3,
        "out": str(out),
    }
    return values | changes


def slow_down(module: torch.nn.Module, seconds: float) -> None:
    module.register_forward_hook(lambda *_: time.sleep(seconds))


def test_the_parts_of_a_coding_are_told_apart(codec: Codec) -> None:
    """Sleeps of known length in one network must appear in its part, in the networks, and in the total."""
    slow_down(codec.g_a[0], 0.03)  # type: ignore[index]
    slow_down(codec.entropy_model.h_s[0], 0.06)
    timing = measure(codec, torch.rand(1, 3, 64, 64), repeats=3)
    assert timing.encode.parts_ms["g_a"] >= 30
    assert timing.encode.parts_ms["h_s"] >= 60
    assert timing.decode.parts_ms["h_s"] >= 60
    assert set(timing.encode.parts_ms) == {"g_a", "h_a", "h_s"}
    assert set(timing.decode.parts_ms) == {"h_s", "g_s"}
    assert timing.encode.network_ms.median >= 90
    assert timing.decode.network_ms.median >= 60
    for direction in (timing.encode, timing.decode):
        assert direction.total_ms.median >= direction.network_ms.median
        assert direction.entropy_ms.median >= 0
        for spread in (direction.network_ms, direction.entropy_ms, direction.total_ms):
            assert spread.q25 <= spread.median <= spread.q75
    assert timing.repeats == 3


def test_time_outside_the_networks_is_entropy_coding(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdc.models.layers import coding

    def slowed(original: Any) -> Any:
        def slow(*arguments: Any) -> Any:
            time.sleep(0.04)
            return original(*arguments)

        return slow

    monkeypatch.setattr(coding, "decode", slowed(coding.decode))
    monkeypatch.setattr(coding.StreamDecoder, "read", slowed(coding.StreamDecoder.read))
    timing = measure(codec, torch.rand(1, 3, 64, 64), repeats=3)
    # Two streams, y and z.
    assert timing.decode.entropy_ms.median >= 80


MODELS_IN_STEPS: dict[str, tuple[dict[str, Any], int]] = {
    # Steps on the 4 x 4 latent of 64 x 64 pixels.
    "joint_autoregressive": ({}, 4 * 3 + 1),
    "charm": ({"slices": 4, "support": 2, "widths": [8, 8]}, 3),
    "space_channel": ({"context_widths": [8, 8]}, 10),
}


@pytest.mark.parametrize("name", MODELS_IN_STEPS)
def test_coding_between_the_steps_of_a_context_is_no_network(
    name: str, make_trial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rdc.models.layers import coding

    params, steps = MODELS_IN_STEPS[name]
    spec, _ = make_trial(model={"entropy_model": {"name": name, **params}})
    torch.manual_seed(0)
    codec = build(spec.model)
    codec.update(force=True, update_quantiles=True)
    x = torch.rand(1, 3, 64, 64)
    plain = measure(codec, x, repeats=2)
    read, to_symbols = coding.StreamDecoder.read, coding.to_symbols
    reads: list[None] = []

    def slow_read(*arguments: Any) -> Any:
        reads.append(None)
        time.sleep(0.2 / steps)
        return read(*arguments)

    def slow_to_symbols(*arguments: Any) -> Any:
        time.sleep(0.2 / steps)
        return to_symbols(*arguments)

    monkeypatch.setattr(coding.StreamDecoder, "read", slow_read)
    monkeypatch.setattr(coding, "to_symbols", slow_to_symbols)
    slow = measure(codec, x, repeats=2)
    assert len(reads) == 3 * steps
    for before, after in ((plain.encode, slow.encode), (plain.decode, slow.decode)):
        assert after.entropy_ms.median >= 200
        assert after.network_ms.median <= before.network_ms.median + 100
        assert set(after.parts_ms) >= {"h_s", "context"}


def test_a_slow_codec_gets_fewer_repeats_but_at_least_three(codec: Codec) -> None:
    slow_down(codec.g_s[0], 0.02)  # type: ignore[index]
    assert measure(codec, torch.rand(1, 3, 64, 64), repeats=50, budget_s=0.0).repeats == 3


def test_nothing_stays_attached_to_the_networks(codec: Codec) -> None:
    measure(codec, torch.rand(1, 3, 64, 64), repeats=1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in codec.modules())


def test_the_record_names_its_conditions(codec: Codec, tmp_path: Path) -> None:
    before = time.time()
    time_payload(payload(codec, tmp_path / "timing" / "a.json", label="mine", precision="bf16"))
    record = read_json(tmp_path / "timing" / "a.json")
    assert before <= record["started_at"] <= record["ended_at"] <= time.time()
    expected = {
        "schema_version": 1,
        "label": "mine",
        "family": "conv/mean_scale_hyperprior/conv",
        "threads": 1,
        "precision": "bf16",
        "image_px": [128, 192],
        "alone": True,
        "weights": "random",
        "image": "synthetic",
        "repeats": 3,
    }
    assert {key: record[key] for key in expected} == expected
    assert record["device"].startswith("cpu:")
    assert record["device_slug"].startswith("cpu-")
    assert set(record["decode"]["total_ms"]) == {"median", "q25", "q75"}
    assert str(tmp_path) not in json.dumps(record)


def test_a_photo_that_is_too_small_is_mirrored_at_its_edges(image_sets: Any) -> None:
    photo = next(image for image in image_sets[1].images if image.width_px == image.height_px == 256)
    whole = timed_image(photo.path, 256, 256)
    mirrored = timed_image(photo.path, 300, 520, mirrored=True)
    assert mirrored.shape == (1, 3, 300, 520)
    top, left = (300 - 256) // 2, (520 - 256) // 2
    assert mirrored[:, :, top : top + 256, left : left + 256].equal(whole)
    assert mirrored[:, :, top - 1].equal(mirrored[:, :, top])  # the first row stands beside its reflection
    assert mirrored[..., left - 1].equal(mirrored[..., left])
    assert timed_image(photo.path, 128, 200, mirrored=True).equal(timed_image(photo.path, 128, 200))


def test_trained_weights_and_a_real_image_are_used(
    codec: Codec, tmp_path: Path, image_sets: Any, make_trial: Any
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, codec, extra={"spec_id": "abc123"})
    photo = next(image.path for image in image_sets[1].images if image.width_px == 256)
    out = tmp_path / "a.json"
    record = time_payload(payload(codec, out, checkpoint=str(path), image=photo))
    assert record["weights"] == "trained abc123"
    with pytest.raises(UserError, match=r"256x256 px is smaller than the 512x512 px to be timed"):
        time_payload(payload(codec, out, image=photo, height_px=512, width_px=512))
    assert record["image"] == f"middle of {Path(photo).name}"
    large = time_payload(payload(codec, out, image=photo, height_px=300, width_px=520, mirrored=True))
    assert large["image"] == f"{Path(photo).name}, mirrored at its edges"
    other, _ = make_trial(model={"depth": {"channels": [8, 8, 8], "latent_channels": 16}})
    with pytest.raises(
        UserError, match=r"model\.safetensors: holds architecture [0-9a-f]{12}, not [0-9a-f]{12}"
    ):
        time_payload(payload(codec, out, checkpoint=str(path), model=to_plain(other.model)))
    with pytest.raises(UserError, match=r"timing: repeat is not a known key; known: .*repeats"):
        time_payload(payload(codec, out, repeat=3))
    with pytest.raises(UserError, match=r"timing: arch_id='x' is not that of the model"):
        time_payload(payload(codec, out, arch_id="x"))
