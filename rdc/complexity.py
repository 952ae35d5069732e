"""Cost of one architecture, counted on the built network.

Three counts, all per source pixel:

parity       multiply-accumulates of convolutions, linear layers and matrix products on the reference graph,
             one dense pass per network: what published sizes can be compared on. 1 MAC = 2 FLOP.
executed     the same for what `compress` and `decompress` really run.
elementwise  bias additions and elementwise products (GDN, gates), one operation per output element.

Beside them: activation memory (rdc.activations) of the executed graph for one image in fp32, and serial
steps, the passes of networks that must wait for each other.

An operator that is neither counted nor known to be free of multiply-accumulates is an error by name, and so
is one that should count but counts zero.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from rdc.activations import LiveBytes
from rdc.errors import UserError
from rdc.models.codec import Codec, build
from rdc.models.layers.gdn import LowerBound
from rdc.models.layers.graph import reference_graph
from rdc.spec import ModelSpec

HEIGHT_PX, WIDTH_PX = 512, 768  # the size at which published figures of this field are given
Direction = Literal["encode", "decode"]
COUNTS = ("parity", "executed", "elementwise")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PRODUCTS = _words("mul mul_ div div_ addcmul addcmul_ square")
_SUMS_OF_SQUARES = _words("linalg_vector_norm")
# Known to hold no multiply-accumulates. Whatever is missing here stops the count until someone decides.
_POINTWISE = _words("""
    abs add add_ bitwise_and bitwise_not bitwise_or ceil clamp clamp_ clamp_max clamp_min clip copy_ cos
    elu eq erf erfc exp exp_ expm1 fill_ floor ge gelu gt hardsigmoid hardswish hardtanh le leaky_relu
    leaky_relu_ log log1p log2 logical_and logical_not logical_or lt masked_fill masked_fill_ maximum
    minimum native_dropout ne neg pow reciprocal relu relu_ remainder round rsqrt rsub sigmoid sigmoid_
    sign silu silu_ sin softplus sqrt sub sub_ tanh tanh_ threshold trunc uniform_ where zero_
""")
_REDUCTIONS = _words("""
    _adaptive_avg_pool2d _log_softmax _native_batch_norm_legit_no_training _safe_softmax _softmax all amax
    amin any argmax argmin avg_pool2d bucketize cumsum max max_pool2d_with_indices mean min native_batch_norm
    native_group_norm native_layer_norm prod sort std sum upsample_bicubic2d upsample_bilinear2d
    upsample_nearest2d var var_mean
""")
_SHAPES = _words("""
    _local_scalar_dense _reshape_alias _to_copy _unsafe_view alias arange as_strided cat clone
    constant_pad_nd contiguous detach detach_ empty empty_like empty_strided expand flip full full_like
    gather im2col index index_select item lift_fresh lift_fresh_copy new_empty new_empty_strided new_full
    new_ones new_zeros nonzero ones ones_like permute pixel_shuffle pixel_unshuffle reflection_pad2d
    repeat replication_pad1d replication_pad2d roll scalar_tensor select select_scatter slice slice_scatter
    split split_with_sizes squeeze stack t to transpose tril triu unbind unfold unsqueeze view zeros
    zeros_like
""")
_FREE = _POINTWISE | _REDUCTIONS | _SHAPES

# fvcore sees the traced graph, where some operators have other names, and adds element counts to its MACs.
_FVCORE_ELEMENTS = tuple(
    f"aten::{name}"
    for name in _words("""
        adaptive_avg_pool2d batch_norm grid_sampler group_norm instance_norm layer_norm
        upsample_bilinear2d upsample_nearest2d
    """)
)
_FVCORE_FREE = _FREE | _words("""
    chunk dropout feature_dropout flatten meshgrid movedim pad reshape softmax square swapaxes type_as
