"""Recordings as `stream` is given them: files, raw samples in a pipe, a microphone.

In: the names that --input takes, and the flags of audio. Out: `LiveRecording`s, one after another.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from proactivellm.cli.messages import warn
from proactivellm.cli.places import MICROPHONE, STANDARD_INPUT
from proactivellm.cli.stopping import Stops
from proactivellm.cli.transcript_files import TranscriptFiles
from proactivellm.files.lines import standard_input
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.kinds import KINDS, kind_of_file
from proactivellm.modality.speech.resample import RATE, check_rate
from proactivellm.modality.speech.sources import PCM_FORMATS, microphone_blocks, paced, piped_blocks
from proactivellm.output.log import Task
from proactivellm.stream import MediaUnits


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """The flags of `stream` about recordings.

    Raises:
        ValueError: if there is no such format, or the rate is not one of speech.
    """

    pcm: str | None = None
    pcm_rate: int | None = None
    pcm_channels: int | None = None
    real_time: bool = False
    no_gate: bool = False
    block: int | None = None
    question: str | None = None
    ask_at: float | None = None
    times: bool = False
    lanes: int | None = None
    srt: Path | None = None
    vtt: Path | None = None
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.pcm is not None and self.pcm not in PCM_FORMATS:
            raise ValueError(f"--pcm {self.pcm}: give one of {', '.join(PCM_FORMATS)}")
        if self.ask_at is not None and not self.question:
            raise ValueError("--ask-at says when a question is asked: give --question")
        if self.pcm_rate is not None:
            check_rate(self.pcm_rate)

    @property
    def files(self) -> TranscriptFiles:
        """The files that transcripts with times go to."""
        return TranscriptFiles(srt=self.srt, vtt=self.vtt, json=self.json)

    @property
    def given(self) -> list[str]:
        """The flags that were given."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value]


def check_media(inputs: Sequence[str], options: AudioOptions, kind: str) -> None:
    """Checks what is to be listened to, before a model is loaded.

    Args:
        inputs: as --input takes them.
        kind: of the first of them that is not text.

    Raises:
        ValueError: if they are not of one kind, cannot be read, or the options do not fit them.
    """
    of_both = ("--question", "--ask-at", "--real-time", "--times")
    of_audio = [flag for flag in options.given if flag not in of_both]
    if kind == "video" and of_audio:
        raise ValueError(f"{of_audio[0]} is for audio: leave it out")
    live = [STANDARD_INPUT] if options.pcm else []
    live += [MICROPHONE] * (MICROPHONE in inputs)
    files = [name for name in inputs if kind_of_file(name) == kind]
    others = [name for name in inputs if name not in files + live]
    if others:
        what = kind_of_file(others[0]) or "text"
        hint = "; raw samples need --pcm" * (STANDARD_INPUT in others)
        raise ValueError(
            f"--input {others[0]} is {what} and --input {(files + live)[0]} is {kind}: give "
            f"inputs of one kind{hint}"
        )
    if options.pcm and STANDARD_INPUT not in inputs:
        raise ValueError(f"--pcm {options.pcm} is for standard input: give --input - with it")
    if live and list(inputs) != live:
        raise ValueError(f"--input {live[0]} is live: give it alone")
    if options.lanes and (live or options.real_time or options.times):
        what = live[0] if live else "--real-time" if options.real_time else "--times"
        raise ValueError(f"{what} is for one recording at a time: leave --lanes out")
    options.files.check(inputs)
    if not live and (options.pcm_rate or options.pcm_channels):
        raise ValueError("--pcm-rate and --pcm-channels are for raw samples: give --pcm as well")
    for name in files:
        KINDS[kind].check(name)
    if options.pcm and standard_input() and sys.stdin.isatty():
        example = "arecord -t raw -f S16_LE -r 16000 | proactivellm stream --pcm s16le"
        raise ValueError(f"--pcm {options.pcm}: pipe raw samples in, for example: {example}")


@dataclass(frozen=True)
class LiveRecording:
    """One recording as it arrives.

    Attributes:
        text: what the log calls it.
        rate: of the blocks, in samples, or frames, per second.
        blocks: arrays [n, ...] of what arrives together; of audio, float32 mono.
    """

    where: str  # for messages, and for the names of files
    text: str
    rate: int
    blocks: Iterator[np.ndarray]
    question: str = ""  # text that is read before it
    ask_at_s: float | None = None  # or at this time
    overlaps: bool = False  # whether another thread reads it ahead
    is_live: bool = False  # whether it is only there as it is spoken

    @property
    def ends_with_ctrl_c(self) -> bool:
        """Whether that is how it is meant to end."""
        return self.is_live

    @property
    def task(self) -> Task:
        """What the log says it is."""
        return "qa" if self.question else "asr"

    def heard(self, model: StreamingCausalLM, tells_turns: bool = False) -> MediaUnits:
        """What the model hears of it: its units as they arrive."""
        return MediaUnits(
            *(model, self.blocks, self.rate, self.question, self.ask_at_s, self.overlaps),
            tells_turns=tells_turns,
        )


def live_recordings(
    model: StreamingCausalLM, inputs: Sequence[str], options: AudioOptions, stops: Stops
) -> Iterator[LiveRecording]:
    """Opens recordings, one after another; finish one before the next.

    Args:
        model: that listens; what arrives together is as long as its units.
        inputs: that `check_media` took.
        stops: ends them, also while nothing is heard.

    Raises:
        ValueError: if one of them cannot be read.
    """
    question = options.question or ""
    for name in inputs:
        is_live = name in (STANDARD_INPUT, MICROPHONE)
        rate, blocks = _live(name, options) if is_live else model.front_end.read([name])
        if options.real_time:
            blocks = paced(blocks, rate)
        # A pipe may be silent for ever, and only the main thread can be called back from there.
        overlaps = kind_of_file(name) == "video" and not name.startswith("pipe:")
        blocks = stops.until_noted(blocks) if overlaps else stops.until_stopped(blocks)
        yield LiveRecording(
            "standard input" if name == STANDARD_INPUT else name,
            f"{name} {question}".strip(),
            rate,
            blocks,
            question,
            options.ask_at,
            overlaps,
            is_live,
        )


def _live(name: str, options: AudioOptions) -> tuple[int, Iterator[np.ndarray]]:
    """Sampling rate and blocks of what is heard as it is spoken."""
    rate, channels = options.pcm_rate or RATE, options.pcm_channels or 1
    if name == MICROPHONE:
        warn("listening; Ctrl-C ends")
        return rate, microphone_blocks(rate, channels)
    # Not buffered, so that samples are there as soon as they are written.
    stream = standard_input()
    raw = getattr(stream, "raw", stream)
    return piped_blocks(raw, rate, channels, options.pcm or "s16le")
