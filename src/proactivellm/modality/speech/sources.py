"""Live sources of audio: raw samples in a pipe, a microphone, and recordings held to real time.

Out of each: float32 mono blocks [n] in [-1, 1] at the source's own rate, as soon as they are there;
`resample.to_16k` takes them on. Recordings themselves are read by `files.Recording`.
"""

import queue
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from proactivellm.files.contents import audio_format
from proactivellm.modality.speech.extra import needed
from proactivellm.modality.speech.files import LOUDEST, SHARE_OF_LOUD, to_mono
from proactivellm.modality.speech.resample import RATE, check_rate
from proactivellm.modality.speech.wav import WAV_HEAD_BYTES, read_wav_header

_BLOCK_S = 0.1  # at most, of a pipe; exactly, of a microphone
_QUEUE_S = 30.0  # what a microphone may be ahead of its reader
# Of each sample format: how numpy names it, and the value of full scale. (s24le is read by bytes.)
PCM_FORMATS = {
    **{"s16le": ("<i2", 2.0**15), "f32le": ("<f4", 1.0), "u8": ("u1", 2.0**7)},
    **{"s24le": ("V3", 2.0**31), "s32le": ("<i4", 2.0**31), "f64le": ("<f8", 1.0)},
}
_PIPE_INSTEAD = "or give recordings, or pipe raw samples in"


def pcm_blocks(
    stream: BinaryIO, rate: int = RATE, channels: int = 1, sample_format: str = "s16le"
) -> Iterator[np.ndarray]:
    """Reads raw samples as they arrive, float32 [n] mono, n >= 1, without waiting for a full 0.1 s.

    ValueError at the first block for another sample format, a rate or channels below 1; later for
    floats that are none of sound.

    Args:
        stream: such as `sys.stdin.buffer`; bytes at its end that make no whole sample are dropped.
        channels: interleaved, averaged to mono.
        sample_format: a name of PCM_FORMATS, little-endian: "s16le" (16-bit integers), "f32le", ...
    """
    if sample_format not in PCM_FORMATS:
        raise ValueError(
            f"unknown sample format {sample_format!r}: choose from {', '.join(PCM_FORMATS)}"
        )
    if rate < 1 or channels < 1:
        raise ValueError(f"rate={rate} and channels={channels} must be at least 1")
    frame_bytes = np.dtype(PCM_FORMATS[sample_format][0]).itemsize * channels
    most_bytes = max(1, round(_BLOCK_S * rate)) * frame_bytes
    read = getattr(stream, "read1", stream.read)  # an unbuffered stream has no read1, nor needs it
    rest = b""
    while arrived := read(most_bytes - len(rest)):
        rest += arrived
        whole = len(rest) // frame_bytes * frame_bytes
        if whole:
            samples = _samples(rest[:whole], sample_format)
            rest = rest[whole:]
            yield to_mono(samples.reshape(-1, channels))


def _samples(content: bytes, sample_format: str) -> np.ndarray:
    dtype, full_scale = PCM_FORMATS[sample_format]
    if sample_format == "s24le":  # the upper bytes of 32-bit integers
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float32) / full_scale
    samples = np.frombuffer(content, dtype).astype(np.float32)
    if sample_format == "u8":
        return samples / full_scale - 1
    if sample_format.startswith("f"):
        loud = np.abs(samples[np.isfinite(samples)]) > LOUDEST
        if np.count_nonzero(loud) > max(16, SHARE_OF_LOUD * samples.size):
            raise ValueError(
                f"{sample_format} samples of up to {np.nanmax(np.abs(samples)):.3g}, where 1 is "
                "full scale: are they integers (s16le, s32le), or floats at the scale of integers?"
            )
    return samples / full_scale


