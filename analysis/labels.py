"""Names beside points without one lying on another, on a point, or outside the axes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

# Directions tried around a point, the usual reading position first, then farther out with a leader line.
_ANGLES_DEG = (35, -35, 145, -145, 90, -90, 0, 180)
_RADII_PX = (13, 24, 40, 62, 90, 125)
_POINT_PX = 6.0
_LINE_END_PT = 7.5


class _Boxes:
    """Occupied rectangles in pixels, as rows of left, bottom, right, top."""

    def __init__(self) -> None:
        self._extents = np.empty((0, 4))

    def add(self, extents: npt.NDArray[np.float64]) -> None:
        self._extents = np.vstack([self._extents, extents])

    def add_around(self, centers: npt.NDArray[np.float64], half_px: float) -> None:
        """Squares around pixels, centers: (n, 2)."""
        self.add(np.hstack([centers - half_px, centers + half_px]))

    def touch(self, box: Bbox) -> bool:
        left, bottom, right, top = self._extents.T
        return bool(np.any((left < box.x1) & (right > box.x0) & (bottom < box.y1) & (top > box.y0)))


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    points: npt.NDArray[np.float64],
    line: Line2D | None,
) -> list[str]:
    """Write each (x, y, text) near its point; returns the texts for which there was no room.

    points: (n, 2) data coordinates of all points. No label covers one, or the line, or another label.
    """
    figure = axes.figure
    figure.canvas.draw()  # the layout must be settled before positions in pixels mean anything
    scale = figure.dpi / 100.0
    inside = axes.get_window_extent()
    taken = _Boxes()
    taken.add_around(axes.transData.transform(points), _POINT_PX * scale)
    if line is not None:
        taken.add_around(_along(line, axes, 6.0 * scale), 1.5 * scale)
    left_out = []
    for x, y, text in labels:
        if not _place_one(axes, (x, y), text, inside, taken, scale):
            left_out.append(text)
    return left_out


def label_line_ends(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    """Write each line's name right of the axes, at the height of its end (x, y), or as near as others allow.

    The axes' limits must be settled. A layout that cares for what lies outside axes makes room.
    """
    figure = axes.figure
    figure.canvas.draw()
    low_px, high_px = axes.get_window_extent().intervaly
    step_px = _LINE_END_PT * 1.35 * figure.dpi / 72
    ordered = sorted(ends, key=lambda end: (end[1], end[2]))
    wanted_px = [axes.transData.transform((x, y))[1] for x, y, _ in ordered]
    for (x, y, text), height_px in zip(ordered, _spread(wanted_px, step_px, low_px, high_px), strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(1.03, (height_px - low_px) / (high_px - low_px)),
            textcoords="axes fraction",
            ha="left",
            va="center",
            fontsize=_LINE_END_PT,
            color="0.2",
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.7, "relpos": (0, 0.5)},
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
    axes: Axes, point: tuple[float, float], text: str, inside: Bbox, taken: _Boxes, scale: float
) -> bool:
    for radius_px in _RADII_PX:
        for angle_deg in _ANGLES_DEG:
            direction = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
            offset = radius_px * scale * direction
            label = axes.annotate(
                text,
                point,
                xytext=tuple(offset * 72 / axes.figure.dpi),
                textcoords="offset points",
                ha="left" if direction[0] > 0.1 else "right" if direction[0] < -0.1 else "center",
                va="bottom" if direction[1] > 0.1 else "top" if direction[1] < -0.1 else "center",
                fontsize=8,
                color="0.15",
                arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.7}
                if radius_px > _RADII_PX[0]
                else None,
                zorder=5,
            )
            box = label.get_window_extent().padded(1.5 * scale)
            if _contains(inside, box) and not taken.touch(box):
                taken.add(np.array([box.extents]))
                return True
            label.remove()
    return False


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
