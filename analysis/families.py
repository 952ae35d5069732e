"""What families look like: the same in every figure, page and sweep, whichever others are shown."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence

# Okabe and Ito's colours, which people with any colour vision can tell apart; yellow is too faint for points.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "P", "s", "D", "^", "v", "X", "h", "p", "<", ">", "d", "H")
TRANSFORM_COLOURS = dict(zip(("conv", "elic", "swint", "cheng2020"), COLOURS, strict=False))
# Of entropy model and hyper-transform.
_KNOWN_MODELS = (
    "charm/conv",
    "charm/swint",
    "mean_scale_hyperprior/conv",
    "mean_scale_hyperprior/swint",
    "scale_hyperprior/conv",
    "scale_hyperprior/swint",
    "joint_autoregressive/conv",
    "joint_autoregressive/cheng2020",
    "space_channel/conv",
)
MODEL_MARKERS = dict(zip(_KNOWN_MODELS, MARKERS, strict=False))

Style = tuple[str, str]
Styles = Mapping[str, Style]


def family_styles(families: Iterable[str]) -> dict[str, Style]:
    """Colour and marker of every family: the transform's colour, the marker of its other two parts.

    Known parts look the same in every figure. Unknown ones take what these leave, by their names, and make
    way so that no two of the given families look alike; there are 91 pairs.
    """
    found: dict[str, Style] = {}
    taken: set[Style] = set()
    for family in sorted(set(families), key=lambda family: (not _is_known(family), family)):
        transform, _, model = family.partition("/")
        colours = _looks(transform, TRANSFORM_COLOURS, COLOURS)
        markers = _looks(model, MODEL_MARKERS, MARKERS)
        free = (pair for pair in itertools.product(colours, markers) if pair not in taken)
        found[family] = next(free, (colours[0], markers[0]))
        taken.add(found[family])
    return {family: found[family] for family in sorted(found)}


def _is_known(family: str) -> bool:
    transform, _, model = family.partition("/")
    return transform in TRANSFORM_COLOURS and model in MODEL_MARKERS


def _looks(name: str, known: Mapping[str, str], every: Sequence[str]) -> list[str]:
    """Colours or markers in the order in which the name may have them."""
    spare = [look for look in every if look not in known.values()]
    turn = zlib.crc32(name.encode()) % len(spare)
    own = [known[name]] if name in known else []
    return list(dict.fromkeys([*own, *spare[turn:], *spare[:turn], *known.values()]))


def curve_styles(count: int, but: Iterable[Style] = ()) -> list[Style]:
    """Pairs for curves with a name each, without those in `but`; both change from one to the next."""
    every = [
        (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i in range(len(COLOURS) * len(MARKERS))
    ]
    free = [pair for pair in every if pair not in set(but)] or every
    return [free[i % len(free)] for i in range(count)]
