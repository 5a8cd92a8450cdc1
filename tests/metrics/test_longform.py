"""Long recordings: against OmniSTEval's own command line, and what is refused."""

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.metrics.instances import WORDS, write_log

from proactivellm.metrics.longform import resegment, score_longform
from proactivellm.metrics.mwer import mwer_borders
from proactivellm.metrics.segments import Segment, read_segments
from proactivellm.output.log import Instance


def recording(
    name: str, words: list[tuple[str, float]], length_ms: float, **facts: Any
) -> Instance:
    """An entry of the log: words and their delays in ms; 30 ms of computing for each."""
    return Instance(
        **{"index": 0, "task": "asr", "source_type": "speech", "policy": "wait-k:2"},
        **{"source": name, "source_length": length_ms, "source_ms": length_ms},
        prediction=" ".join(word for word, _ in words),
        prediction_length=len(words),
        delays=[delay for _, delay in words],
        elapsed=[delay + 30.0 for _, delay in words],
        token_delays=[delay for _, delay in words],
        forwards=None,
        tokens=None,
        **facts,
    )


# Two segments of 2 s, of 4 and 2 words, with a pause; a word is lost, one is wrong, one is late.
SEGMENTS = [
    Segment(audio="data/a.wav", start_s=5.0, end_s=7.0, text="On the mat."),
    Segment(audio="data/a.wav", start_s=1.0, end_s=3.0, text="The old cat sits"),
]
WORDS_A = [("the", 1500.0), ("cat", 2500.0), ("sits", 3500.0), ("on", 6000.0), ("mad", 8000.0)]
LOG = [recording("data/a.wav", WORDS_A, 8000.0, compute_ms=800.0)]


def test_words_go_to_their_segments() -> None:
    first, second = resegment(LOG, SEGMENTS)
    assert (first.instance.prediction, second.instance.prediction) == ("the cat sits", "on mad")
    assert (first.instance.reference, second.instance.reference) == (
        "The old cat sits",
        "On the mat.",
    )
    assert first.instance.delays == [500.0, 1500.0, 2500.0]
    assert second.instance.delays == [1000.0, 3000.0]
    assert second.instance.elapsed == [1030.0, 3030.0]
    assert (first.instance.source_length, first.end_ms) == (2000.0, 6000.0)
    assert (second.instance.source_length, second.end_ms) == (2000.0, 2000.0)


def test_scores_of_the_segments() -> None:
    scores = score_longform(LOG, SEGMENTS)
    assert (scores["policy"], scores["num_recordings"], scores["num_instances"]) == (
        "wait-k:2",
        1,
        2,
    )
    # Lost: "old", "the"; "mad" for "mat": 3 errors in 7 words.
    assert scores["WER"] == pytest.approx(300 / 7)
    # First, pace 500: 500 + (1500 - 500) + (2500 - 1000), the late word counts as well, as the
    # recording goes on: 3000 / 3. Second, pace 2000 / 3: 1000, and the next came after the end.
    assert scores["LongYAAL"] == pytest.approx((1000 + 1000) / 2)
    # LAAL stops at the first word after the end of its segment, that one included.
    assert scores["LongLAAL"] == pytest.approx((1000 + (1000 + 3000 - 2000 / 3) / 2) / 2)
    assert scores["StreamLAAL"] == scores["LongLAAL"]  # here the borders are the same
    assert scores["StreamLAAL_CA_ms"] == scores["LongLAAL_CA_ms"]
    assert scores["LongYAAL_CA_ms"] == pytest.approx((1030 + 1030) / 2)
    assert scores["RTF"] == pytest.approx(0.1)
    assert scores["latency_unit"] == "ms" and scores["num_undefined"] == {}
    tools = (
        r"SoftSegmenter \(OmniSTEval [\d.]+\); of StreamLAAL: mwerSegmenter \(mweralign [\d.]+\)"
    )
    assert re.fullmatch(tools, scores["resegmenter"])
    resampled = score_longform(LOG, SEGMENTS, num_bootstrap=50)
    assert {"WER_ci", "LongYAAL_ci", "LongLAAL_ci", "StreamLAAL_ci"} <= set(resampled)
    without_clock = score_longform([replace(LOG[0], source_ms=None, compute_ms=None)], SEGMENTS)
    timed = {"LongYAAL_CA_ms", "LongLAAL_CA_ms", "StreamLAAL_CA_ms", "RTF"}
    assert not timed & set(without_clock)


