"""One stream: push units in, get writes out."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.base import Policy
from proactivellm.session.conversation import Conversation
from proactivellm.session.engine import Engine
from proactivellm.session.events import Event, Write
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.saving import load_snapshot, save_snapshot
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window


class Session:
    """A stream that reads units and writes tokens as its policy decides: an engine of one lane.

    For one thread at a time; calls that meet raise RuntimeError. Without `sampling`, the generation
    settings of the model hold; without a window, everything stays in view; without
    limits, those of `Limits` hold.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        policy: Policy,
        sampling: Sampling | None = None,
        window: Window | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._engine = Engine(model, policy, limits, sampling, window)
        self._lane = self._engine.open()

    @property
    def state(self) -> SessionState:
        """Counters, ids and flags of the stream, live."""
        return self._engine.state(self._lane)

    @property
    def text(self) -> str:
        """The target written so far."""
        return self.state.detokenizer.text

    def ask(self, ids: Sequence[int]) -> None:
        """Put a question before the source, as `Engine.ask`."""
        self._engine.ask(self._lane, ids)

    def push(self, units: Unit | Iterable[Unit]) -> list[Write]:
        """Read units as the policy decides, and return what it allows to write.

        The last unit of the stream may have `final` set.

        Raises:
            ValueError: if a unit cannot be read, or the source is already closed (none of the units
                was taken then), or if the stream cannot go on.
        """
        return _writes(self.advance(units))

    def advance(self, units: Unit | Iterable[Unit]) -> Iterator[Event]:
        """As `push`, but all that happens (Read, Write, End), each as soon as its forward is done.

        Exhaust it before the next units.
        """
        self._engine.push(self._lane, [units] if isinstance(units, Unit) else units)
        while (events := self._engine.step()) is not None:
            yield from events
        if self.state.error is not None:
            raise ValueError(self.state.error)

    def close(self) -> list[Write]:
        """Say that the source is complete, and write the rest; idempotent."""
        return [] if self.state.closed else self.push(Unit.end())

    def cancel(self) -> list[Write]:
        """End the stream after its last written token: the text that was held back, if any."""
        return _writes(self._engine.cancel(self._lane))

    def rollback(self) -> list[Unit]:
        """Take the stream back to its last written token; see `Engine.rollback`."""
        return self._engine.rollback(self._lane)

    def clone(self) -> "Session":
        """An independent copy that continues from here."""
        engine = self._engine
        twin = Session(engine.model, engine.policy, engine.sampling, engine.window, engine.limits)
        twin._engine.restore(twin._lane, engine.snapshot(self._lane, to_save=False))
        return twin

    def follow(self) -> "Session":
        """The next turn: a stream that begins with all that was read and written so far.

        Raises:
            ValueError: if this turn is not over or was heard, there is a window, or the model has
                no chat template, or another prompt.
        """
        engine, conversation = self._engine, Conversation(self._engine.model)
        if engine.window is not None:
            raise ValueError("a conversation keeps all its text: go on without a window")
        conversation.end(engine, self._lane)
        turn = Session(engine.model, engine.policy, engine.sampling)
        conversation.begin(turn._engine, turn._lane)
        return turn

    def save(self, path: str | Path) -> None:
        """Write the stream to a file; model and policy are not part of it."""
        save_snapshot(self._engine.snapshot(self._lane), path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: StreamingCausalLM,
        policy: Policy,
        window: Window | None = None,
    ) -> "Session":
        """Continue a stream that was saved with the same model, under this policy and window.

        Raises:
            ValueError: if the file is none of `save`, or the stream read features without a window
                and is to go on with one.
        """
        session = cls(model, policy, window=window)
        engine, lane = session._engine, session._lane
        load_snapshot(path, model.device, lambda snapshot: engine.restore(lane, snapshot))
        return session


def _writes(events: Iterable[Event]) -> list[Write]:
    return [event for event in events if isinstance(event, Write)]
