"""Files and pipes that are no text in UTF-8, and those that are compressed."""

import gzip
import io
import sys
import types
from pathlib import Path

import pytest

from proactivellm.cli.live_lines import live_lines
from proactivellm.files.contents import audio_format, why_no_text
from proactivellm.files.lines import read_lines


def test_gzip_is_read_whatever_the_name(tmp_path: Path) -> None:
    for name in ("a.gz", "b"):
        (tmp_path / name).write_bytes(gzip.compress(b"\xef\xbb\xbfeins\r\nzwei"))
        assert list(read_lines(tmp_path / name)) == ["eins", "zwei"]


@pytest.mark.parametrize("name", ["a.gz", "b"])
def test_broken_gzip_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content = gzip.compress("\n".join(map(str, range(9999))).encode())
    for broken in (content[:2000], content[:500] + b"\0" * 99 + content[600:], b"\x1f\x8b"):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(ValueError, match=rf"{name}: cannot be read after line \d+: "):
            list(read_lines(tmp_path / name))


NO_TEXT = [
    (b"RIFF\xff\xff\xff\xffWAVEfmt ", "it is audio (WAV), not text"),
    (b"fLaC\0\0\0\x22rest of it", "it is audio (FLAC), not text"),
    (b"\0\0\0\x18ftypM4A ", "it is audio (MP4), not text"),
    (b"BZh91AY&SY....", "decompress it first, with bzip2 -dc"),
    (b"PK\x03\x04........", "decompress it first, with unzip -p"),
    ("Hunde".encode("utf-16"), "the text is UTF-16"),
    ("Hunde".encode("utf-16-le"), "line 1: a NUL byte"),
    (b"Hunde\0\n", "line 1: a NUL byte"),
]


@pytest.mark.parametrize(("content", "told"), NO_TEXT)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    """The remedy fits the cause: iconv does not help where a recording was given."""
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(ValueError) as listed:
        list(read_lines(path))
    with pytest.raises(ValueError) as live:
        for line in live_lines(str(path)):
            list(line.arriving)
    assert told in str(listed.value)
    assert told.removeprefix("line 1: ") in str(live.value)


def test_text_that_only_looks_alike_is_text() -> None:
    for text in ("RIFF", "RIFFS AND WAVE", "BZhang said", "OggS", "fLaC", "#!/bin/sh", "PK"):
        assert why_no_text(text.encode()) is None
    assert audio_format(b"FORM\0\0\0\0AIFC") == "AIFF"


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    for read in (read_lines, live_lines):
        with pytest.raises(ValueError, match="standard input is closed: give a file"):
            read("-")


def test_compressed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO(gzip.compress(b"eins"))
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=buffer, isatty=lambda: False))
    with pytest.raises(ValueError, match="standard input: it is compressed .*gzip -dc"):
        list(read_lines("-"))
