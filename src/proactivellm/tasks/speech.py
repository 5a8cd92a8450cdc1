"""Recordings with their texts: JSON lines that name files of sound, or of video.

{"audio": "a.wav", "text": "what is to be written"}; `audio` may be a list of files, which are
joined, and is called `video` where they are. Optional: `question` (read before the recording),
`answers` (all that is accepted), `duration_s`, `speaker`, `evidence_s` (when it has told the
answer, or each word of `text`, in seconds), `thoughts` (what is thought meanwhile: pairs of the
second that tells it, and a text), `group` (scores are told apart by it). A line with
`source` in place of `audio` is a pair of texts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from proactivellm.files.lines import read_lines
from proactivellm.files.toml import Strict
from proactivellm.tasks.item import Item

_Time = Annotated[float, Field(ge=0)]  # in seconds


class _Line(Strict):
    """One line of a manifest."""

    audio: str | list[str] = Field(default_factory=list)  # relative to the manifest
    video: str | list[str] = Field(default_factory=list)  # likewise, in place of audio
    text: str = ""  # what is to be written
    source: str = ""  # text to read in place of audio
    question: str = ""  # text that is read before the recording
    answers: tuple[str, ...] = ()  # all that are accepted; empty = only the text
    duration_s: float | None = None
    evidence_s: _Time | list[_Time] | None = None  # of the answer, or of each word of `text`
    thoughts: list[tuple[_Time, str]] | None = None  # for models that think
    group: str = ""
    speaker: str | None = None
    id: str | None = None  # what others call it

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(map(bool, (self.audio, self.video, self.source))) != 1:
            raise ValueError("give either `audio`, `video` or `source`")
        return self

    @model_validator(mode="after")
    def _has_evidence_of_its_words(self) -> Self:
        if isinstance(times := self.evidence_s, list):
            words = len(self.text.split())
            if len(times) != words or times != sorted(times):
                raise ValueError(
                    f"`evidence_s`: a list has a time for each of the {words} words of `text`, "
                    "none before the last one"
                )
        return self

    @model_validator(mode="after")
    def _thinks_in_order(self) -> Self:
        times = [time_s for time_s, _ in self.thoughts or ()]
        if times != sorted(times):
            raise ValueError("`thoughts`: give them in the order of their times")
        if self.thoughts is not None and self.source:
            raise ValueError("`thoughts` are about `audio` or `video`: leave them out")
        return self

    @property
    def _evidence_s(self) -> tuple[float, ...]:
        """Of each word of the text; of one that has none, when that is known."""
        if self.evidence_s is None:
            return ()
        if isinstance(self.evidence_s, list):
            return tuple(self.evidence_s)
        return (self.evidence_s,) * max(1, len(self.text.split()))

    def item(self, path: Path, number: int) -> Item:
        """The item of a line (counted from 1); its files are found from the manifest's folder."""
        named = self.audio or self.video
        files = [named] if isinstance(named, str) else named
        return Item(
            source=self.source or self.question,
            target=self.text,
            answers=self.answers,
            media=tuple(str(path.parent / file) for file in files),
            duration_s=self.duration_s,
            evidence_s=self._evidence_s,
            thoughts=None if self.thoughts is None else tuple(self.thoughts),
            group=self.group,
            place=f"{path}, line {number}",
        )


def read_manifest(path: str | Path) -> list[Item]:
    """Reads a manifest: one item a line, blank lines left out.

    Raises a ValueError that names the line if one does not fit.
    """
    return list(items_of_manifest(path))


def items_of_manifest(path: str | Path) -> Iterator[Item]:
    """The same as they are asked for."""
    for number, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        try:
            item = _Line.model_validate(_parse(text)).item(Path(path), number)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: {_reason(error)}; a manifest has lines such as "
                '{"audio": "a.wav", "text": "hello"}'
            ) from None
        yield item


def _parse(text: str) -> dict[str, Any]:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"{text[:40]!r} is no JSON object")
    try:
        # JSON can spell half a surrogate pair, which would fail only where it is written.
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
