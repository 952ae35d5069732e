import itertools

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from analysis.labels import place_labels


def place(points: list[tuple[float, float]], texts: list[str]) -> tuple[Axes, list[str]]:
    figure = Figure(figsize=(6, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    (line,) = axes.plot(*zip(*points, strict=True))
    labels = [(x, y, text) for (x, y), text in zip(points, texts, strict=True)]
    return axes, place_labels(axes, labels, np.array(points), [line])


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_labels_stay_inside_and_off_each_other_the_points_and_the_line(slope: float) -> None:
    points = [(float(x), slope * x) for x in range(8)]
    axes, left_out = place(points, [f"conv {n}-{n} scale" for n in range(8)])
    axes.figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without their leaders
    assert len(boxes) + len(left_out) == 8
    assert len(boxes) >= 4
    inside = axes.get_window_extent()
    corners = axes.transData.transform([points[0], points[-1]])
    line = np.linspace(corners[0], corners[1], 400)
    for box in boxes:
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1  # noqa: PT018
        assert not any(box.contains(*pixel) for pixel in line)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def distance(box: Bbox, pixel: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(pixel - np.clip(pixel, box.min, box.max)))


@pytest.mark.parametrize("seed", range(4))
def test_a_name_without_a_leader_is_nearest_to_its_own_point(seed: int) -> None:
    points = [(float(x), float(y)) for x, y in np.random.default_rng(seed).uniform(0, 1, (14, 2))]
    axes, left_out = place(points, [f"name {n}" for n in range(14)])
    axes.figure.canvas.draw()
    pixels = axes.transData.transform(points)
    beside = [text for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch is None]
    assert len(beside) + len(left_out) >= 5
    for text in beside:
        own = int(text.get_text().removeprefix("name "))
        distances = [distance(Text.get_window_extent(text), pixel) for pixel in pixels]
        assert np.argmin(distances) == own


def test_texts_that_stand_there_already_are_not_covered() -> None:
    axes, _ = place([(0.0, 0.0), (1.0, 1.0)], ["first", "second"])
    assert place_labels(axes, [(0.0, 0.0, "again")], np.array([[0.0, 0.0], [1.0, 1.0]])) == []
    axes.figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_what_has_no_room_is_returned() -> None:
    axes, left_out = place([(0.0, 0.0), (1.0, 1.0)], ["x" * 200, "short"])
    assert left_out == ["x" * 200]
    assert [text.get_text() for text in axes.texts] == ["short"]


def test_far_labels_have_leaders_that_cross_no_label_and_no_point() -> None:
    points = [(0.5 + 0.02 * n, 0.5) for n in range(5)]
    axes, left_out = place(
        [*points, (0.0, 0.0), (1.0, 1.0)], [f"architecture {n}" for n in range(5)] + ["", ""]
    )
    assert len(left_out) <= 2
    axes.figure.canvas.draw()
    texts = [text for text in axes.texts if isinstance(text, Annotation) and text.get_text()]
    leaders = [text for text in texts if text.arrow_patch is not None]
    assert leaders
    pixels = axes.transData.transform(points)
    for text in leaders:
        assert text.arrow_patch is not None
        path = text.arrow_patch.get_path()
        start, end = (text.arrow_patch.get_transform().transform(path.vertices)[side] for side in (0, -1))
        along = np.linspace(start, end, 200)
        for other in texts:
            if other is not text:
                assert not any(Text.get_window_extent(other).contains(*pixel) for pixel in along)
        for point in pixels:
            if not np.allclose(point, axes.transData.transform(text.xy)):
                assert np.linalg.norm(along - point, axis=1).min() > 3
