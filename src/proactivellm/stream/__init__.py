"""The main path: source text or media -> units -> lanes of an engine -> stable text -> instance.

`Stream` is one source's life, and everything that streams uses it: one live source as events, many
recorded ones as instances, many live ones from coroutines through a `Worker`.
"""

from proactivellm.stream.clock import ArrivalClock, Clock, WallClock
from proactivellm.stream.event import StreamEvent
from proactivellm.stream.job import Job
from proactivellm.stream.live import AskedUnits, StreamCut, stream_text, stream_units
from proactivellm.stream.media import Asking, Hearing, MediaUnits, Replay, open_media
from proactivellm.stream.pace import Pace, paced
from proactivellm.stream.recorded import (
    DEFAULT_RATE_WPM,
    DEFAULT_STREAMS,
    StreamsFailed,
    ended_streams,
    opening_of,
    run_streams,
    source_turns,
)
from proactivellm.stream.source import Stream
from proactivellm.stream.streams import Streams
from proactivellm.stream.transcript import Transcript
from proactivellm.stream.worker import AsyncStream, Worker

__all__ = [
    "DEFAULT_RATE_WPM",
    "DEFAULT_STREAMS",
    "ArrivalClock",
    "Asking",
    "AskedUnits",
    "AsyncStream",
    "Clock",
    "Hearing",
    "Job",
    "MediaUnits",
    "Pace",
    "Replay",
    "Stream",
    "StreamCut",
    "StreamEvent",
    "Streams",
    "StreamsFailed",
    "Transcript",
    "WallClock",
    "Worker",
    "ended_streams",
    "open_media",
    "opening_of",
    "paced",
    "run_streams",
    "source_turns",
    "stream_text",
    "stream_units",
]
