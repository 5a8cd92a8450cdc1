"""The READ/WRITE path as a picture: what is written where, and nothing over something else."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.report.pictures import overlapping, png_size, shown_ticks, svg_comments

from proactivellm.report.path import Evidence, Heading, Strip, path_figure, read_write_path

SOURCE = ["Das", "kostet", "$5", "oder", "$x^{", "."]
TARGET = ["It", "costs", "$5", "."]
HELD = [[2.5, 0.75], [], [1.5], []]


def test_path(tmp_path: Path) -> None:
    read_write_path(
        SOURCE,
        TARGET,
        [1, 3, 3, 6],
        tmp_path / "path.svg",
        Heading(title="wait for $x^{", below="a $ and {"),
    )
    texts = svg_comments(tmp_path / "path.svg")
    assert {*SOURCE, *TARGET, "READ", "WRITE", "wait for $x^{", "a $ and {"} <= texts
    assert {"source, READ →", "target, WRITE ↓"} <= texts
    read_write_path(SOURCE, TARGET, [1, 3, 3, 6], tmp_path / "path.png")
    width, height = png_size(tmp_path / "path.png")
    assert width > height > 200


def test_path_with_evidence(tmp_path: Path) -> None:
    evidence = Evidence(
        attention=[[1.0], [0.2, 0.8, 0.0], [], [0.1] * 6],
        forced=[False, True, False, True],
        strips=[Strip("entropy", HELD, [0.5, 1.25, 0.0, 3.0], threshold=1.0)],
        reasons=["held back 2×", "", "overdue", "source ended"],
    )
    delays = [1, 3, 3, 6]
    read_write_path(SOURCE, TARGET, delays, tmp_path / "path.svg", evidence=evidence)
    texts = svg_comments(tmp_path / "path.svg")
    assert {*SOURCE, *TARGET, "held back 2×", "entropy", "threshold", "attended to"} <= texts
    assert {"WRITE, no choice left", "held back, READ instead"} <= texts and "READ" not in texts

    figure = path_figure((SOURCE, TARGET), delays, Heading(title="t"), evidence)
    strip = figure.axes[1]
    drawn = [value for line in strip.lines for value in line.get_xdata()]
    assert {0.75, 2.5, 1.5} <= set(drawn)  # what was held back, not only what was written


@pytest.mark.parametrize("size", [1, 40])
def test_path_of_any_size(tmp_path: Path, size: int) -> None:
    words = [f"{'word' * (i % 9)}{i}" for i in range(size)]
    delays = [i + 1 for i in range(size)]
    read_write_path(words, words, delays, tmp_path / "path.svg", Heading(title="a title " * 40))
    texts = svg_comments(tmp_path / "path.svg")
    assert words[0] in texts
    if size > 8:
        assert words[8] not in texts and f"{words[8][:21]}…" in texts


def test_characters_of_no_font_give_one_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning) as caught:  # cuneiform
        read_write_path(["\U00012000", "\U00012001"], ["a"], [1], tmp_path / "path.png")
    assert [str(warning.message).count("no installed font") for warning in caught] == [1]


@pytest.mark.parametrize(
    ("delays", "message"),
    [
        ([1, 2, 3], "4 target words, 3 delays"),
        ([1, 3, 2, 6], r"\[1, 3, 2, 6\] are no path"),
        ([1, 2, 3, 7], "lie in 0..6"),
    ],
)
def test_delays_that_are_no_path(tmp_path: Path, delays: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_write_path(SOURCE, TARGET, delays, tmp_path / "path.png")


def test_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys; from proactivellm.report.path import read_write_path; "
        "early = 'matplotlib' in sys.modules; "
        f"read_write_path(['a'], ['b'], [1], {str(tmp_path / 'path.png')!r}); "
        "print(early, 'matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3


def test_nothing_lies_on_anything_else() -> None:
    evidence = Evidence(
        attention=[],
        forced=[False] * 4,
        strips=[Strip("entropy, nats", HELD, [0.5, 1.25, 0.0, 3.0], 1.0)] * 2,
        reasons=["held back 2×, 0.75 → 0.50 < 1.00"] * 4,
    )
    heading = Heading(
        title="attention, LAAL 4", below="attention:threshold=0.0927,heads=3.2-2.1-3.0"
    )
    figure = path_figure((["Wort" * 5] * 6, TARGET), [1, 3, 3, 6], heading, evidence)
    figure.draw_without_rendering()
    grid, *strips, why = figure.axes
    for axes in strips:
        assert not overlapping([text.get_window_extent() for text in shown_ticks(axes)])
    texts = [text.get_window_extent() for text in why.texts]
    assert max(box.x1 for box in texts) <= figure.bbox.x1
    boxes = [grid.get_tightbbox(), *(axes.get_tightbbox() for axes in strips), *texts]
    (legend,) = figure.legends
    boxes += [legend.get_window_extent(), figure._suptitle.get_window_extent()]
    assert not overlapping(boxes)
