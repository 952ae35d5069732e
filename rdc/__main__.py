"""python -m rdc: code one image, decode it, say what an architecture costs, or time it."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdc.errors import UserError
from rdc.lean_import import lean_compressai

# torch, compressai and hydra take seconds to import: only the command that needs them does so.


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 after one line on stderr about what the user can mend."""
    arguments = _parser().parse_args(argv)
    lean_compressai()
    try:
        arguments.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has left (| head): nothing to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        # A full disk, a folder that may not be written to.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rdc", description="Neural image codecs, one at a time.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    compress = commands.add_parser("compress", help="code an image", description="Code an image into a file.")
    compress.add_argument("image", type=Path, metavar="IMG", help="any image file; coded as 8-bit RGB")
    compress.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    _add_rates(compress)
    compress.set_defaults(run=_compress)

    decompress = commands.add_parser(
        "decompress", help="decode a file", description="Decode what compress wrote; damage is refused."
    )
    decompress.add_argument("file", type=Path, metavar="FILE")
    decompress.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.png")
    decompress.set_defaults(run=_decompress)
    for command in (compress, decompress):
        command.add_argument(
            "--checkpoint",
            type=Path,
            required=True,
            help="model.safetensors of a trial; its transforms run in the precision of that trial",
        )

    describe = commands.add_parser(
        "describe",
        help="cost of an architecture",
        description="Multiply-accumulates per pixel and parameters of an architecture or a checkpoint.",
    )
    describe.add_argument("overrides", nargs="*", help="configuration, e.g. model=rdc_g depth=n64")
    describe.add_argument("--checkpoint", type=Path, help="describe this checkpoint instead")
    describe.add_argument(
        "--size", type=_size, default=None, metavar="HxW", help="image size, default 512x768"
    )
    describe.add_argument("--json", action="store_true", help="machine-readable")
    describe.set_defaults(run=_describe)
    _add_time(commands)
    return parser


def _add_rates(compress: argparse.ArgumentParser) -> None:
    """How a model of variable rate is told which rate; without, it takes that of its trial."""
    rates = compress.add_argument_group("rate, of a model trained with rate_control=modulator")
    rate = rates.add_mutually_exclusive_group()
    rate.add_argument("--lmbda", type=float, metavar="X", help="inside of the range that it is trained for")
    rate.add_argument(
        "--target-bpp",
        type=float,
        metavar="BPP",
        help="bits per pixel of the whole file, met within 2%%",
    )
    rate.add_argument(
        "--target-bytes", type=int, metavar="N", help="size of the file: at most N, and within 2%% of it"
    )


def _add_time(commands: Any) -> None:
    timing = commands.add_parser(
        "time",
        help="time architectures on this machine",
        description="Time the networks of architectures and append a row per model, threads, precision and\n"
        "image size to a table; what the table has already is not measured again.",
        epilog="examples:\n"
        "  python -m rdc time --models rdc_a rdc_g 'rdc_b width=0.5' -o runtimes.csv\n"
        "  python -m rdc time --checkpoints runs/frontier/trials/*/model.safetensors --precision fp32 bf16\n"
        "  python -m rdc time --models rdc_b --device cuda --images kodak clic photos/ -o runtimes.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    timing.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="names of conf/model, or quoted configurations such as 'rdc_b width=0.5'; random weights",
    )
    timing.add_argument(
        "--checkpoints",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="trained models; of these entropy coding is timed as well",
    )
    timing.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    timing.add_argument(
        "--threads",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="CPU threads, each number in a process of its own (default: 1)",
    )
    timing.add_argument(
        "--precision", nargs="+", default=["fp32"], metavar="P", help="fp32, bf16: of g_a and g_s"
    )
    timing.add_argument(
        "--images",
        nargs="+",
        default=["kodak"],
        metavar="SIZE",
        help="kodak (512x768), clic (1365x2048), HEIGHTxWIDTH, image files or folders (default: kodak)",
    )
    timing.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="timed passes, after one that is not (default: %(default)s)",
    )
    timing.add_argument("--decode-only", action="store_true", help="leave encoding out")
    timing.add_argument("--again", action="store_true", help="measure also what the table has already")
    timing.add_argument("-o", "--output", type=Path, required=True, metavar="TABLE.csv")
    timing.set_defaults(run=_time)


