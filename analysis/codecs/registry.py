"""Which codecs there are, which of them can run here, and at which settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.codecs import libraries, programs
from analysis.codecs.codec import Codec, UnavailableError
from analysis.codecs.programs import Programs
from analysis.errors import AnalysisError

_FINDERS: dict[str, Callable[[Programs], Codec]] = {
    "bpg": programs.bpg,
    "vtm": programs.vtm,
    "hevc": lambda _: libraries.hevc(),
    "av1": lambda _: libraries.av1(),
    "jpegxl": lambda _: libraries.jpegxl(),
    "webp": lambda _: libraries.webp(),
    "jpeg2000": lambda _: libraries.jpeg2000(),
    "jpeg": lambda _: libraries.jpeg(),
}
NAMES = tuple(_FINDERS)


def choose(
    wanted: str | None, settings: Sequence[str], programs: Programs
) -> tuple[list[Codec], dict[str, str]]:
    """The codecs to run, and of the others why they cannot. wanted: names with commas; None: what is here.

    settings: CODEC=VALUE,VALUE,... of codecs whose usual grid is not wanted. AnalysisError if a codec that
    was named cannot run.
    """
    names = NAMES if wanted is None else _names(wanted)
    grids = dict(_grid(text, names) for text in settings)
    if len(grids) < len(settings):
        raise AnalysisError("--settings: a codec has several grids; give it one, with commas")
    found, missing = [], {}
    for name in names:
        try:
            codec = _FINDERS[name](programs)
        except UnavailableError as error:
            if wanted is not None or name in grids:
                raise AnalysisError(f"{name}: {error}") from None
            missing[name] = str(error)
            continue
        found.append(codec.with_values(grids[name]) if name in grids else codec)
    if not found:
        raise AnalysisError("no codec can run here: " + "; ".join(f"{n} {why}" for n, why in missing.items()))
    return found, missing


def _names(wanted: str) -> list[str]:
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in NAMES:
            raise AnalysisError(f"--codecs {name!r}: is not known; known: {', '.join(NAMES)}")
    return list(dict.fromkeys(names))


def _grid(text: str, names: Sequence[str]) -> tuple[str, tuple[float, ...]]:
    name, _, values = text.partition("=")
    if name.strip() not in names:
        raise AnalysisError(f"--settings {text}: needs CODEC=VALUE,VALUE with a codec of {', '.join(names)}")
    try:
        return name.strip(), tuple(float(value) for value in values.split(","))
    except ValueError:
        raise AnalysisError(f"--settings {text}: the values must be numbers, such as {name}=10,20") from None
