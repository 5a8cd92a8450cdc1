"""Sources that advance together: an engine, and the driver around it that all others use."""

import time
from collections.abc import Sequence

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.sentences import segmenter_for
from proactivellm.output.log import TEXT
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Evidence
from proactivellm.session.conversation import Conversation
from proactivellm.session.engine import Engine
from proactivellm.session.events import Event
from proactivellm.session.guard import Exclusive
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream.clock import Clock, WallClock
from proactivellm.stream.media import Hearing, hear
from proactivellm.stream.source import Stream


class Streams:
    """An engine and the sources in it, which advance together; for one thread at a time.

    A call that meets another one is refused; to drive streams from several threads or from
    coroutines, there is `Worker`.

    Args: as those of `Engine`; a conversation goes on from turn to turn, of one stream at a time.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        policy: Policy,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        window: Window | None = None,
        conversation: Conversation | None = None,
    ) -> None:
        self.engine = Engine(model, policy, limits, sampling, window)
        self.conversation = conversation
        self.segmenter = segmenter_for(model)
        self.exclusive = Exclusive()
        self._open: list[Stream] = []

    def open(
        self,
        kind: str = TEXT,
        *,
        hearing: Hearing | None = None,
        clock: Clock | None = None,
        sampling: Sampling | None = None,
        policy: Policy | None = None,
        watch: Sequence[Evidence] = (),
        ends_early: bool = False,
    ) -> Stream:
        """Begin a source.

        Args:
            kind: of a source that comes in units: text, or a modality.
            hearing: of a source that comes in blocks.
            clock: tells when something was written; that of the wall if left out.
            sampling, policy, watch: as for `Engine.open`.
            ends_early: whether it ends with its target, be it before the source does.

        Raises:
            EngineFull: if as many are open as the limits allow.
            ValueError: if the model cannot show the evidence that is asked for.
        """

        def open_lane() -> int:
            lane = self.engine.open(sampling, policy, watch)
            if self.conversation is not None:
                self.conversation.begin(self.engine, lane)
            if hearing is not None and (hearing.opening or hearing.depth):
                self.engine.ask(lane, hearing.opening, hearing.depth)
            return lane

        with self.exclusive:
            kind = hearing.kind if hearing is not None else kind
            stream = Stream(self, open_lane, kind, clock or WallClock(), hearing, ends_early)
            self._open.append(stream)
            return stream

    def adopt(self, stream: Stream) -> None:
        """Take a stream in that has a lane already: a fork of another."""
        with self.exclusive:
            self._open.append(stream)

    def forget(self, stream: Stream) -> None:
        """Leave a stream out that has ended between two steps."""
        self._open.remove(stream)

    def keep(self, stream: Stream) -> None:
        """Take a turn that is over into the conversation, if there is one."""
        if self.conversation is not None and stream.error is None:
            self.conversation.end(self.engine, stream.lane)

    def step(self) -> list[Event] | None:
        """One forward for the streams that have something to do; if it raises, try it again.

        Before it, one of the front end for the streams that have blocks to hear, the next of each.
        Returns what happened in the engine; None if every stream waits for input. What it means to
        a stream is told by its own `take`.
        """
        with self.exclusive:
            heard = self._hear()
            for stream in self._open:
                stream._feed()
            before = [stream.state.forwards for stream in self._open]
            started = time.perf_counter()
            events = self.engine.step()
            step_s = time.perf_counter() - started
            both = zip(self._open, before, strict=True)
            took_part = [stream for stream, count in both if stream.state.forwards > count]
            # Each stream waits for the whole step; of computing, it pays its share.
            for stream in took_part:
                stream._work(step_s, step_s / len(took_part))
            by_lane = {stream.lane: stream for stream in self._open}
            for event in events or ():
                by_lane[event.lane]._note(event)
            over = [stream for stream in self._open if stream._settle()]
            self._open = [stream for stream in self._open if not stream.ended]
            # Where a turn ended without a forward, the next one may have something to do; where a
            # block was heard, there may be another one.
            return [] if events is None and (heard or over) else events

    def _hear(self) -> bool:
        """Let the front end hear the next block of every stream; whether there was any."""
        blocks = {stream: block for stream in self._open if (block := stream._next_block())}
        arrivals = hear(list(blocks.values()))
        for stream, arrival in zip(blocks, arrivals, strict=True):
            stream._hear(arrival, len(blocks))
        return bool(blocks)
