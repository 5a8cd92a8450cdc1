"""Incremental decoding: deltas join to the decoded text, in whole characters, never taken back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizers import CORPUS, TOKENIZERS, build
from transformers import PreTrainedTokenizerFast

from proactivellm.output import detokenize
from proactivellm.output.detokenize import Detokenizer, decision_points, word_starts
from proactivellm.output.scripts import has_unspaced
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

NAMES = list(TOKENIZERS)
TEXTS = st.text(alphabet=st.sampled_from("ab ü ß你好天😀👩\u200d👧\ufffd<|>.\n "), max_size=25)


def full_decode(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def push_all(tokenizer: Any, ids: list[int]) -> list[str]:
    """Deltas of every token and of the end; what was emitted must be there after each push."""
    detokenizer = Detokenizer(tokenizer)
    deltas = []
    for token_id in ids:
        deltas.append(detokenizer.push(token_id))
        assert detokenizer.text == "".join(deltas)
    deltas.append(detokenizer.finish())
    assert detokenizer.text == "".join(deltas)
    return deltas


def check(tokenizer: Any, ids: list[int]) -> None:
    expected = full_decode(tokenizer, ids).removeprefix(" ")
    deltas = push_all(tokenizer, ids)
    assert "".join(deltas) == expected
    # Not only does U+FFFD stay out of clean text: it is never emitted more often than decoded.
    assert sum(delta.count("\ufffd") for delta in deltas) == expected.count("\ufffd")


def hard_ids(tokenizer: Any) -> st.SearchStrategy[int]:
    """Any token, with byte pieces, lone bytes, spaces and special tokens drawn more often."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    tricky = [
        i
        for i, piece in enumerate(pieces)
        if len(piece) == 1 or piece.startswith("<") or set(piece) <= {"▁", "Ġ"}
    ]
    return st.one_of(st.integers(0, len(tokenizer) + 3), st.sampled_from(tricky))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_deltas_of_random_tokens_are_the_decoded_text(name: str, data: st.DataObject) -> None:
    tokenizer = build(name)
    check(tokenizer, data.draw(st.lists(hard_ids(tokenizer), max_size=60)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_deltas_of_real_text_are_the_decoded_text(name: str, text: str) -> None:
    tokenizer = build(name)
    check(tokenizer, tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", ["byte_level", "metaspace"])
@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=80))
def test_deltas_of_random_bytes_are_the_decoded_text(name: str, raw: bytes) -> None:
    check(build(name), [byte_id(name, byte) for byte in raw])


@pytest.mark.parametrize("name", ["byte_level", "metaspace"])
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_characters_written_byte_by_byte_are_never_halved(name: str, text: str) -> None:
    text = text.replace("\ufffd", "")
    deltas = push_all(build(name), [byte_id(name, byte) for byte in text.encode()])
    assert not any("\ufffd" in delta for delta in deltas)
    assert "".join(deltas) == full_decode(
        build(name), [byte_id(name, byte) for byte in text.encode()]
    ).removeprefix(" ")


def byte_id(name: str, byte: int) -> int:
    """The token of a single byte."""
    if name == "metaspace":
        return build(name).convert_tokens_to_ids(f"<0x{byte:02X}>")
    # The byte alphabet of GPT-2: printable bytes stand for themselves, the others follow 255.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    char = chr(byte if byte in printable else 256 + others.index(byte))
    token_id = build(name).convert_tokens_to_ids(char)
    assert token_id is not None and build(name).convert_ids_to_tokens(token_id) == char
    return token_id


def test_byte_level_text_appears_with_the_last_byte_of_each_character() -> None:
    ids = [byte_id("byte_level", byte) for byte in "a你😀b".encode()]
    assert push_all(build("byte_level"), ids) == ["a", "", "", "你", "", "", "", "😀", "b", ""]


def test_a_run_of_byte_pieces_appears_with_the_token_after_it() -> None:
    tokenizer = build("metaspace")
    ids = [byte_id("metaspace", byte) for byte in "你".encode()]
    ids.append(tokenizer.convert_tokens_to_ids("▁a"))
    assert push_all(tokenizer, ids) == ["", "", "", "你 a", ""]
    # Why: a bad byte at the end of the run undoes the character that was complete before it.
    assert full_decode(tokenizer, [*ids[:3], byte_id("metaspace", 0xFF)]) == "\ufffd" * 4


def test_an_unfinished_character_shows_at_the_end_only() -> None:
    ids = [byte_id("byte_level", byte) for byte in "a😀".encode()[:-1]]
    assert push_all(build("byte_level"), ids) == ["a", "", "", "", "\ufffd"]


@pytest.mark.parametrize("name", ["byte_level", "metaspace_legacy"])
def test_exactly_one_leading_space_is_dropped(name: str) -> None:
    tokenizer = build(name)
    space = tokenizer.convert_tokens_to_ids({"byte_level": "Ġ"}.get(name, "▁"))
    word = tokenizer.encode("a", add_special_tokens=False)
    for num_spaces in range(4):
        check(tokenizer, [space] * num_spaces + word)
    assert "".join(push_all(build("byte_level"), build("byte_level").encode(" a"))) == "a"


@pytest.mark.parametrize("name", NAMES)
def test_special_and_unknown_ids_write_nothing(name: str) -> None:
    tokenizer = build(name)
    assert push_all(tokenizer, [0, 1, 2, len(tokenizer) + 50]) == [""] * 5
    hund = tokenizer.encode("Hund Hund", add_special_tokens=False)
    mixed = [t for token_id in hund for t in (1, token_id, len(tokenizer) + 9)]
    assert "".join(push_all(tokenizer, mixed)) == "".join(push_all(tokenizer, hund)) == "Hund Hund"


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_copy_goes_on_alone_and_a_saved_state_goes_on_alike(
    name: str, data: st.DataObject
) -> None:
    tokenizer = build(name)
    ids = data.draw(st.lists(hard_ids(tokenizer), max_size=40))
    cut = data.draw(st.integers(0, len(ids)))
    detokenizer = Detokenizer(tokenizer)
    for token_id in ids[:cut]:
        detokenizer.push(token_id)
    state, shown = detokenizer.state_dict(), detokenizer.text
    restored = Detokenizer(tokenizer)
    restored.load_state_dict(json.loads(json.dumps(state)))
    draft = detokenizer.clone()
    for token_id in reversed(ids):
        draft.push(token_id)
    draft.finish()
    assert draft.text.startswith(shown)
    assert (detokenizer.text, detokenizer.state_dict()) == (shown, state)
    deltas = [[d.push(i) for i in ids[cut:]] + [d.finish()] for d in (detokenizer, restored)]
    assert deltas[0] == deltas[1]
    assert restored.text == detokenizer.text == full_decode(tokenizer, ids).removeprefix(" ")


def test_nothing_may_follow_the_end() -> None:
    detokenizer = Detokenizer(build("byte_level"))
    detokenizer.push(byte_id("byte_level", 0xE4))
    assert detokenizer.finish() == "\ufffd" and detokenizer.finish() == ""
    with pytest.raises(ValueError, match=r"token 77 came after finish\(\).*clone"):
        detokenizer.push(77)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["text", "bad bytes", "spaces", "special"])