def piped_blocks(
    stream: BinaryIO, rate: int = RATE, channels: int = 1, sample_format: str = "s16le"
) -> tuple[int, Iterator[np.ndarray]]:
    """The rate and blocks (`pcm_blocks`) of a pipe: raw samples, or WAV, whose header counts then.

    ValueError if it is a recording in another format, or has a header that cannot be read.
    """
    head = _exactly(stream, WAV_HEAD_BYTES)
    found = audio_format(head)
    if found is None or found == "MP3" and head[0] == 0xFF:  # (samples may begin like that)
        joined = _Joined(head, stream)
        return rate, pcm_blocks(joined, rate, channels, sample_format)  # type: ignore[arg-type]
    if found != "WAV":
        raise ValueError(
            f"standard input is a recording ({found}), not raw samples: give the file with --input "
            "FILE, or pipe samples: ffmpeg -i INPUT -f s16le -ar 16000 -ac 1 - | ..."
        )
    header = read_wav_header(lambda size: _exactly(stream, size))
    check_rate(header.rate)
    warnings.warn(
        f"standard input is WAV: read by its header ({header.sample_format}, {header.rate} Hz, "
        f"{header.channels} channels)",
        stacklevel=2,
    )
    limited = _Joined(b"", stream, header.num_bytes)
    how = header.rate, header.channels, header.sample_format
    return header.rate, pcm_blocks(limited, *how)  # type: ignore[arg-type]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer only at the end."""
    content = b""
    while len(content) < size and (more := stream.read(size - len(content))):
        content += more
    return content


class _Joined:
    """A stream, after bytes that were read from it already, up to a number of bytes."""

    def __init__(self, head: bytes, stream: BinaryIO, most: int | None = None) -> None:
        self._head, self._left = head, most
        self._read = getattr(stream, "read1", stream.read)

    def read(self, size: int) -> bytes:
        """What is there, at most `size` bytes; nothing at the end."""
        size = size if self._left is None else min(size, self._left)
        content, self._head = self._head[:size], self._head[size:]
        content = content or self._read(size)
        self._left = None if self._left is None else self._left - len(content)
        return content


def microphone_blocks(
    rate: int = RATE, channels: int = 1, device: int | str | None = None
) -> Iterator[np.ndarray]:
    """Records from a microphone, float32 [n] mono of 0.1 s each, until the generator is closed.

    A reader who falls more than 30 s behind loses what is spoken then, with a Python warning.
    ValueError at the first block: there is no sounddevice, no PortAudio or no such device, or the
    device does not offer the rate or the channels.

    Args:
        rate: in samples per second; most systems offer 16,000, else take the device's own.
        device: number or name, as `python -m sounddevice` lists them; None: the system's default.
    """
    sounddevice = _sounddevice()
    inbox = _Inbox()
    try:
        stream = sounddevice.RawInputStream(
            samplerate=rate,
            blocksize=max(1, round(_BLOCK_S * rate)),
            device=device,
            channels=channels,
            dtype="float32",
            callback=inbox.put,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ValueError(
            f"no microphone (device {device}, {rate} Hz, {channels} channels): {error}: "
            f"`python -m sounddevice` lists the devices; {_PIPE_INSTEAD}"
        ) from None
    with stream:
        while stream.active or not inbox.waiting.empty():
            try:
                data = inbox.waiting.get(timeout=2 * _BLOCK_S)
            except queue.Empty:
                continue
            yield to_mono(np.frombuffer(data, np.float32).reshape(-1, channels))
            inbox.warn()


def paced(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Holds blocks back to real time: each comes when its last sample would have been spoken.

    The clock starts with the first block that is asked for. A reader who is late gets what was
    spoken meanwhile at once.
    """
    start_s = time.monotonic()
    num_spoken = 0
    for block in blocks:
        num_spoken += len(block)
        wait_s = start_s + num_spoken / rate - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        yield block


class _Inbox:
    """What the thread of the sound card leaves for the reader."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[bytes] = queue.Queue(round(_QUEUE_S / _BLOCK_S))
        self._has_lost = False

    def put(self, data: Any, num_frames: int, times: Any, status: Any) -> None:
        try:
            self.waiting.put_nowait(bytes(data))
            self._has_lost |= bool(status.input_overflow)
        except queue.Full:
            self._has_lost = True

    def warn(self) -> None:
        if self._has_lost:
            self._has_lost = False
            warnings.warn("audio of the microphone was lost: the reader is too slow", stacklevel=3)


def _sounddevice() -> Any:
    try:
        return needed("sounddevice", "microphone")
    except OSError as error:  # the package is there, the library it speaks to is not
        raise ValueError(
            f"no microphone: {error}: install PortAudio (Debian, Ubuntu: "
            f"`apt install libportaudio2`), {_PIPE_INSTEAD}"
        ) from None
