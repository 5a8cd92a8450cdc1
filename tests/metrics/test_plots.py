"""The pictures are written, show what they are given, and touch no global state."""

import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proactivellm.metrics.plots import quality_latency_curve, read_write_path

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
