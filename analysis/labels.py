"""Names beside points without one lying on another, on a point, or outside the axes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

# Directions tried around a point, the usual reading position first, then farther out with a leader line.
_ANGLES_DEG = (35, -35, 145, -145, 90, -90, 0, 180)
_RADII_PX = (13, 24, 40, 62, 90, 125)
_POINT_PX = 6.0
_NAME_PT, _LINE_END_PT = 8.0, 7.5
_LEADER = "0.75"
_HORIZONTAL: Mapping[float, Literal["left", "center", "right"]] = {0.0: "left", 0.5: "center", 1.0: "right"}
_VERTICAL: Mapping[float, Literal["bottom", "center", "top"]] = {0.0: "bottom", 0.5: "center", 1.0: "top"}


class _Boxes:
    """Occupied rectangles in pixels, as rows of left, bottom, right, top."""

    def __init__(self) -> None:
        self._extents = np.empty((0, 4))

    def add(self, extents: npt.NDArray[np.float64]) -> None:
        self._extents = np.vstack([self._extents, extents])

    def add_around(self, centers: npt.NDArray[np.float64], half_px: float) -> None:
        """Squares around pixels, centers: (n, 2)."""
        self.add(np.hstack([centers - half_px, centers + half_px]))

    def hold(self, pixels: npt.NDArray[np.float64]) -> bool:
        """Whether any of the pixels, (n, 2), lies in an occupied rectangle."""
        left, bottom, right, top = self._extents.T
        x, y = pixels[:, :1], pixels[:, 1:]
        return bool(np.any((left < x) & (x < right) & (bottom < y) & (y < top)))

    def touch(self, box: Bbox) -> bool:
        left, bottom, right, top = self._extents.T
        return bool(np.any((left < box.x1) & (right > box.x0) & (bottom < box.y1) & (top > box.y0)))


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    points: npt.NDArray[np.float64],
    lines: Sequence[Line2D] = (),
) -> list[str]:
    """Write each (x, y, text) near its point; returns the texts for which there was no room.

    points: (n, 2) data coordinates of all points. No label covers one, or a line, or a text, nor is
    it nearer to another point than to its own, unless a leader says whose it is and no other place is free.
    """
    _settle(axes)
    scale = axes.figure.dpi / 100.0
    inside = axes.get_window_extent()
    points_px = axes.transData.transform(points)
    taken = _Boxes()
    taken.add_around(points_px, _POINT_PX * scale)
    for text in axes.texts:
        text.get_window_extent()  # an annotation takes its place now
        taken.add(np.array([Text.get_window_extent(text).extents]))  # of an annotation without its leader
    for line in lines:
        taken.add_around(_along(line, axes, 6.0 * scale), 1.5 * scale)
    left_out = []
    for x, y, name in labels:
        if not _place_one(axes, (x, y), name, inside, taken, points_px, scale):
            left_out.append(name)
    return left_out


def _settle(axes: Axes) -> None:
    """Lay the figure out: before, positions in pixels mean nothing. To draw it as well takes seconds."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes are in a figure"
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    axes.get_xlim(), axes.get_ylim()  # limits follow the data when they are asked for


def label_line_ends(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    """Write each line's name right of the axes, at the height of its end (x, y), or as near as others allow.

    Names are in the order of the heights. A leader goes straight to the axes' edge first, so that none
    crosses another.
    The axes' limits must be settled. A layout that cares for what lies outside axes makes room.
    """
    _settle(axes)
    low_px, high_px = axes.get_window_extent().intervaly
    step_px = _LINE_END_PT * 1.35 * axes.figure.dpi / 72
    edge = axes.get_xlim()[1]
    ordered = sorted(ends, key=lambda end: (end[1], end[2]))
    wanted_px = [axes.transData.transform((x, y))[1] for x, y, _ in ordered]
    for (x, y, text), height_px in zip(ordered, _spread(wanted_px, step_px, low_px, high_px), strict=True):
        if x < edge:
            axes.plot([x, edge], [y, y], color=_LEADER, linewidth=0.7, zorder=1, gid="leader")
        axes.annotate(
            text,
            (edge, y),
            xytext=(1.03, (height_px - low_px) / (high_px - low_px)),
            textcoords="axes fraction",
            ha="left",
            va="center",
            fontsize=_LINE_END_PT,
            color="0.2",
            arrowprops={"arrowstyle": "-", "color": _LEADER, "linewidth": 0.7, "relpos": (0, 0.5)},
            annotation_clip=False,
        )


def _spread(wanted: Sequence[float], step: float, low: float, high: float) -> npt.NDArray[np.float64]:
    """Heights by rising order, at least `step` apart, near the wanted ones and, if they fit, in the range."""
    heights = np.clip(np.asarray(wanted, dtype=np.float64), low, high)
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + step)
    # What was pushed beyond the top comes back down, the highest first.
    ceiling = high
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - step
    return heights


