"""What shows a trace: page, picture and terminal, from traces made by hand."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from tests.decisions.traces import EVIL, empty_trace, probe, small_trace
from tests.metrics.test_plots import svg_comments

from proactivellm.decisions.page import decision_page
from proactivellm.decisions.picture import draw_trace
from proactivellm.decisions.terminal import terminal_view
from proactivellm.decisions.trace import Trace


class Page(HTMLParser):
    """The elements of a page, its embedded data, and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.data, self.inside, self.scripts, self.loads = "", False, 0, []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.inside = ("id", "data") in attrs
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "input", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.inside = False

    def handle_data(self, data: str) -> None:
        self.data += data if self.inside else ""


def shown(trace: Trace, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(terminal_view(trace))
    return file.getvalue().splitlines()


def test_page_holds_the_traces_and_loads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    decision_page([small_trace(), empty_trace()], path)
    page = Page(path)
    assert not page.open and not page.loads and page.scripts == 2
    first, second = json.loads(page.data)["traces"]
    assert first["words"] == ["I", "get", "up."] and first["forced"] == [False, True, True]
    assert first["deciding"] == [0, 2, 4] and first["probes"][1]["decision"] == "READ"
    assert second["words"] == [] and second["source"] == ["Ja", "so"]
    text = path.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "<td>I get up.</td>" in text
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


def test_page_escapes_words(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    trace = small_trace(source=[EVIL, "&", "你好", "x"], prediction=EVIL)
    decision_page([trace], path)
    page = Page(path)
    assert page.scripts == 2 and json.loads(page.data)["traces"][0]["source"][0] == EVIL
    assert EVIL not in path.read_text(encoding="utf-8")
    assert "innerHTML" not in path.read_text(encoding="utf-8")


def test_page_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no traces"):
        decision_page([], tmp_path / "page.html")


def test_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    draw_trace(small_trace(), path)
    texts = svg_comments(path)
    assert {"Ich", "get", "attended to", "WRITE, no choice left", "threshold"} <= texts
    assert {"attention", "entropy, nats", "0.60", "0.50"} <= texts
    draw_trace(small_trace(threshold=None, policy="wait-k:1"), path)
    assert "threshold" not in svg_comments(path)


def test_picture_of_one_word_and_of_none(tmp_path: Path) -> None:
    one = small_trace(source=["Ja"], words=["Yes"], delays=[1], probes=[probe(1, 0, "Yes")])
    draw_trace(one, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="source 3: nothing was written"):
        draw_trace(empty_trace(), tmp_path / "none.png")


def test_terminal_has_a_line_per_word() -> None:
    header, _, _, *rows = shown(small_trace())
    assert header.startswith("3: attention:threshold=0.3")
    assert len(rows) == 3 and max(len(row) for row in rows) <= 80
    assert rows[0].split()[:2] == ["Ich", "I"] and rows[1].split()[:4] == [
        "stehe",
        "um",
        "auf.",
        "get",
    ]
    assert "0.60 stehe" in rows[1] and rows[1].rstrip().endswith("max_lag")
    assert rows[2].rstrip().endswith("end") and "\x1b" not in "".join(rows)


def test_terminal_without_words_or_with_control_characters() -> None:
    assert shown(empty_trace())[1] == "2 units were read and nothing was written"
    nasty = small_trace(words=["I", "\x1b[2Jget", "up."], source=["Ich", "[red]", "um", "auf."])
    text = "\n".join(shown(nasty))
    assert "\x1b" not in text and "[red]" in text


def test_terminal_of_long_words() -> None:
    trace = small_trace(source=["x" * 200, "stehe", "um", "auf."], words=["I", "y" * 90, "up."])
    assert max(len(row) for row in shown(trace)) <= 80
    unread = small_trace(words=["I"], delays=[1])
    assert any("stehe um auf." in row and "(end)" in row for row in shown(unread))
