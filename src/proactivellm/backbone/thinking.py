"""How a model thinks while it reads: the control tokens of its thoughts, by name and by id.

After each sentence read comes a thought, which `end` closes, or `skip` alone. After the last one
come deep stages, each opened by a token of its own and closed by `end`; `answer` closes them all
(StreamingThinker, arXiv 2510.17238; its <EOT>, <skip> and <EOR>).
"""

from dataclasses import dataclass
from typing import Self

from pydantic import model_validator
from transformers import PreTrainedTokenizerBase

from proactivellm.files.toml import Strict


class Thinking(Strict):
    """The control tokens, as `streaming.json` names them; none of them is part of a text."""

    end: str = "<EOT>"
    skip: str = "<skip>"
    answer: str = "<EOR>"
    stages: tuple[str, ...] = ("<integrate>", "<reflect>")  # in this order; depth 1 has none

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.tokens)) < len(self.tokens):
            raise ValueError(f"give each a token of its own, not {', '.join(self.tokens)}")
        return self

    @property
    def tokens(self) -> tuple[str, ...]:
        """All of them."""
        return (self.end, self.skip, self.answer, *self.stages)


@dataclass(frozen=True, kw_only=True)
class ThinkingIds:
    """The same as ids of a tokenizer."""

    end: int
    skip: int
    answer: int
    stages: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, thinking: Thinking | None) -> Self | None:
        """None of a model that does not think; ValueError where the tokenizer lacks a token."""
        if thinking is None:
            return None
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in thinking.tokens if token not in vocabulary]
        if missing:
            raise ValueError(
                f"streaming.json has the model think with the token {missing[0]!r}, which the "
                "tokenizer has not: it is the tokenizer of another model, or `thinking` has to go"
            )
        end, skip, answer, *stages = (int(vocabulary[token]) for token in thinking.tokens)
        return cls(end=end, skip=skip, answer=answer, stages=tuple(stages))

    @property
    def closing(self) -> tuple[int, int]:
        """What closes a thought: the boundaries at which a sentence is read."""
        return self.end, self.skip

    @property
    def all(self) -> tuple[int, ...]:
        """All ids, none of which an answer may hold."""
        return (self.end, self.skip, self.answer, *self.stages)