def _place_one(
    axes: Axes,
    point: tuple[float, float],
    text: str,
    inside: Bbox,
    taken: _Boxes,
    points_px: npt.NDArray[np.float64],
    scale: float,
) -> bool:
    probe = axes.text(*point, text, fontsize=_NAME_PT)
    size_px = probe.get_window_extent().size
    probe.remove()
    at_px = axes.transData.transform(point)
    others_px = points_px[np.abs(points_px - at_px).max(axis=1) > 0.5]
    second_best = None
    for radius_px, angle_deg in itertools.product(_RADII_PX, _ANGLES_DEG):
        place = _Place.at(at_px, size_px, radius_px, angle_deg, scale)
        if not _contains(inside, place.box) or taken.touch(place.box) or taken.hold(place.leader):
            continue
        if place.is_nearest(at_px, others_px):
            break
        if len(place.leader) and second_best is None:
            second_best = place
    else:
        if second_best is None:
            return False
        place = second_best
    taken.add(np.array([place.box.extents]))
    taken.add_around(place.leader, 1.5 * scale)
    _write(axes, point, text, place)
    return True


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a name may stand.

    offset: from its point, in pixels. anchor: of the text; 0: it begins there, 0.5: its middle is there,
    1: it ends there. leader: (k, 2) pixels of the line to it, none beside the point.
    """

    offset: npt.NDArray[np.float64]
    anchor: tuple[float, float]
    box: Bbox
    leader: npt.NDArray[np.float64]

    @classmethod
    def at(
        cls,
        at_px: npt.NDArray[np.float64],
        size_px: npt.ArrayLike,
        radius_px: float,
        angle_deg: float,
        scale: float,
    ) -> _Place:
        direction = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
        offset = radius_px * scale * direction
        x, y = (0.0 if part > 0.1 else 1.0 if part < -0.1 else 0.5 for part in direction)
        corner = at_px + offset - np.asarray(size_px) * (x, y)
        box = Bbox([corner, corner + size_px]).padded(1.5 * scale)
        is_far = radius_px > _RADII_PX[0]
        leader = _leader(at_px, at_px + offset, scale) if is_far else np.empty((0, 2))
        return cls(offset, (x, y), box, leader)

    def is_nearest(self, own_px: npt.NDArray[np.float64], others_px: npt.NDArray[np.float64]) -> bool:
        """Whether no other point is as near to the name as its own."""
        return not len(others_px) or bool(self._distances(own_px[None])[0] < self._distances(others_px).min())

    def _distances(self, pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        nearest = np.clip(pixels, self.box.min, self.box.max)
        distances: npt.NDArray[np.float64] = np.linalg.norm(pixels - nearest, axis=1)
        return distances


def _write(axes: Axes, point: tuple[float, float], text: str, place: _Place) -> None:
    leader = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.7, "relpos": place.anchor, "shrinkA": 0}
    axes.annotate(
        text,
        point,
        xytext=tuple(place.offset * 72 / axes.figure.dpi),
        textcoords="offset points",
        ha=_HORIZONTAL[place.anchor[0]],
        va=_VERTICAL[place.anchor[1]],
        fontsize=_NAME_PT,
        color="0.15",
        arrowprops=leader if len(place.leader) else None,
        zorder=5,
    ).set_in_layout(False)  # it is inside the axes, and must not move them


def _leader(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], scale: float
) -> npt.NDArray[np.float64]:
    """Pixels from beside a point, whose own square does not count, to its label."""
    length = float(np.linalg.norm(end - start))
    clear = min(1.0, 1.5 * _POINT_PX * scale / length)
    return np.linspace(start + clear * (end - start), end, 2 + int(length / (3.0 * scale)))


def _along(line: Line2D, axes: Axes, spacing_px: float) -> npt.NDArray[np.float64]:
    """Pixels along the drawn line, at most `spacing_px` apart."""
    corners = axes.transData.transform(line.get_xydata())
    pieces = [
        np.linspace(start, end, 2 + int(np.linalg.norm(end - start) / spacing_px))
        for start, end in itertools.pairwise(corners)
    ]
    return np.concatenate(pieces) if pieces else corners


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1
