"""A transcript with times: words, segments, subtitles.

What is known of a word is how much of the recording had been heard when its last character was
written. So that is where it ends; words that were written together share the time since those
before them, by their length.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from proactivellm.stream.event import StreamEvent

_LONGEST = 84  # characters of a segment: two lines of a subtitle
_ENDS = (".", "?", "!", "…", "。", "？", "！")  # of sentences


class Timed(NamedTuple):
    """Text, and where it is in the recording, in seconds."""

    text: str
    start_s: float
    end_s: float


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


def _words(pieces: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Each with when its last character was written."""
    words: list[tuple[str, float]] = []
    inside = False
    for text, at_s in pieces:
        for character in text:
            if character.isspace():
                inside = False
            elif inside:
                words[-1] = words[-1][0] + character, at_s
            else:
                words.append((character, at_s))
                inside = True
    return words


def _shared(words: Sequence[tuple[str, float]], begin_s: float) -> list[Timed]:
    """Those that were written at once, one after the other."""
    timed: list[Timed] = []
    for at_s, group in groupby(words, key=itemgetter(1)):
        together = [word for word, _ in group]
        heard_s, letters, told = max(at_s - begin_s, 0.0), sum(map(len, together)), 0
        for word in together:
            start_s = begin_s + heard_s * told / letters
            told += len(word)
            timed.append(Timed(word, start_s, begin_s + heard_s * told / letters))
        begin_s += heard_s
    return timed


def _segments(words: Iterable[Timed]) -> list[Timed]:
    segments: list[Timed] = []
    for word in words:
        last = segments[-1] if segments else None
        if (
            last is None
            or last.text.endswith(_ENDS)
            or len(last.text) + 1 + len(word.text) > _LONGEST
        ):
            segments.append(word)
        else:
            segments[-1] = Timed(f"{last.text} {word.text}", last.start_s, word.end_s)
    return segments


def srt(timeline: Timeline) -> str:
    """Subtitles in the format SubRip."""
    cues = [
        f"{number}\n{_clock(start_s, ',')} --> {_clock(end_s, ',')}\n{text}\n\n"
        for number, (text, start_s, end_s) in enumerate(timeline.segments, start=1)
    ]
    return "".join(cues)


def vtt(timeline: Timeline) -> str:
    """Subtitles in the format WebVTT (W3C)."""
    cues = [
        f"{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n{_escaped(text)}\n\n"
        for text, start_s, end_s in timeline.segments
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
            for text, start_s, end_s in timeline.words
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
