"""A transcript with times: words, segments, subtitles.

What is known of a word is how much of the recording had been heard when its last character was
written. So that is where it ends; words that were written together share the time since those
before them, by their length. A character of a script without spaces is a word.
"""

import unicodedata
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from proactivellm.output.scripts import characters
from proactivellm.output.sentences import ends_sentence
from proactivellm.output.source_units import SourceUnit, joined, source_units
from proactivellm.stream.event import StreamEvent

# Of a segment: two lines of a subtitle. A Chinese character is as wide as two of "a".
_WIDEST = 84


class Timed(NamedTuple):
    """Text, and where it is in the recording, in seconds."""

    text: str
    start_s: float
    end_s: float
    glued: bool = False  # to the word before: no white space is between them


class Timeline:
    """Words of each turn, from events of a stream that tells turns."""

    def __init__(self) -> None:
        self._begins_s: deque[float] = deque()  # of turns that are not over
        self._pieces: list[tuple[str, float]] = []  # of the turn that is written
        self._turns: list[list[Timed]] = []
        self._end_s = 0.0  # of the last word

    def add(self, event: StreamEvent) -> None:
        """Take the next event."""
        if event.kind == "BEGIN":
            self._begins_s.append(event.media_s or 0.0)
        elif event.kind == "WRITE":
            self._pieces.append((event.text, event.media_s or 0.0))
        elif event.kind == "END":
            begin_s = self._begins_s.popleft() if self._begins_s else 0.0
            # Sound before a turn passes with it, which the pause before may have held already.
            begin_s = max(begin_s, self._end_s)
            self._turns.append(_shared(_words(self._pieces), begin_s))
            self._pieces = []
            self._end_s = max([self._end_s, *(word.end_s for word in self._turns[-1][-1:])])

    @property
    def words(self) -> list[Timed]:
        """All of them."""
        return [word for turn in self._turns for word in turn]

    @property
    def segments(self) -> list[Timed]:
        """Turns, cut at the ends of sentences, and where they are long."""
        return [segment for turn in self._turns for segment in _segments(turn)]


def _words(pieces: Sequence[tuple[str, float]]) -> list[tuple[SourceUnit, float]]:
    """Each with when its last character was written."""
    units = source_units("".join(text for text, _ in pieces))
    times = [at_s for text, at_s in pieces for _ in characters(text)]
    ends = accumulate(len(unit.text) for unit in units)
    return [(unit, times[end - 1]) for unit, end in zip(units, ends, strict=True)]


def _shared(words: Sequence[tuple[SourceUnit, float]], begin_s: float) -> list[Timed]:
    """Those that were written at once, one after the other."""
    timed: list[Timed] = []
    for at_s, group in groupby(words, key=itemgetter(1)):
        together = [word for word, _ in group]
        heard_s, told = max(at_s - begin_s, 0.0), 0
        letters = sum(len(word.text) for word in together)
        for word in together:
            start_s = begin_s + heard_s * told / letters
            told += len(word.text)
            timed.append(Timed(word.text, start_s, begin_s + heard_s * told / letters, word.glued))
        begin_s += heard_s
    return timed


def _segments(words: Iterable[Timed]) -> list[Timed]:
    segments: list[Timed] = []
    for word in words:
        last = segments[-1] if segments else None
        if last is None or ends_sentence(last.text):
            segments.append(word._replace(glued=False))
            continue
        longer = joined([SourceUnit(last.text), SourceUnit(word.text, word.glued)])
        # A comma stands behind what is before it, however long that is.
        hangs = word.glued and not word.text[0].isalnum()
        if hangs or _width(longer) <= _WIDEST:
            segments[-1] = Timed(longer, last.start_s, word.end_s)
        else:
            segments.append(word._replace(glued=False))
    return segments


def _width(text: str) -> int:
    """In columns: a Chinese character, and others as wide, has two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def srt(timeline: Timeline) -> str:
    """Subtitles in the format SubRip."""
    cues = [
        f"{number}\n{_clock(start_s, ',')} --> {_clock(end_s, ',')}\n{text}\n\n"
        for number, (text, start_s, end_s, _) in enumerate(timeline.segments, start=1)
    ]
    return "".join(cues)


def vtt(timeline: Timeline) -> str:
    """Subtitles in the format WebVTT (W3C)."""
    cues = [
        f"{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n{_escaped(text)}\n\n"
        for text, start_s, end_s, _ in timeline.segments
    ]
    return "".join(["WEBVTT\n\n", *cues])


def verbose(
    timeline: Timeline, wanted: Iterable[Any], encode: Callable[[str], list[int]]
) -> dict[str, Any]:
    """The fields `segments` and `words` of OpenAI's object, those that are wanted.

    `avg_logprob` and `no_speech_prob` are null: nothing here measures them. `tokens` are those of
    the text.
    """
    told: dict[str, Any] = {}
    if "segment" in wanted:
        told["segments"] = [
            {
                "id": number,
                "seek": 0,
                "start": round(segment.start_s, 3),
                "end": round(segment.end_s, 3),
                "text": segment.text,
                "tokens": encode(segment.text),
                "temperature": 0.0,
                "avg_logprob": None,
                "compression_ratio": _compression(segment.text),
                "no_speech_prob": None,
            }
            for number, segment in enumerate(timeline.segments)
        ]
    if "word" in wanted:
        told["words"] = [
            {"word": text, "start": round(start_s, 3), "end": round(end_s, 3)}
            for text, start_s, end_s, _ in timeline.words
        ]
    return told


def _clock(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _compression(text: str) -> float:
    """As Whisper has it: bytes of the text by those that zlib makes of them."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
