"""Suite `serve`: how many live sessions a server keeps up with, over the network, in real time.

A server of its own runs beside this process, which plays its clients. Every session speaks sources
one after the other at the pace of a speaker, at a phase of its own: words of sentences, or
recordings where the model listens. The lag of a piece of text is from when the last of what it was
decided on was sent to when the piece arrived; that the policy waits for more is not in it.
"""

import asyncio
import math
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import torch

from proactivellm.bench.capacity import climb, late
from proactivellm.bench.measure import percentiles_ms
from proactivellm.bench.scope import Options
from proactivellm.bench.workload import TEXT, Bench
from proactivellm.files.lines import read_lines
from proactivellm.output.source_units import pieces_of

if TYPE_CHECKING:
    from proactivellm.client import Delta

RATE = 16_000  # of recordings, in samples per second
PIECE_S = 0.1  # of a recording, sent together
START_S = 120.0
GRACE_S = 20.0  # for what a session still owes at the end

Stream = Callable[[AsyncIterator[Any]], "AsyncIterator[Delta]"]


@dataclass(frozen=True)
class Speakers:
    """What sessions say: sources in pieces, of so many seconds each."""

    sources: Sequence[Sequence[Any]]
    piece_s: float
    speech: bool

    def place(self, delta: "Delta") -> int:
        """The piece, from 0, that holds the last of what a piece of text was decided on."""
        if self.speech:
            return max(math.ceil(round((delta.source_s or 0.0) / self.piece_s, 6)) - 1, 0)
        return max(delta.source_units - 1, 0)


@dataclass(frozen=True)
class Address:
    """A server that runs, and its process."""

    url: str
    process: int

    @property
    def cpu_s(self) -> float | None:
        """Seconds of CPU that it has taken; None where /proc does not tell."""
        try:
            told = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def run_serving(bench: Bench, result: dict[str, Any]) -> None:
    """Measures suite `serve`.

    Fills `result` as suite `capacity` does. Numbers of sessions of which one failed are not
    sustained.

    Raises:
        ValueError: the model cannot be served, or the extra `serve` is not installed.
    """
    if bench.served is None or bench.text_model is None:
        raise ValueError("suite serve: give a model that can be loaded, not random weights")
    options, front_end = bench.options, bench.text_model.front_end
    speakers = text_speakers(options) if front_end is None else audio_speakers()
    unit_ms = options.unit_ms if front_end is None else 1000 * front_end.unit_s
    result |= {"deadline_ms": options.deadline_ms, "unit_ms": unit_ms, "curve": []}
    result["speech"] = speakers.speech
    most = options.max_sessions
    with serving(bench.served, most, 2 * most) as address:
        measure(address, speakers, options, 1)  # warm-up

        def point(num_sessions: int) -> dict[str, Any]:
            return measure(address, speakers, options, num_sessions)

        climb(point, bench, result, "serve")


def text_speakers(options: Options) -> Speakers:
    """German sentences, a word every `unit_ms`."""
    lines = read_lines(str(files("proactivellm") / TEXT))
    # The white space says that a word is complete.
    sources = [pieces_of(line) for line in lines]
    return Speakers([source for source in sources if source], options.unit_ms / 1000, speech=False)


def audio_speakers() -> Speakers:
    """The bundled recordings."""
    from proactivellm.modality.speech.files import read_audio

    sources = []
    size = round(PIECE_S * RATE)
    folder = files("proactivellm") / "assets" / "speech-sample"
    for name in sorted(each.name for each in folder.iterdir()):
        if name.endswith((".opus", ".flac")):
            samples = (32767 * read_audio(str(folder / name))).astype("<i2")
            starts = np.arange(0, len(samples), size)
            sources.append([samples[start : start + size].tobytes() for start in starts])
    return Speakers(sources, PIECE_S, speech=True)


@contextmanager
def serving(flags: Sequence[str], streams: int, sessions: int) -> Iterator[Address]:
    """A server with these flags of `proactivellm serve`, until the context is left.

    ValueError if it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "proactivellm", "serve", "--port", str(port), *flags]
    command += ["--streams", str(streams), "--sessions", str(sessions)]
    command += ["--events-per-s", "1000"]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PROACTIVELLM_SERVE_")}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=clean | threads) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _await(url, process)
            yield Address(url, process.pid)
        finally:
            process.terminate()


def _await(url: str, process: "subprocess.Popen[bytes]") -> None:
    began_s = time.monotonic()
    while True:
        if process.poll() is not None or time.monotonic() - began_s > START_S:
            raise ValueError("suite serve: the server did not start: try `proactivellm serve`")
        try:
            with urlopen(f"{url}/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.2)


def measure(
    address: Address, speakers: Speakers, options: Options, num_sessions: int
) -> dict[str, Any]:
    """A point of the curve; ValueError if nothing was written."""
    began_s, cpu_s, own_cpu_s = time.monotonic(), address.cpu_s, time.process_time()
    lag_s, failures = asyncio.run(_talk(address.url, speakers, options, num_sessions))
    passed_s, after_s = time.monotonic() - began_s, address.cpu_s
    if not lag_s and not failures:
        raise ValueError(f"nothing was written in {options.seconds:g} s: give more --seconds")
    cores = None if cpu_s is None or after_s is None else (after_s - cpu_s) / passed_s
    return {
        "sessions": num_sessions,
        "units": len(lag_s),
        "late": late(lag_s, options),
        "failed": len(failures),
        "failures": sorted(set(failures)),
        "latency_ms": percentiles_ms(lag_s or [GRACE_S]),
        "server_cores": cores,
        "client_cores": (time.process_time() - own_cpu_s) / passed_s,
    }


async def _talk(
    url: str, speakers: Speakers, options: Options, num_sessions: int
) -> tuple[list[float], list[str]]:
    """The lags of all sessions, and why sessions failed that did."""
    lag_s: list[float] = []
    failures: list[str] = []

    async def one(number: int) -> None:
        from proactivellm.client import ServerError

        try:
            async with asyncio.timeout(options.seconds + GRACE_S):
                await _session(url, speakers, options, number, lag_s)
        except (ServerError, TimeoutError) as error:
            failures.append(getattr(error, "code", None) or type(error).__name__)

    await asyncio.gather(*map(one, range(num_sessions)))
    return lag_s, failures


async def _session(
    url: str, speakers: Speakers, options: Options, number: int, lag_s: list[float]
) -> None:
    """Speaks until it is time to end."""
    from proactivellm.client import Client, SpeechClient

    draw = random.Random(options.seed + number)
    until_s = time.monotonic() + options.seconds
    await asyncio.sleep(draw.random() * speakers.piece_s)
    client = SpeechClient(url, rate=RATE) if speakers.speech else Client(url)
    async with client:
        while time.monotonic() < until_s:
            stream: Stream = client.stream
            lag_s += await _speak(stream, draw.choice(speakers.sources), speakers)


async def _speak(stream: Stream, source: Sequence[Any], speakers: Speakers) -> list[float]:
    """The lags of all that is written for a source, in seconds."""
    sent_s: list[float] = []

    async def pieces() -> AsyncIterator[Any]:
        began_s = time.monotonic()
        for i, piece in enumerate(source, start=speakers.speech):  # of sound: when it is over
            await asyncio.sleep(max(0.0, began_s + i * speakers.piece_s - time.monotonic()))
            sent_s.append(time.monotonic())
            yield piece

    lag_s = []
    async for delta in stream(pieces()):
        place = min(speakers.place(delta), len(sent_s) - 1)
        lag_s.append(time.monotonic() - sent_s[place])
    return lag_s