""")


@dataclasses.dataclass(frozen=True, slots=True)
class Complexity:
    """Operations of a whole image, per part, direction and count.

    params: parameters per part. operations[direction][count][part]: FLOP for parity and executed (2 per MAC).
    activation_bytes[direction][part]: peak while the part runs, of what the whole program keeps alive.
    serial_steps[direction][part]: passes that must run one after another.
    """

    image_px: tuple[int, int]
    params: dict[str, int]
    operations: dict[str, dict[str, dict[str, int]]]
    activation_bytes: dict[str, dict[str, int]]
    serial_steps: dict[str, dict[str, int]]

    def kmac_per_px(self, direction: Direction, count: str = "parity") -> float:
        """Thousand multiply-accumulates per source pixel."""
        return sum(self.operations[direction][count].values()) / 2 / self._kilo_px

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `rdc describe --json`."""
        parts = {
            part: {"params": self.params[part]}
            | {
                f"{direction}_{key}": value
                for direction in ("encode", "decode")
                for key, value in self._rates(direction, part).items()
            }
            for part in self.params
        }
        return {
            "image_px": list(self.image_px),
            "counter": f"torch {torch.__version__} FlopCounterMode; 1 MAC = 2 FLOP; per source pixel",
            "encode": self._rates("encode"),
            "decode": self._rates("decode"),
            "params": {
                "total": sum(self.params.values()),
                "total_without_g_a": sum(n for part, n in self.params.items() if part != "g_a"),
            },
            "parts": parts,
            "activation_bytes": {
                direction: {"peak": max(by_part.values()), "parts": by_part}
                for direction, by_part in self.activation_bytes.items()
            },
            "serial_steps": {
                direction: {"total": sum(by_part.values()), "parts": by_part}
                for direction, by_part in self.serial_steps.items()
            },
        }

    @property
    def _kilo_px(self) -> float:
        return self.image_px[0] * self.image_px[1] * 1000

    def _rates(self, direction: str, part: str | None = None) -> dict[str, float]:
        """Rates of one part, or of all together."""
        flop = {
            count: sum(n for name, n in self.operations[direction][count].items() if part in (None, name))
            for count in COUNTS
        }
        return {
            "parity_kmac_per_px": flop["parity"] / 2 / self._kilo_px,
            "parity_kflop_per_px": flop["parity"] / self._kilo_px,
            "executed_kmac_per_px": flop["executed"] / 2 / self._kilo_px,
            "executed_kflop_per_px": flop["executed"] / self._kilo_px,
            "elementwise_kop_per_px": flop["elementwise"] / self._kilo_px,
        }


def measure(model: Codec | ModelSpec, height_px: int = HEIGHT_PX, width_px: int = WIDTH_PX) -> Complexity:
    """Count an architecture for one image of this size. No weights are needed and nothing is computed."""
    codec = on_meta(model.spec if isinstance(model, Codec) else model)
    params = {name: sum(p.numel() for p in part.parameters()) for name, part in codec.parts().items()}
    total = sum(p.numel() for p in codec.parameters())
    assert sum(params.values()) == total, f"parts hold {sum(params.values())} of {total} parameters"
    x = torch.empty(1, 3, height_px, width_px, device="meta")
    operations: dict[str, dict[str, dict[str, int]]] = {}
    activation_bytes: dict[str, dict[str, int]] = {}
    serial_steps: dict[str, dict[str, int]] = {}
    with torch.no_grad():
        y, z = codec.encoder_networks(x)
        passes: dict[str, Callable[[], Any]] = {
            "encode": lambda: codec.encoder_networks(x),
            "decode": lambda: codec.decoder_networks(y, z),
        }
        for direction, run in passes.items():
            executed = count(run, codec.parts())
            with reference_graph():
                reference = count(run, codec.parts())
            operations[direction] = {
                "parity": reference.flop,
                "executed": executed.flop,
                "elementwise": executed.elementwise,
            }
            activation_bytes[direction] = executed.activation_bytes
            # Encoding waits too: how a symbol is rounded depends on the symbols before it.
            # The factors of rate control follow from the rate alone and wait for nothing.
            serial = int(codec.entropy_model.serial_steps(*y.shape[-2:]))
            steps = {"context": serial, "rate_control": 0}
            serial_steps[direction] = {
                part: steps.get(part, 1) if executed.flop[part] else 0 for part in codec.parts()
            }
    return Complexity((height_px, width_px), params, operations, activation_bytes, serial_steps)


def on_meta(spec: ModelSpec) -> Codec:
    """The network without storage, in evaluation mode."""
    with torch.device("meta"):
        codec = build(spec)
    return codec.to("meta").eval()


class Counted(NamedTuple):
    """Per part: FLOP (2 per MAC), elementwise operations, and bytes alive while it runs, at most."""

    flop: dict[str, int]
    elementwise: dict[str, int]
    activation_bytes: dict[str, int]


def count(run: Callable[[], Any], parts: Mapping[str, nn.Module], *, rest: str = "prior") -> Counted:
    """Run something and count it per part; UserError names an operator that cannot be counted.

    rest: the part to which operations outside of every module in `parts` belong.
    """
    with (
        FlopCounterMode(display=False) as counter,
        _Watch(counter, rest, LiveBytes(_state(parts))) as watch,
        contextlib.ExitStack() as stack,
    ):
        for name, module in parts.items():
            stack.enter_context(watch.attribute(name, module))
        run()
    names = {*parts, rest}
    return Counted(*({n: found[n] for n in names} for found in (watch.flop, watch.elementwise, watch.alive)))