def test_the_work_per_token_does_not_grow_with_the_target(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = build(name)
    if kind == "text":
        ids = [i for line in CORPUS for i in tokenizer.encode(line, add_special_tokens=False)] * 6
    elif kind == "bad bytes":
        byte = {"byte_level": chr(0x120), "byte_level_prefix": chr(0x120)}.get(name, "<0x80>")
        ids = [tokenizer.convert_tokens_to_ids(byte)] * 900
    else:
        ids = [1 if kind == "special" else tokenizer.encode("a a")[-1]] * 900
    decoded: list[int] = []
    inner = detokenize._decode

    def counted(tokenizer: Any, token_ids: list[int]) -> str:
        decoded.append(len(token_ids))
        return inner(tokenizer, token_ids)

    monkeypatch.setattr(detokenize, "_decode", counted)
    push_all(tokenizer, ids)
    assert len(ids) > 500
    assert sum(decoded) <= 20 * len(ids), "re-decoding all would be 250 tokens per token or more"


@pytest.mark.parametrize("name", NAMES)
def test_word_starts_find_the_words_of_a_text(name: str) -> None:
    tokenizer = build(name)
    starts = word_starts(tokenizer)
    assert len(starts) == len(tokenizer)
    assert all(starts[token_id] for token_id in tokenizer.all_special_ids)
    for line in ("Der Hund sleeps on the Sofa", "Häuser stehen leer"):
        ids = tokenizer.encode(line, add_special_tokens=False)
        # The first token begins a word whether or not it is marked.
        assert 1 + sum(starts[token_id] for token_id in ids[1:]) == len(line.split())


@pytest.mark.parametrize("name", NAMES)
def test_a_token_starts_a_word_with_white_space_or_with_a_script_that_has_none(name: str) -> None:
    tokenizer = build(name)
    starts = word_starts(tokenizer)
    (anchor,) = tokenizer.encode("a", add_special_tokens=False)
    before = full_decode(tokenizer, [anchor])
    for token_id in range(len(tokenizer)):
        if token_id not in tokenizer.all_special_ids:
            after = full_decode(tokenizer, [anchor, token_id])
            first = after[len(before) :][:1]
            begins = first.isspace() or has_unspaced(first) or first in {*"。"}
            if first != "\ufffd":
                assert starts[token_id] == begins, token_id


def test_line_breaks_start_words() -> None:
    starts = word_starts(build("byte_level"))
    assert starts[byte_id("byte_level", ord("\n"))] and starts[byte_id("byte_level", ord("\t"))]
    metaspace = word_starts(build("metaspace"))
    assert metaspace[byte_id("metaspace", ord("\n"))]


@pytest.mark.parametrize("name", ["byte_level", "metaspace"])
def test_the_first_byte_of_a_chinese_character_starts_a_word(name: str) -> None:
    """One that is no token would otherwise be written without asking."""
    tokenizer = build(name)
    starts, points = word_starts(tokenizer), decision_points(tokenizer)
    ids = [byte_id(name, byte) for byte in "丽".encode()]
    assert [starts[i] for i in ids] == [points[i] for i in ids] == [True, False, False]
    for character in ("é", "ж", "ह", "😀", "ก"):  # a space divides words, or it may be a mark
        assert not any(starts[byte_id(name, byte)] for byte in character.encode())


def test_marks_are_inside_of_a_word() -> None:
    """They belong to the letter before, which a reader has before them on its own."""
    pieces = ["ก", "า", "ั", "่", "ำ", "ั้น", "กั", "हि", "ि", "्", "\u0301", "\u200d", "。", ".", "a"]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "a"))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    starts, points = word_starts(tokenizer), decision_points(tokenizer)
    assert {piece for piece, start in zip(pieces, starts, strict=True) if start} == {*"กา。", "กั"}
    assert {p for p, point in zip(pieces, points, strict=True) if point} == {*"กา。.", "กั"}


def test_pieces_of_scripts_without_spaces_start_words() -> None:
    """Or a Chinese target would be one word: a single decision, and one step of any schedule."""
    texts = [
        "我每天早上喝咖啡",
        "咖啡很好喝",
        "ฉันดื่มกาแฟทุกวัน",
        "한국어 문장입니다",
        "I drink coffee",
    ]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, min_frequency=1)
    trained.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained)
    starts, points = word_starts(tokenizer), decision_points(tokenizer)

    def marks(text: str) -> list[tuple[str, bool]]:
        return [(tokenizer.decode([i]), starts[i]) for i in tokenizer.encode(text)]

    assert marks("咖啡很好喝") == [("咖啡很好喝", True)]
    assert [start for _, start in marks("我每天早上喝咖啡咖啡很好喝")] == [True, True]
    assert marks("กาแฟ")[0][1]
    assert all(points[i] for i in tokenizer.encode("咖啡很好喝"))
    assert [start for _, start in marks("한국어 문장입니다")] == [False, True]
    assert [start for _, start in marks("I drink coffee")] == [False, True, True]
