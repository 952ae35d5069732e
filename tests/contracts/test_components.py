"""What every component must do, run on whatever lies in rdc/models: a new file is tested unasked."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import conf
from rdc.bitstream import decode_image, encode_image
from rdc.checkpoint import load_model, model_hash, save_model
from rdc.complexity import count, measure
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.spec import COMPONENT_GROUPS, component, component_names, parse_model, to_plain
from tests.rdc.shared import both_counts, combinations, legal_combinations, refusal

CONF = Path(conf.__file__).parent
DEPTH = {"channels": [8, 12, 16], "latent_channels": 20, "layers": [1, 0, 2]}
COMPONENTS = [(group, name) for group in COMPONENT_GROUPS for name in component_names(group)]
COMBINATIONS = combinations(DEPTH)
MODELS = legal_combinations(DEPTH)


def every_pair_first() -> list[Any]:
    """All models; those that hold no pair of components that the others lack are left to the slow tests."""
    pairs = {
        name: set(itertools.combinations(sorted((g, c[g]["name"]) for g in COMPONENT_GROUPS), 2))
        for name, c in MODELS.items()
    }
    lacking, chosen = set().union(*pairs.values()), set[str]()
    while lacking:
        best = max(pairs, key=lambda name: len(pairs[name] & lacking))
        chosen.add(best)
        lacking -= pairs[best]
    return [pytest.param(name, marks=() if name in chosen else pytest.mark.full) for name in MODELS]


PARAMS = every_pair_first()


@pytest.fixture(params=PARAMS)
def codec(request: pytest.FixtureRequest) -> Codec:
    """A codec with seeded weights, latents spread over many symbols, and tables; the test's own."""
    return copy.deepcopy(built(request.param))  # building takes longer than most of the tests


@functools.cache
def built(name: str) -> Codec:
    torch.manual_seed(0)
    made = build(parse_model(MODELS[name]))
    with torch.no_grad():
        loudness(made).mul_(8)
    made.update(update_quantiles=True)
    return made.eval()


def loudness(codec: Codec) -> torch.Tensor:
    """Weights that the latents are in proportion to: of the last layer of stride 2, else of the last."""
    transform = component("transform", codec.spec.transform.name)
    if not hasattr(transform, "strided_layers"):
        *_, weight, _bias = codec.g_a.parameters()
        return weight
    *_, last = transform.strided_layers(codec.g_a, codec.g_s)[0]
    weight = last.layer.linear.weight if hasattr(last, "layer") else last.weight
    return weight


def image(height_px: int, width_px: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height_px, width_px, generator=torch.Generator().manual_seed(1))


def test_every_group_has_a_legal_model() -> None:
    seen = {(group, config[group]["name"]) for config in MODELS.values() for group in COMPONENT_GROUPS}
    assert seen == set(COMPONENTS)


@pytest.mark.parametrize("names", COMBINATIONS, ids="-".join)
def test_exactly_the_stated_combinations_are_legal(names: tuple[str, ...]) -> None:
    config, expected = COMBINATIONS[names], refusal(*names)
    if expected is None:
        parse_model(config)
        return
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        parse_model(config)


@pytest.mark.parametrize(("group", "name"), COMPONENTS)
def test_a_yaml_of_the_same_name_holds_the_defaults(group: str, name: str) -> None:
    config = conf.compose([f"{group}={name}"])[group]
    params = component(group, name).Params()
    assert config == to_plain(params), f"conf/{group}/{name}.yaml differs from the defaults of its Params"


@pytest.mark.parametrize("group", COMPONENT_GROUPS)
def test_every_yaml_has_a_component(group: str) -> None:
    assert {path.stem for path in (CONF / group).glob("*.yaml")} == set(component_names(group))


def test_spec_survives_json(codec: Codec) -> None:
    assert parse_model(to_plain(codec.spec)) == codec.spec


def test_one_training_step_reaches_every_parameter(codec: Codec) -> None:
    codec.train()
    x = image(128, 64, batch=2)
    out = codec(x)
    bits = sum(-torch.log2(p).sum() for p in out["likelihoods"].values())
    loss = bits / x.numel() + (out["x_hat"] - x).square().mean() + codec.aux_loss()
    (loss if codec.gate_penalty() is None else loss + codec.gate_penalty()).backward()
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
    trained = [p for name, p in codec.named_parameters() if p.grad.abs().sum() > 0]  # type: ignore[union-attr]
    assert len(trained) > 0.9 * len(list(codec.parameters()))


