"""The page of the curve: parsable, self-contained, holding the scores as they are."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.traces import EVIL
from tests.report.pages import Page

from proactivellm.report.curve_page import curve_page
from proactivellm.report.page import embedded_json

SCORES: list[dict[str, Any]] = [
    {"policy": "wait-k:3", "BLEU": 28.0, "chrF": 50.0, "LAAL": 2.5, "BLEU_ci": 0.75, "AL": None},
    {"policy": f"entropy:{EVIL}", "BLEU": 27.125, "LAAL": 2.0, "LAAL_CA_ms": 812.4, "RCO": None},
    {"policy": "offline", "BLEU": None, "LAAL": 8.0, "num_undefined": {"YAAL": 3}},
]


def test_the_data_are_the_scores(tmp_path: Path) -> None:
    curve_page(SCORES, tmp_path / "curve.html", about="A & B")
    page = Page(tmp_path / "curve.html")
    assert not page.open and not page.loads and page.scripts == 2
    data = json.loads(page.data)
    assert data["scores"] == SCORES and data["caption"] == "A & B"
    assert data["offline"] == [False, False, True]  # a line, and no point
    assert (data["qualities"], data["latencies"]) == (["BLEU", "chrF"], ["LAAL", "LAAL_CA_ms"])
    assert (data["quality"], data["latency"]) == ("BLEU", "LAAL")


def test_speech(tmp_path: Path) -> None:
    rows = [{"policy": "wait-k:3", "WER": 12.25, "LAAL": 812.4, "latency_unit": "ms"}]
    curve_page(rows, tmp_path / "curve.html")
    data = json.loads(Page(tmp_path / "curve.html").data)
    assert data["units"] == {"LAAL": "LAAL (ms)"}
    assert data["directions"] == {"WER": "WER (lower is better)"}
    text = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "<td>wait-k:3</td><td>12.25</td><td>812</td>" in text


def test_the_table_needs_no_script(tmp_path: Path) -> None:
    curve_page(SCORES, tmp_path / "curve.html", about="A & B")
    text = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "<title>Quality and latency</title>" in text and EVIL not in text
    cells = "<td>wait-k:3</td><td>28.00 ± 0.75</td><td>50.00</td><td>2.50</td><td>-</td>"
    assert cells in text
    assert "<td>entropy:&lt;/script&gt;" in text and "<td>812</td>" in text
    assert "innerHTML" not in text and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("count", [1, 100])
def test_any_number_of_scores(tmp_path: Path, count: int) -> None:
    rows = [{"policy": f"p{i % 9}:{i}", "F1": 50.0 + i, "AL": i / 7} for i in range(count)]
    curve_page(rows, tmp_path / "curve.html")
    data = json.loads(Page(tmp_path / "curve.html").data)
    assert len(data["scores"]) == count and data["quality"] == "F1" and data["latency"] == "AL"


def test_without_points(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no policy has a quality"):
        curve_page(SCORES[2:], tmp_path / "curve.html")
    with pytest.raises(ValueError, match="no policy has a latency"):
        curve_page([{"policy": "x", "BLEU": 1.0}], tmp_path / "curve.html")
    assert not (tmp_path / "curve.html").exists()


def test_embedded_json_ends_no_script() -> None:
    data = {"a": [EVIL, "<!--", "&amp;", "ü 你\u2028"], "b": None}
    text = embedded_json(data)
    assert json.loads(text) == data and not set("<>&") & set(text)
    with pytest.raises(ValueError, match="Out of range"):
        embedded_json([float("nan")])


def test_names_are_those_that_were_asked_for(tmp_path: Path) -> None:
    row = {"policy": "a/entropy:threshold=1.67,top=20", "request": "entropy:laal=3"}
    curve_page([{**row, "BLEU": 20.0, "LAAL": 3.1}], tmp_path / "curve.html")
    page = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "<td>a/entropy:laal=3</td>" in page
    data = json.loads(Page(tmp_path / "curve.html").data)
    assert (data["names"], data["settings"]) == (["a/entropy:laal=3"], ["laal=3"])
