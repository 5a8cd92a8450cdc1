"""A stream that goes on twice: a second one begins where the first one is.

Either under another policy (`fork`), or to be asked about what was read so far (`branch`).
"""

import copy
from collections import deque
from collections.abc import Callable
from functools import partial

from proactivellm.policy.base import Policy
from proactivellm.stream.media import Asking, asking_units
from proactivellm.stream.source import Stream


def fork(stream: Stream) -> Callable[[Policy], Stream]:
    """What opens another stream that goes on from here under another policy.

    It holds all that it needs, so that it may be called when a lane is free, and more than once.
    What was not taken of this stream's events stays with it.

    Raises:
        ValueError: of a stream that takes text or blocks, as its ear cannot be copied.
    """
    if stream._segmenter is not None or stream._hearing is not None:
        raise ValueError("only a stream that takes units can be forked")
    streams, kept = stream._streams, copy.copy(stream)
    snapshot, sampling = streams.engine.snapshot(stream.lane), stream.state.sampling
    _copy_into(kept, stream)

    def begin(policy: Policy) -> Stream:
        twin = copy.copy(kept)
        _copy_into(twin, kept)
        twin._events = deque()
        twin._open_lane = partial(streams.engine.open, sampling, policy)
        twin.lane = twin._open_lane()
        streams.engine.restore(twin.lane, snapshot)
        twin.state = streams.engine.state(twin.lane)
        streams.adopt(twin)
        return twin

    return begin


def has_heard_all(stream: Stream) -> bool:
    """Whether units were made of all that arrived, or none will be."""
    return stream.ended or not stream._blocks


def branch(stream: Stream, asking: Asking) -> Stream:
    """A stream that reads what this one has been given, is asked, and answers; this one goes on.

    It has a lane of its own, and no more comes.

    Raises:
        EngineFull: if there is no lane for it.
        ValueError: if this one has ended, has written, or has blocks that it did not hear yet.
    """
    engine, state = stream._streams.engine, stream.state
    if stream.closed or not has_heard_all(stream):
        raise ValueError("what is asked about is to be heard up to here, and to go on")
    if state.num_sampled:
        raise ValueError("it has written already: a question to it would be to that as well")
    lane = engine.open(state.sampling, engine.policies[stream.lane])
    try:
        engine.restore(lane, engine.snapshot(stream.lane, to_save=False))
        twin = copy.copy(stream)
        _copy_into(twin, stream)
        twin._events, twin._blocks, twin._hearing = deque(), deque(), None
        twin._ends_early, twin.tells_turns = True, False
        twin.lane, twin.state = lane, engine.state(lane)
        twin.push(asking_units(engine.model, asking, stream._arrived_s), stream._arrived_s)
        twin.close(stream._arrived_s)
    except Exception:
        engine.release(lane)
        raise
    stream._streams.adopt(twin)
    return twin


def _copy_into(stream: Stream, other: Stream) -> None:
    stream.transcript = copy.deepcopy(other.transcript)
    stream.clock = copy.copy(other.clock)
    stream.units, stream._waiting = [*other.units], deque(other._waiting)