def _compress(arguments: argparse.Namespace) -> None:
    from rdc.bitstream import from_bytes
    from rdc.data import read_rgb
    from rdc.files import atomic_write_bytes
    from rdc.target_rate import Rate

    _check_output(arguments.output, inputs=(arguments.image, arguments.checkpoint))
    asked = Rate(arguments.lmbda, arguments.target_bpp, arguments.target_bytes)
    pixels = read_rgb(arguments.image)
    codec, metadata = _load(arguments.checkpoint)
    asked.check(codec, metadata["extra"].get("lmbda"), name=str(arguments.checkpoint))
    data = asked.encode(codec, _to_tensor(pixels), bytes.fromhex(metadata["model_hash"]))
    atomic_write_bytes(arguments.output, data)
    height, width, _ = pixels.shape
    stream = from_bytes(data)
    code = stream.rate_code
    rate = "" if code is None else f", lmbda {codec.spec.rate_control.lmbda_of(code):.4g} (rate code {code})"
    print(
        f"{arguments.output}: {len(data)} bytes, {8 * len(data) / (height * width):.4f} bpp "
        f"({len(data) - stream.payload_bytes} bytes besides the payload), {width}x{height} px{rate}"
    )


def _decompress(arguments: argparse.Namespace) -> None:
    from PIL import Image

    from rdc.bitstream import decode_image, from_bytes, read_bytes
    from rdc.files import atomic_write_bytes

    _check_output(arguments.output, inputs=(arguments.file, arguments.checkpoint))
    if arguments.output.suffix.lower() != ".png":
        raise UserError(f"{arguments.output}: the output is written as PNG; give it a name that ends in .png")
    data = read_bytes(arguments.file)
    from_bytes(data, name=str(arguments.file))  # refuses damage before the seconds that a model takes to load
    codec, metadata = _load(arguments.checkpoint)
    x_hat = decode_image(codec, data, bytes.fromhex(metadata["model_hash"]), name=str(arguments.file))
    pixels = (x_hat[0] * 255).round().byte().permute(1, 2, 0).numpy()
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG")
    atomic_write_bytes(arguments.output, png.getvalue())
    print(f"{arguments.output}: {pixels.shape[1]}x{pixels.shape[0]} px")


def _describe(arguments: argparse.Namespace) -> None:
    if arguments.checkpoint and arguments.overrides:
        raise UserError(f"--checkpoint and {arguments.overrides[0]}: describe one or the other")
    model, extra = _spec(arguments)

    from rdc.complexity import HEIGHT_PX, WIDTH_PX, measure

    complexity = measure(model, *(arguments.size or (HEIGHT_PX, WIDTH_PX)))
    lmbdas = getattr(model.rate_control, "lmbdas", None)
    if lmbdas is not None:
        extra["lmbda_range"] = [lmbdas[0], lmbdas[-1]]
    description = {
        "family": model.family,
        "gating": model.gating.name,
        "arch_id": _arch_id(model),
        **extra,
        **complexity.to_dict(),
    }
    print(json.dumps(description, indent=2) if arguments.json else _as_text(description))


def _time(arguments: argparse.Namespace) -> None:
    if not arguments.models and not arguments.checkpoints:
        raise UserError("time: name what to time with --models or --checkpoints")
    from conf import compose
    from rdc.configured import model_of
    from rdc.time_models import Settings, TimedModel, from_checkpoint, parse_sizes, time_models

    settings = Settings(
        device=arguments.device,
        threads=tuple(arguments.threads),
        precisions=tuple(arguments.precision),
        sizes=parse_sizes(arguments.images),
        repeats=arguments.repeats,
        decode_only=arguments.decode_only,
        again=arguments.again,
    )
    models = []
    for text in arguments.models:
        name, *overrides = text.split()
        overrides = [name if "=" in name else f"model={name}", *overrides]
        models.append(TimedModel(text, model_of(compose(overrides))))
    models += [from_checkpoint(path) for path in arguments.checkpoints]
    time_models(models, settings, arguments.output)


