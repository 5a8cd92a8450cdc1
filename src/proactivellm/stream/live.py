"""One live source: units come in as they arrive, events go out as they happen."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.sentences import segmenter_for
from proactivellm.output.log import TEXT, Instance
from proactivellm.policy.base import Policy
from proactivellm.session.conversation import Conversation
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream.event import StreamEvent
from proactivellm.stream.media import MediaUnits
from proactivellm.stream.pace import paced
from proactivellm.stream.streams import Streams


class StreamCut(Exception):
    """Thrown into `stream_units`: what was read and written until then is the log entry."""


@dataclass(frozen=True)
class AskedUnits:
    """Units of a text, as they arrive after a question that the segmenter was asked."""

    question: str
    arrivals: Iterable[Sequence[Unit]]

    def __iter__(self) -> Iterator[Sequence[Unit]]:
        return iter(self.arrivals)


def stream_units(
    model: StreamingCausalLM,
    policy: Policy,
    arrivals: Iterable[Sequence[Unit]],
    sampling: Sampling | None = None,
    window: Window | None = None,
    conversation: Conversation | None = None,
    limits: Limits | None = None,
) -> Generator[StreamEvent, None, Instance]:
    """Stream one source live: units are there as the iterable yields them.

    A final unit ends a turn; what follows it is streamed afresh. ValueError if the source cannot be
    streamed.

    Args:
        arrivals: units that arrive together (of media: a `MediaUnits`; of a text after a question:
            `AskedUnits`); may block until they do.
            The source is closed when they are exhausted; no more are asked for when the target of a
            text has ended before.
        sampling: the model's generation settings if left out.
        conversation: what was read and written before; this source is the next turn of it.

    Returns:
        The log entry (value of the generator).
    """
    media = arrivals if isinstance(arrivals, MediaUnits) else None
    streams = Streams(model, policy, limits, sampling, window, conversation)
    stream = streams.open(media.kind if media else TEXT)
    stream.tells_turns = media is not None and media.tells_turns
    if isinstance(arrivals, AskedUnits):
        streams.engine.ask(stream.lane, streams.segmenter.clone().ask(arrivals.question))
    elif media and media.opening:
        streams.engine.ask(stream.lane, media.opening)
    try:
        for units in arrivals:
            if media:
                stream.push(units, media.received_s, media.spent_s)
            else:
                stream.push(units)
            yield from stream.events()
            if stream.finished and not media:
                break  # what is still to come is not waited for
        stream.close()
        yield from stream.events()
    except StreamCut:
        stream.cancel()
    return stream.instance()


def stream_text(
    model: StreamingCausalLM,
    policy: Policy,
    source: str,
    *,
    rate_wpm: float | None = None,
    sampling: Sampling | None = None,
    window: Window | None = None,
) -> Generator[StreamEvent, None, Instance]:
    """Stream one line of text, unit by unit, at `rate_wpm` of them per minute, or at once.

    Returns:
        The log entry (value of the generator).
    """
    arrivals = paced([segmenter_for(model).segment(source, rate_wpm)])
    return (yield from stream_units(model, policy, arrivals, sampling, window))
