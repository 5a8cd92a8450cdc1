"""Turns of one conversation: the next stream begins with what was read and written before.

A turn that is over becomes part of the source of the next one, word for word as it was fed, with
the marks of the chat template between: that stream is one whose prompt is the conversation so far.
"""

from pathlib import Path
from typing import Any, Self

from torch import Tensor

from proactivellm.backbone.turns import between_turns
from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import Piece
from proactivellm.output.detokenize import Detokenizer
from proactivellm.policy.fixed import Offline
from proactivellm.session.engine import Engine
from proactivellm.session.saving import load_snapshot, save_snapshot
from proactivellm.session.state import SessionState


class Conversation:
    """What the next turn begins with; empty before the first one.

    Attributes:
        snapshot: of a stream that has read nothing yet (`Engine.snapshot`); None = a fresh one.

    Raises:
        ValueError: the model has no chat template, or another prompt.
    """

    def __init__(self, model: StreamingCausalLM) -> None:
        if model.thinking is not None:
            raise ValueError("a model that thinks takes one problem at a time: no conversation")
        self.model = model
        self.snapshot: dict[str, Any] | None = None
        text = between_turns(model.tokenizer, model.settings.prompt)
        self._between = model.tokenizer.encode(text, add_special_tokens=False)

    def begin(self, engine: Engine, lane: int) -> None:
        """Put the conversation so far into a lane that has just been opened."""
        if self.snapshot is not None:
            sampling = engine.state(lane).sampling
            engine.restore(lane, self.snapshot)
            engine.state(lane).sampling = sampling

    def end(self, engine: Engine, lane: int) -> None:
        """Take the turn of a lane in, as `take`."""
        self.take(engine.snapshot(lane))

    def save(self, path: str | Path) -> None:
        """Write it to a file, which `Session.load` reads as well; an empty one writes nothing."""
        if self.snapshot is not None:
            save_snapshot(self.snapshot, path)

    @classmethod
    def load(cls, path: str | Path, model: StreamingCausalLM) -> Self:
        """Go on with one that was saved, or with a `Session` whose turn is over.

        Raises:
            ValueError: the file is none of these, or of another model.
        """
        conversation = cls(model)

        def use(snapshot: dict[str, Any]) -> None:
            conversation.take(snapshot)
            engine = Engine(model, Offline())
            conversation.begin(engine, engine.open())  # refuses what is of another model

        load_snapshot(path, model.device, use)
        return conversation

    def take(self, snapshot: dict[str, Any]) -> None:
        """Take a turn in that is over; one that had no source, or has not begun, adds nothing.

        Raises:
            ValueError: it is not over, or a part of it was not kept (features, or what left a
                window).
        """
        model, detokenizer = self.model, Detokenizer(self.model.tokenizer)
        state = SessionState.from_state_dict(snapshot["state"], detokenizer)
        if not state.units_read:
            if state.opening is not None:
                self.snapshot = _unread(model, state, state.opening, snapshot["cache"])
            return
        if not state.finished:
            raise ValueError("the turn is not over: close its source first, and write the rest")
        kept = [piece for piece in state.source if not isinstance(piece.tokens, Tensor)]
        source = [token for piece in kept for token in piece.tokens]
        if state.dropped_units or state.dropped_tokens or len(source) != state.num_in_view:
            raise ValueError(
                "a conversation keeps all its text: it takes no window, and no source that is heard"
            )
        written = [*state.target]
        if written[-1] in model.end_token_ids and len(written) > state.num_head:
            del written[-1]
        if not model.settings.prompt.target_head:  # what the target began with is no text of a chat
            del written[state.num_head - 1]
        tail = [] if state.source_finished else model.prompt.source_tail  # the answer was early
        rest = [*tail, *written, *self._between]
        cache, layout = snapshot["cache"], model.layout
        if layout.independent([SOURCE]):
            # What was read is as it would be if it were fed again.
            self.snapshot = _unread(model, state, rest, _source_of(cache, layout.index[SOURCE]))
        else:
            state.source = []
            self.snapshot = _unread(model, state, [*source, *rest], _source_of(cache, -1))


def _unread(
    model: StreamingCausalLM, before: SessionState, opening: list[int], cache: dict[str, Any]
) -> dict[str, Any]:
    """A stream that has read nothing, and holds the source of another one."""
    head = list(model.prompt.target_head)
    held = [token for piece in before.source for token in piece.tokens]
    state = SessionState(
        target=head,
        num_head=len(head),
        sampling=before.sampling,
        detokenizer=Detokenizer(model.tokenizer),
        opening=opening,
        source=[Piece(SOURCE, 0, held)] if held else [],
        counts={SOURCE: len(held), TARGET: 0},
        source_tokens=len(held),
    )
    return {"state": state.state_dict(), "cache": cache}


def _source_of(cache: dict[str, Any], group: int) -> dict[str, Any]:
    """The entries of one group, as part of the prompt."""
    kept_K = cache["kinds"][0] == group
    kinds_4K = cache["kinds"][:, kept_K].clone()
    kinds_4K[2] = 0
    return {
        "keys": [keys[kept_K] for keys in cache["keys"]],
        "values": [values[kept_K] for values in cache["values"]],
        "kinds": kinds_4K,
        "units": 0,
    }
