"""Times of words and segments, by hand; subtitles; what the client of OpenAI gets of them."""

from collections.abc import Callable
from typing import Any

import pytest
from openai.types.audio import TranscriptionSegment, TranscriptionVerbose, TranscriptionWord
from tests.serve.conftest import Running
from tests.serve.test_audio import alone, file_of, recording

from proactivellm.stream import StreamEvent
from proactivellm.stream.event import Kind
from proactivellm.stream.timed import Timed, Timeline, srt, vtt

RunIt = Callable[..., Any]


def timeline(*events: tuple[Kind, str, float]) -> Timeline:
    made = Timeline()
    for kind, text, media_s in events:
        made.add(StreamEvent(kind, text, 0, 0.0, media_s))
    return made


TWO_TURNS = timeline(
    ("BEGIN", "", 0.5),
    ("WRITE", "the ca", 1.0),
    ("WRITE", "t s", 1.5),
    ("BEGIN", "", 9.0),  # while the first one is still written
    ("PAUSE", "", 3.0),
    ("WRITE", "at. It <3", 2.5),
    ("END", "", 3.0),
    ("WRITE", " on a", 3700.0),
    ("END", "", 3700.0),
)


def test_a_word_ends_with_what_had_been_heard() -> None:
    assert TWO_TURNS.words == [
        Timed("the", 0.5, 1.0),
        Timed("cat", 1.0, 1.5),
        Timed("sat.", 1.5, 2.0),  # half of the letters since 1.5 s
        Timed("It", 2.0, 2.25),
        Timed("<3", 2.25, 2.5),
        Timed("on", 9.0, pytest.approx(9.0 + 3691 * 2 / 3)),
        Timed("a", pytest.approx(9.0 + 3691 * 2 / 3), 3700.0),
    ]


def test_segments_are_turns_and_sentences() -> None:
    assert TWO_TURNS.segments == [
        Timed("the cat sat.", 0.5, 2.0),
        Timed("It <3", 2.0, 2.5),
        Timed("on a", 9.0, 3700.0),
    ]
    long = timeline(("WRITE", "word " * 30, 4.0), ("END", "", 4.0))
    assert [len(segment.text) for segment in long.segments] == [84, 64]
    assert timeline(("END", "", 1.0)).segments == []


def test_a_transcript_without_spaces_is_timed_by_character() -> None:
    told = timeline(
        ("BEGIN", "", 0.0),
        ("WRITE", "我用", 1.0),
        ("WRITE", "GPT", 2.0),
        ("WRITE", "。”好", 3.0),
        ("END", "", 3.0),
    )
    assert told.words == [
        Timed("我", 0.0, 0.5),
        Timed("用", 0.5, 1.0, glued=True),
        Timed("GPT", 1.0, 2.0, glued=True),
        Timed("。”", 2.0, pytest.approx(2.0 + 2 / 3), glued=True),
        Timed("好", pytest.approx(2.0 + 2 / 3), 3.0, glued=True),
    ]
    first = Timed("我用GPT。”", 0.0, pytest.approx(2.0 + 2 / 3))
    assert told.segments == [first, Timed("好", pytest.approx(2.0 + 2 / 3), 3.0)]
    # Two lines of a subtitle hold 42 characters, and none begins with a comma.
    long = timeline(("WRITE", "好" * 42 + "，" + "好" * 50 + "。", 4.0), ("END", "", 4.0))
    assert [len(segment.text) for segment in long.segments] == [43, 42, 9]
    assert srt(long).startswith("1\n00:00:00,000 --> 00:00:01,830\n好好")


def test_subtitles() -> None:
    assert srt(TWO_TURNS).split("\n\n")[1:3] == [
        "2\n00:00:02,000 --> 00:00:02,500\nIt <3",
        "3\n00:00:09,000 --> 01:01:40,000\non a",
    ]
    assert vtt(TWO_TURNS).startswith("WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nthe cat sat.\n\n")
    assert "00:00:02.000 --> 00:00:02.500\nIt &lt;3\n\n" in vtt(TWO_TURNS)


def test_the_client_gets_them(listens: Running, listener: str, run: RunIt) -> None:
    pcm = recording(16_000)
    more: dict[str, Any] = {"model": listener, "extra_body": {"policy": "wait-k:2"}}
    more["language"] = "en"

    async def ask() -> list[Any]:
        transcriptions = listens.client().audio.transcriptions
        both: Any = {"timestamp_granularities": ["word", "segment"]}
        wishes: list[Any] = [{"response_format": "verbose_json", **both}]
        wishes += [{"response_format": name} for name in ("verbose_json", "srt", "vtt")]
        return [
            await transcriptions.create(file=file_of(pcm, 16_000), **wish, **more)
            for wish in wishes
        ]

    told, segments_alone, as_srt, as_vtt = run(ask())
    assert isinstance(told, TranscriptionVerbose)
    assert told.text == alone(listener, 16_000).strip()
    assert (told.language, told.duration) == ("en", round(len(pcm) / 16_000, 3))
    words = [TranscriptionWord.model_validate(w.to_dict(), strict=True) for w in told.words or []]
    assert [word.word for word in words] == told.text.split()
    times = [at for word in words for at in (word.start, word.end)]
    assert 0 <= times[0] and times == sorted(times) and times[-1] <= told.duration
    # What is not measured is null, where OpenAI's types want numbers.
    unknown = {"avg_logprob": 0.0, "no_speech_prob": 0.0}
    for segment in told.segments or []:
        assert segment.avg_logprob is None and segment.no_speech_prob is None
        TranscriptionSegment.model_validate({**segment.to_dict(), **unknown}, strict=True)
    assert " ".join(s.text for s in told.segments or []).split() == told.text.split()
    assert segments_alone.segments == told.segments and segments_alone.words is None
    assert as_srt.startswith("1\n00:00:0") and as_vtt.startswith("WEBVTT\n\n00:00:0")
