"""What is shown of speech: words above their times on a terminal, a line for each in a pipe."""

import io

import pytest
from rich.console import Console

from proactivellm.cli.columns import Caption
from proactivellm.cli.display import TerminalDisplay, TimesDisplay
from proactivellm.output.log import Instance
from proactivellm.stream import StreamEvent

PIECES = [
    ("MY", 0.64),
    (" NA", 0.96),
    ("ME", 1.28),  # lengthened: the word counts when its last character is there
    (" IS JOHN", 1.28),
    (" 你好", 12.8),
]
WORDS = [("MY", "0.64"), ("NAME", "1.28"), ("IS", "1.28"), ("JOHN", "1.28"), ("你好", "12.80")]


def written(text: str, heard_s: float) -> StreamEvent:
    return StreamEvent("WRITE", text, units_read=1, elapsed_s=0.0, media_s=heard_s)


def entry(**changed: object) -> Instance:
    values = {
        **{"index": 0, "source": "a.wav", "source_type": "speech", "source_length": 2000.0},
        **{"prediction": "MY NAME", "prediction_length": 2, "delays": [640.0, 1280.0]},
        **{"elapsed": [650.0, 1300.0], "token_delays": [640.0, 1280.0], "policy": "wait-k:1"},
        **{"forwards": 3, "tokens": 4},
    }
    return Instance(**{**values, **changed})


def test_times_stand_below_the_words_written_then() -> None:
    caption = Caption(60)
    for text, heard_s in PIECES:
        for word in text.split(" ")[:1] + [" " + rest for rest in text.split(" ")[1:]]:
            caption = caption.take(written(word, heard_s))
    assert [(word.text, word.time) for word in caption.words] == WORDS
    assert [line.rstrip() for line in caption.render().plain.split("\n")] == [
        "MY   NAME IS JOHN 你好",
        "0.64 1.28         12.80",
    ]


def test_a_transcript_without_spaces_goes_on_below() -> None:
    captions = [Caption(12)]
    for heard_s, character in enumerate("今天天气很好我们"):
        caption = captions[-1].take(written(character, heard_s))
        if caption is not captions[-1]:
            captions.append(caption)
    shown = [[line.rstrip() for line in c.render().plain.split("\n")] for c in captions]
    assert shown == [["今天天气很", "4.00"], ["好我们", "7.00"]]


@pytest.mark.parametrize("width", range(6, 24))
def test_a_full_caption_is_continued(width: int) -> None:
    captions = [Caption(width)]
    for text in ("MY", " NAME", " IS", " JOHN", "SON", " CASH"):
        caption = captions[-1].take(written(text, 1.0))
        if caption is not captions[-1]:
            captions.append(caption)
    words = [word.text for caption in captions for word in caption.words]
    assert words == ["MY", "NAME", "IS", "JOHNSON", "CASH"]
    for caption in captions:
        lines = caption.render().plain.split("\n")
        assert "1.00" in lines[1]  # each line tells its time anew
        assert len(caption.words) == 1 or all(len(line) <= width for line in lines)


def test_a_terminal_shows_all_words_of_an_event() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=30, highlight=False, _environ={})
    display = TerminalDisplay(console, "policy  wait-k:1", Caption)
    display.begin()
    display.event(written(" ".join(f"word{i}" for i in range(9)) + " \x1b[2J", 1.0))
    display.turn()
    display.event(written(" next", 2.5))
    display.turn()
    display.end(entry(source="a\x1b[2J.wav"))
    display.summary("1 recording")
    shown = file.getvalue()
    assert all(f"word{i}" in shown for i in range(9)) and "2.50" in shown
    assert "2.00 s   LAAL 460 ms" in shown  # ((640 - 0) + (1280 - 1000)) / 2
    assert "\x1b[2J" not in shown  # neither the model nor a file name rules the terminal
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0  # the cursor is given back


def test_nothing_said_is_told() -> None:
    file = io.StringIO()
    display = TerminalDisplay(Console(file=file, width=60), "policy  wait-k:1", Caption)
    nothing = {"prediction": "", "prediction_length": 0, "delays": [], "elapsed": []}
    for changed in (nothing, {**nothing, "source_length": 0.0}):
        display.begin()
        display.end(entry(**changed))
    assert "2.00 s   LAAL -" in file.getvalue() and "(no audio)" in file.getvalue()


def test_a_line_for_each_word_as_soon_as_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    display = TimesDisplay()
    display.begin()
    for text, heard_s in PIECES[:3]:
        display.event(written(text, heard_s))
    assert capsys.readouterr().out == "0.64\tMY\n"
    display.event(written(*PIECES[3]))
    assert capsys.readouterr().out == "1.28\tNAME\n1.28\tIS\n"
    display.turn()  # the speaker pauses: nothing will be added to the word
    assert capsys.readouterr().out == "1.28\tJOHN\n"
    display.event(written(*PIECES[4]))
    assert capsys.readouterr().out == "12.80\t你\n12.80\t好\n"  # no space is waited for
    display.event(written("กั", 13.0))
    display.event(written("้ ", 14.0))  # the tone belongs to it
    assert capsys.readouterr().out == "14.00\tกั้\n"
    display.event(written("你", 15.0))
    display.end(entry())
    display.close()
    assert capsys.readouterr().out == "15.00\t你\n\n"
