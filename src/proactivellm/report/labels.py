"""Labels of points that run into nothing: each finds a free place, or is left out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proactivellm.report.figure import plain_text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.path import Path
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

    _Place = tuple[tuple[float, float], tuple[int, int], Bbox]  # offset, side, box

# Points from the marker, and where the label lies: -1 left or below, 0 centred, 1 right or above.
_DIRECTIONS = ((1, -1), (1, 1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
_DISTANCES = (5, 11, 18)
_MARKER = 7.0  # pixels around a point that labels keep clear of
_STEP = 6.0  # pixels between the places of a line that are looked at
_TOGETHER = 37.0  # pixels between points that share a label

Label = tuple[str, tuple[float, float], str]  # text, point, colour


def put_labels(axes: "Axes", labels: Sequence[Label]) -> int:
    """Labels points and returns how many labels found no place; the first ones choose first.

    Points are in data coordinates; where some with the same text lie together, one label is
    enough. The layout of the figure must be final, and its lines drawn.
    """
    import numpy as np
    from matplotlib.transforms import Bbox

    pixels = np.asarray(axes.transData.transform([point for _, point, _ in labels]))
    boxes = [Bbox([[x - _MARKER, y - _MARKER], [x + _MARKER, y + _MARKER]]) for x, y in pixels]
    lines, intervals = (np.concatenate([np.zeros((0, 2)), *each]) for each in _drawn(axes))
    frame, style = axes.get_window_extent().padded(3), plain_text()
    figure = axes.get_figure(root=True)
    assert figure is not None
    left_out, labelled = 0, list[tuple[str, np.ndarray]]()
    for label, point in zip(labels, pixels, strict=True):
        if any(text == label[0] and np.hypot(*(at - point)) < _TOGETHER for text, at in labelled):
            continue
        note = _annotate(axes, label, style)
        size = np.asarray(note.get_window_extent().size)
        # Better across a faint interval than nowhere.
        for obstacles in (np.concatenate([lines, intervals]), lines):
            place = _find_place(point, size, figure.dpi / 72, (frame, boxes, obstacles))
            if place is not None:
                break
        if place is None:
            note.remove()
            left_out += 1
            continue
        offset, side, box = place
        boxes.append(box.padded(3))
        labelled.append((label[0], point))
        note.xyann = offset
        note.set_horizontalalignment(("right", "center", "left")[side[0] + 1])
        note.set_verticalalignment(("top", "center", "bottom")[side[1] + 1])
    return left_out


def _find_place(
    point: "np.ndarray",
    size: "np.ndarray",
    scale: float,
    taken: "tuple[Bbox, Sequence[Bbox], np.ndarray]",
) -> "_Place | None":
    """The nearest free place; `scale` is pixels per point, `taken` frame, boxes, and lines."""
    for distance in _DISTANCES:
        for x, y in _DIRECTIONS:
            offset = float(x * distance), float(y * (distance if x == 0 else distance - 3))
            box = _box(offset, (x, y), point, size, scale)
            if _is_free(box, *taken):
                return offset, (x, y), box
    return None


def _drawn(axes: "Axes") -> "tuple[list[np.ndarray], list[np.ndarray]]":
    """Places, in pixels, along the lines and levels, and along the intervals, each [N, 2]."""
    lines = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    intervals = [
        bars.get_transform().transform_path(path)
        for bars in axes.collections
        for path in bars.get_paths()
        if len(path) == 2
    ]
    return [_along(path) for path in lines], [_along(path) for path in intervals]


def _along(path: "Path") -> "np.ndarray":
    import numpy as np

    vertices = np.asarray(path.vertices)
    parts = [vertices[:1]]
    for start, end in zip(vertices, vertices[1:], strict=False):
        parts.append(np.linspace(start, end, int(np.hypot(*(end - start)) / _STEP) + 2))
    return np.concatenate(parts)


def _is_free(box: "Bbox", frame: "Bbox", boxes: "Sequence[Bbox]", drawn: "np.ndarray") -> bool:
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    if not inside or any(box.overlaps(other) for other in boxes):
        return False
    hit = (drawn > box.min) & (drawn < box.max)
    return not hit.all(axis=1).any()


def _annotate(axes: "Axes", label: Label, style: dict[str, Any]) -> "Annotation":
    text, point, colour = label
    look: dict[str, Any] = {"xytext": (0, 0), "textcoords": "offset points", "fontsize": 7.5}
    note = axes.annotate(text, point, color=colour, **look, **style)
    note.set_in_layout(False)
    return note


def _box(
    offset: tuple[float, float],
    side: tuple[int, int],
    point: "np.ndarray",
    size: "np.ndarray",
    scale: float,
) -> "Bbox":
    """Where a label of this size would be, in pixels; `scale` is pixels per point."""
    from matplotlib.transforms import Bbox

    x, y = (
        at + away * scale + (which - 1) / 2 * length
        for at, away, which, length in zip(point, offset, side, size, strict=True)
    )
    return Bbox.from_bounds(x, y, size[0], size[1])