def test_quantiles_are_left_to_the_auxiliary_loss(codec: Codec) -> None:
    codec.train()
    out = codec(image(64, 64))
    (out["x_hat"].sum() + sum(p.sum() for p in out["likelihoods"].values())).backward()
    assert codec.quantile_parameters(), "no quantiles found"
    for quantiles in codec.quantile_parameters():
        assert quantiles.grad is None or not quantiles.grad.any()


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 17, 33), (2, 65, 130)], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_decoding_gives_what_evaluation_saw(codec: Codec, size: tuple[int, int, int], precision: Any) -> None:
    batch, height_px, width_px = size
    codec.set_transform_precision(precision)
    x = image(height_px, width_px, batch=batch)
    seen = codec(x)
    coded = codec.compress(x)
    decoded = codec.decompress(
        coded["strings"],
        coded["shape"],
        coded["size"],
        coded["symbols_crc32"],
        rate_code=coded["rate_code"],
    )
    assert seen["y_hat"].unique().numel() > 8, "the latents are too quiet for this test to mean anything"
    assert torch.equal(decoded["y_hat"], seen["y_hat"])
    assert decoded["x_hat"].shape == x.shape
    assert torch.equal(decoded["x_hat"], seen["x_hat"].clamp(0, 1))


def test_thread_count_and_gradients_change_no_symbol(codec: Codec) -> None:
    x = image(65, 130)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = codec.compress(x)
        torch.set_num_threads(2)
        decoded = codec.decompress(
            one["strings"], one["shape"], symbols_crc32=one["symbols_crc32"], rate_code=one["rate_code"]
        )
        with torch.enable_grad():
            assert torch.equal(codec(x)["y_hat"], decoded["y_hat"])
    finally:
        torch.set_num_threads(threads)


def test_an_image_is_coded_alike_alone_and_in_a_batch(codec: Codec) -> None:
    x = image(65, 70, batch=3)
    together, alone = codec.compress(x), codec.compress(x[1:2])
    code = together["rate_code"]
    y_hat = codec.decompress([s[1:2] for s in together["strings"]], together["shape"], rate_code=code)[
        "y_hat"
    ]
    batch = codec.decompress(together["strings"], together["shape"], rate_code=code)["y_hat"]
    assert torch.equal(y_hat[0], batch[1])
    # The transforms may add in another order in a batch: a symbol at the edge may round the other way.
    y_hat = codec.decompress(alone["strings"], alone["shape"], rate_code=code)["y_hat"]
    assert [len(strings) for strings in alone["strings"]] == [1] * codec.num_streams
    assert (y_hat[0] != batch[1]).float().mean() < 0.01


def test_a_wrong_checksum_of_symbols_is_refused(codec: Codec) -> None:
    coded = codec.compress(image(64, 64))
    with pytest.raises(UserError, match="decoded symbols differ from the encoder's"):
        codec.decompress(
            coded["strings"],
            coded["shape"],
            symbols_crc32=[coded["symbols_crc32"][0] ^ 1],
            rate_code=coded["rate_code"],
        )


def test_a_saved_codec_decodes_what_the_first_one_coded(codec: Codec, tmp_path: Path) -> None:
    x = image(40, 70)
    data = encode_image(codec, x, model_hash(codec))
    save_model(tmp_path / "model.safetensors", codec, extra={})
    loaded, _ = load_model(tmp_path / "model.safetensors")
    x_hat = decode_image(loaded, data, model_hash(tmp_path / "model.safetensors"))
    assert torch.equal(x_hat, codec(x)["x_hat"].clamp(0, 1))


@pytest.mark.parametrize("name", PARAMS)
def test_two_counters_agree_to_the_integer(name: str) -> None:
    model = parse_model(MODELS[name])
    both = both_counts(model, 128, 192)
    encode, decode = (counts["parity"] for counts in measure(model, 128, 192).operations.values())
    for part in encode:
        macs = max(encode[part], decode[part]) // 2
        assert both.get(part, (0, 0)) == (macs, macs), part


def test_parts_sum_to_the_totals(codec: Codec) -> None:
    described = measure(codec, 128, 192).to_dict()
    for direction in ("encode", "decode"):
        for key, total in described[direction].items():
            of_parts = sum(part[f"{direction}_{key}"] for part in described["parts"].values())
            assert of_parts == pytest.approx(total, rel=1e-12)
        assert described[direction]["parity_kflop_per_px"] > 0
    assert sum(part["params"] for part in described["parts"].values()) == described["params"]["total"]
    without_g_a = described["params"]["total"] - described["parts"]["g_a"]["params"]
    assert described["params"]["total_without_g_a"] == without_g_a


@pytest.mark.parametrize("size", [(64, 128), (17, 33)])
def test_executed_cost_is_what_coding_really_runs(codec: Codec, size: tuple[int, int]) -> None:
    x = image(*size)
    expected = measure(codec, *size)
    coded = codec.compress(x)
    encode = count(lambda: codec.compress(x), codec.parts())
    code = coded["rate_code"]
    decode = count(lambda: codec.decompress(coded["strings"], coded["shape"], rate_code=code), codec.parts())
    assert expected.operations["encode"]["executed"] == encode.flop
    assert expected.operations["decode"]["executed"] == decode.flop
