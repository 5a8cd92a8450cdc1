"""The pictures are written, show what they are given, and touch no global state."""

import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proactivellm.metrics.figure import new_figure
from proactivellm.metrics.labels import put_labels
from proactivellm.metrics.plots import Bars, Evidence, quality_latency_curve, read_write_path

SCORES: list[dict[str, Any]] = [
    {"policy": "wait-k:3", "BLEU": 28.0, "LAAL": 2.5, "BLEU_ci": 0.7},
    {"policy": "wait-k:1", "BLEU": 20.0, "LAAL": 0.5, "BLEU_ci": 0.8},
    {"policy": "entropy:threshold=1.2", "BLEU": 27.0, "LAAL": 2.0},
    {"policy": "offline", "BLEU": None, "LAAL": 8.0},
]
SOURCE = ["Das", "kostet", "$5", "oder", "$x^{", "."]
TARGET = ["It", "costs", "$5", "."]


def svg_comments(path: Path) -> set[str]:
    """The texts of an SVG: matplotlib keeps each in a comment before its outlines."""
    found = re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))
    return {html.unescape(text) for text in found}


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def test_curve(tmp_path: Path) -> None:
    quality_latency_curve(SCORES, tmp_path / "curve.svg")
    texts = svg_comments(tmp_path / "curve.svg")
    # Families in the legend, settings at the points, axes with their units.
    assert {"wait-k", "entropy", "1", "3", "threshold=1.2", "BLEU", "LAAL (source units)"} <= texts
    assert "offline" not in texts  # it has no BLEU
    quality_latency_curve(SCORES, tmp_path / "curve.png")
    assert min(png_size(tmp_path / "curve.png")) > 400


def test_curve_of_other_metrics(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"policy": "offline", "chrF": 50.0, "RCO": 1.0}]
    quality_latency_curve(rows, tmp_path / "curve.svg", quality="chrF", latency="RCO")
    assert {"chrF", "RCO (share of the source)", "offline"} <= svg_comments(tmp_path / "curve.svg")


def test_curve_chooses_the_quality_that_there_is(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"policy": "wait-k:2", "F1": 60.0, "EM": 41.0, "LAAL": 2.0}]
    quality_latency_curve(rows, tmp_path / "curve.svg")
    assert "F1" in svg_comments(tmp_path / "curve.svg")


def test_of_error_rates_the_lower_is_better(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"policy": "wait-k:2", "WER": 12.0, "LAAL": 800.0, "latency_unit": "ms"},
        {"policy": "offline", "WER": 9.0, "LAAL": 3000.0, "latency_unit": "ms"},
        {"policy": "offline", "WER": 8.0, "LAAL": 4000.0, "latency_unit": "ms"},
    ]
    quality_latency_curve(rows, tmp_path / "curve.svg")
    texts = svg_comments(tmp_path / "curve.svg")
    assert {"WER (lower is better)", "LAAL (ms)", "offline (LAAL 4000)"} <= texts


def test_offline_is_a_level_beside_others(tmp_path: Path) -> None:
    rows = [*SCORES[:3], {"policy": "offline", "BLEU": 31.0, "LAAL": 9.25}]
    quality_latency_curve(rows, tmp_path / "curve.svg")
    texts = svg_comments(tmp_path / "curve.svg")
    assert "offline (LAAL 9.25)" in texts and "offline" not in texts
    assert not {"8", "9", "10"} & texts  # the axis ends where the other policies do


def test_intervals_of_both_axes_are_drawn(tmp_path: Path) -> None:
    def errors(**intervals: float) -> int:
        rows = [{"policy": "wait-k:1", "BLEU": 20.0, "LAAL": 1.0, **intervals}]
        quality_latency_curve(rows, tmp_path / "curve.svg")
        text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
        return text.count("LineCollection")

    assert errors() < errors(LAAL_ci=0.2) <= errors(BLEU_ci=1.0, LAAL_ci=0.2)


def test_requests_label_the_points(tmp_path: Path) -> None:
    row = {"policy": "entropy:threshold=1.23456,min_lag=1", "request": "entropy:laal=2"}
    quality_latency_curve([{**row, "BLEU": 20.0, "LAAL": 2.0}], tmp_path / "curve.svg")
    assert "laal=2" in svg_comments(tmp_path / "curve.svg")


def test_labels_do_not_overlap() -> None:
    figure = new_figure(4.0, 3.0)
    axes = figure.add_subplot()
    points = [(x % 6 / 6, x // 6 / 6) for x in range(36)]
    axes.scatter(*zip(*points, strict=True))
    figure.draw_without_rendering()
    crowded = put_labels(axes, [(f"threshold={i}", point, "k") for i, point in enumerate(points)])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 36 - crowded and 0 < crowded < 36
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_many_points_and_one(tmp_path: Path) -> None:
    rows = [{"policy": f"p{i % 9}:{i}", "BLEU": 20 + i % 7, "LAAL": i / 5} for i in range(60)]
    quality_latency_curve(rows, tmp_path / "many.png")
    quality_latency_curve(rows[:1], tmp_path / "one.png")
    assert min(png_size(tmp_path / "many.png")) > 400 < min(png_size(tmp_path / "one.png"))


def test_curve_without_points(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no policy has both BLEU and LAAL"):
        quality_latency_curve(SCORES[3:], tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_path(tmp_path: Path) -> None:
    read_write_path(SOURCE, TARGET, [1, 3, 3, 6], tmp_path / "path.svg", "wait for $x^{")
    texts = svg_comments(tmp_path / "path.svg")
    assert {*SOURCE, *TARGET, "READ", "WRITE", "wait for $x^{"} <= texts
    read_write_path(SOURCE, TARGET, [1, 3, 3, 6], tmp_path / "path.png")
    width, height = png_size(tmp_path / "path.png")
    assert width > height > 200


def test_path_with_evidence(tmp_path: Path) -> None:
    evidence = Evidence(
        attention=[[1.0], [0.2, 0.8, 0.0], [], [0.1] * 6],
        forced=[False, True, False, True],
        bars=[Bars("entropy", [0.5, 1.25, 0.0, 3.0], threshold=1.0)],
    )
    delays = [1, 3, 3, 6]
    read_write_path(SOURCE, TARGET, delays, tmp_path / "path.svg", evidence=evidence)
    texts = svg_comments(tmp_path / "path.svg")
    assert {*SOURCE, *TARGET, "1.25", "entropy", "threshold", "attended to"} <= texts
    assert "WRITE, no choice left" in texts and "READ" not in texts


@pytest.mark.parametrize("size", [1, 40])
def test_path_of_any_size(tmp_path: Path, size: int) -> None:
    words = [f"{'word' * (i % 9)}{i}" for i in range(size)]
    delays = [i + 1 for i in range(size)]
    read_write_path(words, words, delays, tmp_path / "path.svg", "a title " * 40)
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


def test_no_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install proactivellm\[plot\]"):
        quality_latency_curve(SCORES, tmp_path / "curve.png")


def test_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys; from proactivellm.metrics.plots import read_write_path; "
        "early = 'matplotlib' in sys.modules; "
        f"read_write_path(['a'], ['b'], [1], {str(tmp_path / 'path.png')!r}); "
        "print(early, 'matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3
