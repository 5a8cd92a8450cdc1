"""The curve shows what it is given, the same policy in the same look, labels clear of all else."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.report.pages import Page
from tests.report.pictures import overlapping, png_size, svg_comments

from proactivellm.report.curve import draw_curve, quality_latency_curve
from proactivellm.report.curve_page import curve_page
from proactivellm.report.figure import new_figure
from proactivellm.report.labels import put_labels
from proactivellm.report.looks import COLOURS, looks
from proactivellm.report.points import points_by_family

SCORES: list[dict[str, Any]] = [
    {"policy": "wait-k:3", "BLEU": 28.0, "LAAL": 2.5, "BLEU_ci": 0.7},
    {"policy": "wait-k:1", "BLEU": 20.0, "LAAL": 0.5, "BLEU_ci": 0.8},
    {"policy": "entropy:threshold=1.2", "BLEU": 27.0, "LAAL": 2.0},
    {"policy": "offline", "BLEU": None, "LAAL": 8.0},
]


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


def test_no_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install proactivellm\[plot\]"):
        quality_latency_curve(SCORES, tmp_path / "curve.png")


def figure_of(rows: list[dict[str, Any]], about: str = "") -> Any:
    families = points_by_family(rows, "BLEU", "LAAL")
    figure = draw_curve(families, rows, ("LAAL", "BLEU"), about)
    figure.draw_without_rendering()
    return figure


def test_the_heading_says_what_was_measured() -> None:
    rows = [{**row, "num_instances": 400, "num_bootstrap": 1000} for row in SCORES[:3]]
    heading = figure_of(rows, "tatoeba-de-en on test.de")._suptitle.get_text()
    assert heading == (
        "tatoeba-de-en on test.de; n = 400; bars: 95 % intervals, bootstrap over instances "
        "(1000 resamples)"
    )


def test_offline_is_no_point_even_of_several_arms() -> None:
    rows = [
        {"policy": f"{arm}/{name}", "BLEU": bleu, "LAAL": lag}
        for arm in ("a", "b")
        for name, bleu, lag in (
            ("wait-k:1", 20.0, 1.0),
            ("wait-k:3", 25.0, 3.0),
            ("offline", 30, 9),
        )
    ]
    (axes,) = figure_of(rows).axes
    assert axes.get_xlim()[1] < 9
    levels = [line for line in axes.lines if str(line.get_label()).startswith(("a/off", "b/off"))]
    assert len(levels) == 2 and all(len(set(line.get_ydata())) == 1 for line in levels)


def test_labels_keep_clear_of_lines() -> None:
    rows = [{"policy": f"wait-k:{k}", "BLEU": 20.0 + k, "LAAL": 1.0 * k} for k in range(1, 9)]
    (axes,) = figure_of(rows).axes
    boxes = [text.get_window_extent() for text in axes.texts]
    (line,) = (line for line in axes.lines if line.get_label() == "wait-k")
    places = line.get_transform().transform(list(zip(*line.get_data(), strict=True)))
    between = [a + (b - a) * t / 50 for a, b in pairwise(places) for t in range(51)]
    assert len(boxes) == 8 and not overlapping(boxes)
    assert not any(box.contains(*place) for box in boxes for place in between)


def test_many_arms_get_a_panel_a_policy() -> None:
    rows = [
        {"policy": f"arm{n}/{name}:{k}", "BLEU": 20.0 + n + k, "LAAL": 1.0 * k}
        for n in range(9)
        for name in ("wait-k", "confidence")
        for k in (1, 3)
    ]
    figure = figure_of(rows)
    assert [axes.get_title() for axes in figure.axes] == ["wait-k", "confidence"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"arm{n}" for n in range(9)]
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and not box.overlaps(figure.axes[0].bbox)


def test_picture_and_page_draw_a_policy_alike(tmp_path: Path) -> None:
    (axes,) = figure_of(SCORES[:3]).axes
    curve_page(SCORES, tmp_path / "curve.html")
    data = json.loads(Page(tmp_path / "curve.html").data)
    for line in axes.lines:
        if (name := line.get_label()) in data["looks"]:
            look = data["looks"][name]
            assert (line.get_color(), line.get_marker()) == (look["colour"], look["marker"])
            assert look["marker"] in data["markers"]
    assert set(data["looks"]) == {"wait-k", "entropy"}


def test_a_policy_looks_the_same_in_any_company() -> None:
    alone, together = looks(["entropy"]), looks(["x", "wait-k", "entropy", "y", "offline"])
    assert alone["entropy"] == together["entropy"] and "offline" not in together
    assert len({look[:2] for look in together.values()}) == 4
    arms = looks([f"{arm}/entropy" for arm in "abc"])
    assert {look.colour for look in arms.values()} == {alone["entropy"].colour}
    assert len({look.dash for look in arms.values()}) == 3
    many = looks([f"{n}/entropy" for n in range(14)])
    assert len({(look.colour, look.dash) for look in many.values()}) == 14
    assert {look.colour for look in many.values()} == set(COLOURS)
