"""What the encoder of a front end hears by itself: letters by CTC (Graves et al. 2006), and words.

The head is a linear layer over the bytes of a transcript, whatever the tokenizer of the LM;
training leaves it beside the weights of the model. It says when a word is over, before the LM has
read it.
Legend: P = encoder outputs, D = encoder width, V = classes.
"""

import codecs
import copy
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as nn_f
from torch import Tensor

from proactivellm.backbone.folder import refusing
from proactivellm.output.source_units import SourceUnit, arrived_units, joined

HEAD_FILE = "ctc.pt"
BLANK = 0  # byte b of a transcript is class b + 1
NUM_CLASSES = 1 + 256
_SPACE = ord(" ")


class CtcHead(NamedTuple):
    """The layer."""

    weight: Tensor  # [V, D]
    bias: Tensor  # [V]

    @classmethod
    def load(cls, model_folder: str | Path, width: int) -> Self:
        """Reads what training left in a model folder; ValueError if that is not there, or broken.

        `width` D is that of the front end's encoder.
        """
        file = Path(model_folder) / HEAD_FILE
        if not file.is_file():
            raise ValueError(
                f"{model_folder} has no head of CTC ({HEAD_FILE}): train it with ctc_weight"
            )
        with refusing(f"{file} is no head of CTC for this encoder"):
            stored = torch.load(file, weights_only=True)
            head = cls(stored["weight"].float(), stored["bias"].float())
            if head.weight.shape != (NUM_CLASSES, width) or head.bias.shape != (NUM_CLASSES,):
                raise ValueError(f"its shape is {list(head.weight.shape)}")
        return head

    def to(self, device: str | torch.device) -> Self:
        """The same on another device."""
        return type(self)(self.weight.to(device), self.bias.to(device))

    def scores(self, outputs_PD: Tensor) -> Tensor:
        """Log-probabilities of the classes at each output, [P, V]."""
        return nn_f.linear(outputs_PD.float(), self.weight, self.bias).log_softmax(-1)


class SpokenWord(NamedTuple):
    """A word that is over."""

    text: str
    end: int  # the output that ended it: that of the space after it, or the last of all
    glued: bool = False  # to the word before: no white space is between them


class CtcWords:
    """Greedy decoding of one recording as its outputs arrive: words as soon as they are over.

    A character of a script without spaces is a word, as in a text (`output.source_units`). A value
    that `clone` copies.
    """

    def __init__(self, head: CtcHead) -> None:
        self.head = head
        self._last = BLANK  # class of the last output
        self._letters = bytearray()  # of the word under way
        self._glued = False  # whether that goes on after the word before, without a space
        self._goes_on = 1.0  # probability that no space came since its last letter
        self.num_outputs = 0
        self.num_words = 0  # that are over
        self.silent = False  # whether the last push held no letter

    def push(self, outputs_PD: Tensor) -> list[SpokenWord]:
        """Takes the next outputs; returns the words that have ended."""
        words = []
        scores_PV = self.head.scores(outputs_PD)
        space_P = scores_PV[:, 1 + _SPACE].exp().tolist()
        self.silent = True
        for best, space in zip(scores_PV.argmax(-1).tolist(), space_P, strict=True):
            self.num_outputs += 1
            self._goes_on *= 1.0 - space
            if best not in (BLANK, 1 + _SPACE):
                self.silent, self._goes_on = False, 1.0
            if best not in (BLANK, self._last):
                if best - 1 == _SPACE:
                    words += self._word()
                else:
                    self._letters.append(best - 1)
                    words += self._characters()
            self._last = best
        return words

    @property
    def spoken(self) -> float:
        """Words that are over, and how likely the one under way is.

        It surely is where the last push was silent, if each holds more than a pause in a word.
        """
        if not self._letters:
            return float(self.num_words)
        return self.num_words + (1.0 if self.silent else 1.0 - self._goes_on)

    def clone(self) -> Self:
        """An independent copy that continues from here."""
        twin = copy.copy(self)
        twin._letters = bytearray(self._letters)
        return twin

    def finish(self) -> list[SpokenWord]:
        """Ends the recording, and with it the word under way, if there is one."""
        return self._word()

    def _characters(self) -> list[SpokenWord]:
        """The words that are over though no space came."""
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        text = decoder.decode(bytes(self._letters))
        if not text or decoder.getstate()[0]:  # in the middle of a character
            return []
        units, rest = arrived_units(text, self._glued)
        if units:
            self._letters, self._glued = bytearray(rest.text.encode()), rest.glued
            self.num_words += len(units)
        return [SpokenWord(unit.text, self.num_outputs - 1, unit.glued) for unit in units]

    def _word(self) -> list[SpokenWord]:
        letters, self._letters = bytes(self._letters), bytearray()
        glued, self._glued = self._glued, False
        end = max(self.num_outputs - 1, 0)
        # Bytes that are no character are a mistake of the head like any other.
        text = letters.decode(errors="ignore")
        self.num_words += bool(text)
        return [SpokenWord(text, end, glued)] if text else []


def spoken_text(outputs_PD: Tensor, head: CtcHead) -> str:
    """What is heard in the outputs of a whole recording."""
    words = CtcWords(head)
    told = [*words.push(outputs_PD), *words.finish()]
    return joined(SourceUnit(word.text, word.glued) for word in told)
