"""Labels of points that do not run into each other: each finds a free place, or is left out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proactivellm.metrics.figure import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Points from the marker, and where the label lies: -1 left or below, 0 centred, 1 right or above.
_PLACES = (
    (6, -5, 1, -1),
    (6, 5, 1, 1),
    (-6, 5, -1, 1),
    (-6, -5, -1, -1),
    (0, 8, 0, 1),
    (0, -8, 0, -1),
)
_MARKER = 5.0  # pixels around a point that labels keep clear of

Label = tuple[str, tuple[float, float], str]  # text, point, colour


def put_labels(axes: "Axes", labels: Sequence[Label]) -> int:
    """Labels points; the layout of the figure must be final.

    Args:
        axes: where the points are.
        labels: text, point in data coordinates and colour of each; the first ones choose first.

    Returns:
        How many found no place.
    """
    from matplotlib.transforms import Bbox

    pixels = axes.transData.transform([point for _, point, _ in labels])
    taken = [Bbox([[x - _MARKER, y - _MARKER], [x + _MARKER, y + _MARKER]]) for x, y in pixels]
    frame = axes.get_window_extent().padded(2)
    style = plain_text()
    figure = axes.get_figure(root=True)
    assert figure is not None
    pixels_per_point = figure.dpi / 72
    left_out = 0
    for label, (x, y) in zip(labels, pixels, strict=True):
        note = _annotate(axes, label, style)
        size = note.get_window_extent().size
        for place in _PLACES:
            box = _box(place, (x, y), size, pixels_per_point)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0
            if inside and box.y1 <= frame.y1 and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                note.xyann = place[:2]
                note.set_horizontalalignment(("right", "center", "left")[place[2] + 1])
                note.set_verticalalignment(("top", "center", "bottom")[place[3] + 1])
                break
        else:
            note.remove()
            left_out += 1
    return left_out


def _annotate(axes: "Axes", label: Label, style: dict[str, Any]) -> "Annotation":
    text, point, colour = label
    note = axes.annotate(
        text,
        point,
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=7.5,
        color=colour,
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.3},
        **style,
    )
    note.set_in_layout(False)
    return note


def _box(
    place: tuple[int, int, int, int],
    point: tuple[float, float],
    size: tuple[float, float],
    scale: float,
) -> "Bbox":
    """Where a label of this size would be, in pixels; `scale` is pixels per point."""
    from matplotlib.transforms import Bbox

    corner = [
        at + offset * scale + (side - 1) / 2 * length
        for at, offset, side, length in zip(point, place[:2], place[2:], size, strict=True)
    ]
    return Bbox.from_bounds(corner[0], corner[1], size[0], size[1])
