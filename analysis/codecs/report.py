"""`python -m analysis anchors`: measures a folder, writes the anchor CSV, prints means and a sanity check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis import text
from analysis.anchors import DEFAULT, load_anchor
from analysis.bdrate import Curve, bd_rate
from analysis.codecs.cache import Cache
from analysis.codecs.codec import Codec
from analysis.codecs.images import content_sha256, dataset_name, find_images
from analysis.codecs.results import MeanPoint, Results, collect
from analysis.codecs.runner import Outcome, measure
from analysis.errors import AnalysisError
from analysis.files import is_folder, write_csv

_GO_ON = "What is measured is kept; the same command goes on from there."


@dataclasses.dataclass(frozen=True)
class AnchorReport:
    """complete: every codec at every setting on every image. text: what was printed."""

    results: Results
    outcome: Outcome
    complete: bool
    text: str


def report(
    folder: Path,
    out: Path,
    codecs: Sequence[Codec],
    missing: dict[str, str],
    *,
    dataset: str | None,
    cache: Cache,
    jobs: int,
    progress: Callable[[str], None],
) -> AnchorReport:
    """AnalysisError if no setting of any codec can be complete: then nothing is written."""
    if out.suffix.lower() != ".csv" or is_folder(out):
        raise AnalysisError(f"--out {out}: must be the name of a .csv file")
    images, others = find_images(folder)
    dataset = dataset_name(folder, images, dataset)
    outcome = measure(codecs, images, cache, jobs=jobs, progress=progress)
    results = collect(codecs, images, dataset, outcome)
    if results.rows.empty and outcome.interrupted:
        printed = f"interrupted before any setting was complete: {out} is not written. " + _GO_ON
        print(printed)
        return AnchorReport(results, outcome, False, printed)
    if results.rows.empty:
        why = results.left_out[0] if results.left_out else "there was nothing to do"
        raise AnalysisError(f"no setting is complete, {out} is not written; {why}")
    write_csv(results.rows, out)
    complete = not results.left_out and not outcome.interrupted
    lines = [text.paragraph("not run", f"{name}: {why}") for name, why in missing.items()]
    if others:
        lines.append(text.paragraph("not read", f"files of other kinds: {text.some(others)}"))
    count = f"{len(images)} image{'s' if len(images) > 1 else ''}"
    lines += [
        f"Codecs on {dataset} ({count}, content {content_sha256(images)[:12]}): bits of whole files, "
        "mean of per-image RGB PSNR of 8-bit pixels",
        "",
        _means(codecs, results),
        "",
        *(
            text.paragraph(codec.name, f"{codec.encoder}; {codec.colour}; {codec.version}")
            for codec in codecs
        ),
        "",
        *_sanity(codecs, results, dataset),
        *(text.paragraph("left out", line) for line in results.left_out),
    ]
    if outcome.interrupted:
        lines.append(text.paragraph("interrupted", _GO_ON))
    first = next(codec.name for codec in codecs if results.of(codec.name))
    lines += [
        text.paragraph("use", f"python -m analysis bdrate SOURCE --anchor {out}:{first}"),
        text.files_line([out]),
    ]
    printed = "\n".join(lines)
    print(printed)
    return AnchorReport(results, outcome, complete, printed)


def _means(codecs: Sequence[Codec], results: Results) -> str:
    heads = [("", "codec"), ("", "setting"), ("", "bpp"), ("PSNR", "dB")]
    body = [
        [point.codec if number == 0 else "", point.setting, f"{point.bpp:.4f}", f"{point.psnr_db:.3f}"]
        for codec in codecs
        for number, point in enumerate(results.of(codec.name))
    ]
    return text.columns_text(heads, body)


def _sanity(codecs: Sequence[Codec], results: Results, dataset: str) -> list[str]:
    """BD-rate of every codec against the default anchor, or why there is none."""
    anchor = load_anchor(DEFAULT)
    if dataset != anchor.dataset:
        return [
            text.paragraph("BD-rate", f"none: the curves that are shipped were measured on {anchor.dataset}")
        ]
    lines = []
    for codec in codecs:
        try:
            found = bd_rate(anchor.curve, curve_of(codec.name, results.of(codec.name)))
        except AnalysisError as error:
            lines.append(text.paragraph("BD-rate", f"{codec.name}: none, {error}"))
            continue
        reach = f"{found.psnr_low_db:.2f}..{found.psnr_high_db:.2f} dB"
        value = f"{codec.name} {found.bd_rate_pct:+.1f} % against {anchor.name} over {reach}, pchip"
        lines.append(text.paragraph("BD-rate", value))
    return lines


def curve_of(name: str, points: Sequence[MeanPoint]) -> Curve:
    """Raises AnalysisError by name if the points are too few or not monotone."""
    return Curve(name, tuple(p.bpp for p in points), tuple(p.psnr_db for p in points))
