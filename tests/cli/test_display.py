"""Terminal columns: each written word stands below the last unit read before it."""

import io
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from proactivellm.cli import messages
from proactivellm.cli.columns import Block
from proactivellm.cli.display import NamedTargets, PipeDisplay, TerminalDisplay
from proactivellm.output.log import Instance
from proactivellm.output.source_units import words_with_space
from proactivellm.report.console import print_scores
from proactivellm.stream import StreamEvent

EVENTS = [
    ("READ", "Ich"),
    ("WRITE", "I"),
    ("READ", "habe"),
    ("READ", "gestern"),
    ("WRITE", " m"),
    ("WRITE", "et"),
    ("WRITE", " an"),
    ("READ", "你好"),
    ("WRITE", "."),
]


def blocks(width: int) -> list[list[str]]:
    """The lines of every block drawn for EVENTS."""
    current = Block(width)
    drawn = [current]
    for kind, text in EVENTS:
        current = current.read(text) if kind == "READ" else current.write(text)
        if current is not drawn[-1]:
            drawn.append(current)
    return [[line.rstrip() for line in block.render().plain.split("\n")] for block in drawn]


def test_columns() -> None:
    (lines,) = blocks(60)
    assert lines == [
        "source  Ich habe gestern 你好",
        "target  I        met an  .",
        "path    RW  R    RWW     RW",
    ]


@pytest.mark.parametrize("width", range(8, 22))
def test_full_blocks_are_continued(width: int) -> None:
    drawn = blocks(width)
    assert len(drawn) > 1
    labels, rows = ["source", "target", "path"], zip(*drawn, strict=True)
    words = [" ".join(line[8:] for line in row).split() for row in rows]
    assert words[0] == ["Ich", "habe", "gestern", "你好"]
    assert words[1] == ["I", "met", "an", "."]  # no word is broken
    assert "".join(words[2]) == "RWRRWWRW"
    for block in drawn:
        assert [line[:8].strip() for line in block] == labels
        assert all(len(line) - 8 <= width for line in block)


def test_a_word_wider_than_the_terminal_ends() -> None:
    block = Block(10)
    for text in ("x" * 30, "y" * 30, " z"):
        block = block.write(text)
    assert block.columns[-1].target == "z"


@pytest.mark.parametrize("width", range(4, 24))
def test_a_target_without_spaces_goes_on_below(width: int) -> None:
    blocks = [Block(width).read("Heute")]
    for text in ("今天天气", "很好", "。我用 GPT", " ", "写", "ช้"):
        for word in words_with_space(text):
            if (block := blocks[-1].write(word)) is not blocks[-1]:
                blocks.append(block)
    columns = [column for block in blocks for column in block.columns]
    if width > 8:
        assert all(sum(c.width for c in block.columns) <= width for block in blocks)
    assert "".join(c.target for c in columns).replace(" ", "") == "今天天气很好。我用GPT写ช้"
    assert "".join(c.path for c in columns) == "R" + "W" * 12


def make_instance(delays: list[int], source_length: int) -> Instance:
    prediction = " ".join("w" for _ in delays)
    return Instance(
        **{"index": 0, "source": "", "policy": "wait-k:1", "forwards": 1, "tokens": 1},
        source_length=source_length,
        prediction=prediction,
        prediction_length=len(delays),
        delays=delays,
        elapsed=[0.0] * len(delays),
        token_delays=delays,
    )


def test_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    display = PipeDisplay()
    display.begin()
    for kind, text in [*EVENTS, ("WRITE", "\r\nNext")]:
        display.event(StreamEvent(kind=kind, text=text, units_read=1, elapsed_s=0.0))
    display.end(make_instance([1, 3, 3, 4], 4))
    display.close()
    display.summary("1 sentence")
    assert capsys.readouterr() == ("I met an.  Next\n", "1 sentence\n")  # one line per source


def test_named_targets(capsys: pytest.CaptureFixture[str]) -> None:
    display = NamedTargets()
    display.show("a\nb", replace(make_instance([1, 2], 2), prediction="w\r\nw"))
    display.show("c", make_instance([], 0))
    display.summary("2 sentences")
    assert capsys.readouterr() == ("a b\tw  w\nc\t\n", "2 sentences\n")  # one line per source


def test_terminal() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=70, highlight=False, _environ={})
    display = TerminalDisplay(console, "policy  wait-k:1")
    display.begin()
    for kind, text in EVENTS:
        display.event(StreamEvent(kind=kind, text=text, units_read=1, elapsed_s=0.0))
    display.event(StreamEvent(kind="READ", text="\x1b[2J\x07", units_read=5, elapsed_s=0.0))
    display.end(make_instance([1, 3, 3, 4], 4))
    display.begin()
    display.end(make_instance([], 0))
    display.summary("2 sentences")
    shown = file.getvalue()
    assert "AL 1.25   RCO 0.69   delays 1 3 3 4" in shown  # (1 + 2 + 1 + 1) / 4; 11 / 16
    assert "(empty line)" in shown and shown.rstrip().endswith("2 sentences\x1b[0m")
    assert "\x1b[2J" not in shown and "\x07" not in shown  # the source does not rule the terminal
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0  # the cursor is given back


NAME = "a[/b][red] :smile:.wav"


def test_brackets_and_colons_in_names_are_no_markup() -> None:
    file = io.StringIO()
    console = Console(file=file, width=70, highlight=False)
    display = TerminalDisplay(console, f"policy  fixed:trace={NAME}")
    heard = {"source": NAME, "source_length": 2000, "source_type": "speech"}
    display.begin()
    display.end(replace(make_instance([400], 2), **heard))
    display.summary(f"{NAME}: 1 turn")
    assert file.getvalue().count(NAME) == 3


def test_a_target_does_not_rule_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = replace(make_instance([1], 1), prediction="w\x1b[2Jw")
    NamedTargets().show("a", written)
    assert capsys.readouterr().out == "a\tw\x1b[2Jw\n"  # a pipe gets what was written
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    NamedTargets().show("a", written)
    assert capsys.readouterr().out == "a\tw\ufffd[2Jw\n"


def test_policies_of_others_in_tables_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores([{"policy": f"{NAME}\x1b[2J", "BLEU": 1.0}])
    messages.warn("warning: \x1b[2J\rof a\nfile")
    told = capsys.readouterr()
    assert f"{NAME}\ufffd[2J" in told.out
    assert told.err == "warning: \ufffd[2J of a file\n"