def _spec(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """(ModelSpec, what a checkpoint says about itself)."""
    if arguments.checkpoint:
        from rdc.checkpoint import model_spec, read_metadata

        metadata = read_metadata(arguments.checkpoint)
        return model_spec(metadata, arguments.checkpoint), {"checkpoint": metadata["extra"]}
    from conf import compose
    from rdc.configured import model_of

    return model_of(compose(arguments.overrides)), {}


def _arch_id(model: Any) -> str:
    from rdc.spec import arch_id

    return arch_id(model)


def _as_text(description: dict[str, Any]) -> str:
    height, width = description["image_px"]
    lines = [
        f"{description['family']}  arch_id {description['arch_id']}",
        f"image {width}x{height} px; per source pixel; parity: one dense pass of the published form,",
        "executed: what the program runs, elementwise: bias additions and products, activations: most bytes",
        "alive at once besides weights, one image in fp32; serial steps: passes that wait for each other",
        "",
        f"{'':15}{'parity':>11}{'parity':>11}{'executed':>11}{'elementwise':>13}{'activations':>13}{'serial':>8}"
        f"{'params':>13}",
        f"{'':15}{'kMAC/px':>11}{'kFLOP/px':>11}{'kFLOP/px':>11}{'kop/px':>13}{'MB':>13}{'steps':>8}",
    ]
    params = description["params"]
    for direction in ("decode", "encode"):
        memory, steps = description["activation_bytes"][direction], description["serial_steps"][direction]
        lines.append(_row(direction, description[direction], memory["peak"], steps["total"], params["total"]))
        # A part that does not run in this direction stands there too: parameters then sum to those above.
        for part, cost in description["parts"].items():
            rates = {k.removeprefix(f"{direction}_"): v for k, v in cost.items() if k.startswith(direction)}
            used = memory["parts"][part], steps["parts"][part], cost["params"]
            lines.append(_row(f"  {part}", rates, *used))
    lines.append(f"parameters: {params['total']:,} (without g_a {params['total_without_g_a']:,})")
    if description["gating"] != "none":
        lines.append(
            f"gating={description['gating']}: counted with every channel open; what images really cost, the "
            "trial's result and tables say"
        )
    if "lmbda_range" in description:
        lines.append("lmbda, one model for all: {:g} to {:g}".format(*description["lmbda_range"]))
    if "checkpoint" in description:
        lines += [f"{key}: {value}" for key, value in description["checkpoint"].items()]
    return "\n".join(lines)


def _row(name: str, rates: dict[str, float], memory: int, steps: int, params: int) -> str:
    columns = ("parity_kmac_per_px", "parity_kflop_per_px", "executed_kflop_per_px")
    cells = "".join(f"{rates[column]:11.3f}" for column in columns)
    cells += f"{rates['elementwise_kop_per_px']:13.3f}{memory / 1e6:13.1f}{steps:8,}"
    return f"{name:15}{cells}{params:13,}"


def _load(checkpoint: Path) -> tuple[Any, dict[str, Any]]:
    """As the trial's own evaluation ran it: the precision is part of what the weights were trained for."""
    from rdc.checkpoint import load_model

    codec, metadata = load_model(checkpoint)
    codec.set_transform_precision(metadata["extra"].get("precision", "fp32"))
    return codec, metadata


def _to_tensor(pixels: Any) -> Any:
    import torch

    return torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255


def _check_output(output: Path, *, inputs: Sequence[Path]) -> None:
    if output.is_dir():
        raise UserError(f"{output}: is a folder; name the file to write")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output}: its folder does not exist; make it first")
    if any(output.exists() and path.exists() and output.samefile(path) for path in inputs):
        raise UserError(f"{output}: is also an input and would be overwritten; choose another output")


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, e.g. 512x768") from None
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: both sides must be at least 1")
    return height, width


if __name__ == "__main__":
    sys.exit(main())