def _state(parts: Mapping[str, nn.Module]) -> Iterator[Tensor]:
    """Parameters and buffers."""
    for part in parts.values():
        yield from part.parameters()
        yield from part.buffers()


class _Watch(TorchDispatchMode):
    """Sees every operator before torch's counter does, and compares what the counter makes of it."""

    def __init__(self, counter: FlopCounterMode, rest: str, live: LiveBytes) -> None:
        super().__init__()
        self.flop: dict[str, int] = defaultdict(int)
        self.elementwise: dict[str, int] = defaultdict(int)
        self.alive: dict[str, int] = defaultdict(int)
        self._live = live
        self._counter = counter
        self._parts = [rest]

    @contextlib.contextmanager
    def attribute(self, name: str, module: nn.Module) -> Iterator[None]:
        """Inside, what runs during the module's forward counts for this part."""
        before = module.register_forward_pre_hook(lambda *_: self._parts.append(name))
        after = module.register_forward_hook(lambda *_: self._parts.pop() and None)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self._counter.get_total_flops()
        out = func(*args, **(kwargs or {}))
        flop = self._counter.get_total_flops() - before
        self.flop[self._parts[-1]] += flop
        self.elementwise[self._parts[-1]] += _elementwise(func, args, out)
        self._live.saw((args, kwargs, out))
        self.alive[self._parts[-1]] = max(self.alive[self._parts[-1]], self._live.now)
        if not flop:
            _check_free(func, out)
        return out


def _elementwise(func: Any, args: tuple[Any, ...], out: Any) -> int:
    """Bias additions and products of one call."""
    namespace, name = _name(func)
    if namespace != "aten":
        return 0
    if name in _PRODUCTS:
        return int(out.numel())
    if name in _SUMS_OF_SQUARES:
        return int(args[0].numel())
    bias = {"convolution": 2, "addmm": 0}.get(name)
    has_bias = bias is not None and len(args) > bias and args[bias] is not None
    return int(out.numel()) if has_bias else 0


def _check_free(func: Any, out: Any) -> None:
    """UserError unless an operator that counted nothing is known to have nothing to count."""
    namespace, name = _name(func)
    if namespace in ("aten", "prims") and name in _FREE | _PRODUCTS | _SUMS_OF_SQUARES:
        return
    if namespace == "prim" and name in ("device", "layout"):
        return
    if func.overloadpacket in flop_registry:
        tensors = [t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, Tensor)]
        if any(t.numel() for t in tensors):
            raise UserError(f"operator {namespace}::{name} was counted as zero operations")
        return
    raise UserError(
        f"operator {namespace}::{name} is not counted; register a formula with "
        "torch.utils.flop_counter.register_flop_formula, or list it here if it multiplies nothing"
    )


def _name(func: Any) -> tuple[str, str]:
    namespace, _, name = func.name().partition("::")
    return namespace, name.partition(".")[0]


def fvcore_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates by fvcore's independent count of the traced module; inputs must hold values.

    Its element counts for norms and resizing are left out; attention and baddbmm, which it would skip in
    silence, get a formula. UserError names what it cannot count.
    """
    from fvcore.nn import FlopCountAnalysis

    analysis = (
        FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    )
    # None would not remove a built-in handle: fvcore looks the handles up before what is to be ignored.
    analysis.set_op_handle(**dict.fromkeys(_FVCORE_ELEMENTS, lambda inputs, outputs: 0))
    analysis.set_op_handle("aten::scaled_dot_product_attention", _sdpa_macs)
    analysis.set_op_handle("aten::baddbmm", _baddbmm_macs)
    macs = int(analysis.total())
    for operator in analysis.unsupported_ops():
        namespace, _, name = operator.partition("::")
        # The tracer does not look into an autograd.Function; ours holds no products.
        known = operator == f"prim::PythonOp.{LowerBound.__name__}"
        known |= namespace == "aten" and bool({name, name.rstrip("_")} & (_FVCORE_FREE | _PRODUCTS))
        if not known:
            raise UserError(
                f"operator {operator} is not counted by fvcore; give it a handle in rdc/complexity.py"
            )
    return macs


def _sdpa_macs(inputs: list[Any], outputs: list[Any]) -> int:
    *batch, queries, depth = inputs[0].type().sizes()
    *_, keys, value_depth = inputs[2].type().sizes()
    return math.prod(batch) * queries * keys * (depth + value_depth)


def _baddbmm_macs(inputs: list[Any], outputs: list[Any]) -> int:
    batch, rows, inner = inputs[1].type().sizes()
    return int(batch * rows * inner * inputs[2].type().sizes()[-1])
