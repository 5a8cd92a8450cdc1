"""What shows a trace: page, picture and terminal, from traces made by hand."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from tests.decisions.traces import EVIL, empty_trace, probe, small_trace
from tests.report.pages import Page
from tests.report.pictures import svg_comments

from proactivellm.decisions.trace import Trace
from proactivellm.report.decision_lines import terminal_view
from proactivellm.report.decision_page import decision_page
from proactivellm.report.decision_picture import draw_trace
from proactivellm.report.decisions import explained, held, readable, title, why


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
    assert first["held"] == [[], [1], []] and first["title"] == "attention, threshold 0.3"
    assert first["why"][1] == "held back 1×, overdue, 0.90 → 0.60 ≥ 0.30"
    assert second["words"] == [] and second["source"] == ["Ja", "so"]
    text = path.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "<td>I get up.</td>" in text
    assert 'content="width=device-width' in text and "@media (max-width: 640px)" in text
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
    assert {"attention", "entropy, nats", "why then", "attention, threshold 0.3"} <= texts
    assert {"0.25 < 0.30", "held back 1×, overdue, 0.90 → 0.60 ≥ 0.30"} <= texts
    assert "attention:threshold=0.3,min_lag=1 | tiny" in texts
    draw_trace(small_trace(threshold=None, policy="wait-k:1"), path)
    assert "threshold" not in svg_comments(path)


def test_picture_of_one_word_and_of_none(tmp_path: Path) -> None:
    one = small_trace(source=["Ja"], words=["Yes"], delays=[1], probes=[probe(1, 0, "Yes")])
    draw_trace(one, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="source 3: nothing was written"):
        draw_trace(empty_trace(), tmp_path / "none.png")


def test_terminal_has_a_line_per_word() -> None:
    header, spec, _, _, *rows = shown(small_trace(request="attention:laal=4"))
    assert header.rstrip() == "3: attention, LAAL 4"
    assert spec.rstrip() == "attention:threshold=0.3,min_lag=1"
    assert len(rows) == 4 and max(len(row) for row in rows) <= 80
    assert rows[0].split()[:2] == ["Ich", "I"] and rows[1].split()[:4] == [
        "stehe",
        "um",
        "auf.",
        "get",
    ]
    assert "0.90 → 0.60" in rows[1] and "0.60 stehe" in rows[1] and "held back 1×" in rows[1]
    assert rows[3].rstrip().endswith("source ended") and "\x1b" not in "".join(rows)


def test_terminal_without_words_or_with_control_characters() -> None:
    assert shown(empty_trace())[2] == "2 units were read and nothing was written"
    nasty = small_trace(words=["I", "\x1b[2Jget", "up."], source=["Ich", "[red]", "um", "auf."])
    text = "\n".join(shown(nasty))
    assert "\x1b" not in text and "[red]" in text


def test_terminal_of_long_words() -> None:
    trace = small_trace(source=["x" * 200, "stehe", "um", "auf."], words=["I", "y" * 90, "up."])
    assert max(len(row) for row in shown(trace)) <= 80
    unread = small_trace(words=["I"], delays=[1])
    assert any("stehe um auf." in row and "(end)" in row for row in shown(unread))


def test_reasons_tell_what_was_held_back() -> None:
    """The word's own statistic is below its threshold in every row, so that it tells nothing."""
    trace = small_trace()
    assert [explained(trace, row) for row in range(3)] == [
        "0.25 < 0.30",
        "held back 1×, overdue, 0.90 → 0.60 ≥ 0.30",
        "source ended, 0.25 < 0.30",
    ]
    early = probe(2, 1, "", decision="READ", reason="end held", statistic=0.1)
    longer = small_trace(probes=[*trace.probes[:2], early, *trace.probes[2:]])
    assert why(longer, 1) == "held back 1×, end held 1×, overdue"
    assert why(small_trace(threshold=None), 0) == ""


def test_titles_are_readable() -> None:
    assert readable("attention:laal=4") == "attention, LAAL 4"
    assert readable("wait-k:3") == "wait-k 3"
    assert readable("entropy:1.2,max_lag=6") == "entropy 1.2, max_lag 6"
    assert readable("offline") == "offline"
    assert title(small_trace()) == "attention, threshold 0.3"


def test_what_is_held_back_inside_a_word_keeps_the_next_one_waiting() -> None:
    trace = small_trace()
    going_on = probe(1, 0, "'m", decision="READ", statistic=0.7)  # after "I" was written
    longer = small_trace(probes=[trace.probes[0], going_on, *trace.probes[1:]])
    assert held(longer, 0) == []
    assert [seen.text for seen in held(longer, 1)] == ["'m", " stand"]
