"""What a stream tells of the events of its lane, with the times of its clock."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from proactivellm.core.unit import Unit
from proactivellm.output.log import TEXT
from proactivellm.policy.reason import Reason
from proactivellm.session.events import Event, Read, Thought, Write
from proactivellm.session.lane import starves
from proactivellm.stream.event import StreamEvent, boundaries

if TYPE_CHECKING:
    from proactivellm.stream.source import Stream


def told(stream: "Stream", event: Event) -> StreamEvent | None:
    """What whoever drives a stream is told, and its transcript notes; None: nothing of it."""
    now_s, transcript = stream.clock.now_s, stream.transcript
    units_read = counted(stream, getattr(event, "units_read", 0))
    # Units of media have no text: told to who pushes blocks, and knows of no units.
    if isinstance(event, Read) and (event.unit.text or stream.hears):
        return StreamEvent(
            kind="READ",
            text=event.unit.text,
            units_read=units_read,
            elapsed_s=now_s,
            media_s=None if stream.kind == TEXT else event.unit.end_s,
            reason=event.reason,
            evidence=_evidence(stream, event.reason),
            tokens=stream.state.num_written,
            thought_tokens=len(stream.state.thought_delays),
        )
    if isinstance(event, Write) and (text := transcript.add(event, 1000 * now_s)):
        lag_s = now_s - transcript.arrived_s(event.units_read, event.source_finished)
        return StreamEvent(
            kind="WRITE",
            text=text,
            units_read=units_read,
            elapsed_s=now_s,
            media_s=None if stream.kind == TEXT else transcript.texts[-1][1] / 1000,
            reason=event.reason,
            evidence=_evidence(stream, event.reason),
            tokens=stream.state.num_written,
            thought_tokens=len(stream.state.thought_delays),
            lag_s=lag_s,
        )
    if isinstance(event, Thought):
        transcript.think(event, 1000 * now_s)
        if event.text or event.closes:
            return StreamEvent(
                kind="THINK",
                text=event.text,
                units_read=units_read,
                elapsed_s=now_s,
                tokens=stream.state.num_written,
                thought_tokens=len(stream.state.thought_delays),
                thought=event.number,
                closes=event.closes,
                lag_s=now_s - transcript.arrived_s(event.units_read, event.source_finished),
            )
    return None


def turn_edges(stream: "Stream", units: Sequence[Unit]) -> Iterator[StreamEvent]:
    """What is told of turns that begin and end in units that arrive."""
    for kind, at_s in boundaries(units, stream._is_within_turn):
        yield StreamEvent(
            kind=kind,
            text="",
            units_read=counted(stream, stream.state.units_read),
            elapsed_s=stream.clock.now_s,
            media_s=at_s,
            tokens=stream.state.num_written,
            thought_tokens=len(stream.state.thought_delays),
        )


def turn_over(stream: "Stream") -> StreamEvent:
    """What is told of the end of a turn."""
    return StreamEvent(
        kind="END",
        text="",
        units_read=counted(stream, stream.state.units_read),
        elapsed_s=stream.clock.now_s,
        tokens=stream.state.num_written,
        thought_tokens=len(stream.state.thought_delays),
        ending=stream._ending,
    )


def counted(stream: "Stream", units_read: int) -> int:
    """Units over all turns: an event counts within its turn, which is a session of its own."""
    return units_read + stream.transcript.counted["units_read"]


def is_due(stream: "Stream", num_taken: int) -> bool:
    """Whether the next unit may be pushed behind so many that are taken with it.

    A lane reads ahead while it thinks: of a source that is recorded, only what had arrived by then.
    What it cannot go on without is always due, and the clock then waits for it.
    """
    state = stream.state
    if not state.reads_ahead or state.finished:
        return True
    if stream._waiting[0].end_s <= stream.clock.now_s:
        return True
    return not num_taken and starves(state, stream._streams.engine.policies[stream.lane])


def _evidence(stream: "Stream", reason: Reason | None) -> float | None:
    decided = reason in (Reason.READ_RULE, Reason.WRITE_RULE)
    return stream._evidence if decided else None
