"""Seeded scenes that stand in for photos: leaves that hide each other, with shading and texture.

Occluding objects whose sizes follow r^-3 give the edges, the flat parts and the scale invariance of photos
(the dead-leaves model of Lee, Mumford and Huang, IJCV 2001); noise with equal variance in every octave gives
their 1/f^2 spectrum. A seed gives the same pixels on every machine: only +, -, *, / and square roots of
correctly rounded floats are used, and the raw stream of PCG64.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

GENERATOR_VERSION = 1
SIDE_PX = 384

_OCTAVES = 6  # 384 px = 6 * 2^6


class Draws:
    """Uniform numbers from raw 64-bit streams, which numpy promises not to change."""

    def __init__(self, *seed: int) -> None:
        one_by_one, many = np.random.SeedSequence(seed).spawn(2)
        self._single = np.random.PCG64(one_by_one)
        self._many = np.random.PCG64(many)
        self._pool: list[float] = []

    def array(self, *shape: int) -> np.ndarray:
        """float32 in [0, 1)."""
        return _to_unit(self._many.random_raw(math.prod(shape))).reshape(shape)

    def number(self) -> float:
        """In [0, 1)."""
        if not self._pool:
            self._pool = _to_unit(self._single.random_raw(1024)).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.number()

    def whole(self, low: int, high: int) -> int:
        """An integer in [low, high)."""
        return low + int(self.number() * (high - low))

    def chance(self, probability: float) -> bool:
        return self.number() < probability

    def bell(self) -> float:
        """Mean 0, variance 1, within +-3.5: a normal number without logarithm or cosine."""
        return (self.number() + self.number() + self.number() + self.number() - 2.0) * 3.0**0.5

    def direction(self) -> tuple[float, float]:
        """A unit vector."""
        while True:
            a, b = self.between(-1, 1), self.between(-1, 1)
            length2 = a * a + b * b
            if 0.01 < length2 < 1:
                return a / length2**0.5, b / length2**0.5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Style:
    """What the leaves of one scene share. Colours are luma in [0, 1] and two chroma differences around 0."""

    smallest_px: float
    largest_px: float
    leaves: int
    blur_px: float
    straight: float  # share of leaves with straight sides
    upright: float  # share of leaves along the picture's axes
    luma: float
    contrast: float
    warmth: float
    tint: float
    colourfulness: float
    texture: float


def scene(seed: int, index: int) -> np.ndarray:
    """Scene `index` of a seed: (SIDE_PX, SIDE_PX, 3) uint8."""
    draws = Draws(seed, index)
    style = _style(draws)
    fields = [_field(draws) for _ in range(3)]
    planes = _background(draws, style, fields)
    if draws.chance(0.05):
        _write(draws, planes)
    else:
        for _ in range(style.leaves):
            _leaf(draws, style, fields, planes)
        if draws.chance(0.06):
            _write(draws, planes)
    return _develop(draws, planes)


def _style(draws: Draws) -> _Style:
    smallest = draws.between(2.5, 9.0)
    return _Style(
        smallest_px=smallest,
        largest_px=draws.between(60.0, 220.0),
        leaves=int(draws.between(0.25, 1.2) * min(5000.0 / smallest, 900.0)),
        blur_px=draws.between(0.7, 1.6) if draws.chance(0.7) else draws.between(1.6, 6.0),
        straight=draws.between(0.0, 0.9),
        upright=draws.between(0.0, 0.9),
        luma=draws.between(0.22, 0.68),
        contrast=draws.between(0.16, 0.42),
        warmth=0.02 + 0.045 * draws.bell(),
        tint=0.018 * draws.bell(),
        colourfulness=draws.between(0.015, 0.1),
        texture=draws.between(0.01, 0.12),
    )


def _field(draws: Draws) -> np.ndarray:
    """Noise with a power-law spectrum, float32, about [-1, 1]; sometimes drawn out along one axis."""
    gain = draws.between(0.55, 1.05)  # amplitude from octave to octave; 1 is the 1/f^2 power of photos
    drawn_out = draws.whole(0, 3) if draws.chance(0.35) else 0
    sideways = draws.chance(0.5)
    side = SIDE_PX >> _OCTAVES
    field = draws.array(side, side) - np.float32(0.5)
    weight, total = 1.0, 1.0
    for octave in range(_OCTAVES):
        field = _double(_double(field).T).T
        weight *= gain
        total += weight * weight
        detail = draws.array(*field.shape) - np.float32(0.5)
        for _ in range(min(drawn_out, octave + 1)):
            half = detail[:, : detail.shape[1] // 2]
            detail = _double(half)
        field = field + np.float32(weight) * (detail.T if sideways else detail)
    return field * np.float32(2.5 / total**0.5)


def _double(values: np.ndarray) -> np.ndarray:
    """Twice as many columns by linear interpolation between the centres of the old ones."""
    left = np.concatenate([values[:, :1], values[:, :-1]], axis=1)
    right = np.concatenate([values[:, 1:], values[:, -1:]], axis=1)
    out = np.empty((values.shape[0], 2 * values.shape[1]), np.float32)
    out[:, 0::2] = np.float32(0.75) * values + np.float32(0.25) * left
    out[:, 1::2] = np.float32(0.75) * values + np.float32(0.25) * right
    return out


def _colour(draws: Draws, style: _Style) -> tuple[float, float, float]:
    """Luma and two chroma differences, most along the blue-yellow line of daylight.

    The second chroma axis needs about half the variance of the first, as in photos: a codec that sees less of
    it leaves it out and then fails on every red and green object.
    """
    luma = min(max(style.luma + style.contrast * draws.bell(), 0.02), 0.98)
    daylight = style.warmth + style.colourfulness * draws.bell()
    across = style.tint + 0.6 * style.colourfulness * draws.bell()
    strong = 3.0 if draws.chance(0.06) else 1.0
    room = 4.0 * luma * (1.0 - luma)  # near black and near white there is little room for colour
    return luma, room * strong * (across - daylight), room * strong * (0.8 * daylight + across)


def _background(draws: Draws, style: _Style, fields: list[np.ndarray]) -> list[np.ndarray]:
    """Three planes with a gradient and texture: sky, wall, ground."""
    first, second = _colour(draws, style), _colour(draws, style)
    a, b = draws.direction()
    axis = (np.arange(SIDE_PX, dtype=np.float32) - np.float32(SIDE_PX / 2)) / np.float32(SIDE_PX)
    ramp = axis[:, None] * np.float32(a) + axis[None, :] * np.float32(b)
    planes = [np.float32((p + q) / 2) + np.float32(q - p) * ramp for p, q in zip(first, second, strict=True)]
    planes[0] = planes[0] + np.float32(style.texture * draws.between(0.2, 1.5)) * fields[0]
    planes[1] = planes[1] + np.float32(0.1 * style.texture) * fields[1]
    return planes


def _leaf(draws: Draws, style: _Style, fields: list[np.ndarray], planes: list[np.ndarray]) -> None:
    """Paint one object over the planes: soft outline, shading across it, texture, sometimes a shadow."""
    ratio = style.smallest_px / style.largest_px
    u0, y0, x0, aspect, light, pick, shape = (draws.number() for _ in range(7))
    radius = style.smallest_px / (1.0 - u0 * (1.0 - ratio * ratio)) ** 0.5
    across = radius * (0.25 + 0.75 * aspect)
    centre_y, centre_x = y0 * SIDE_PX, x0 * SIDE_PX
    reach = int(1.45 * radius + style.blur_px) + 2
    top, bottom = max(int(centre_y) - reach, 0), min(int(centre_y) + reach, SIDE_PX)
    left, right = max(int(centre_x) - reach, 0), min(int(centre_x) + reach, SIDE_PX)
    cos, sin = (1.0, 0.0) if draws.chance(style.upright) else draws.direction()
    dy = (np.arange(top, bottom, dtype=np.float32) - np.float32(centre_y))[:, None]
    dx = (np.arange(left, right, dtype=np.float32) - np.float32(centre_x))[None, :]
    u = dx * np.float32(cos / radius) + dy * np.float32(sin / radius)
    v = dy * np.float32(cos / across) - dx * np.float32(sin / across)
    field = fields[int(pick * 3)][top:bottom, left:right]
    if shape < style.straight:
        outline = np.maximum(np.abs(u), np.abs(v)) if shape < 0.7 * style.straight else np.abs(u) + np.abs(v)
    else:
        outline = np.sqrt(u * u + v * v)
        if pick < 0.5:
            outline = outline + np.float32(0.25) * field
    cover = np.clip((1 - outline) * np.float32(across / style.blur_px) + np.float32(0.5), 0, 1)
    luma, blue, red = _colour(draws, style)
    shade = np.float32(luma) + np.float32(style.contrast * (light - 0.5)) * (u + v)
    if radius > 6:
        shade = shade + np.float32(style.texture * (0.2 + 1.6 * aspect)) * field
    window = (slice(top, bottom), slice(left, right))
    for plane, paint in zip(planes, (shade, np.float32(blue), np.float32(red)), strict=True):
        under = plane[window]
        under += cover * (paint - under)


def _write(draws: Draws, planes: list[np.ndarray]) -> None:
    """Rows of glyph-like strokes, dark on light or light on dark."""
    height, pen = draws.whole(7, 22), draws.whole(1, 3)
    ink = 0.05 if float(planes[0][0, 0]) > 0.45 else 0.95
    top, left = draws.whole(0, 60), draws.whole(0, 60)
    for row in range(top, SIDE_PX - height, height + height // 2 + 2):
        column = left
        stop = draws.whole(SIDE_PX // 2, SIDE_PX)
        while column < stop - height:
            if draws.chance(0.16):
                column += height // 2
                continue
            _glyph(draws, planes[0][row : row + height, column : column + height], pen, ink)
            column += height // 2 + pen + 1


def _glyph(draws: Draws, box: np.ndarray, pen: int, ink: float) -> None:
    """A few vertical, horizontal and slanted strokes in the left half of a square box."""
    height = box.shape[0]
    width = height // 2
    for _ in range(draws.whole(2, 4)):
        kind, place = draws.whole(0, 3), draws.whole(0, max(width - pen, 1))
        if kind == 0:
            box[:, place : place + pen] = ink
        elif kind == 1:
            at = draws.whole(0, height - pen)
            box[at : at + pen, :width] = ink
        else:
            for line in range(height):
                at = line * (width - pen) // height
                box[line, at : at + pen] = ink


def _develop(draws: Draws, planes: list[np.ndarray]) -> np.ndarray:
    """Lens blur, sensor noise, luma and chroma differences to RGB (ITU-R BT.601), rounding to 8 bits."""
    softness = np.float32(draws.between(0.0, 0.35))
    luma, blue, red = (_soften(_soften(plane, softness).T, softness).T for plane in planes)
    grain = np.float32(draws.between(0.0, 0.012))
    luma = luma + grain * (draws.array(SIDE_PX, SIDE_PX) + draws.array(SIDE_PX, SIDE_PX) - np.float32(1))
    rgb = np.stack(
        [
            luma + np.float32(1.402) * red,
            luma - np.float32(0.344136) * blue - np.float32(0.714136) * red,
            luma + np.float32(1.772) * blue,
        ],
        axis=2,
    )
    return np.floor(np.clip(rgb, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _soften(values: np.ndarray, amount: np.float32) -> np.ndarray:
    out = values.copy()
    out[:, 1:-1] += amount * (np.float32(0.5) * (values[:, :-2] + values[:, 2:]) - values[:, 1:-1])
    return out


def _to_unit(raw: np.ndarray) -> np.ndarray:
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