def test_borders_of_the_fewest_word_errors() -> None:
    texts = ["the old cat", "on the mat", "he sits"]
    assert mwer_borders("THE old on  mat".split(), texts) == [(0, 2), (2, 4), (4, 4)]
    assert mwer_borders([], texts) == [(0, 0)] * 3
    assert mwer_borders("a b # <s> c".split(), ["a"]) == [(0, 5)]


def test_stream_laal_by_hand() -> None:
    log = [recording("a.wav", [("the", 1500.0), ("old", 2500.0), ("mat.", 5500.0)], 8000.0)]
    parts = [*SEGMENTS, Segment(audio="a.wav", start_s=7.0, end_s=8.0, text="He sits")]
    parts = [replace(part, audio="a.wav") for part in parts]
    scores = score_longform(log, parts)
    # First segment, of 4 words: 500 + (1500 - 500); second, of 3: 500; nothing for the third.
    assert scores["StreamLAAL"] == pytest.approx((1500 / 2 + 500) / 2)
    assert scores["StreamLAAL_CA_ms"] == pytest.approx(scores["StreamLAAL"] + 30)
    assert scores["num_undefined"]["StreamLAAL"] == 1


def test_the_aligner_prints_and_configures_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import logging; from proactivellm.metrics.mwer import mwer_borders;"
        "mwer_borders(['a'], ['a', 'b']); root = logging.getLogger();"
        "assert not root.handlers and root.level == logging.WARNING"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert capfd.readouterr() == ("", "")


def test_nothing_written_for_a_segment() -> None:
    scores = score_longform([recording("a.wav", WORDS_A[:3], 8000.0)], SEGMENTS)
    assert scores["WER"] == pytest.approx(100 * (1 + 3) / 7)
    assert scores["num_undefined"]["LongYAAL"] == scores["num_undefined"]["LongLAAL"] == 1
    silent = score_longform([recording("a.wav", [], 8000.0)], SEGMENTS)
    assert silent["WER"] == 100.0 and silent["LongYAAL"] is None


def make_recording(number: int, errors: random.Random) -> tuple[Instance, list[Segment]]:
    """A recording of random sentences, of which words are lost, changed, or new."""
    name, at_s = f"talk_{number}.wav", 0.0
    segments, words = [], []
    for _ in range(6):
        text = errors.choices(WORDS[:-1], k=errors.randint(4, 9))
        start_s = at_s = at_s + errors.choice((0.0, 0.75))
        for word in text:
            at_s += 0.5
            for spoken in errors.choice([(word,)] * 6 + [(), (word, "uh"), (word[:-1] + "y",)]):
                words.append((spoken, 1000 * at_s + errors.choice((320.0, 960.5, 2200.0))))
        segments.append(Segment(audio=name, start_s=start_s, end_s=at_s, text=" ".join(text)))
    delays = sorted(delay for _, delay in words)
    written = [(word, delay) for (word, _), delay in zip(words, delays, strict=True)]
    instance = recording(f"data/{name}", written, 1000 * at_s)
    return replace(instance, index=number, task="translation"), segments


