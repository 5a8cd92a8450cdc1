"""Logs of SimulEval and simulstream: which field becomes which, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from proactivellm.metrics.score import score
from proactivellm.output.log import Instance, read_log

# A line of SimulEval 1.1.4 (text to text), as it writes it.
TEXT: dict[str, Any] = {
    "index": 0,
    "prediction": "a b c",
    "delays": [3, 4, 4],
    "elapsed": [0, 0, 0],
    "prediction_length": 3,
    "reference": "a b d\n",
    "source": "w x y z",
    "source_length": 4,
}
SPEECH = TEXT | {
    "source": ["/data/a.wav", "samplerate: 16000 Hz", "duration: 2.346 s"],
    "source_length": 2345.625,
    "delays": [320.0, 640.0, 2345.625],
    "elapsed": [371.5, 702.25, 2601.0],
}


def begin(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "metadata": {"wav_name": name}}


def chunk(
    number: int, seconds: float, tokens: list[str] | str, deleted: list[str] | None = None
) -> dict[str, Any]:
    return {
        "id": number,
        "total_audio_processed": seconds,
        "computation_time": 0.25,
        "generated_tokens": tokens,
        "deleted_tokens": deleted or [],
    }


def read(path: Path, *records: Any) -> list[Instance]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return read_log(path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "instances.log"


def test_text_of_simuleval(log: Path) -> None:
    (instance,) = read(log, TEXT)
    assert instance.delays == instance.token_delays == [3, 4, 4]
    assert all(isinstance(delay, int) for delay in instance.delays)
    assert (instance.policy, instance.forwards, instance.tokens) == ("unknown", None, None)
    assert (instance.source, instance.reference) == ("w x y z", "a b d")  # without its line end
    assert instance.source_ms is None  # its times of text are no clock
    (words,) = read(log, TEXT | {"source": ["w", "x", "y", "z"]})
    assert words.source == "w x y z" and words.source_ms is None


def test_speech_of_simuleval_keeps_its_ms(log: Path) -> None:
    (instance,) = read(log, SPEECH)
    assert instance.source == "/data/a.wav"
    assert instance.source_length == instance.source_ms == 2345.625
    assert instance.delays == [320.0, 640.0, 2345.625]
    assert instance.elapsed == [371.5, 702.25, 2601.0] and instance.first_token_ms == 371.5
    assert instance.source_type == "speech" and instance.compute_ms is None
    (text,) = read(log, TEXT)
    assert text.source_type == "text"


def test_simulstream(log: Path) -> None:
    first, second = read(
        log,
        begin(7, "talk.wav"),
        chunk(7, 1.0, ["▁Ein", "▁Hau"]),
        begin(8, "short.wav"),
        chunk(8, 0.5, ["▁Ja"]),
        chunk(7, 2.0, []),
        chunk(7, 3.0, ["s", "▁und", "▁mehr"]),
    )
    assert (first.index, first.source, first.prediction) == (0, "talk.wav", "Ein Haus und mehr")
    assert first.source_length == first.source_ms == 3000.0
    # "Hau" became "Haus" with the third chunk: that is when it was there.
    assert first.delays == [1000.0, 3000.0, 3000.0, 3000.0]
    assert first.elapsed == [1250.0, 3250.0, 3250.0, 3250.0]
    assert first.token_delays == [1000.0, 1000.0, 3000.0, 3000.0, 3000.0]
    assert first.first_token_ms == 1250.0
    assert first.source_type == "speech" and first.compute_ms == 3 * 250.0
    assert first.reference is None and first.revisions is None
    assert (second.index, second.source, second.prediction) == (1, "short.wav", "Ja")
    assert second.delays == [500.0]


def test_tokens_that_were_deleted_are_revisions(log: Path) -> None:
    (instance,) = read(
        log,
        begin(0, "a.wav"),
        chunk(0, 1.0, ["a", "b", "c"]),
        chunk(0, 2.0, ["x", "c"], deleted=["b", "c"]),
        chunk(0, 3.0, ["d"]),
    )
    assert instance.prediction == "a x c d"  # words, as no token has a sign of another kind
    assert instance.revisions == ["a b c", "a x c", "a x c d"]
    # "c" was deleted and written again: its time is the later one.
    assert instance.delays == [1000.0, 2000.0, 2000.0, 3000.0]
    assert instance.token_delays == [1000.0, 2000.0, 2000.0, 3000.0]


def test_byte_level_tokens_and_empty_output(log: Path) -> None:
    full, empty = read(
        log,
        begin(0, "a.wav"),
        chunk(0, 1.0, ["Ġm", "Ã¶", "chte", "Ġer"]),
        begin(1, "b.wav"),
        chunk(1, 1.0, []),
    )
    assert full.prediction == "möchte er" and full.delays == [1000.0, 1000.0]
    assert empty.prediction == "" and empty.delays == [] and empty.first_token_ms is None


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"id": 0, "generated_tokens": []}], r"line 1: total_audio_processed in a log of sim"),
        ([begin(0, "a"), chunk(0, 1.0, "abc")], r"line 2: generated_tokens .* list, found 'abc'"),
        ([chunk(0, 1.0, [])], r"line 1: id 0 has no metadata before this line"),
        ([begin(0, "a"), begin(1, "a")], r"line 2: 'a' was there before"),
        (
            [begin(0, "a"), chunk(0, 1.0, ["x"]), chunk(0, 2.0, [], ["y"])],
            r"line 3: deleted_tokens are not the last",
        ),
        ([{"text": "a", "time": 3}], r"line 1: neither an instance log .* nor SimulEval's .* nor a "
         r"metric log of simulstream .*: found text, time"),
        ([{}], r"found no keys"),
    ],
)  # fmt: skip
def test_what_is_no_log_is_told(log: Path, records: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(log, *records)
    assert str(caught.value).startswith(f"{log}: line ")


CHARACTERS = TEXT | {
    "prediction": "我见了a\u3000b",  # SimulEval drops the space, and counts any other white space
    "delays": [1, 1, 2, 3, 3, 4],
    "elapsed": [0] * 6,
    "prediction_length": 6,
    "reference": "我见了\n",
}
PIECES = TEXT | {
    "prediction": "the cats",
    "prediction_spm": ["▁the", "▁cat", "s"],
}


def test_units_of_simuleval(log: Path) -> None:
    (letters,) = read(log, CHARACTERS)
    assert letters.latency_unit == "char" and letters.prediction_length == 5
    assert letters.delays == [1, 1, 2, 3, 4] and len(letters.elapsed) == 5
    (pieces,) = read(log, PIECES)
    assert pieces.latency_unit == "spm" and pieces.units() == ["▁the", "▁cat", "s"]
    assert pieces.delays == [3, 4, 4]
    (words,) = read(log, TEXT)
    assert words.latency_unit == "word"
    with pytest.raises(ValueError, match=r"line 1: the numbers of target words disagree"):
        read(log, CHARACTERS | {"delays": [1, 1]})
    with pytest.raises(ValueError, match=r"line 1: .*spoken output"):
        read(log, SPEECH | {"durations": [1.0], "prediction": "/a/0_pred.wav"})


def test_simulstream_as_its_server_writes_it(log: Path) -> None:
    loading = {"model_loading_time": 5.2}
    (talk,) = read(
        log,
        loading,
        begin(1, "talk_a.wav"),
        chunk(1, 2.0, ["▁Guten", "▁Tag"]),
        loading,  # the server was started anew
        chunk(1, 4.0, ["▁zusammen", "."]),
    )
    assert talk.prediction == "Guten Tag zusammen." and talk.delays == [2000, 2000, 4000]
    with pytest.raises(ValueError, match="line 3: no id: which recording"):
        read(log, loading, begin(1, "a.wav"), {"generated_tokens": []})
    with pytest.raises(ValueError, match=r"line 3: total_audio_processed = 2.0 s is less than"):
        read(log, begin(1, "a.wav"), chunk(1, 4.0, ["▁a"]), chunk(1, 2.0, ["▁b"]))
    with pytest.raises(ValueError, match=r"line 2: total_audio_processed .*greater than or equal"):
        read(log, begin(1, "a.wav"), chunk(1, -4.0, ["▁a"]))


@pytest.mark.parametrize("kind", ["sentencepiece", "characters", "bytes"])
def test_simulstream_in_a_script_without_spaces(log: Path, kind: str) -> None:
    """The numbers are those of simulstream 1.0.0 with the latency unit "char"."""
    tokens = {
        "sentencepiece": (["▁我昨", "天"], ["见", "朋友"], ["老", "朋友", "。"]),
        "characters": (["我昨", "天"], ["见", "朋友"], ["老", "朋友", "。"]),
        "bytes": (["æĪĳæĺ", "¨", "å¤©"], ["è§ģ", "æľĭåıĭ"], ["èĢģ", "æľĭåıĭ", "ãĢĤ"]),
    }[kind]
    (talk,) = read(
        log,
        begin(3, "b.wav"),
        chunk(3, 2.0, tokens[0]) | {"computation_time": 3.4},
        chunk(3, 4.0, tokens[1]),
        chunk(3, 5.0, tokens[2], deleted=tokens[1][1:]),
    )
    assert talk.prediction == "我昨天见老朋友。" and talk.latency_unit == "char"
    assert talk.delays == [2000, 2000, 2000, 4000, 5000, 5000, 5000, 5000]
    assert talk.elapsed == [5400, 5400, 5400, 4250, 5250, 5250, 5250, 5250]
    assert score([talk])["NE"] == pytest.approx(2 / 8)  # two characters were taken back
