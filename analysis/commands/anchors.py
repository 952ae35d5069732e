"""python -m analysis anchors."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from analysis.commands.common import Commands, Help
from analysis.errors import AnalysisError

_INTERRUPTED = 130


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "anchors",
        help="runs conventional codecs on a folder of images; writes their curves as a CSV",
        description="Codes and decodes every image of a folder: bits of whole files, RGB PSNR of the\n"
        "decoded 8-bit pixels. BPG and VTM are programs of yours; pip install 'rdc[all]' brings the others.\n"
        "What is measured is kept: repeat the command to go on after an interruption.",
        epilog="examples:\n"
        "  python -m analysis anchors $RDC_DATA/kodak -o kodak.csv\n"
        "  python -m analysis anchors photos --codecs hevc,av1 --settings hevc=10,20,30,40\n"
        "  python -m analysis anchors photos --codecs vtm --vtm-encoder VTM/bin/EncoderAppStatic \\\n"
        "         --vtm-cfg VTM/cfg/encoder_intra_vtm.cfg\n"
        "  python -m analysis bdrate runs/curves --anchor kodak.csv:hevc",
        formatter_class=Help,
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="where the images are: PNG, BMP, WebP or JPEG"
    )
    parser.add_argument("--codecs", metavar="A,B", help="bpg, vtm, hevc, av1, jpegxl, webp, jpeg2000, jpeg")
    parser.add_argument(
        "--settings",
        action="append",
        default=[],
        metavar="CODEC=X,Y",
        help="values of the codec's quality parameter in place of the usual ones; may be repeated",
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="what the images are called (default: the folder's name)"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("anchors.csv"), metavar="FILE", help="(default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="images at a time (default: one per CPU core)")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="(default: ~/.cache/rdc/anchors)")
    for option, what in (
        ("--bpgenc", "BPG's encoder"),
        ("--bpgdec", "its decoder"),
        ("--vtm-encoder", "VTM's EncoderApp"),
        ("--vtm-decoder", "its DecoderApp"),
    ):
        parser.add_argument(option, metavar="PATH", help=f"{what} (default: on PATH)")
    parser.add_argument(
        "--vtm-cfg", metavar="FILE", help="encoder_intra_vtm.cfg, or another configuration of VTM"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        return _measure(options)
    except KeyboardInterrupt:  # before or after the measuring, which has an end of its own
        print("interrupted; what is measured is kept", file=sys.stderr)
        return _INTERRUPTED


def _measure(options: argparse.Namespace) -> int:
    from analysis.codecs.cache import Cache, default_folder
    from analysis.codecs.programs import Programs
    from analysis.codecs.registry import choose
    from analysis.codecs.report import report

    jobs = options.jobs if options.jobs is not None else len(os.sched_getaffinity(0))
    if not 1 <= jobs <= 1024:
        raise AnalysisError(f"--jobs {jobs}: must be from 1 to 1024")
    programs = Programs(
        bpgenc=options.bpgenc,
        bpgdec=options.bpgdec,
        vtm_encoder=options.vtm_encoder,
        vtm_decoder=options.vtm_decoder,
        vtm_cfg=options.vtm_cfg,
    )
    codecs, missing = choose(options.codecs, options.settings, programs)
    done = report(
        options.folder,
        options.out,
        codecs,
        missing,
        dataset=options.dataset,
        cache=Cache(options.cache or default_folder()),
        jobs=jobs,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if done.outcome.interrupted:
        return _INTERRUPTED
    return 0 if done.complete else 1
