"""Recordings with their texts: JSON lines that name audio files.

{"audio": "a.wav", "text": "what is to be written"}; `audio` may be a list of files, which are
joined. Optional: `question` (read before the recording), `answers` (all that is accepted),
`duration_s`, `speaker`. A line with `source` in place of `audio` is a pair of texts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from proactivellm.files.lines import read_lines
from proactivellm.files.toml import Strict
from proactivellm.tasks.item import Item


class ManifestLine(Strict):
    """One line of a manifest.

    Attributes:
        audio: one file, or several that are joined; relative to the manifest.
        text: what is to be written.
        source: text to read in place of audio.
        question: text that is read before the recording.
        answers: all answers that are accepted; empty = only the text.
        duration_s: of the recording.
        speaker: who speaks.
        id: what others call it.
    """

    audio: str | list[str] = Field(default_factory=list)
    text: str = ""
    source: str = ""
    question: str = ""
    answers: tuple[str, ...] = ()
    duration_s: float | None = None
    speaker: str | None = None
    id: str | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.audio) == bool(self.source):
            raise ValueError("give either `audio` or `source`")
        return self

    def item(self, path: Path, number: int) -> Item:
        """The item; its files are found from the folder of the manifest.

        Args:
            path: of the manifest.
            number: of the line there, from 1.
        """
        files = [self.audio] if isinstance(self.audio, str) else self.audio
        return Item(
            source=self.source or self.question,
            target=self.text,
            answers=self.answers,
            media=tuple(str(path.parent / file) for file in files),
            duration_s=self.duration_s,
            place=f"{path}, line {number}",
        )


def read_manifest(path: str | Path) -> list[Item]:
    """Reads a manifest.

    Args:
        path: JSON lines.

    Returns:
        One item a line, blank lines left out.

    Raises:
        ValueError: if it cannot be read, or a line does not fit; names the line.
    """
    return [line.item(Path(path), number) for number, line in read_manifest_lines(path)]


def read_manifest_lines(path: str | Path) -> Iterator[tuple[int, ManifestLine]]:
    """Reads a manifest line by line.

    Args:
        path: JSON lines.

    Yields:
        Number, from 1, and content of each line that is not blank.

    Raises:
        ValueError: if it cannot be read, or a line does not fit; names the line.
    """
    for number, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        try:
            yield number, ManifestLine.model_validate(_parse(text))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: {_reason(error)}; a manifest has lines such as "
                '{"audio": "a.wav", "text": "hello"}'
            ) from None


def _parse(text: str) -> dict[str, Any]:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"{text[:40]!r} is no JSON object")
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None
    return record


def _reason(error: ValueError) -> str:
    """What is wrong with a line, in one line."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors(include_url=False)[0]
    what = first["msg"].removeprefix("Value error, ")
    key = str(first["loc"][0]) if first["loc"] else ""
    return f"{key}: {what}, not {str(first['input'])[:40]!r}" if key else what
