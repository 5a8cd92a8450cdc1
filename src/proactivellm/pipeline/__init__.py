"""The main path: source text or media -> units -> session -> stable text -> instance.

Two ways through the same loop: one live stream as events, many recorded sources as instances.
"""

from proactivellm.pipeline.live import StreamCut, StreamEvent, paced, stream_text, stream_units
from proactivellm.pipeline.media import MediaUnits, Replay, open_media
from proactivellm.pipeline.recorded import (
    DEFAULT_RATE_WPM,
    DEFAULT_STREAMS,
    StreamsFailed,
    push_what_fits,
    run_streams,
    source_turns,
)
from proactivellm.pipeline.transcript import Job, Transcript

__all__ = [
    "DEFAULT_RATE_WPM",
    "DEFAULT_STREAMS",
    "Job",
    "MediaUnits",
    "Replay",
    "StreamCut",
    "StreamEvent",
    "StreamsFailed",
    "Transcript",
    "open_media",
    "paced",
    "push_what_fits",
    "run_streams",
    "source_turns",
    "stream_text",
    "stream_units",
]
