"""Text to units: training, whole lines and live characters agree, and text is only ever text."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizers import CORPUS, LOSSLESS, THINK, TOKENIZERS, build

from proactivellm.core.unit import Unit
from proactivellm.files.lines import read_lines
from proactivellm.modality.sentences import SentenceSegmenter
from proactivellm.modality.text import TextSegmenter

SPACES = " \t\n\u00a0\u3000"
LINES = st.text(
    alphabet=st.sampled_from("abHund ü你好。」กั้か\u3099😀\u200d<|>.,”" + SPACES), max_size=30
)


@pytest.fixture(params=TOKENIZERS)
def segmenter(request: pytest.FixtureRequest) -> TextSegmenter:
    return TextSegmenter(build(request.param))


def decode(segmenter: TextSegmenter, units: list[Unit]) -> str:
    ids = [token_id for unit in units for token_id in unit.token_ids]
    return segmenter.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_one_unit_per_word_the_last_one_final(segmenter: TextSegmenter) -> None:
    units = segmenter.segment("  Der Hund\tschläft. ")
    assert [unit.text for unit in units] == ["Der", "Hund", "schläft."]
    assert [unit.final for unit in units] == [False, False, True]
    assert all(unit.token_ids for unit in units)


@pytest.mark.parametrize("name", ["byte_level", "metaspace"])
def test_a_word_is_tokenised_alone_after_a_space_but_for_the_first(name: str) -> None:
    tokenizer = build(name)
    units = TextSegmenter(tokenizer).segment("Hund Hund Hund")
    first, later = (
        tuple(tokenizer.encode(text, add_special_tokens=False)) for text in ("Hund", " Hund")
    )
    assert [unit.token_ids for unit in units] == [first, later, later]
    assert (first == later) == (name == "metaspace")


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("line", CORPUS)
def test_units_decode_to_the_line_without_double_spaces(name: str, line: str) -> None:
    segmenter = TextSegmenter(build(name))
    assert decode(segmenter, segmenter.segment(line)).removeprefix(" ") == line


UNSPACED = [
    ("我用GPT。 你好,世界", ["我", "用", "GPT", "。", "你", "好", ",", "世", "界"]),
    ("Der 人 und人。", ["Der", "人", "und", "人", "。"]),
    ("ผมใช้ GPT", ["ผ", "ม", "ใ", "ช้", "GPT"]),
]


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize(("line", "texts"), UNSPACED)
def test_characters_of_scripts_without_spaces_are_units_and_decode_to_the_line(
    name: str, line: str, texts: list[str]
) -> None:
    segmenter = TextSegmenter(build(name))
    units = segmenter.segment(line)
    assert [unit.text for unit in units] == texts
    assert decode(segmenter, units).removeprefix(" ") == line


def test_a_unigram_tokenizer_puts_no_space_before_what_goes_on_a_word() -> None:
    segmenter = TextSegmenter(build("unigram"))
    units = segmenter.segment("你好 世界")
    assert decode(segmenter, units) == "你好 世界"
    assert [unit.glued for unit in units] == [False, True, False, True]


def test_a_character_of_a_script_without_spaces_is_complete_at_once_and_its_marks_stay() -> None:
    segmenter = TextSegmenter(build("byte_level"))
    fed = [(character, [u.text for u in segmenter.feed(character)]) for character in "我GP。”ช้ม"]
    assert fed == [
        *[("我", ["我"]), ("G", []), ("P", []), ("。", ["GP"]), ("”", []), ("ช", ["。”"])],
        *[("้", []), ("ม", ["ช้"])],
    ]
    (last,) = segmenter.finish()
    assert (last.text, last.glued, last.final) == ("ม", True, True)


@pytest.mark.parametrize("line", ["", " ", "\t\u3000 \n"])
def test_a_line_without_words_has_no_units(segmenter: TextSegmenter, line: str) -> None:
    assert segmenter.segment(line) == []
    assert segmenter.feed(line) == [] and segmenter.finish() == []


def test_arrival_times_follow_the_rate() -> None:
    units = TextSegmenter(build("byte_level")).segment("a b c", rate_wpm=120)
    assert [(unit.start_s, unit.end_s) for unit in units] == [(0, 0.5), (0.5, 1.0), (1.0, 1.5)]
    units = TextSegmenter(build("byte_level")).segment("a b c")
    assert {(unit.start_s, unit.end_s) for unit in units} == {(0.0, 0.0)}


@pytest.mark.parametrize("rate", [0, -5, float("nan")])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match=f"rate_wpm={rate}"):
        TextSegmenter(build("byte_level")).segment("a", rate_wpm=rate)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(line=LINES, cuts=st.lists(st.integers(0, 30), max_size=8))
def test_live_characters_give_the_units_of_the_line(name: str, line: str, cuts: list[int]) -> None:
    segmenter = TextSegmenter(build(name))
    whole = segmenter.segment(line)
    edges = [0, *sorted(min(cut, len(line)) for cut in cuts), len(line)]
    live = [
        unit
        for start, end in zip(edges, edges[1:], strict=False)
        for unit in segmenter.feed(line[start:end])
    ]
    assert not any(unit.final for unit in live)
    live += segmenter.finish()
    assert [u for u in live if not u.is_end] == [
        replace(u, final=u.final and not live[-1].is_end) for u in whole
    ]
    assert [unit.final for unit in live] == [False] * (len(live) - 1) + [True] * bool(live)
    assert segmenter.unit_token_ids(line) == [unit.token_ids for unit in whole]


def test_sentences_without_spaces_keep_their_text_live_and_whole() -> None:
    segmenter = SentenceSegmenter(build("byte_level"))
    text = "他说：“好！”我用GPT。 真的"
    whole = segmenter.segment(text)
    assert [unit.text for unit in whole] == ["他说：“好！”", "我用GPT。", "真的", ""]
    assert [unit.glued for unit in whole] == [False, True, False, False]
    assert decode(segmenter, whole) == text
    live = []
    for character in text:
        live += segmenter.feed(character)
        state = json.loads(json.dumps(segmenter.state_dict()))
        segmenter = SentenceSegmenter(segmenter.tokenizer)
        segmenter.load_state_dict(state)
    assert [*live, *segmenter.finish()] == whole


def test_live_state_knows_whether_a_space_stands_before() -> None:
    segmenter = TextSegmenter(build("byte_level"))
    segmenter.feed("我", now_s=1.0)
    restored = TextSegmenter(build("byte_level"))
    restored.load_state_dict(json.loads(json.dumps(segmenter.state_dict())))
    for copy in (segmenter.clone(), restored):
        (unit,) = copy.feed("好", now_s=2.0)
        assert unit.token_ids == segmenter.segment("我好")[1].token_ids
    (unit,) = segmenter.feed(" 好", now_s=2.0)
    assert unit.token_ids == segmenter.segment("我 好")[1].token_ids


def test_a_word_is_complete_at_white_space_and_stamped_with_its_arrival() -> None:
    segmenter = TextSegmenter(build("byte_level"))
    assert segmenter.feed("Der Hu", now_s=1.0)[0].end_s == 1.0
    assert segmenter.feed("nd", now_s=2.0) == []
    (unit,) = segmenter.feed("\n", now_s=3.0)
    assert (unit.text, unit.start_s, unit.end_s, unit.final) == ("Hund", 1.0, 3.0, False)
    assert segmenter.finish(now_s=4.0) == [Unit.end(4.0)]
    (unit,) = segmenter.feed("Der ")  # a new source: the first word carries no space again
    assert unit == segmenter.segment("Der x")[0]


def test_live_state_is_a_value() -> None:
    segmenter = TextSegmenter(build("byte_level"))
    segmenter.feed("Der Hu", now_s=1.5)
    twin = segmenter.clone()
    restored = TextSegmenter(build("byte_level"))
    restored.load_state_dict(json.loads(json.dumps(segmenter.state_dict())))
    segmenter.feed("t ", now_s=2.0)
    expected = [
        Unit("Hund", segmenter.segment("Der Hund")[1].token_ids, start_s=1.5, end_s=3.0, final=True)
    ]
    for copy in (twin, restored):
        copy.feed("nd", now_s=2.0)
        assert copy.finish(now_s=3.0) == expected


@pytest.mark.parametrize("text", ["<|end|>", "a<|end|>b", "<s>", THINK, f"x{THINK}y", "<unk>"])
def test_names_of_control_tokens_are_read_as_plain_text(
    segmenter: TextSegmenter, text: str
) -> None:
    tokenizer = segmenter.tokenizer
    as_control = tokenizer.encode(text, add_special_tokens=False)
    control = set(tokenizer.added_tokens_decoder)
    assert control & set(as_control), "plain encoding must fall for it, or this test is empty"
    for unit in segmenter.segment(f"{text} und {text}"):
        assert unit.token_ids and not (control - {tokenizer.unk_token_id}) & set(unit.token_ids)


@pytest.mark.parametrize("name", LOSSLESS)
def test_names_of_control_tokens_keep_their_characters(name: str) -> None:
    segmenter = TextSegmenter(build(name))
    line = f"Ein <|end|> und a{THINK}b ."
    assert decode(segmenter, segmenter.segment(line)).removeprefix(" ") == line


def test_added_words_are_not_taken_for_markup() -> None:
    tokenizer = TOKENIZERS["byte_level"]()
    tokenizer.add_tokens(["Fahrvergnügen"])
    ids = TextSegmenter(tokenizer).segment("Fahrvergnügen")[0].token_ids
    assert ids == (tokenizer.convert_tokens_to_ids("Fahrvergnügen"),)


def test_the_tokenizer_serves_others_as_before() -> None:
    tokenizer = build("byte_level")
    before = tokenizer("a <|end|> b")["input_ids"]
    TextSegmenter(tokenizer).segment("a <|end|> b")
    assert tokenizer("a <|end|> b")["input_ids"] == before


# read_lines


def test_lines_lose_line_ends_and_byte_order_mark_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "source.txt"
    path.write_bytes("\ufeffein\r\n zwei\u2028 \n\nvier\x0c\u0085".encode())
    assert list(read_lines(path)) == ["ein", " zwei\u2028 ", "", "vier\x0c\u0085"]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(read_lines(str(tmp_path / "empty"))) == []


def test_bad_bytes_are_located_and_earlier_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"\xef\xbb\xbfgut\nschl\xe4ft\n")
    lines = read_lines(path)
    assert next(lines) == "gut"
    with pytest.raises(ValueError, match=r"latin1.txt, line 2: 0xe4 at byte offset 11 .*iconv"):
        next(lines)


def test_missing_files_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(
            ValueError, match=f"cannot read '{path}': .*: (check the path|give a text)"
        ):
            read_lines(path)


def test_standard_input_is_read_as_it_comes_and_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe, os.fdopen(write_end, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        lines = read_lines("-")
        writer.write("schläft\n".encode())
        assert next(lines) == "schläft"  # would block here if more than the line were awaited
        writer.write(b"zu")
        writer.close()
        assert list(lines) == ["zu"]
        assert not sys.stdin.buffer.closed
