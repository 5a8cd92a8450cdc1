"""One stream for a tool that sends words one by one and takes whole words, which it cannot extend.

A word is whole when the next one begins or the target ends: until then the next token may still
lengthen it ("hat" + ","), whatever the policy decided at the last probe. The tool counts its delay
there; a log of ours counts it at the last character, which is known only in retrospect.

A tool that takes characters gets each when it is written, as a log of ours counts it: a text
without spaces is not held back to its end.
"""

from collections.abc import Sequence
from typing import Protocol

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.scripts import characters
from proactivellm.policy.base import Policy
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Streams


class Cutter(Protocol):
    """Text in pieces in, units out that will not change."""

    def add(self, text: str) -> list[str]:
        """Takes the next piece; returns the units that are whole now."""

    def finish(self) -> list[str]:
        """Ends the text; returns the last unit, if it was not whole before."""


class Characters(Cutter):
    """Characters, white space left out."""

    def add(self, text: str) -> list[str]:
        return characters(text)

    def finish(self) -> list[str]:
        return []


class WholeWords(Cutter):
    """Words."""

    def __init__(self) -> None:
        self._partial = ""

    def add(self, text: str) -> list[str]:
        """Takes the next piece; returns the words that it makes whole, cut as by `str.split()`."""
        text = self._partial + text
        words = text.split()
        self._partial = words.pop() if words and not text[-1].isspace() else ""
        return words

    def finish(self) -> list[str]:
        """Ends the text; returns the last word, if it was not whole before."""
        return self.add(" ")


def cutter_of(unit: str) -> Cutter:
    """What cuts a target into what SimulEval counts (`--eval-latency-unit`).

    Raises:
        ValueError: it counts neither words nor characters.
    """
    if unit not in _CUTTERS:
        raise ValueError(
            f"--eval-latency-unit {unit}: words or characters are written here, no pieces of a "
            "SentencePiece model; give word or char, and count the pieces of a log by "
            "`proactivellm score LOG --latency-unit spm:FILE`"
        )
    return _CUTTERS[unit]()


_CUTTERS: dict[str, type[Cutter]] = {"word": WholeWords, "char": Characters}


class WordStream:
    """A stream that reads words and writes greedily, as `evaluate` does.

    It writes whole words, or characters if `unit` is "char"; see `cutter_of`.
    """

    def __init__(self, model: StreamingCausalLM, policy: Policy, unit: str = "word") -> None:
        self._unit = unit
        self._streams = Streams(model, policy, sampling=Sampling())
        self._stream, self._words = self._streams.open(), cutter_of(unit)

    def begin(self) -> None:
        """Begins another source; what is not written of the one before is dropped."""
        self._stream.cancel()
        self._stream, self._words = self._streams.open(), cutter_of(self._unit)

    @property
    def finished(self) -> bool:
        """Whether the target is complete."""
        return self._stream.finished

    def read(self, words: Sequence[str], source_finished: bool) -> list[str]:
        """Takes the next words of the source, if any; returns what is whole of the target now.

        `source_finished` says whether these are the last.

        Raises:
            ValueError: the source was finished before, or the stream cannot go on.
        """
        self._stream.push(" ".join(words))
        if source_finished:  # together with the last word: policies decide otherwise from there on
            self._stream.close()
        else:
            self._stream.push(" ")
        texts = [event.text for event in self._stream.events() if event.kind == "WRITE"]
        written = self._words.add("".join(texts))
        return written + self._words.finish() if self.finished else written
