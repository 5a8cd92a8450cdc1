"""Text to units, words or characters (`output.source_units`), for training and live input alike.

In: whole lines (`segment`) or characters as they come (`feed`, `finish`). Out: `Unit`s, which agree
however the text arrived, because every unit is tokenised alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proactivellm.core.unit import Unit
from proactivellm.output.source_units import SourceUnit, arrived_units, source_units

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CACHED_WORDS = 1 << 18
# Written before a unit that no space stands before, where a tokenizer puts one before any text.
_ANCHORS = ("一", ".", "a", "1")
_MARKUP = re.compile(r"<.+>|\[.+\]")


class TextSegmenter:
    """Cuts text into units, whole lines or live characters: words, or characters of scripts without
    spaces.

    Unit 0 is the token ids of the bare word, unit i > 0 those of " " + word, or of the bare word if
    no white space stands before it; each is tokenised alone and without special tokens.

    Text is only ever text: the strings of special tokens, and of added tokens that look like markup
    (<think>, [INST]), are tokenised as the characters they consist of. Only tokenizers without a
    `tokenizers` backend may still match markup that is not declared special.

    The unfinished unit of `feed` is the only state; `clone` and `state_dict` carry it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._cache: dict[tuple[str, bool, bool], tuple[int, ...]] = {}
        self._partial, self._num_fed, self._fed_s = SourceUnit(""), 0, 0.0
        self._control_ids = control_ids(tokenizer) - {tokenizer.unk_token_id}
        # Tokenizers that put a space before any text by themselves, as that of Llama 2 does, are
        # given the bare word: " " + word would carry two spaces.
        self._prefix = " " if self._joins(" ") or not self._joins("") else ""
        self._glues = self._joins("", "aa")

    def segment(self, line: str, rate_wpm: float | None = None) -> list[Unit]:
        """Cuts a whole line into units, the last one final; none for a line of white space.

        A word of which the tokenizer keeps nothing (control characters, for some) is no unit.
        ValueError if rate_wpm is not positive.

        Args:
            rate_wpm: arrival rate in units per minute. Unit i is spoken from i * 60 / rate_wpm to
                (i + 1) * 60 / rate_wpm seconds. None: everything is there at 0 s.
        """
        units = self._paced(line, rate_wpm, 0)
        if units:
            units[-1] = replace(units[-1], final=True)
        return units

    def unit_token_ids(self, line: str) -> list[tuple[int, ...]]:
        """Token ids of each unit of one source, as `segment` has them; for training in bulk."""
        return [unit.token_ids for unit in self._units(source_units(line), 0)]

    def feed(self, text: str, now_s: float = 0.0) -> list[Unit]:
        """Takes characters as they arrive at `now_s` seconds; a word is complete at the white space
        after it, or as `output.source_units` says.

        Returns the units completed by this text, none of them final, stamped from the previous
        arrival to now_s.
        """
        begun, glued = self._partial
        words, self._partial = arrived_units(begun + text, glued)
        units = [
            replace(unit, start_s=min(self._fed_s, now_s), end_s=now_s)
            for unit in self._units(words, self._num_fed)
        ]
        if units:
            self._fed_s, self._num_fed = now_s, self._num_fed + len(units)
        return units

    def finish(self, now_s: float = 0.0) -> list[Unit]:
        """Ends the source of `feed` at `now_s` seconds, and makes ready for the next one.

        Returns the unfinished unit as the final one; the bare end marker if there is none; nothing
        if the whole source had no words.
        """
        units = self.feed(" ", now_s)
        if units:
            units[-1] = replace(units[-1], final=True)
        elif self._num_fed:
            units = [Unit.end(now_s)]
        self._partial, self._num_fed, self._fed_s = SourceUnit(""), 0, 0.0
        return units

    def ask(self, question: str) -> list[int]:
        """Token ids of a question that stands before the source; `feed` goes on after it."""
        words = list(self._units(source_units(question), self._num_fed))
        self._num_fed += len(words)
        return [token for word in words for token in word.token_ids]

    def whole(self, text: str) -> list[int]:
        """Token ids of a text that is not cut into words; of markup in it as of any text."""
        return self._encode(text)

    def clone(self) -> TextSegmenter:
        """A segmenter in the same state, which shares the tokenizer and the word cache."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def state_dict(self) -> dict[str, Any]:
        """The state of `feed` as plain JSON types."""
        partial, glued = self._partial
        return {
            "partial": partial,
            "glued": glued,
            "num_fed": self._num_fed,
            "fed_s": self._fed_s,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `feed`, of a segmenter with the same tokenizer."""
        self._partial = SourceUnit(str(state["partial"]), bool(state.get("glued")))
        self._num_fed, self._fed_s = int(state["num_fed"]), float(state["fed_s"])

    def _paced(self, line: str, rate_wpm: float | None, num_before: int) -> list[Unit]:
        """The units of a line after so many others, at a rate of arrival; none is final."""
        if rate_wpm is not None and not rate_wpm > 0:
            raise ValueError(f"rate_wpm={rate_wpm}: give a positive number of words per minute")
        unit_s = 60.0 / rate_wpm if rate_wpm is not None else 0.0
        return [
            replace(unit, start_s=i * unit_s, end_s=(i + 1) * unit_s)
            for i, unit in enumerate(self._units(source_units(line), num_before))
        ]

    def _units(self, words: Iterable[SourceUnit], num_before: int) -> Iterator[Unit]:
        for word, glued in words:
            if token_ids := self._token_ids(word, num_before == 0, glued):
                num_before += 1
                yield Unit(text=word, token_ids=token_ids, glued=glued)

    def _token_ids(self, word: str, first: bool, glued: bool) -> tuple[int, ...]:
        key = (word, first, glued)
        if key not in self._cache:
            if len(self._cache) >= _CACHED_WORDS:
                self._cache.clear()
            try:
                word.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError(
                    f"the word {word!r} has half of a surrogate pair, which is no character: "
                    "repair the text"
                ) from None
            bare = first or glued
            encode = self._encode if first or not glued or self._glues else self._encode_glued
            self._cache[key] = tuple(encode(word if bare else self._prefix + word))
        return self._cache[key]

    def _encode_glued(self, text: str) -> list[int]:
        """Tokenises plain text without the space that the tokenizer puts before any, if it can."""
        for anchor in _ANCHORS:
            before, ids = self._encode(anchor), self._encode(anchor + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        """Tokenises plain text; the later steps are for text that names a control token."""
        ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if self._control_ids.isdisjoint(ids) or backend is None:
            return ids
        # Past the matching of added tokens, which split_special_tokens leaves on for those that
        # are not declared special.
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        pieces = [text]
        if backend.pre_tokenizer is not None:
            pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        ids = [token.id for piece in pieces for token in backend.model.tokenize(piece)]
        if self._control_ids.isdisjoint(ids):
            return ids
        # Unigram models hold their control tokens as pieces; single characters cannot match them.
        return [token.id for char in "".join(pieces) for token in backend.model.tokenize(char)]

    def _joins(self, prefix: str, source: str = "a a") -> bool:
        """Whether words tokenised alone, later ones with this prefix, decode to the source."""
        ids = self._encode("a") + self._encode(prefix + "a")
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.removeprefix(" ") == source


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that no text becomes: special ones, and added ones that look like markup."""
    return {
        token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or _MARKUP.fullmatch(token.content)
    }
