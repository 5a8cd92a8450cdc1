"""What one stream remembers between steps, beside its cache entries: a plain value.

The cache holds `counts` of each group. The target tokens after those are open: they are fed again
by the next step (after a READ they see more source: the one-row shift of GPE).
"""

import copy
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.core.unit import Unit
from proactivellm.forward.lanes import Piece
from proactivellm.output.detokenize import Detokenizer
from proactivellm.session.history import SeenIds
from proactivellm.session.sampling import Sampling
from proactivellm.session.sentences import Sentences


@dataclass(kw_only=True)
class SessionState:
    """Counters, ids and flags of one stream."""

    target: list[int]  # ids, head included
    num_head: int  # length of the target head
    sampling: Sampling
    detokenizer: Detokenizer
    pending: deque[Unit] = field(default_factory=deque)  # units pushed and not read yet
    closed: bool = False  # whether the final unit was pushed
    source_finished: bool = False  # whether it was read
    # Ids that stand before the first unit, and are not in `source` yet; None = those of the prompt.
    opening: list[int] | None = None
    question: list[int] = field(default_factory=list)  # ids of it, within the opening
    units_read: int = 0  # source units, a bare end marker not counted
    holds: bool = False  # whether the last of them keeps the stream from writing
    # Pieces read and still in view, prompt included; features only where they may be fed again
    # (windows).
    source: list[Piece] = field(default_factory=list)
    # Tokens of each group whose entries in the cache stay as they are.
    counts: dict[str, int] = field(default_factory=lambda: {SOURCE: 0, TARGET: 0})
    spoken: float = 0.0  # words that were over by then, see `Unit`
    silent: bool = False  # whether nobody spoke in the last of them
    source_tokens: int = 0  # read, prompt included
    words: int = 0  # target words begun (tokens, where decisions fall at token boundaries)
    sentences: Sentences = Sentences()  # where the sentence being written began
    delays: list[int] = field(default_factory=list)  # g of every target token, head excluded
    dropped_units: int = 0  # source units that left the window
    dropped_tokens: int = 0  # target tokens that left the window
    written_at_drop: int = 0  # target tokens written when source units last left the window
    draft: list[int] = field(default_factory=list)  # tokens hypothesised after the target
    # Earlier drafts, oldest first, without what was committed since.
    hypotheses: list[list[int]] = field(default_factory=list)
    # Values of recurrent evidence for the token written last, by key; [..., units then in view].
    past: dict[str, Tensor] = field(default_factory=dict, compare=False)
    at_boundary: bool = True  # whether the next token is known to begin a word
    wants_read: bool = False  # whether the last decision was READ
    read_reason: int = 0  # code of why it was (`policy.reason`)
    finished: bool = False  # whether the target is complete
    truncated: bool = False  # whether it was cut at the length limit
    cancelled: bool = False  # whether it was ended from outside
    error: str | None = None  # why it could not go on
    # The group that is written now; where a model thinks, thoughts come before the target.
    group: str = TARGET
    thought: list[int] = field(default_factory=list)  # ids, head included
    thought_delays: list[int] = field(default_factory=list)  # g of every thought token
    num_thought_tokens: int = 0  # of the thought being written
    depth: int | None = None  # of the reasoning, see `limits.Limits`
    longest_thought: int = 0
    reads_ahead: bool = False  # whether units may be read that are not thought about yet
    ahead: int = 0  # such units, which nothing that is written sees
    forwards: int = 0  # that this stream took part in
    tokens: int = 0  # that it sent through the model
    # Text of the thought being written; None where none was begun.
    thought_words: Detokenizer | None = field(default=None, init=False, repr=False, compare=False)
    # The ids that a repetition penalty looks at.
    seen: SeenIds = field(default_factory=SeenIds, init=False, repr=False, compare=False)

    @property
    def num_written(self) -> int:
        """Target tokens written, head excluded, those that left the window included."""
        return self.dropped_tokens + len(self.target) - self.num_head

    @property
    def written(self) -> list[int]:
        """Ids of the group that is written now, head included."""
        return self.target if self.group == TARGET else self.thought

    @property
    def num_sampled(self) -> int:
        """Tokens written, thoughts included."""
        return self.num_written + len(self.thought_delays)

    @property
    def thinks_deep(self) -> bool:
        """Whether each unit was thought about, and there are no more."""
        return self.source_finished and self.words >= self.units_read

    @property
    def num_entries(self) -> int:
        """Entries of the cache that count."""
        return sum(self.counts.values())

    @property
    def unfed(self) -> list[Piece]:
        """Pieces read that the cache does not hold: all of them after it was forgotten."""
        return [] if self.counts[SOURCE] else self.source

    @property
    def num_in_view(self) -> int:
        """Source tokens in view, in the cache or to be fed again."""
        return self.counts[SOURCE] + sum(len(piece.tokens) for piece in self.unfed)

    def forget(self) -> None:
        """Count nothing as held by the cache: all in view is fed again."""
        self.counts = dict.fromkeys(self.counts, 0)

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values, for saving."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        values["detokenizer"] = self.detokenizer.state_dict()
        values["sampling"] = vars(self.sampling)
        values["sentences"] = vars(self.sentences)
        values["pending"] = [vars(unit) for unit in self.pending]
        values["source"] = [tuple(piece) for piece in self.source]
        return copy.deepcopy(values)

    @classmethod
    def from_state_dict(cls, values: dict[str, Any], detokenizer: Detokenizer) -> "SessionState":
        """The state saved by `state_dict`; a fresh detokenizer is filled in place."""
        values = copy.deepcopy(values)  # it may be restored again
        detokenizer.load_state_dict(values["detokenizer"])
        pending = deque(Unit(**unit) for unit in values["pending"])
        values |= {"detokenizer": detokenizer, "sampling": Sampling(**values["sampling"])}
        values |= {"pending": pending, "source": [Piece(*piece) for piece in values["source"]]}
        values["sentences"] = Sentences(**values.get("sentences", {}))
        return cls(**values)
