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