def test_omnisteval_agrees(tmp_path: Path) -> None:
    made = [make_recording(number, random.Random(number)) for number in range(3)]
    log, segments = [i for i, _ in made], [part for _, parts in made for part in parts]
    own = score_longform(log, segments[::-1])
    write_log(tmp_path / "instances.log", log)
    places = [
        {"wav": part.audio, "offset": part.start_s, "duration": part.end_s - part.start_s}
        for part in segments
    ]
    (tmp_path / "segments.json").write_text(json.dumps(places), encoding="utf-8")
    texts = "".join(part.text + "\n" for part in segments)
    (tmp_path / "references.txt").write_text(texts, encoding="utf-8")
    files = ["--hypothesis_file", "instances.log", "--ref_sentences_file", "references.txt"]
    files += ["--speech_segmentation", "segments.json", "--output_folder", "out"]
    command = [sys.executable, "-m", "omnisteval.cli", "longform", "--word_level", *files]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    lines = (tmp_path / "out" / "scores.tsv").read_text(encoding="utf-8").splitlines()
    theirs = {name: float(value) for name, value in (line.split("\t") for line in lines[1:])}
    names = {"BLEU": "BLEU", "chrF": "chrF"}
    names |= {"LongYAAL (CU)": "LongYAAL", "LongLAAL (CU)": "LongLAAL"}
    names |= {"LongYAAL (CA)": "LongYAAL_CA_ms", "LongLAAL (CA)": "LongLAAL_CA_ms"}
    assert 300 < own["LongYAAL"] < 3000 and 20 < own["BLEU"] < 95
    for their_name, name in names.items():
        assert theirs[their_name] == pytest.approx(own[name], abs=1e-4), name


def test_segments_are_read(tmp_path: Path) -> None:
    file = tmp_path / "segments.jsonl"
    record = {"audio": "a.wav", "start_s": 0, "end_s": 1.5, "text": "a b", "speaker": "x"}
    file.write_text(json.dumps(record) + "\n\n", encoding="utf-8")
    assert read_segments(file) == [Segment(audio="a.wav", start_s=0, end_s=1.5, text="a b")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end_s": 1.0}, r"line 1: a segment ends after it starts.*found 1.0 to 1.0 s"),
        ({"end_s": float("inf")}, "line 1: a segment ends after"),
        ({"start_s": -1.0}, "line 1: a segment ends after"),
        ({"start_s": "later"}, "line 1: start_s: input should be a valid number"),
        ({"text": " "}, "line 1: a segment needs a text"),
    ],
)
def test_what_is_no_segment_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    record = {"audio": "a.wav", "start_s": 1.0, "end_s": 1.5, "text": "a b"} | change
    file = tmp_path / "segments.jsonl"
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?i)segments.jsonl: {message}"):
        read_segments(file)


def test_a_bad_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("audio,start\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a: line 1: not JSON"):
        read_segments(tmp_path / "a")
    (tmp_path / "b").write_text('{"audio": "a.wav"}', encoding="utf-8")
    with pytest.raises(ValueError, match="b: line 1: start_s: Field required"):
        read_segments(tmp_path / "b")
    with pytest.raises(ValueError, match="nowhere: cannot be read"):
        read_segments(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([replace(LOG[0], source_type="text")], "the log is of text"),
        ([*LOG, replace(LOG[0], index=1, source="b.wav")], "'b.wav' has no segments"),
        ([*LOG, replace(LOG[0], index=1)], "'data/a.wav' has no segments, or is in the log twice"),
        ([replace(LOG[0], source="b.wav")], "'b.wav' has no segments"),
        ([], "the log is empty"),
    ],
)
def test_recordings_and_segments_must_match(log: list[Instance], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_longform(log, SEGMENTS)


def test_more_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(SEGMENTS[0], audio="b.wav")
    with pytest.raises(ValueError, match="segments of 'b.wav': no such recording in the log"):
        resegment(LOG, [*SEGMENTS, other])
    long = recording("a.wav", [("a", 0.0)] * 8000, 8000.0)
    spoken = replace(SEGMENTS[0], text="a " * 6000)
    with pytest.raises(ValueError, match="'a.wav' is too long to be aligned: 8000 words, 6000 in"):
        resegment([long], [spoken])
    monkeypatch.setitem(sys.modules, "omnisteval", None)
    with pytest.raises(ValueError, match=r"pip install 'proactivellm\[longform\]'"):
        resegment(LOG, SEGMENTS)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "mweralign", None)
    with pytest.raises(ValueError, match=r"needs mweralign.*pip install 'proactivellm\[mwer\]'"):
        mwer_borders(["a"], ["a"])


def test_without_the_extra_of_stream_laal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proactivellm.metrics.longform.find_spec", lambda name: None)
    scores = score_longform(LOG, SEGMENTS)
    assert "StreamLAAL" not in scores and scores["LongYAAL"] is not None
    assert "mweralign" not in scores["resegmenter"]
