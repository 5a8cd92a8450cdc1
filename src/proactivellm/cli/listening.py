"""Recordings as `stream` is given them: files, raw samples in a pipe, a microphone.

In: the names that --input takes, and the flags of audio. Out: `LiveRecording`s, one after another.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from proactivellm.cli.stopping import Stops
from proactivellm.files.lines import standard_input
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.speech.files import Recording, is_audio
from proactivellm.modality.speech.joined import recorded_blocks
from proactivellm.modality.speech.resample import RATE, check_rate
from proactivellm.modality.speech.sources import PCM_FORMATS, microphone_blocks, paced, piped_blocks
from proactivellm.output.log import Task
from proactivellm.stream import MediaUnits

MICROPHONE = "mic"
STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """How recordings are listened to.

    Attributes:
        pcm: standard input holds raw samples of this format; None = it holds text.
        pcm_rate: of raw samples and of the microphone, in samples per second; None = 16,000.
        pcm_channels: of raw samples and of the microphone; None = 1.
        real_time: recordings are held back to real time.
        no_gate: silence is listened to as well.
        question: text that is read before a recording.
        times: a pipe is told when words were written.

    Raises:
        ValueError: if there is no such format, or the rate is not one of speech.
    """

    pcm: str | None = None
    pcm_rate: int | None = None
    pcm_channels: int | None = None
    real_time: bool = False
    no_gate: bool = False
    question: str | None = None
    times: bool = False

    def __post_init__(self) -> None:
        if self.pcm is not None and self.pcm not in PCM_FORMATS:
            raise ValueError(f"--pcm {self.pcm}: give one of {', '.join(PCM_FORMATS)}")
        if self.pcm_rate is not None:
            check_rate(self.pcm_rate)

    @property
    def given(self) -> list[str]:
        """The flags that were given."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value]


def check_inputs(inputs: Sequence[str], options: AudioOptions) -> bool:
    """Checks what is to be streamed, before a model is loaded.

    Args:
        inputs: as --input takes them.
        options: of audio.

    Returns:
        Whether they are recordings, not text.

    Raises:
        ValueError: if they are of both kinds, cannot be read, or the options do not fit them.
    """
    live = [STANDARD_INPUT] if options.pcm else []
    live += [MICROPHONE] * (MICROPHONE in inputs)
    files = [name for name in inputs if is_audio(name)]
    texts = [name for name in inputs if name not in files + live]
    if not (files or live):
        if options.given:
            raise ValueError(f"{options.given[0]} is for recordings: leave it out, or give audio")
        return False
    if texts:
        hint = "; raw samples need --pcm" * (STANDARD_INPUT in texts)
        raise ValueError(
            f"--input {texts[0]} is text and --input {(files + live)[0]} is audio: give inputs of "
            f"one kind{hint}"
        )
    if options.pcm and STANDARD_INPUT not in inputs:
        raise ValueError(f"--pcm {options.pcm} is for standard input: give --input - with it")
    if live and list(inputs) != live:
        raise ValueError(f"--input {live[0]} is live: give it alone")
    if not live and (options.pcm_rate or options.pcm_channels):
        raise ValueError("--pcm-rate and --pcm-channels are for raw samples: give --pcm as well")
    for name in files:
        Recording(name).close()
    if options.pcm and standard_input() and sys.stdin.isatty():
        example = "arecord -t raw -f S16_LE -r 16000 | proactivellm stream --pcm s16le"
        raise ValueError(f"--pcm {options.pcm}: pipe raw samples in, for example: {example}")
    return True


@dataclass(frozen=True)
class LiveRecording:
    """One recording as it arrives.

    Attributes:
        where: its name, for messages.
        text: what the log calls it.
        rate: of the blocks, in samples per second.
        blocks: float32 mono blocks [n].
        question: text that is read before it.
        is_live: whether it is only there as it is spoken.
    """

    where: str
    text: str
    rate: int
    blocks: Iterator[np.ndarray]
    question: str = ""
    is_live: bool = False

    @property
    def ends_with_ctrl_c(self) -> bool:
        """Whether that is how it is meant to end."""
        return self.is_live

    @property
    def task(self) -> Task:
        """What the log says it is."""
        return "qa" if self.question else "asr"

    def heard(self, model: StreamingCausalLM) -> MediaUnits:
        """What the model hears of it: its units as they arrive."""
        return MediaUnits(model, self.blocks, self.rate, self.question)


def live_recordings(
    model: StreamingCausalLM, inputs: Sequence[str], options: AudioOptions, stops: Stops
) -> Iterator[LiveRecording]:
    """Opens recordings, one after another.

    Args:
        model: that listens; what arrives together is as long as its units.
        inputs: that `check_inputs` took.
        options: of audio.
        stops: ends them, also while nothing is heard.

    Yields:
        The recordings; finish one before the next.

    Raises:
        ValueError: if one of them cannot be read.
    """
    question = options.question or ""
    for name in inputs:
        rate, blocks = _opened(name, options, model.front_end.unit_s)
        if options.real_time:
            blocks = paced(blocks, rate)
        blocks, is_live = stops.until_stopped(blocks), not is_audio(name)
        where = "standard input" if name == STANDARD_INPUT else name
        yield LiveRecording(where, f"{name} {question}".strip(), rate, blocks, question, is_live)


def _opened(name: str, options: AudioOptions, unit_s: float) -> tuple[int, Iterator[np.ndarray]]:
    rate, channels = options.pcm_rate or RATE, options.pcm_channels or 1
    if name == MICROPHONE:
        print("listening; Ctrl-C ends", file=sys.stderr)
        return rate, microphone_blocks(rate, channels)
    if name == STANDARD_INPUT:
        # Not buffered, so that samples are there as soon as they are written.
        stream = standard_input()
        raw = getattr(stream, "raw", stream)
        return piped_blocks(raw, rate, channels, options.pcm or "s16le")
    return recorded_blocks([name], unit_s)
