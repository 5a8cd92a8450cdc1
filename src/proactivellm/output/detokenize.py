"""Token ids in, stable text out: deltas that only ever append, and where words begin.

A token is not a piece of text: it may be half a character, or a space that is dropped at the start.
`Detokenizer` emits text as soon as no later token can change it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proactivellm.output.source_units import begins_unit, is_mark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\ufffd"
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_SPACE_MARKERS = ("Ġ", "▁")
# First bytes of U+3000 to U+9FFF: kana, Chinese characters and their punctuation, and little else.
_EAST_BYTES = range(0xE3, 0xEA)
# Byte-level BPE shows each byte as a character: those that print as themselves, others from U+0100.
_PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
BYTE_OF = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + place): byte
    for place, byte in enumerate(b for b in range(0x100) if b not in _PRINTED)
}
_WINDOW = 16  # tokens decoded at most per push, outside a run of byte pieces
_CONTEXT = 5  # decided tokens kept on the left: more than a UTF-8 character has bytes


def _decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    return tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


class Detokenizer:
    """Incremental decoding of one target.

    The deltas of all tokens and of `finish`, joined, are
    `tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)` without
    one leading space, if that has one. A delta never holds half a character and is never taken
    back. Held back until decided are:

    - the bytes of an unfinished character (they would decode to U+FFFD);
    - a run of byte pieces <0xNN> (byte_fallback, as in Llama 2), to its end: such a tokenizer
      decodes the run as a whole, and one bad byte changes all of its characters.

    Only the undecided tail and a few tokens before it are decoded, so a push takes constant time
    on average however long the target is. `clone` makes a copy, for instance to see the text of a
    draft that may yet be dropped: `detokenizer.clone().finish()`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._skipped = {
            token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._window: list[int] = []  # context and undecided tail
        self._num_shown = 0  # characters of the decoded window that are emitted
        self._deltas: list[str] = []
        self._finished = False

    @property
    def text(self) -> str:
        """All text emitted so far."""
        return "".join(self._deltas)

    def push(self, token_id: int) -> str:
        """Takes the next token and returns the text that it decides, often empty.

        Special tokens and ids outside the vocabulary write nothing.

        Raises:
            ValueError: after `finish`.
        """
        if self._finished:
            raise ValueError(
                f"token {token_id} came after finish(): call finish() on a clone() to go on"
            )
        token_id = int(token_id)
        piece = self.tokenizer.convert_ids_to_tokens(token_id)
        if token_id in self._skipped or piece is None:
            return ""
        self._window.append(token_id)
        if _BYTE_PIECE.fullmatch(piece):  # its run is decoded whole, when another piece ends it
            return ""
        decoded = _decode(self.tokenizer, self._window)
        num_decided = len(decoded) - decoded.endswith(_REPLACEMENT)
        delta = decoded[self._num_shown : num_decided]
        self._num_shown = max(self._num_shown, num_decided)
        if len(self._window) > _WINDOW:
            # A UTF-8 character cannot begin inside another one, so that what follows the decided
            # part decodes alike even if the shorter window begins inside a character.
            self._window = self._window[-_CONTEXT:]
            num_held = len(decoded) - self._num_shown
            self._num_shown = len(_decode(self.tokenizer, self._window)) - num_held
        return self._emit(delta)

    def finish(self) -> str:
        """Ends the target and returns what was held back; nothing when called again.

        A character that was never completed shows as U+FFFD.
        """
        delta = _decode(self.tokenizer, self._window)[self._num_shown :] if self._window else ""
        self._window, self._num_shown, self._finished = [], 0, True
        return self._emit(delta)

    def clone(self) -> Detokenizer:
        """An independent copy that shares the tokenizer."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._window, twin._deltas = list(self._window), list(self._deltas)
        return twin

    def state_dict(self) -> dict[str, Any]:
        """The state as plain JSON types."""
        return {
            "window": list(self._window),
            "num_shown": self._num_shown,
            "deltas": [self.text] if self._deltas else [],
            "finished": self._finished,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, of a detokenizer with the same tokenizer."""
        self._window, self._num_shown = list(state["window"]), int(state["num_shown"])
        self._deltas, self._finished = list(state["deltas"]), bool(state["finished"])

    def _emit(self, delta: str) -> str:
        """Records a delta; the first one of a target loses its leading space."""
        if delta:
            delta = delta if self._deltas else delta.removeprefix(" ")
            self._deltas.append(delta)
        return delta


def word_starts(tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    """For each token id, whether writing the token begins a new word: [len(tokenizer)].

    A token begins a word if its piece carries a space marker ("Ġ" of byte-level BPE, "▁" of
    SentencePiece) or if the text it adds after another token begins with white space: that covers
    line breaks, and tokenizers whose pieces carry no marker because decoding puts the spaces
    (WordPiece: all but "##..."). So does every token that begins with a character of a script
    without spaces (Chinese, Japanese, Thai, ...), the first byte of a Chinese one included, or with
    full-width punctuation, but not one that begins with a mark of the character before (a tone or
    vowel of Thai). Special tokens, the end of the target among them, count as starts: they close
    the word before them. White space in two pieces in a row counts twice.

    Where nothing marks a start, only special tokens are starts: a whole target is then one word,
    and decisions have to be made at every token. That is so for tokenizers that mark the end of
    words ("</w>"), and for characters or bytes. A model may have more rows than `len(tokenizer)` in
    its output layer; such ids write nothing.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    starts = [i in special or piece.startswith(_SPACE_MARKERS) for i, piece in enumerate(pieces)]
    unmarked = [i for i, start in enumerate(starts) if not start]
    anchor = next((i for i in unmarked if _is_plain(_decode(tokenizer, [i]))), None)
    if anchor is None:
        return starts
    # After an anchor, because many tokenizers drop a space at the start of a text.
    num_before = len(_decode(tokenizer, [anchor]))
    for i in unmarked:
        text = _decode(tokenizer, [anchor, i])[num_before:]
        starts[i] = begins_unit(text) or (
            text.startswith(_REPLACEMENT) and _first_byte(pieces[i]) in _EAST_BYTES
        )
    return starts


def decision_points(tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    """For each token id, whether a policy may decide on it: it begins a word, or with punctuation.

    A sentence's end and a contraction ("I" + "'m") are worth a decision of their own, though no
    space stands before them; the inside of a word is not.
    """
    points = word_starts(tokenizer)
    for i, starts in enumerate(points):
        if not starts:
            text = _decode(tokenizer, [i])
            points[i] = bool(text) and not (
                text[0].isalnum() or text[0] == _REPLACEMENT or is_mark(text[0])
            )
    return points


def _first_byte(piece: str) -> int | None:
    """The first byte of a piece that holds part of a character; None if that is not known."""
    return int(piece[3:5], 16) if _BYTE_PIECE.match(piece) else BYTE_OF.get(piece[:1])


def _is_plain(text: str) -> bool:
    """Whether text can stand before any token without changing, or being changed by, it."""
    return bool(text) and _REPLACEMENT not in text and not text.isspace()
