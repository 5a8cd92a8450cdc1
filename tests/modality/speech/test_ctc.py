"""Words that the encoder hears by itself."""

import pytest
import torch
from torch import Tensor

from proactivellm.modality.speech.ctc import (
    BLANK,
    HEAD_FILE,
    NUM_CLASSES,
    CtcHead,
    CtcWords,
    SpokenWord,
    spoken_text,
)

HEAD = CtcHead(torch.eye(NUM_CLASSES), torch.zeros(NUM_CLASSES))  # outputs are scores


def outputs_of(classes: str) -> Tensor:
    """Outputs whose best class is each of these letters; `-` is the blank."""
    best = [BLANK if letter == "-" else ord(letter) + 1 for letter in classes]
    return 9.0 * torch.eye(NUM_CLASSES)[best]


def test_letters_become_words_that_end_with_their_space():
    words = CtcWords(HEAD)
    assert words.push(outputs_of("--ttoo-o-  -")) == [SpokenWord("too", 9)]
    assert words.push(outputs_of("-a l")) == [SpokenWord("a", 14)]
    assert words.finish() == [SpokenWord("l", 15)] and words.finish() == []


def test_a_letter_that_goes_on_over_a_push_is_one():
    words = CtcWords(HEAD)
    assert not words.push(outputs_of("so"))
    assert words.push(outputs_of("o ")) == [SpokenWord("so", 3)]
    assert spoken_text(outputs_of("so- o  k"), HEAD) == "so o k"
    assert spoken_text(outputs_of("--  -"), HEAD) == "" == spoken_text(outputs_of(""), HEAD)


def test_characters_are_words_where_there_are_no_spaces():
    """The policy `ctc` counts words, and would else wait for the end of a Chinese recording."""
    words = CtcWords(HEAD)
    heard = outputs_of("-你用GPT写ก้ก".encode().decode("latin-1"))
    told = [words.push(heard[place : place + 1]) for place in range(len(heard))]
    assert told[3] == [SpokenWord("你", 3)] and told[6] == [SpokenWord("用", 6, glued=True)]
    assert [word.text for each in told for word in each] == ["你", "用", "GPT", "写", "ก้"]
    assert words.num_words == 5 and not words.silent
    assert words.finish() == [SpokenWord("ก", len(heard) - 1, glued=True)]
    assert spoken_text(heard, HEAD) == "你用GPT写ก้ก"


def test_the_word_under_way_counts_by_how_likely_it_is_over():
    words = CtcWords(HEAD)
    words.push(outputs_of("too"))
    assert words.spoken == pytest.approx(0.0, abs=0.01) and not words.silent
    unsure = outputs_of("--")
    unsure[:, ord(" ") + 1] = 8.0  # nearly as likely as the blank: 1 / (e + 1), but for the others
    words.push(outputs_of("o") + 0.0)
    twin = words.clone()
    for output in unsure:
        words.push(torch.stack([output, *outputs_of("o")]))  # the letter goes on, so the word does
    assert words.spoken == pytest.approx(0.0, abs=0.01)
    space = float(HEAD.scores(unsure)[0, ord(" ") + 1].exp())
    assert 0.2 < space < 0.3
    twin.push(torch.cat([outputs_of("k"), unsure]))
    assert twin.spoken == pytest.approx(1 - (1 - space) ** 2, abs=0.01)
    twin.push(outputs_of("- "))
    assert (twin.spoken, twin.num_words) == (1.0, 1) and words.num_words == 0


def test_a_push_without_letters_is_silent_and_ends_the_word():
    words = CtcWords(HEAD)
    words.push(outputs_of("---"))
    assert words.silent and words.spoken == 0.0
    words.push(outputs_of("no"))
    words.push(outputs_of("--"))
    assert words.silent and words.spoken == 1.0
    words.push(outputs_of("-w"))  # it was a pause within the word
    assert not words.silent and words.spoken == pytest.approx(0.0, abs=0.01)


def test_what_is_no_character_is_left_out():
    assert spoken_text(9.0 * torch.eye(NUM_CLASSES)[[ord("a") + 1, 0xC3 + 1]], HEAD) == "a"


def test_a_head_is_read_from_a_model_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no head of CTC \(ctc.pt\): train it with ctc_weight"):
        CtcHead.load(tmp_path, NUM_CLASSES)
    torch.save({name: value.half() for name, value in HEAD._asdict().items()}, tmp_path / HEAD_FILE)
    assert torch.equal(CtcHead.load(tmp_path, NUM_CLASSES).weight, HEAD.weight)
    with pytest.raises(ValueError, match=r"no head of CTC for this encoder: its shape is \[257"):
        CtcHead.load(tmp_path, 32)
    (tmp_path / HEAD_FILE).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no head of CTC for this encoder"):
        CtcHead.load(tmp_path, NUM_CLASSES)
