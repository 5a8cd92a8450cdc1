"""One stream for a tool that sends words one by one and takes whole words, which it cannot extend.

A word is whole when the next one begins or the target ends: until then the next token may still
lengthen it ("hat" + ","), whatever the policy decided at the last probe. The tool counts its delay
there; a log of ours counts it at the last character, which is known only in retrospect.
"""

from collections.abc import Sequence

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.policy.base import Policy
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit


class WholeWords:
    """Text in pieces in, whole words out."""

    def __init__(self) -> None:
        self._partial = ""

    def add(self, text: str) -> list[str]:
        """Takes the next piece.

        Args:
            text: any number of characters.

        Returns:
            The words that are whole because of it, as `str.split()` cuts them.
        """
        text = self._partial + text
        words = text.split()
        self._partial = words.pop() if words and not text[-1].isspace() else ""
        return words

    def finish(self) -> list[str]:
        """Ends the text.

        Returns:
            The last word, if it was not whole before.
        """
        return self.add(" ")


class WordStream:
    """A stream that reads words and writes whole words, greedily, as `evaluate` does.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        segmenter: of the model; a fresh one if left out.
    """

    def __init__(
        self, model: StreamingCausalLM, policy: Policy, segmenter: TextSegmenter | None = None
    ) -> None:
        self._session = Session(model, policy, Sampling())
        self._segmenter = segmenter.clone() if segmenter else TextSegmenter(model.tokenizer)
        self._words = WholeWords()

    @property
    def finished(self) -> bool:
        """Whether the target is complete."""
        return self._session.state.finished

    def read(self, words: Sequence[str], source_finished: bool) -> list[str]:
        """Takes the next words of the source.

        Args:
            words: without white space in them; there may be none.
            source_finished: whether these are the last.

        Returns:
            The target words that are whole now.

        Raises:
            ValueError: if the source was finished before, or the stream cannot go on.
        """
        units = self._segmenter.feed(" ".join(words))
        if source_finished:  # together with the last word: policies decide otherwise from there on
            units += self._segmenter.finish()
            units = units or [Unit.end()]
        else:
            units += self._segmenter.feed(" ")
        written = self._words.add("".join(write.text for write in self._session.push(units)))
        return written + self._words.finish() if self.finished else written
