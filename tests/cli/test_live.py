"""Live input: units do not depend on how the bytes arrive, and come before the line is complete."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tokenizers import build

from proactivellm.cli import live_lines as module
from proactivellm.cli.live_lines import live_lines, live_lines_of_several
from proactivellm.core.unit import Unit
from proactivellm.modality.text import TextSegmenter

TEXT = "Größe  und\tÄpfel \r\n\n你好 👍🏽\nohne Ende"
LINES = ["Größe  und\tÄpfel ", "", "你好 👍🏽", "ohne Ende"]


@pytest.fixture
def segmenter() -> TextSegmenter:
    return TextSegmenter(build("byte_level"))


def read_all(path: str, segmenter: TextSegmenter) -> Iterator[tuple[str, list[Unit]]]:
    for line in live_lines(path):
        units = [unit for arrived in line.units(segmenter, None) for unit in arrived]
        yield line.text, units


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1 << 16])
def test_units_are_those_of_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter: TextSegmenter, chunk_bytes: int
) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())  # a byte order mark is no text
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk_bytes)
    texts, units = zip(*read_all(str(path), segmenter), strict=True)
    assert list(texts) == LINES
    for line, found in zip(LINES, units, strict=True):
        whole = segmenter.segment(line)
        assert [(u.text, u.token_ids) for u in found if not u.is_end] == [
            (u.text, u.token_ids) for u in whole
        ]
        assert [u.final for u in found] == [False] * (len(found) - 1) + [True] * bool(found)


def test_a_word_is_read_at_the_space_after_it(tmp_path: Path, segmenter: TextSegmenter) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # both sides at once, so that nothing blocks
    os.write(writer, b"ein ")
    lines = live_lines(str(path))
    arrivals = next(lines).units(segmenter, None)
    assert [unit.text for unit in next(arrivals)] == ["ein"]
    os.write(writer, b"Ha")
    assert next(arrivals) == []
    os.write(writer, b"us so ")
    assert [unit.text for unit in next(arrivals)] == ["Haus", "so"]
    os.write(writer, b"\nwei")
    assert [unit.is_end for units in arrivals for unit in units] == [True]
    line = next(lines)
    os.write(writer, b"ter\n")
    units = [unit for arrived in line.units(segmenter, None) for unit in arrived]
    assert [(unit.text, unit.final) for unit in units] == [("weiter", True)]
    os.close(writer)


def test_steady_rate(tmp_path: Path, segmenter: TextSegmenter) -> None:
    path = tmp_path / "text"
    path.write_text("a b c \n")
    (arrivals,) = ([*line.units(segmenter, 6000.0)] for line in live_lines(str(path)))
    line = [unit for units in arrivals for unit in units]
    assert len(arrivals) > 1 and [unit.end_s for unit in line] == pytest.approx(
        [0.01, 0.02, 0.03, 0.03]
    )
    assert line[-1].is_end


def test_standard_input_stays_open(
    monkeypatch: pytest.MonkeyPatch, segmenter: TextSegmenter
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"eins\nzwei\n"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert [text for text, _ in read_all("-", segmenter)] == ["eins", "zwei"]
    assert not stdin.buffer.closed


@pytest.mark.parametrize(
    "broken", [b"gut\nschle\xe4cht\n", b"gut\nEnde\xc3\nx\n", b"gut\nEnde\xc3"]
)
def test_not_utf8(tmp_path: Path, segmenter: TextSegmenter, broken: bytes) -> None:
    path = tmp_path / "latin1"
    path.write_bytes(broken)
    lines = read_all(str(path), segmenter)
    assert next(lines)[0] == "gut"
    with pytest.raises(ValueError, match="0x(e4|c3) is not UTF-8 .*iconv"):
        next(lines)


def test_several_are_opened_once_each(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("text", "pipe", "link", "missing")]
    text, pipe, link, missing = names
    Path(text).write_text("eins\nzwei")
    os.mkfifo(pipe)
    os.symlink(text, link)
    first, second = live_lines_of_several([text, pipe])  # nobody writes to the pipe: not opened
    assert [line.where for line in first if [*line.arriving]] == [
        f"{text}, line 1",
        f"{text}, line 2",
    ]
    for twice in ([text, text], [text, "-", link], ["-", pipe, "-"]):
        with pytest.raises(ValueError, match=f"--input {twice[-1]} is the same as --input"):
            live_lines_of_several(twice)
    with pytest.raises(FileNotFoundError, match="missing"):
        live_lines_of_several([text, missing])
