"""Text to units, one per sentence: what a model that thinks reads, one thought at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.text import TextSegmenter
from proactivellm.output.sentences import ends_sentence
from proactivellm.output.source_units import SourceUnit, joined


class SentenceSegmenter(TextSegmenter):
    """Cuts text into units of whole sentences; the ids of each are those of its words.

    A sentence is complete with the word that ends it (`output.sentences`), or with the source. The
    end of the source is a unit of its own, the bare end marker: whoever thinks about the last
    sentence need not wait for it.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._begun: list[Unit] = []  # words of the sentence that is not complete

    def segment(self, line: str, rate_wpm: float | None = None) -> list[Unit]:
        """Cuts a whole line into sentences, and its end; none for a line of white space.

        See `TextSegmenter.segment`; after a question the line goes on with it.
        """
        words = self._paced(line, rate_wpm, self._num_fed)
        if not words:
            return []
        return [*self._joined(words), *self._rest(), Unit.end(words[-1].end_s)]

    def feed(self, text: str, now_s: float = 0.0) -> list[Unit]:
        """Takes characters as they arrive at `now_s` seconds; gives the sentences they complete."""
        return self._joined(super().feed(text, now_s))

    def finish(self, now_s: float = 0.0) -> list[Unit]:
        """Ends the source: the sentence that was not complete, if any, and the bare end marker.

        Nothing if the whole source had no words.
        """
        any_words = bool(self._num_fed or self._partial.text)
        rest = [*self.feed(" ", now_s), *self._rest()]
        super().finish(now_s)
        return [*rest, Unit.end(now_s)] if any_words else []

    def clone(self) -> SentenceSegmenter:
        """A segmenter in the same state, which shares the tokenizer and the word cache."""
        twin = super().clone()
        assert isinstance(twin, SentenceSegmenter)
        twin._begun = [*self._begun]
        return twin

    def state_dict(self) -> dict[str, Any]:
        """The state of `feed` as plain JSON types."""
        begun = [[u.text, u.glued, [*u.token_ids], u.start_s, u.end_s] for u in self._begun]
        return {**super().state_dict(), "begun": begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `feed`, of a segmenter with the same tokenizer."""
        super().load_state_dict(state)
        self._begun = [
            Unit(text=text, glued=glued, token_ids=tuple(ids), start_s=start_s, end_s=end_s)
            for text, glued, ids, start_s, end_s in state["begun"]
        ]

    def _joined(self, words: Iterable[Unit]) -> list[Unit]:
        sentences = []
        for word in words:
            self._begun.append(word)
            if ends_sentence(word.text):
                sentences += self._rest()
        return sentences

    def _rest(self) -> list[Unit]:
        words, self._begun = self._begun, []
        if not words:
            return []
        return [
            Unit(
                text=joined(SourceUnit(word.text, word.glued) for word in words),
                glued=words[0].glued,
                token_ids=tuple(token for word in words for token in word.token_ids),
                start_s=words[0].start_s,
                end_s=words[-1].end_s,
            )
        ]


def segmenter_for(model: StreamingCausalLM) -> TextSegmenter:
    """What cuts the texts that a model reads: in words or characters, or sentences."""
    cut = TextSegmenter if model.thinking is None else SentenceSegmenter
    return cut(model.tokenizer)
