"""Speculative decoding: tokens are proposed ahead, and one forward checks several of them.

A lane feeds the token it would feed anyway and the proposed ones after it. Of these it keeps those
that it would have written, one after the other, and takes the others back (Leviathan et al. 2023,
arXiv 2211.17192): a proposal can save forwards and change nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from proactivellm.forward.lanes import Piece

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


class Context(NamedTuple):
    """What a lane has in view as it is about to probe."""

    lane: int
    stream: object  # its identity: a lane is used by one stream after another
    source: Sequence[Piece]  # read, the units of this step included
    num_source: int  # tokens of it, with embeddings that were not kept
    target: Sequence[int]  # written or hypothesised, head included
    earlier: Sequence[int]  # the target as a hypothesis before this one had it; may be empty
    held: Mapping[str, int]  # tokens of each group whose entries stay as they are in this step
    most: int  # tokens wanted at most


class Proposer(ABC):
    """Proposes the tokens that may follow, for the lanes of one engine."""

    @abstractmethod
    def propose(self, contexts: Sequence[Context]) -> list[list[int]]:
        """Return proposed tokens for each lane, any number up to `most`."""


class Speculation(ABC):
    """How tokens are proposed: a value, from which every engine makes a proposer of its own."""

    tokens: int
    """Tokens proposed for one forward of a lane, at most."""

    @abstractmethod
    def proposer(self, num_lanes: int) -> Proposer:
        """Return a proposer for an engine of so many lanes."""

    def check(self, model: "StreamingCausalLM") -> None:  # noqa: B027
        """Raise ValueError where the proposals are none of the model's tokens."""


_NO_TOKEN = -1


def check_tokens(tokens: int) -> None:
    """Raise ValueError unless at least one token may be proposed."""
    if tokens < 1:
        raise ValueError(f"tokens={tokens}: propose at least 1 for each forward")


@dataclass(frozen=True, kw_only=True)
class Lookup(Speculation, Proposer):
    """Proposes what followed the last tokens where they stood before, in the source or the target.

    Prompt lookup decoding (Saxena 2023): of the longest n-gram that is found, of at most `longest`
    tokens, the latest place. It costs no forward. Policies that draft anew after each READ are
    proposed what they drafted before. Of source and target the last `reach` tokens are searched, so
    that the time it takes does not grow with the stream.
    """

    tokens: int = 4
    longest: int = 3
    reach: int = 1024

    def __post_init__(self) -> None:
        check_tokens(self.tokens)
        if self.longest < 1:
            raise ValueError(f"longest={self.longest}: an n-gram has at least 1 token")
        if self.reach < 1:
            raise ValueError(f"reach={self.reach}: search at least 1 token")

    def proposer(self, num_lanes: int) -> Proposer:
        return self

    def propose(self, contexts: Sequence[Context]) -> list[list[int]]:
        return [self._found(context) for context in contexts]

    def _found(self, context: Context) -> list[int]:
        text = _last_ids(context.source, self.reach)
        text += [*context.earlier[-self.reach :], _NO_TOKEN, *context.target[-self.reach :]]
        after, length = 0, 0
        for stop in range(len(text) - 1, 0, -1):
            if text[stop - 1] != text[-1]:
                continue
            same = 1
            while same < min(self.longest, stop) and text[stop - 1 - same] == text[-1 - same]:
                same += 1
            if same > length:
                after, length = stop, same
            if same == self.longest:
                break
        return text[after : after + context.most] if length else []


def _last_ids(pieces: Sequence[Piece], count: int) -> list[int]:
    """The last ids of pieces, so many if there are."""
    found: list[Sequence[int]] = []
    for piece in reversed(pieces):
        if count <= 0:
            break
        found.append(_ids(piece.tokens[-count:]))
        count -= len(found[-1])
    return [token for ids in reversed(found) for token in ids]


def _ids(tokens: Sequence[int] | Tensor) -> Sequence[int]:
    """The ids of a piece, with a stand-in for each embedding."""
    return [_NO_TOKEN] * len(tokens) if isinstance(tokens, Tensor) else tokens
