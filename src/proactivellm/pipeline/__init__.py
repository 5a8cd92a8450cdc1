"""The main path: source text or audio -> units -> session -> stable text -> instance.

Two ways through the same loop: one live stream as events, many recorded sources as instances.
"""

from proactivellm.pipeline.hearing import Heard, Replay, hear, recorded_blocks
from proactivellm.pipeline.live import StreamCut, StreamEvent, paced, stream_text, stream_units
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
    "Heard",
    "Job",
    "Replay",
    "StreamCut",
    "StreamEvent",
    "StreamsFailed",
    "Transcript",
    "hear",
    "paced",
    "push_what_fits",
    "recorded_blocks",
    "run_streams",
    "source_turns",
    "stream_text",
    "stream_units",
]
