"""A stream that goes on twice: a second one begins where the first one is, under another policy."""

import copy
from collections import deque
from collections.abc import Callable
from functools import partial

from proactivellm.policy.base import Policy
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


def _copy_into(stream: Stream, other: Stream) -> None:
    stream.transcript = copy.deepcopy(other.transcript)
    stream.clock = copy.copy(other.clock)
    stream.units, stream._waiting = [*other.units], deque(other._waiting)
