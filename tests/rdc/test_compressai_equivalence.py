"""CompressAI's own models, loaded here, must give the same numbers and, where its order is ours, bytes."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import compressai.layers
import compressai.models
import pytest
import torch
from compressai.models.base import get_scale_table
from torch import Tensor, nn

import conf
from rdc.checkpoint import compressai_names, load_compressai_state_dict, load_model, save_model
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.models.entropy_model.space_channel import PUBLISHED_GROUPS
from rdc.spec import COMPONENT_GROUPS, parse_model
from rdc.width import apportioned
from rdc.zoo import ARCHITECTURES

N, M = 24, 40
CLASSES = {
    "bmshj2018-hyperprior": compressai.models.ScaleHyperprior,
    "mbt2018-mean": compressai.models.MeanScaleHyperprior,
    "mbt2018": compressai.models.JointAutoregressiveHierarchicalPriors,
    "cheng2020-anchor": compressai.models.Cheng2020Anchor,
    "cheng2020-attn": compressai.models.Cheng2020Attention,
    "elic2022-official": compressai.models.Elic2022Official,
}
# Of each preset that loads its weights, the architecture.
PRESETS = {
    "scale_hyperprior": "bmshj2018-hyperprior",
    "mean_scale_hyperprior": "mbt2018-mean",
    "joint_autoregressive": "mbt2018",
    "elic": "elic2022-official",
}
RASTER_ORDER = ("mbt2018", "cheng2020-anchor", "cheng2020-attn")  # whose bytes are in another order than ours
SAME_BYTES = ("bmshj2018-hyperprior", "mbt2018-mean")
# Standard deviation of what a network gives, by its name; that of every layer inside is 1.
LOUDNESS = {"g_a": 10.0, "h_a": 10.0, "h_s": 6.0, "entropy_parameters": 6.0, "g_s": 0.3}
Groups = dict[str, Any]


def of_the_zoo(name: str) -> Groups:
    """What the adapter makes of a name, at the widths of these tests."""
    architecture, latent_channels = ARCHITECTURES[name], N if name.startswith("cheng2020") else M
    small = dataclasses.replace(architecture, widths=((N, latent_channels),) * 2)
    return small.groups((*architecture.small, *architecture.large)[0])


def of_the_preset(preset: str) -> Groups:
    widths = [f"depth.channels=[{N},{N},{N}]", f"depth.latent_channels={M}"]
    if preset == "elic":
        widths.append(f"hyper_transform.synthesis_channels=[{N},{N * 3 // 2}]")
    config = conf.compose([f"model={preset}", *widths])
    return {group: config[group] for group in (*COMPONENT_GROUPS, "depth")}


CONFIGURATIONS = {
    **{name: (name, of_the_zoo(name)) for name in ARCHITECTURES},
    **{f"model={preset}": (name, of_the_preset(preset)) for preset, name in PRESETS.items()},
}


def image() -> Tensor:
    return torch.rand(1, 3, 128, 64, generator=torch.Generator().manual_seed(0))


@functools.cache
def reference(name: str) -> Any:
    """Their model, with weights under which every nonlinearity matters."""
    torch.manual_seed(3)
    widths = (N,) if name.startswith("cheng2020") else (N, M)
    groups = {"groups": apportioned(PUBLISHED_GROUPS, M)} if name == "elic2022-official" else {}
    return loud(CLASSES[name](*widths, **groups).eval())


@torch.no_grad()
def loud(model: Any) -> Any:
    """Scale layer after layer to its loudness, with biases and normalisations far from their start."""
    loudness: dict[nn.Module, float] = {}
    for name, module in model.named_modules():
        if (part := name.rpartition(".")[2]) in LOUDNESS:
            found = convolutions(module.children()) or convolutions(module.modules())
            loudness |= dict.fromkeys(found[-1:], LOUDNESS[part])
        if isinstance(module, compressai.layers.GDN):
            module.gamma.add_(0.1 * torch.rand_like(module.gamma))
            module.beta.add_(0.3 * torch.rand_like(module.beta))
    scaled: set[nn.Module] = set()

    def scale(layer: Any, inputs: Any, output: Tensor) -> Tensor | None:
        if layer in scaled:
            return None
        scaled.add(layer)
        factor = loudness.get(layer, 1.0) / output.std()
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
        return output * factor

    handles = []
    for layer in convolutions(model.modules()):
        layer.bias.add_(0.3 * torch.randn_like(layer.bias))
        handles.append(layer.register_forward_hook(scale))
    # Not the prior's start, a wide bell at every channel's zero.
    for name, parameter in model.named_parameters():
        if "entropy_bottleneck" in name and "quantiles" not in name:
            parameter.add_(0.8 * torch.randn_like(parameter) + ("matrices" in name))
    model(image())
    for handle in handles:
        handle.remove()
    model.update(force=True)
    return model


def convolutions(modules: Any) -> list[Any]:
    return [m for m in modules if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]


def loaded(groups: Groups, name: str) -> Codec:
    codec = build(parse_model(groups)).eval()
    load_compressai_state_dict(codec, reference(name).state_dict())
    return codec


@torch.no_grad()
def expected(name: str, x: Tensor) -> dict[str, Tensor]:
    """x_hat, not clipped, and the likelihoods of y and z, of what their coder codes."""
    model = reference(name)
    out = model(x)
    found = {"x_hat": out["x_hat"], **out["likelihoods"]}
    if name not in RASTER_ORDER:
        return found
    # Their evaluation shows round(y) to context and synthesis, and so rates another y than is coded.
    decoded: list[Tensor] = []
    handle = model.g_s.register_forward_pre_hook(lambda module, inputs: decoded.append(inputs[0]))
    coded = model.compress(x)
    model.decompress(coded["strings"], coded["shape"])
    handle.remove()
    (y_hat,) = decoded
    side = model.h_s(model.entropy_bottleneck.decompress(coded["strings"][1], coded["shape"]))
    parameters = model.entropy_parameters(torch.cat((side, model.context_prediction(y_hat)), 1))
    scale, mean = parameters.chunk(2, 1)
    likelihood = model.gaussian_conditional._likelihood(y_hat, scale.clamp_min(0.11), mean)
    return found | {"x_hat": model.g_s(y_hat), "y": likelihood.clamp_min(1e-9)}


@torch.no_grad()
def errors(groups: Groups, name: str) -> dict[str, float]:
    """Largest differences."""
    ours = loaded(groups, name)(image())
    got = {"x_hat": ours["x_hat"], **ours["likelihoods"]}
    return {key: float((value - got[key]).abs().max()) for key, value in expected(name, image()).items()}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_reconstruction_and_likelihoods_agree(configuration: str) -> None:
    name, groups = CONFIGURATIONS[configuration]
    found = errors(groups, name)
    # docs/models.md states what was measured. A symbol that rounds the other way would show as 1e-2 and more.
    assert found["x_hat"] <= 1e-5
    assert found["y"] <= 1e-5
    assert found["z"] <= 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_the_weights_are_loud_enough_to_compare(name: str) -> None:
    found = expected(name, image())
    assert found["x_hat"].std() > 0.1
    assert found["y"].std() > 0.05
    assert found["z"].std() > 0.01
    assert reference(name).g_a(image()).round().unique().numel() >= 40


def wrong_settings() -> list[tuple[str, str, str, Any]]:
    """Every setting that changes what the weights compute and fits their shapes."""
    pairs = {"norm": ("gdn", "gdn1"), "activation": ("relu", "leaky_relu")}
    found: list[tuple[str, str, str, Any]] = []
    for configuration, (_, groups) in CONFIGURATIONS.items():
        spec = parse_model(groups)
        for group, setting in (("transform", "norm"), ("hyper_transform", "activation")):
            if (value := getattr(getattr(spec, group), setting, None)) is not None:
                (other,) = {*pairs[setting]} - {value}
                found.append((configuration, group, setting, other))
        if getattr(spec.transform, "attention_relu", False):
            found.append((configuration, "transform", "attention_relu", False))
    return found


@pytest.mark.parametrize(("configuration", "group", "setting", "value"), wrong_settings())
def test_a_wrong_setting_shows(configuration: str, group: str, setting: str, value: Any) -> None:
    name, groups = CONFIGURATIONS[configuration]
    found = errors({**groups, group: {**groups[group], setting: value}}, name)
    assert max(found.values()) > 1e-2


@pytest.mark.parametrize("name", SAME_BYTES)
def test_bytes_agree_with_its_index_rule(name: str) -> None:
    model, codec = reference(name), loaded(of_the_zoo(name), name)
    coded, got = model.compress(image()), codec.compress(image())
    assert len(coded["strings"][0][0]) > 500
    assert got["strings"] == coded["strings"]
    assert tuple(got["shape"]) == tuple(coded["shape"])
    decoded = codec.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert (decoded - model.decompress(coded["strings"], coded["shape"])["x_hat"]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CLASSES)
def test_tables_built_here_are_its_tables(name: str) -> None:
    codec = loaded(of_the_zoo(name), name)
    state_dict = compressai_names(reference(name).state_dict())
    theirs = {key: tensor for key, tensor in state_dict.items() if codec.is_table(key)}
    assert len(theirs) == 7
    assert_tables(codec, theirs)
    codec.update(force=True)
    assert_tables(codec, theirs)


def assert_tables(codec: Codec, tables: dict[str, Tensor]) -> None:
    own = codec.state_dict()
    for key, table in tables.items():
        assert torch.equal(own[key], table), key


@pytest.mark.parametrize("name", CLASSES)
def test_gaussian_tables_for_other_scales_are_built_anew(name: str) -> None:
    codec = loaded(of_the_zoo(name), name)
    tables = {key: t.clone() for key, t in codec.state_dict().items() if codec.is_table(key)}
    for scales in (get_scale_table(0.11, 256, 32), get_scale_table(0.2, 256, 64), None):
        other = dict(reference(name).state_dict())
        for key in list(other):
            if scales is None and codec.is_table(key):
                del other[key]
            elif scales is not None and key.endswith("scale_table"):
                other[key] = torch.as_tensor(scales)
            elif scales is not None and "gaussian_conditional._" in key:
                other[key] = torch.ones_like(other[key])
        fresh = build(codec.spec)
        load_compressai_state_dict(fresh, other)
        assert_tables(fresh, tables)


def test_a_file_with_tables_for_other_scales_is_refused(tmp_path: Path) -> None:
    codec, path = loaded(of_the_zoo("mbt2018-mean"), "mbt2018-mean"), tmp_path / "a.safetensors"
    gaussian = codec.entropy_model.gaussian_conditional
    close = gaussian.scale_table * (1 + 1e-6)
    gaussian.scale_table = close
    save_model(path, codec, extra={})
    assert torch.equal(load_model(path)[0].entropy_model.gaussian_conditional.scale_table, close)
    gaussian.scale_table = close.roll(1)
    save_model(path, codec, extra={})
    message = r"a\.safetensors: .*scale_table holds other scales than the 64 from 0\.11 to 256"
    with pytest.raises(UserError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SAME_BYTES)
def test_older_names_load(name: str) -> None:
    codec, old = loaded(of_the_zoo(name), name), {}
    for key, value in reference(name).state_dict().items():
        for new_name, old_name in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
            key = key.replace(f"entropy_bottleneck.{new_name}", f"entropy_bottleneck.{old_name}")
        old[f"module.{key}"] = value
    assert "module.entropy_bottleneck._matrix0" in old
    fresh = build(codec.spec)
    load_compressai_state_dict(fresh, old)
    for key, value in codec.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


def test_weights_of_another_size_are_refused() -> None:
    codec = build(parse_model(of_the_preset("scale_hyperprior")))
    with pytest.raises(UserError, match=r"the CompressAI state dict: does not fit .* needs \[40, 24, 5, 5\]"):
        load_compressai_state_dict(codec, compressai.models.ScaleHyperprior(24, 44).state_dict())


@pytest.mark.parametrize("name", SAME_BYTES)
def test_auxiliary_losses_agree(name: str) -> None:
    codec = loaded(of_the_zoo(name), name)
    assert codec.aux_loss().item() == pytest.approx(reference(name).aux_loss().item(), rel=1e-6)
